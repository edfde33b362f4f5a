//! How the device takes up a key of the server that succeeds the one it pins: before it fetches its device key, and when the answer to
//! its poll says that there is a newer order key.

use kf_exchange::PublicKey;

use super::Agent;
use super::duties::Trouble;
use crate::event::Event;

/// The most times that links are followed in one turn: each goes as far as 16 of them.
const MAX_ROUNDS: usize = 4;

/// SHA-256 of the SubjectPublicKeyInfo, hexadecimal.
pub(super) fn fingerprint_of(key: &PublicKey) -> String {
    key.spki_sha256().iter().map(|octet| format!("{octet:02x}")).collect()
}

impl Agent {
    /// Asks for links and follows them from what is held; whether anything newer is held now, durably.
    pub(super) async fn take_up_pins(&mut self) -> Result<bool, Trouble> {
        let server = self.server.as_ref().ok_or_else(Self::no_server)?;
        let links = server.successions().await?;
        let Some(duties) = &mut self.duties else { return Ok(false) };
        let mut taken = Vec::new();
        for (role, pin) in [("delivery", &mut duties.delivery), ("order", &mut duties.order)] {
            let Some(pin) = pin else { continue };
            for _ in 0..MAX_ROUNDS {
                if !duties.ring.vault().take_up_pin(pin, &links)? {
                    break;
                }
                taken.push(Event::ServerKey { role, sha256: fingerprint_of(pin.key()) });
            }
        }
        taken.iter().for_each(|event| self.events.tell(event));
        Ok(!taken.is_empty())
    }
}

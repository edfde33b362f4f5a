//! How the device takes up a root that succeeds the one it knows, and lets go of one that was retired or withdrawn. It does so when
//! it renews its certificate, and when the server asks it to beside an answer to its poll.

use kf_pki::succession::{remaining, vouched};

use super::Agent;
use crate::anchors::fingerprint;
use crate::event::Event;
use crate::failure::chain_of;

impl Agent {
    /// Fetches the CA certificates because the server wants a root to be taken up, or says that one is handed out no more; whether
    /// anything changed. What is done follows from those certificates.
    pub(super) async fn fetch_anchors(&mut self, new: Option<&str>, gone: Option<&str>) -> bool {
        let Some(server) = &self.server else { return false };
        let anchors = server.anchors();
        if new.is_none_or(|new| anchors.has(new)) && !gone.is_some_and(|gone| anchors.has(gone)) {
            return false;
        }
        match server.authorities().await {
            Ok(offered) => self.take_up(&offered).await,
            Err(error) => {
                self.retry("trust", chain_of(&error));
                false
            }
        }
    }

    /// Takes up roots that a known one vouches for, and lets go of those that are handed out no more, once a connection
    /// without them has shown that the server is still found. Whether anything changed.
    pub(super) async fn take_up(&mut self, offered: &[Vec<u8>]) -> bool {
        let Some(server) = &self.server else { return false };
        let held = server.anchors().roots.clone();
        let new = vouched(&held, offered, self.clock.now());
        if !new.is_empty() {
            let added = new.iter().map(|der| fingerprint(der)).collect();
            return self.hold_anchors([held, new].concat(), &Event::TrustAdded { roots: added });
        }
        let Some(rest) = remaining(&held, offered) else { return false };
        if let Err(error) = server.reached_by(rest.clone()).await {
            self.retry("trust", chain_of(&error));
            return false;
        }
        let dropped = held.iter().filter(|der| !rest.contains(der)).map(|der| fingerprint(der)).collect();
        self.hold_anchors(rest, &Event::TrustDropped { roots: dropped })
    }

    fn hold_anchors(&mut self, roots: Vec<Vec<u8>>, event: &Event) -> bool {
        let Some(server) = &mut self.server else { return false };
        if let Err(error) = server.anchors_mut().replace(roots, self.slots.disk()) {
            self.retry("store", chain_of(&error));
            return false;
        }
        self.events.tell(event);
        // Whoever talks to a broker with this identity believes the same roots.
        let identity = self.in_use.borrow().as_ref().map(|material| material.identity.clone());
        if let Some(identity) = identity {
            self.publish(identity);
        }
        true
    }
}

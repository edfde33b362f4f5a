//! A device that holds its key in hardware and never shows it: a TPM, a token, a secure element, or whatever stands behind a
//! hook. It gets the certificate chain and the anchor; a secure element gets the certificate itself as well, and what is locked
//! in it.

use kf_crypto::PrivateKey;
use kf_secure_element::certificate::Stored;
use kf_secure_element::layout;

use super::linux::agent_configuration;
use super::{Material, Protected, Target, TargetError, pem_chain};
use crate::fixture::locks_text;
use crate::image::{ELEMENT_CERTIFICATE, ELEMENT_LOCKS, Image, Segment};
use crate::recipe::{Recipe, TargetKind};

/// A key in hardware.
#[derive(Clone, Copy, Debug)]
pub struct HeldTarget {
    element: Option<ElementLocks>,
    /// The configuration of the agent, from its keys on, for hardware that it uses.
    agent: Option<&'static str>,
}

/// The unit that starts the agent adds the address of the TPM where it is another one than `/dev/tpmrm0`.
const TPM: &str = "idevid_sealed_key_file = \"idevid.key\"\n\n[key]\nkind = \"tpm\"\n";
/// Whoever puts the device together adds `[key.pkcs11]` with module and token.
const PKCS11: &str =
    "idevid_sealed_key_file = \"idevid.key\"\n\n[key]\nkind = \"pkcs11\"\nseal_credential = \"keyfleet-pin\"\n";

/// Whoever puts the device together adds `[key.secure_element]` where its bus is another one than `/dev/i2c-1`.
const ELEMENT: &str = "idevid_sealed_key_file = \"idevid.key\"\n\n[key]\nkind = \"secure-element\"\n";
/// `keyfleet-agent`'s own mark of the identity key of its chip.
const KEY_OF_ELEMENT: [u8; 1] = [7];

/// What is locked in a secure element beside the slot of the identity.
#[derive(Clone, Copy, Debug)]
struct ElementLocks {
    certificate: bool,
    root: bool,
}

impl HeldTarget {
    pub(super) fn of(recipe: &Recipe) -> Self {
        let element = recipe.secure_element.map(|plan| ElementLocks {
            certificate: plan.lock_certificate,
            // A root key that nobody keeps is for wrapping in the device alone; the device key may be replaced one day.
            root: !recipe.injects_device_key,
        });
        let agent = match recipe.target {
            TargetKind::Tpm => Some(TPM),
            TargetKind::Pkcs11 => Some(PKCS11),
            TargetKind::SecureElement => Some(ELEMENT),
            _ => None,
        };
        Self { element, agent }
    }
}

/// What goes into the chip.
fn element_segments(locks: ElementLocks, material: &Material<'_>) -> Result<[Segment; 2], TargetError> {
    let leaf = material.chain.first().ok_or(TargetError::Key)?;
    let slots = Stored::Plain(leaf).slots();
    let slots = slots.map_err(|_too_long| TargetError::Certificate)?;
    let locked = std::iter::once(layout::IDENTITY)
        .chain(slots.filter(|_slot| locks.certificate))
        .chain(locks.root.then_some(layout::ROOT));
    Ok([
        Segment::file(ELEMENT_CERTIFICATE, leaf.clone()),
        Segment::file(ELEMENT_LOCKS, locks_text(locked).into_bytes()),
    ])
}

impl Target for HeldTarget {
    fn image(&self, material: &Material<'_>) -> Result<Image, TargetError> {
        if material.key.is_some() {
            return Err(TargetError::Key);
        }
        let agent = self.agent.map(|key| agent_configuration(material, key).into_bytes());
        let mut segments: Vec<Segment> = agent.map(|text| Segment::file("agent.toml", text)).into_iter().collect();
        segments.extend([
            Segment::file("anchor.pem", kf_pki::pem::certificate(material.anchor).into_bytes()),
            Segment::file("idevid.pem", pem_chain(material.chain)),
        ]);
        if let Some(locks) = self.element {
            segments.push(Segment::file("idevid.key", KEY_OF_ELEMENT.to_vec()));
            segments.extend(element_segments(locks, material)?);
        }
        Ok(Image { segments, unlock: None, flash_key: None })
    }

    fn open(&self, _segments: &[Segment], _held: &Protected) -> Option<PrivateKey> {
        None
    }
}

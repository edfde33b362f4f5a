//! A device that holds its key in hardware and never shows it: a TPM, a token, a secure element behind a hook. It gets the
//! certificate chain and the anchor.

use kf_crypto::PrivateKey;
use kf_key::{SecretArray, SecretBytes};

use super::{Material, Target, TargetError, pem_chain};
use crate::image::{Image, Segment};

/// A key in hardware.
#[derive(Clone, Copy, Debug)]
pub struct HeldTarget;

impl Target for HeldTarget {
    fn image(&self, material: &Material<'_>) -> Result<Image, TargetError> {
        if material.key.is_some() {
            return Err(TargetError::Key);
        }
        let file = |name: &str, octets: Vec<u8>| Segment {
            name: name.to_owned(),
            offset: 0,
            octets: SecretBytes::from_vec(octets),
        };
        let segments = vec![
            file("anchor.pem", kf_pki::pem::certificate(material.anchor).into_bytes()),
            file("idevid.pem", pem_chain(material.chain)),
        ];
        Ok(Image { segments, unlock: None })
    }

    fn open(&self, _segments: &[Segment], _unlock: Option<&SecretArray<32>>) -> Option<PrivateKey> {
        None
    }
}

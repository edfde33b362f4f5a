//! A station's keys in a PKCS#11 token: a copy of the station's disk is worth nothing without it.

use std::path::PathBuf;

use kf_backend::{BackendError, SignatureKey};
use kf_batch::P256Key;
use kf_key::{KeyId, SecretArray, SecretBytes, UnixMillis};
use kf_pkcs11::StationModule;

use super::{StationKey, StationToken, TokenError};

const TRANSPORT: &str = "keyfleet-station-transport";

/// A station's PKCS#11 token.
pub struct Pkcs11Token {
    module: StationModule,
    keys: Vec<(StationKey, Box<dyn SignatureKey>)>,
    transport: P256Key,
}

impl std::fmt::Debug for Pkcs11Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pkcs11Token").field("transport", &self.transport).finish_non_exhaustive()
    }
}

impl Pkcs11Token {
    /// Logs in and makes the keys that are not there yet. `now` goes into the identifiers of fresh keys.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn open(module: PathBuf, token: String, pin: SecretBytes, now: UnixMillis) -> Result<Self, BackendError> {
        let module = StationModule::open(module, token, pin)?;
        let fresh = || -> Result<KeyId, BackendError> {
            let mut random = [0; 10];
            module.fill_random(&mut random)?;
            Ok(KeyId::from_parts(now, random))
        };
        let mut keys = Vec::new();
        for key in StationKey::ALL {
            keys.push((key, module.signature_key(key.label(), fresh()?)?));
        }
        let transport = module.agreement_key(TRANSPORT, fresh()?)?;
        let transport =
            P256Key::from_spki(&transport).map_err(|_format| BackendError::Bug("the token's agreement key"))?;
        Ok(Self { module, keys, transport })
    }

    fn key(&self, key: StationKey) -> Result<&dyn SignatureKey, TokenError> {
        let found = self.keys.iter().find(|(known, _)| *known == key);
        found.map(|(_, pair)| pair.as_ref()).ok_or(TokenError("know the key"))
    }
}

fn counter_label(batch: &[u8; 16]) -> String {
    format!("keyfleet-station-counter-{}", hex::encode(batch))
}

impl StationToken for Pkcs11Token {
    fn source(&self) -> &str {
        "pkcs11-token"
    }

    fn public_key(&self, key: StationKey) -> Result<P256Key, TokenError> {
        P256Key::from_spki(self.key(key)?.spki()).map_err(|_format| TokenError("give its public key"))
    }

    fn sign(&self, key: StationKey, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.key(key)?.sign(message).map_err(|_backend| TokenError("sign"))
    }

    fn transport_key(&self) -> Result<P256Key, TokenError> {
        Ok(self.transport)
    }

    fn agree(&self, peer: &[u8; 65]) -> Result<SecretArray<32>, TokenError> {
        self.module.agree(TRANSPORT, peer).map_err(|_backend| TokenError("agree on the batch key"))
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), TokenError> {
        self.module.fill_random(out).map_err(|_backend| TokenError("give random octets"))
    }

    fn counter(&self, batch: &[u8; 16]) -> Result<u64, TokenError> {
        self.module.counter(&counter_label(batch)).map_err(|_backend| TokenError("read its counter"))
    }

    fn advance(&self, batch: &[u8; 16], to: u64) -> Result<(), TokenError> {
        self.module.advance(&counter_label(batch), to).map_err(|_backend| TokenError("advance its counter"))
    }
}

//! A station's keys in a PKCS#11 token: a copy of the station's disk is worth nothing without it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kf_backend::{BackendError, SignatureKey, TokenFault};
use kf_batch::P256Key;
use kf_key::{KeyId, SecretArray, SecretBytes, UnixMillis};
use kf_pkcs11::StationModule;

use super::{Generation, StationKey, StationToken, TokenError, labels, transport_label};

/// A station's PKCS#11 token.
pub struct Pkcs11Token {
    module: StationModule,
    /// Those that were used since the token was opened.
    keys: Mutex<BTreeMap<StationKey, Arc<dyn SignatureKey>>>,
    now: UnixMillis,
}

impl std::fmt::Debug for Pkcs11Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pkcs11Token").finish_non_exhaustive()
    }
}

impl Pkcs11Token {
    /// Logs in and makes the station's identity key when there is none. `now` goes into the identifiers of fresh keys.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn open(module: PathBuf, token: String, pin: SecretBytes, now: UnixMillis) -> Result<Self, BackendError> {
        let this = Self { module: StationModule::open(module, token, pin)?, keys: Mutex::default(), now };
        this.module.make_signature_key(&StationKey::Identity.label(), this.fresh()?)?;
        Ok(this)
    }

    fn fresh(&self) -> Result<KeyId, BackendError> {
        let mut random = [0; 10];
        self.module.fill_random(&mut random)?;
        Ok(KeyId::from_parts(self.now, random))
    }

    fn key(&self, key: StationKey) -> Result<Arc<dyn SignatureKey>, TokenError> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = keys.get(&key) {
            return Ok(Arc::clone(known));
        }
        let found = self.module.signature_key(&key.label()).map_err(|error| refusal(&error, "give its keys"))?;
        let found: Arc<dyn SignatureKey> = Arc::from(found);
        keys.insert(key, Arc::clone(&found));
        Ok(found)
    }
}

/// What a failure means to the station.
fn refusal(error: &BackendError, act: &'static str) -> TokenError {
    match error {
        BackendError::MissingKey { .. } => TokenError::MISSING,
        BackendError::Token(TokenFault::Call { code, .. }) if code == "DeviceMemory" => TokenError::FULL,
        _ => TokenError(act),
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
        self.key(key)?.sign(message).map_err(|error| refusal(&error, "sign"))
    }

    fn transport_key(&self, generation: Generation) -> Result<P256Key, TokenError> {
        let act = "give its transport key";
        let spki = self.module.agreement_key(&transport_label(generation)).map_err(|error| refusal(&error, act))?;
        P256Key::from_spki(&spki).map_err(|_format| TokenError(act))
    }

    fn agree(&self, generation: Generation, peer: &[u8; 65]) -> Result<SecretArray<32>, TokenError> {
        let agreed = self.module.agree(&transport_label(generation), peer);
        agreed.map_err(|error| refusal(&error, "agree on the batch key"))
    }

    fn draw(&self, generation: Generation) -> Result<(), TokenError> {
        // A half that was left when power went stands in the way of the pair; nobody has seen its key.
        let clear = |label: &str, whole: Result<(), BackendError>| match whole {
            Err(BackendError::MissingKey { .. }) => self.module.destroy(label),
            other => other,
        };
        let make = || {
            for label in [StationKey::Authority(generation), StationKey::Record(generation)].map(StationKey::label) {
                clear(&label, self.module.signature_key(&label).map(|_key| ()))?;
                self.module.make_signature_key(&label, self.fresh()?)?;
            }
            let label = transport_label(generation);
            clear(&label, self.module.agreement_key(&label).map(|_spki| ()))?;
            self.module.make_agreement_key(&label, self.fresh()?)
        };
        make().map_err(|error| refusal(&error, "make the keys of a batch"))
    }

    fn destroy(&self, generation: Generation) -> Result<&'static str, TokenError> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|key, _| !matches!(key, StationKey::Authority(of) | StationKey::Record(of) if *of == generation));
        for label in labels(generation) {
            self.module.destroy(&label).map_err(|_backend| TokenError::NOT_DESTROYED)?;
        }
        Ok("C_DestroyObject in the token, and looked for")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_full_or_lacks_a_key_says_so() {
        let call = |code: &str| {
            BackendError::Token(TokenFault::Call { function: "C_GenerateKeyPair".into(), code: code.into() })
        };
        assert_eq!(refusal(&call("DeviceMemory"), "make keys"), TokenError::FULL);
        assert_eq!(refusal(&call("FunctionFailed"), "make keys"), TokenError("make keys"));
        assert_eq!(refusal(&BackendError::MissingKey { label: "x".into() }, "sign"), TokenError::MISSING);
    }
}

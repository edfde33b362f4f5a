//! Successions of the keys that devices and stations pin. The message is built here from the key after, which must be held
//! here for the same purpose: a key before vouches for no other.

use kf_exchange::PublicKey;
use kf_exchange::succession::Succession;
use kf_key::UnixMillis;

use super::exchange::{Held, refused_or_held};
use super::{Engine, malformed};
use crate::protocol::{Fields, bug};
use crate::{SignerError, SignerRefusal};

impl Engine {
    pub(super) fn sign_succession(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let before = fields.key().ok_or_else(malformed)?;
        let after = fields.key().ok_or_else(malformed)?;
        let version = fields.array().map(u32::from_be_bytes).ok_or_else(malformed)?;
        let made = fields.array().map(u64::from_be_bytes).map(UnixMillis).ok_or_else(malformed)?;
        fields.end().ok_or_else(malformed)?;
        let (old, new) = (self.loaded(before)?, self.loaded(after)?);
        let role = old.purpose().role().ok_or(SignerError::Refused(SignerRefusal::Purpose))?;
        new.require(&[old.purpose()])?;
        if before == after {
            return Err(SignerError::Refused(SignerRefusal::Purpose));
        }
        let key = PublicKey::from_spki(new.spki()).map_err(|_other_curve| bug("a key that is pinned is not P-256"))?;
        let succession = Succession { role, version, key, made };
        let message = succession.sign(&Held::new(before, &old)?).map_err(refused_or_held)?;
        Ok(message.as_bytes().to_vec())
    }
}

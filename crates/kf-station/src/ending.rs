//! The end of a batch at its station: its keys are destroyed, so that whoever steals the station afterwards has nothing of it.

use kf_batch::keys_destroyed::KeysDestroyed;
use kf_batch::quota::QuotaTerms;
use kf_batch::{FormatError, P256Key};
use kf_key::UnixMillis;

use crate::token::{Generation, StationKey, StationToken, TokenError};

/// Why the keys of a batch are not known to be gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndingError {
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The document that says so.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The batch CA in the quota is none.
    #[error("the quota has no issuing CA")]
    Authority,
}

/// Destroys the keys of a batch, looks for them, and gives what the station's identity key signed about it. After a power cut the
/// same call finishes it.
///
/// # Errors
/// [`EndingError`]; some keys may then be gone.
pub fn destroy_keys(
    token: &dyn StationToken,
    generation: Generation,
    terms: &QuotaTerms,
    is_given_up: bool,
    now: UnixMillis,
) -> Result<Vec<u8>, EndingError> {
    // From the quota, which outlives the keys.
    let issuer = terms.issuer().map_err(|_not_an_issuer| EndingError::Authority)?;
    let point = <[u8; 65]>::try_from(issuer.public_key.as_ref()).map_err(|_other_curve| EndingError::Authority)?;
    let keys = [P256Key::from_point(point)?, terms.record_key, terms.transport_key].map(|key| key.spki_sha256());
    let method = token.destroy(generation)?.to_owned();
    let (batch, generation) = (terms.batch, generation.number());
    let destroyed = KeysDestroyed { batch, generation, keys, method, is_given_up, at: now };
    let unsigned = destroyed.prepare(&token.public_key(StationKey::Identity)?)?;
    let signature = token.sign(StationKey::Identity, &unsigned.to_be_signed())?;
    Ok(unsigned.complete(&signature)?)
}

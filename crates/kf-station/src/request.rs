//! What a station hands in to be given a batch.

use kf_batch::FormatError;
use kf_batch::station_request::StationRequest;
use kf_key::{KeyAlgorithm, UnixMillis};

use crate::token::{Generation, StationKey, StationToken, TokenError};

/// Why a request is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A field outside its limits: the station's name.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The issuing CA's key did not sign its certification request.
    #[error("the key of the issuing CA did not sign its certification request")]
    Certificate,
}

/// Makes a station request: the public halves of the keys of a generation, signed by the station's identity key.
///
/// # Errors
/// [`RequestError`].
pub fn station_request(
    token: &dyn StationToken,
    generation: Generation,
    name: &str,
    now: UnixMillis,
) -> Result<Vec<u8>, RequestError> {
    let authority = token.public_key(StationKey::Authority(generation))?;
    let csr = kf_pki::request::make_request_with(KeyAlgorithm::P256, &authority.spki(), "", |message| {
        token.sign(StationKey::Authority(generation), message).ok()
    })
    .map_err(|_refused| RequestError::Certificate)?;
    let mut nonce = [0; 16];
    token.fill_random(&mut nonce)?;
    let request = StationRequest {
        station: name.to_owned(),
        authority_csr: csr,
        transport_key: token.transport_key(generation)?,
        record_key: token.public_key(StationKey::Record(generation))?,
        made: now,
        nonce,
    };
    let unsigned = request.prepare(&token.public_key(StationKey::Identity)?)?;
    let signature = token.sign(StationKey::Identity, &unsigned.to_be_signed())?;
    Ok(unsigned.complete(&signature)?)
}

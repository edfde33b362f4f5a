//! What a station hands in to be given a batch: the public halves of the keys in its token.

use kf_key::UnixMillis;

use crate::codec::{Input, Out, Written, decode, encode, is_text};
use crate::frame::{FormatError, Kind, Signed, Unsigned};
use crate::key::P256Key;

/// How old a request may be, in milliseconds: a day, so that it can travel on a stick.
pub const MAX_AGE: u64 = UnixMillis::DAY;
/// How far a station's clock may be ahead of ours, in milliseconds: 5 minutes.
pub const MAX_SKEW: u64 = 5 * 60 * UnixMillis::SECOND;
const MAX_NAME_OCTETS: usize = 64;
const MAX_CSR_OCTETS: usize = 4 * 1024;
const VERSION: u8 = 1;

/// A station's keys, signed by its identity key. Every key is a pair of its own: none serves for two things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationRequest {
    /// Name of the operator of role station.
    pub station: String,
    /// Certification request (PKCS#10, DER) of the issuing CA of the batch, P-256 or P-384, at most 4 KiB.
    pub authority_csr: Vec<u8>,
    /// To this key the batch key is sealed.
    pub transport_key: P256Key,
    /// With this key records and manifests are signed.
    pub record_key: P256Key,
    /// When it was made.
    pub made: UnixMillis,
    /// 16 random octets, so that no two requests are the same.
    pub nonce: [u8; 16],
}

/// Why a request is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StationRequestRefusal {
    /// It cannot be read, or the signature does not hold under the identity key of that station.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Made longer ago than [`MAX_AGE`].
    #[error("the station request is older than a day: have the station make a fresh one")]
    TooOld,
    /// Made after now, beyond [`MAX_SKEW`].
    #[error("the station request was made in the future: check the station's clock")]
    FromTheFuture,
}

impl StationRequest {
    fn write(&self, out: &mut Out) -> Written {
        out.array(8)?.u8(Kind::StationRequest.code())?.u8(VERSION)?.str(&self.station)?.bytes(&self.authority_csr)?;
        out.bytes(self.transport_key.point())?.bytes(self.record_key.point())?;
        out.u64(self.made.0)?.bytes(&self.nonce)?.ok()
    }

    fn read(input: &mut Input<'_>) -> Result<Self, FormatError> {
        input.array(8)?;
        head(input, Kind::StationRequest, VERSION)?;
        let request = Self {
            station: input.text("station", MAX_NAME_OCTETS)?,
            authority_csr: input.bytes("authority_csr", MAX_CSR_OCTETS)?.to_vec(),
            transport_key: input.key()?,
            record_key: input.key()?,
            made: UnixMillis(input.u64()?),
            nonce: input.octets()?,
        };
        if request.transport_key == request.record_key {
            return Err(FormatError::Field("transport_key"));
        }
        Ok(request)
    }

    /// What the identity key signs.
    ///
    /// # Errors
    /// [`FormatError::Field`] for what [`StationRequest::verify`] would refuse.
    pub fn prepare(&self, identity: &P256Key) -> Result<Unsigned, FormatError> {
        if !is_text(&self.station, MAX_NAME_OCTETS) {
            return Err(FormatError::Field("station"));
        }
        if self.authority_csr.len() > MAX_CSR_OCTETS {
            return Err(FormatError::Field("authority_csr"));
        }
        if self.transport_key == self.record_key {
            return Err(FormatError::Field("transport_key"));
        }
        Ok(Unsigned::new(Kind::StationRequest, identity, encode(|out| self.write(out))))
    }

    /// What a document claims, to look up the station that must have signed it. Nothing is proved.
    ///
    /// # Errors
    /// Those of reading.
    pub fn claimed(document: &[u8]) -> Result<Self, FormatError> {
        decode(Signed::read(Kind::StationRequest, document)?.unverified_payload(), Self::read, Self::write)
    }

    /// The request, if `identity` signed it and it is fresh at `now`.
    ///
    /// # Errors
    /// [`StationRequestRefusal`].
    pub fn verify(document: &[u8], identity: &P256Key, now: UnixMillis) -> Result<Self, StationRequestRefusal> {
        let signed = Signed::read(Kind::StationRequest, document)?;
        let request = decode(signed.verify(Kind::StationRequest, identity)?, Self::read, Self::write)?;
        if request.made > now.plus(MAX_SKEW) {
            return Err(StationRequestRefusal::FromTheFuture);
        }
        if request.made.plus(MAX_AGE) < now {
            return Err(StationRequestRefusal::TooOld);
        }
        Ok(request)
    }
}

/// Kind and version in front of every payload.
pub(crate) fn head(input: &mut Input<'_>, kind: Kind, version: u8) -> Result<(), FormatError> {
    if input.u8()? != kind.code() {
        return Err(FormatError::Kind);
    }
    if input.u8()? != version {
        return Err(FormatError::Version);
    }
    Ok(())
}

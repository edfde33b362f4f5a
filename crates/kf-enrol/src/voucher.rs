//! A station's voucher: a signed statement that a device holds a key, made where the device was made.
//!
//! Compact, in the form of a JWS (RFC 7515 section 3.1) with exactly one header, `{"alg":"ES256","typ":"kf-voucher"}`,
//! so that there is no algorithm to choose and none to confuse: `base64url(header).base64url(payload).base64url(r||s)`,
//! at most 2 KiB. ES256 is ECDSA on P-256 with SHA-256, the signature 64 octets (RFC 7518 section 3.4).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::asn1::UintRef;
use der::{Decode, Encode};
use kf_key::{KeyAlgorithm, OperatorId, UnixMillis};
use serde::{Deserialize, Serialize};

/// The most octets of a voucher.
pub const MAX_VOUCHER_OCTETS: usize = 2 * 1024;
/// The longest time between a voucher's `iat` and `exp`, in milliseconds: 90 days.
pub const MAX_LIFETIME: u64 = 90 * UnixMillis::DAY;
/// How far a station's clock may be ahead of ours, in milliseconds: 5 minutes.
pub const MAX_SKEW: u64 = 5 * 60 * UnixMillis::SECOND;

/// Two numbers of 256 bits (RFC 7518 section 3.4).
const RAW_SIGNATURE_OCTETS: usize = 64;
const HEADER: &str = r#"{"alg":"ES256","typ":"kf-voucher"}"#;

/// What a voucher says. Verified if it came from [`verify`] or [`UnverifiedVoucher::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// Name of the device.
    pub device: String,
    /// SHA-256 of the device key's SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// The station, an operator.
    pub station: OperatorId,
    /// When it was made; whole seconds.
    pub issued: UnixMillis,
    /// Last moment of validity; whole seconds.
    pub expires: UnixMillis,
    /// Identifier, unique per station: 1 to 64 characters of the base64url alphabet. Used once.
    pub id: String,
}

/// Why a voucher is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VoucherError {
    /// Larger than [`MAX_VOUCHER_OCTETS`].
    #[error("the voucher is larger than {MAX_VOUCHER_OCTETS} octets")]
    TooLarge,
    /// Not three base64url parts, the first of them exactly our header.
    #[error("the voucher is not of the form header.payload.signature with the header of kf-voucher")]
    Malformed,
    /// A field is missing, unknown or not of its form.
    #[error("the voucher's payload is malformed")]
    Payload,
    /// Valid for longer than [`MAX_LIFETIME`], or from after its end.
    #[error("the voucher is valid for more than 90 days, or for none")]
    Lifetime,
    /// The signature does not verify under the station's key, or that key is not P-256.
    #[error("the voucher's signature does not verify under the station's key")]
    Signature,
    /// Made after now, beyond [`MAX_SKEW`].
    #[error("the voucher was made in the future: check the station's clock")]
    NotYetValid,
    /// Its last moment has passed.
    #[error("the voucher has expired")]
    Expired,
    /// The station's key could not sign.
    #[error("the station's key could not sign")]
    Signing,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    device: String,
    spki_sha256: String,
    station: OperatorId,
    iat: u64,
    exp: u64,
    jti: String,
}

/// A voucher that was read and not yet believed: it only says whose key to try.
#[derive(Debug)]
pub struct UnverifiedVoucher<'a> {
    signed: &'a [u8],
    signature: Vec<u8>,
    voucher: Voucher,
}

impl<'a> UnverifiedVoucher<'a> {
    /// Reads a voucher.
    ///
    /// # Errors
    /// [`VoucherError::TooLarge`], [`VoucherError::Malformed`], [`VoucherError::Payload`], [`VoucherError::Lifetime`].
    pub fn parse(text: &'a [u8]) -> Result<Self, VoucherError> {
        if text.len() > MAX_VOUCHER_OCTETS {
            return Err(VoucherError::TooLarge);
        }
        let text = std::str::from_utf8(text).map_err(|_not_ascii| VoucherError::Malformed)?;
        let (signed, signature) = text.rsplit_once('.').ok_or(VoucherError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(VoucherError::Malformed)?;
        if header != URL_SAFE_NO_PAD.encode(HEADER) {
            return Err(VoucherError::Malformed);
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_not_base64url| VoucherError::Malformed);
        let signature = decode(signature)?;
        if signature.len() != RAW_SIGNATURE_OCTETS {
            return Err(VoucherError::Malformed);
        }
        let voucher = voucher_of_payload(&decode(payload)?)?;
        Ok(Self { signed: signed.as_bytes(), signature, voucher })
    }

    /// The station that the voucher claims to come from: whose key to try.
    #[must_use]
    pub const fn station(&self) -> OperatorId {
        self.voucher.station
    }

    /// The device that the voucher claims to be for.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.voucher.device
    }

    /// Verifies the signature under the station's public key (SubjectPublicKeyInfo DER, P-256), then the time.
    ///
    /// # Errors
    /// [`VoucherError::Signature`], [`VoucherError::NotYetValid`], [`VoucherError::Expired`].
    pub fn verify(self, station_key: &[u8], now: UnixMillis) -> Result<Voucher, VoucherError> {
        let (algorithm, public_key) =
            kf_crypto::public_key_of_spki(station_key).map_err(|_not_a_key| VoucherError::Signature)?;
        if algorithm != KeyAlgorithm::P256 {
            return Err(VoucherError::Signature);
        }
        if !es256_verifies(public_key, self.signed, &self.signature) {
            return Err(VoucherError::Signature);
        }
        if self.voucher.issued > now.plus(MAX_SKEW) {
            return Err(VoucherError::NotYetValid);
        }
        if self.voucher.expires < now {
            return Err(VoucherError::Expired);
        }
        Ok(self.voucher)
    }
}

/// Reads a voucher and verifies it under one station's public key (SubjectPublicKeyInfo DER, P-256).
///
/// # Errors
/// [`VoucherError`].
pub fn verify(text: &[u8], station_key: &[u8], now: UnixMillis) -> Result<Voucher, VoucherError> {
    UnverifiedVoucher::parse(text)?.verify(station_key, now)
}

/// Makes a voucher: for stations, and for operators who stand in for one. Fractions of seconds are dropped.
///
/// # Errors
/// [`VoucherError::Payload`] and [`VoucherError::Lifetime`] for what [`verify`] would refuse, [`VoucherError::Signing`]
/// when the key is not P-256 or cannot sign.
pub fn make(voucher: &Voucher, station_key: &kf_crypto::PrivateKey) -> Result<String, VoucherError> {
    let payload = Payload {
        device: voucher.device.clone(),
        spki_sha256: hex::encode(voucher.spki_sha256),
        station: voucher.station,
        iat: voucher.issued.seconds(),
        exp: voucher.expires.seconds(),
        jti: voucher.id.clone(),
    };
    let payload = serde_json::to_vec(&payload).map_err(|_encoding| VoucherError::Payload)?;
    voucher_of_payload(&payload)?;
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(payload));
    let signature = (station_key.algorithm() == KeyAlgorithm::P256)
        .then(|| station_key.sign(signed.as_bytes()).ok())
        .flatten()
        .and_then(|signature| raw_of_der(&signature))
        .ok_or(VoucherError::Signing)?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The one place that says what a payload may contain.
fn voucher_of_payload(json: &[u8]) -> Result<Voucher, VoucherError> {
    let payload: Payload = serde_json::from_slice(json).map_err(|_malformed| VoucherError::Payload)?;
    let device_octet = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b':');
    let id_octet = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    let well_formed = (1..=64).contains(&payload.device.len())
        && payload.device.bytes().all(device_octet)
        && (1..=64).contains(&payload.jti.len())
        && payload.jti.bytes().all(id_octet);
    let mut spki_sha256 = [0; 32];
    if !well_formed || hex::decode_to_slice(&payload.spki_sha256, &mut spki_sha256).is_err() {
        return Err(VoucherError::Payload);
    }
    let (issued, expires) = (UnixMillis::from_seconds(payload.iat), UnixMillis::from_seconds(payload.exp));
    if expires <= issued || expires.since(issued) > MAX_LIFETIME {
        return Err(VoucherError::Lifetime);
    }
    Ok(Voucher { device: payload.device, spki_sha256, station: payload.station, issued, expires, id: payload.jti })
}

/// Ecdsa-Sig-Value (RFC 3279 section 2.2.3), what `kf_crypto` reads and writes.
#[derive(der::Sequence)]
struct EcdsaSignature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// Whether `r || s` is an ES256 signature of `signed` under a raw P-256 public key.
fn es256_verifies(public_key: &[u8], signed: &[u8], raw: &[u8]) -> bool {
    der_of_raw(raw).is_some_and(|der| kf_crypto::verify(KeyAlgorithm::P256, public_key, signed, &der).is_ok())
}

/// DER of `r || s`; `None` unless it has 64 octets.
fn der_of_raw(raw: &[u8]) -> Option<Vec<u8>> {
    let raw: &[u8; RAW_SIGNATURE_OCTETS] = raw.try_into().ok()?;
    let (r, s) = raw.split_at(RAW_SIGNATURE_OCTETS / 2);
    EcdsaSignature { r: UintRef::new(r).ok()?, s: UintRef::new(s).ok()? }.to_der().ok()
}

/// `r || s` of DER.
fn raw_of_der(signature: &[u8]) -> Option<[u8; RAW_SIGNATURE_OCTETS]> {
    let signature = EcdsaSignature::from_der(signature).ok()?;
    let mut raw = [0; RAW_SIGNATURE_OCTETS];
    let (r, s) = raw.split_at_mut(RAW_SIGNATURE_OCTETS / 2);
    for (half, number) in [(r, signature.r), (s, signature.s)] {
        let octets = number.as_bytes();
        let start = half.len().checked_sub(octets.len())?;
        half.get_mut(start..)?.copy_from_slice(octets);
    }
    Some(raw)
}

#[cfg(test)]
mod tests;

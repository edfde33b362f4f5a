//! What a station may make.

use kf_key::{AuthorityId, BatchId, FacilityId, OperatorId, ProductLineId, SecretArray, UnixMillis};
use kf_pki::issuer::{Issuer, NotAnIssuer};

use crate::codec::{Input, Out, Written, decode, encode, is_text};
use crate::device_list::DeviceList;
use crate::frame::{FormatError, Kind, Signed, Unsigned, document_hash};
use crate::key::P256Key;
use crate::salt::SealedBatchKey;
use crate::station_request::head;

/// The longest time between `issued` and `expires`, in milliseconds: 92 days.
pub const MAX_LIFETIME: u64 = 92 * UnixMillis::DAY;
/// How far the station's clock may be behind the server's, in milliseconds: 5 minutes.
pub const MAX_SKEW: u64 = 5 * 60 * UnixMillis::SECOND;
const MAX_NAME_OCTETS: usize = 64;
/// 64 characters of up to four octets (RFC 5280 appendix A).
const MAX_ATTRIBUTE_OCTETS: usize = 256;
const MAX_ADDRESS_OCTETS: usize = 255;
const MAX_CERTIFICATE_OCTETS: usize = 4 * 1024;
const VERSION: u8 = 1;
const TERMS: u64 = 24;

/// Everything that the server decides about a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaTerms {
    /// The batch.
    pub batch: BatchId,
    /// Its name.
    pub name: String,
    /// The facility in which the devices are registered, and from whose key the batch key is derived.
    pub facility: FacilityId,
    /// The epoch of that key.
    pub facility_epoch: u32,
    /// The product line.
    pub product_line: ProductLineId,
    /// Its name: organizational unit of the certificates, label of EST, and what a recipe calls its SKU.
    pub product_line_name: String,
    /// The fleet's name: organisation of the certificates.
    pub organization: String,
    /// The station.
    pub station: OperatorId,
    /// Its name.
    pub station_name: String,
    /// Counts the quotas of this station from 1. A station refuses one that is not above the last one that it took.
    pub sequence: u64,
    /// SHA-256 of the one recipe that may run.
    pub recipe: [u8; 32],
    /// Whether devices with unsafe marks may pass.
    pub allows_unsafe: bool,
    /// Whether devices may enrol before their record has been merged.
    pub allows_early_enrolment: bool,
    /// First moment.
    pub issued: UnixMillis,
    /// Last moment.
    pub expires: UnixMillis,
    /// Where devices find the server: `host` or `host:port`, for labels and images.
    pub server: String,
    /// The CA certificate to which the server's own certificate leads, DER: what a device pins.
    pub anchor: Vec<u8>,
    /// The identifier of the batch CA.
    pub authority: AuthorityId,
    /// The certificate of the batch CA, DER: path length 0, not beyond `expires`.
    pub authority_certificate: Vec<u8>,
    /// The CA certificate to which that leads, DER.
    pub factory_certificate: Vec<u8>,
    /// Base of the public addresses in certificates, no trailing slash.
    pub base_url: String,
    /// The devices.
    pub devices: DeviceList,
    /// The station's keys: [`crate::station_request::StationRequest::transport_key`] and `record_key`.
    pub transport_key: P256Key,
    /// See `transport_key`.
    pub record_key: P256Key,
}

impl QuotaTerms {
    fn write(&self, out: &mut Out) -> Written {
        out.array(TERMS)?.bytes(self.batch.as_bytes())?.str(&self.name)?.bytes(self.facility.as_bytes())?;
        out.u32(self.facility_epoch)?.bytes(self.product_line.as_bytes())?.str(&self.product_line_name)?;
        out.str(&self.organization)?.bytes(self.station.as_bytes())?.str(&self.station_name)?.u64(self.sequence)?;
        out.bytes(&self.recipe)?.bool(self.allows_unsafe)?.bool(self.allows_early_enrolment)?;
        out.u64(self.issued.0)?.u64(self.expires.0)?.str(&self.server)?.bytes(&self.anchor)?;
        out.bytes(self.authority.as_bytes())?.bytes(&self.authority_certificate)?.bytes(&self.factory_certificate)?;
        out.str(&self.base_url)?;
        self.devices.write(out)?;
        out.bytes(self.transport_key.point())?.bytes(self.record_key.point())?.ok()
    }

    fn read(input: &mut Input<'_>) -> Result<Self, FormatError> {
        input.array(TERMS)?;
        let terms = Self {
            batch: BatchId::from_bytes(input.octets()?),
            name: input.text("name", MAX_NAME_OCTETS)?,
            facility: FacilityId::from_bytes(input.octets()?),
            facility_epoch: input.u32()?,
            product_line: ProductLineId::from_bytes(input.octets()?),
            product_line_name: input.text("product_line_name", MAX_ATTRIBUTE_OCTETS)?,
            organization: input.text("organization", MAX_ATTRIBUTE_OCTETS)?,
            station: OperatorId::from_bytes(input.octets()?),
            station_name: input.text("station_name", MAX_NAME_OCTETS)?,
            sequence: input.u64()?,
            recipe: input.octets()?,
            allows_unsafe: input.bool()?,
            allows_early_enrolment: input.bool()?,
            issued: UnixMillis(input.u64()?),
            expires: UnixMillis(input.u64()?),
            server: input.text("server", MAX_ADDRESS_OCTETS)?,
            anchor: input.bytes("anchor", MAX_CERTIFICATE_OCTETS)?.to_vec(),
            authority: AuthorityId::from_bytes(input.octets()?),
            authority_certificate: input.bytes("authority_certificate", MAX_CERTIFICATE_OCTETS)?.to_vec(),
            factory_certificate: input.bytes("factory_certificate", MAX_CERTIFICATE_OCTETS)?.to_vec(),
            base_url: input.text("base_url", MAX_ADDRESS_OCTETS)?,
            devices: DeviceList::read(input)?,
            transport_key: input.key()?,
            record_key: input.key()?,
        };
        terms.check()?;
        Ok(terms)
    }

    /// What must hold of the terms by themselves.
    fn check(&self) -> Result<(), FormatError> {
        let texts = [
            ("name", &self.name, MAX_NAME_OCTETS),
            ("product_line_name", &self.product_line_name, MAX_ATTRIBUTE_OCTETS),
            ("organization", &self.organization, MAX_ATTRIBUTE_OCTETS),
            ("station_name", &self.station_name, MAX_NAME_OCTETS),
            ("server", &self.server, MAX_ADDRESS_OCTETS),
            ("base_url", &self.base_url, MAX_ADDRESS_OCTETS),
        ];
        if let Some((field, ..)) = texts.iter().find(|(_, text, limit)| !is_text(text, *limit)) {
            return Err(FormatError::Field(field));
        }
        if self.sequence == 0 {
            return Err(FormatError::Field("sequence"));
        }
        if self.expires <= self.issued || self.expires.since(self.issued) > MAX_LIFETIME {
            return Err(FormatError::Field("expires"));
        }
        if self.transport_key == self.record_key {
            return Err(FormatError::Field("transport_key"));
        }
        // A batch CA issues no CA certificates and ends with its quota.
        match self.issuer() {
            Ok(issuer) if !issuer.may_issue_authorities && issuer.not_after <= self.expires => Ok(()),
            _ => Err(FormatError::Field("authority_certificate")),
        }
    }

    /// The batch CA as issuance sees it: [`kf_pki::certificate::check_issuance`] with this issuer, and names from the quota, is what
    /// a station signs and what the server compares with. No CRL and no OCSP address stand in what it issues: its key
    /// is at the station, where nobody answers.
    ///
    /// # Errors
    /// [`NotAnIssuer`].
    pub fn issuer(&self) -> Result<Issuer, NotAnIssuer> {
        Issuer::from_certificate(self.authority, &self.authority_certificate, 0, &self.base_url)
    }

    /// The terms as they travel to the signer.
    #[must_use]
    pub fn to_octets(&self) -> Vec<u8> {
        encode(|out| self.write(out))
    }

    /// Reads [`QuotaTerms::to_octets`].
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn from_octets(octets: &[u8]) -> Result<Self, FormatError> {
        if octets.len() > Kind::Quota.limit() {
            return Err(FormatError::TooLong { limit: Kind::Quota.limit() });
        }
        decode(octets, Self::read, Self::write)
    }

    /// SHA-256 of the terms: what the sealed batch key is bound to.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        kf_crypto::sha256(&self.to_octets())
    }
}

/// A quota. One that came from [`Quota::verify`] may be worked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The terms.
    pub terms: QuotaTerms,
    /// To this key device salts are sealed; its private half is derived from the facility key, for this batch only.
    pub salt_key: P256Key,
    /// The batch key.
    pub batch_key: SealedBatchKey,
}

/// Why a station does not take a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuotaRefusal {
    /// It cannot be read, or the signature is not the pinned server's: a forged or foreign quota.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Made for another station.
    #[error("the quota is for another station")]
    OtherStation,
    /// The station's token holds other keys than those in the quota.
    #[error("the quota is for keys that this station does not hold")]
    OtherKeys,
    /// Its sequence is not above that of the last quota.
    #[error("the quota is not newer than number {last}, which this station has taken")]
    RolledBack {
        /// Sequence of the last quota.
        last: u64,
    },
    /// Its last moment has passed.
    #[error("the quota has expired")]
    Expired,
    /// Its first moment lies ahead: the clock was set back.
    #[error("the quota is from the future: the station's clock is wrong")]
    FromTheFuture,
}

/// What a station knows when it is handed a quota.
#[derive(Clone, Copy, Debug)]
pub struct StationKnows<'a> {
    /// The server's batch authorisation key, pinned when the station was set up.
    pub server_key: &'a P256Key,
    /// Its own name.
    pub station: &'a str,
    /// Its own keys.
    pub transport_key: &'a P256Key,
    /// See `transport_key`.
    pub record_key: &'a P256Key,
    /// Sequence of the last quota that it took; 0 for none.
    pub last_sequence: u64,
}

impl Quota {
    fn write(&self, out: &mut Out) -> Written {
        out.array(5)?.u8(Kind::Quota.code())?.u8(VERSION)?;
        self.terms.write(out)?;
        out.bytes(self.salt_key.point())?;
        self.batch_key.write(out)
    }

    fn read(input: &mut Input<'_>) -> Result<Self, FormatError> {
        input.array(5)?;
        head(input, Kind::Quota, VERSION)?;
        Ok(Self { terms: QuotaTerms::read(input)?, salt_key: input.key()?, batch_key: SealedBatchKey::read(input)? })
    }

    /// What the batch authorisation key signs.
    ///
    /// # Errors
    /// [`FormatError::Field`] for terms that [`Quota::verify`] would refuse.
    pub fn prepare(&self, server_key: &P256Key) -> Result<Unsigned, FormatError> {
        self.terms.check()?;
        Ok(Unsigned::new(Kind::Quota, server_key, encode(|out| self.write(out))))
    }

    /// Opens `document`: for the server, and for a station that took it before.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn open(document: &[u8], server_key: &P256Key) -> Result<Self, FormatError> {
        let signed = Signed::read(Kind::Quota, document)?;
        decode(signed.verify(Kind::Quota, server_key)?, Self::read, Self::write)
    }

    /// The quota, if a station may take it at `now`.
    ///
    /// # Errors
    /// [`QuotaRefusal`], the first that holds.
    pub fn verify(document: &[u8], knows: &StationKnows<'_>, now: UnixMillis) -> Result<Self, QuotaRefusal> {
        let quota = Self::open(document, knows.server_key)?;
        let terms = &quota.terms;
        if terms.station_name != knows.station {
            return Err(QuotaRefusal::OtherStation);
        }
        // First: an old quota is for old keys too.
        if terms.sequence <= knows.last_sequence {
            return Err(QuotaRefusal::RolledBack { last: knows.last_sequence });
        }
        if terms.transport_key != *knows.transport_key || terms.record_key != *knows.record_key {
            return Err(QuotaRefusal::OtherKeys);
        }
        terms.check_time(now)?;
        Ok(quota)
    }

    /// Opens the batch key; see [`SealedBatchKey::open`].
    ///
    /// # Errors
    /// [`kf_crypto::CryptoError`].
    pub fn open_batch_key(&self, agreed: &SecretArray<32>) -> Result<SecretArray<32>, kf_crypto::CryptoError> {
        self.batch_key.open(agreed, &self.terms.transport_key, &self.terms.hash())
    }
}

impl QuotaTerms {
    /// Whether something may be made at `now`. A station asks before every device, with the latest time that it has seen when
    /// its clock is behind that.
    ///
    /// # Errors
    /// [`QuotaRefusal::Expired`], [`QuotaRefusal::FromTheFuture`].
    pub fn check_time(&self, now: UnixMillis) -> Result<(), QuotaRefusal> {
        if now.plus(MAX_SKEW) < self.issued {
            return Err(QuotaRefusal::FromTheFuture);
        }
        if now > self.expires {
            return Err(QuotaRefusal::Expired);
        }
        Ok(())
    }
}

/// The terms of a quota that was verified before it was stored: the server's own.
///
/// # Errors
/// [`FormatError`].
pub fn stored_terms(document: &[u8]) -> Result<QuotaTerms, FormatError> {
    let payload = Signed::read(Kind::Quota, document)?.unverified_payload();
    decode(payload, Quota::read, Quota::write).map(|quota| quota.terms)
}

/// The hash to which the first record of a batch is chained.
#[must_use]
pub fn quota_hash(document: &[u8]) -> [u8; 32] {
    document_hash(document)
}

#[cfg(test)]
mod tests;

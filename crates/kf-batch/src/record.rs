//! What was made: one record per attempt at a device, signed, chained, appended and never changed. There is no field for a
//! secret but the salt, which is sealed.

use kf_api::batch::Outcome;
use kf_key::{BatchId, DeviceId, UnixMillis};

use crate::codec::{Input, Out, Written, decode, encode, is_text, list, optional};
use crate::frame::{FormatError, Kind, Signed, Unsigned};
use crate::key::P256Key;
use crate::salt::SealedSalt;
use crate::station_request::head;

/// The most octets of a certificate.
pub const MAX_CERTIFICATE_OCTETS: usize = 2 * 1024;
const MAX_SHORT_OCTETS: usize = 32;
const MAX_NAME_OCTETS: usize = 64;
const MAX_DETAIL_OCTETS: usize = 128;
const MAX_REASON_OCTETS: usize = 256;
const MAX_FINGERPRINTS: usize = 16;
const MAX_HARDWARE: usize = 8;
const MAX_HARDWARE_OCTETS: usize = 32;
const MAX_CHECKS: usize = 32;
const MAX_UNSAFE_MARKS: usize = 8;
const VERSION: u8 = 1;
const ITEMS: u64 = 21;

/// Where a private key came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    /// In the device, which signed a certification request.
    Device,
    /// In the station's token.
    StationToken,
    /// In a secure element or TPM of the device.
    SecureElement,
}

impl KeyOrigin {
    /// Every origin.
    pub const ALL: [Self; 3] = [Self::Device, Self::StationToken, Self::SecureElement];

    const fn code(self) -> u8 {
        match self {
            Self::Device => 1,
            Self::StationToken => 2,
            Self::SecureElement => 3,
        }
    }
}

/// An identity key, by its public half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeKey {
    /// Where it came to be.
    pub origin: KeyOrigin,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
}

/// The slot of a record under which the hash of the one-time code on the device's label stands.
pub const CLAIM_CODE_SLOT: &str = "claim-code";

/// The fingerprint of a further key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The slot of the recipe, at most 32 octets.
    pub slot: String,
    /// Of a public key SHA-256 of its SubjectPublicKeyInfo, of a secret key 32 octets derived for this purpose only.
    pub value: [u8; 32],
}

/// What a device carries by which it can be told from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HardwareKind {
    /// A hardware address (EUI-48 or EUI-64).
    Address,
    /// The serial number of its chip.
    Serial,
}

impl HardwareKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Address, Self::Serial];

    /// The number in documents and in the registry.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Address => 1,
            Self::Serial => 2,
        }
    }
}

/// An identifier of the hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// What it is.
    pub kind: HardwareKind,
    /// 1 to 32 octets.
    pub value: Vec<u8>,
}

/// How the randomness of the device's keys was tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntropyEvidence {
    /// The source, for example `token` or `esp32-rng`, at most 32 octets.
    pub source: String,
    /// Samples that went through the health tests (SP 800-90B section 4.4); 0 where the source tests itself.
    pub samples: u64,
    /// Health tests that failed.
    pub failures: u32,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Name, at most 32 octets.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was seen, at most 128 octets.
    pub detail: Option<String>,
}

/// One attempt at one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The batch.
    pub batch: BatchId,
    /// Counts the records of the batch from 1.
    pub sequence: u64,
    /// Hash of the signed record before, or of the signed quota ([`crate::frame::document_hash`]).
    pub previous: [u8; 32],
    /// The device.
    pub device: DeviceId,
    /// What came of it.
    pub outcome: Outcome,
    /// When it ended.
    pub at: UnixMillis,
    /// The fixture, at most 32 octets.
    pub fixture: String,
    /// Who worked at the line, at most 64 octets.
    pub operator: String,
    /// SHA-256 of the recipe.
    pub recipe: [u8; 32],
    /// SHA-256 of the firmware, if any was written.
    pub firmware: Option<[u8; 32]>,
    /// The identity key, if one was made: always for `passed`.
    pub key: Option<MadeKey>,
    /// The IDevID, DER, if one was issued: always for `passed`.
    pub certificate: Option<Vec<u8>>,
    /// Further keys, at most 16.
    pub fingerprints: Vec<Fingerprint>,
    /// The salt of the device's symmetric key, if one was made.
    pub salt: Option<SealedSalt>,
    /// Evidence of randomness: always for `passed`.
    pub entropy: Option<EntropyEvidence>,
    /// Identifiers of the hardware, at most 8.
    pub hardware: Vec<Hardware>,
    /// Checks, at most 32; with `passed` each of them passed.
    pub checks: Vec<Check>,
    /// What is unsafe about the device, for ever: at most 8 of at most 32 octets.
    pub unsafe_marks: Vec<String>,
    /// Why it did not pass, at most 256 octets: always for `scrapped` and `rework`.
    pub reason: Option<String>,
}

const fn outcome_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Passed => 1,
        Outcome::Scrapped => 2,
        Outcome::Rework => 3,
    }
}

fn known<T: Copy>(all: &[T], code: u8, of: impl Fn(T) -> u8) -> Result<T, FormatError> {
    all.iter().copied().find(|value| of(*value) == code).ok_or(FormatError::Malformed)
}

impl Record {
    fn write(&self, out: &mut Out) -> Written {
        out.array(ITEMS)?.u8(Kind::Record.code())?.u8(VERSION)?.bytes(self.batch.as_bytes())?.u64(self.sequence)?;
        out.bytes(&self.previous)?.bytes(self.device.as_bytes())?.u8(outcome_code(self.outcome))?.u64(self.at.0)?;
        out.str(&self.fixture)?.str(&self.operator)?.bytes(&self.recipe)?;
        optional(out, self.firmware.as_ref(), |firmware, out| out.bytes(firmware)?.ok())?;
        optional(out, self.key.as_ref(), |key, out| {
            out.array(2)?.u8(key.origin.code())?.bytes(&key.spki_sha256)?.ok()
        })?;
        optional(out, self.certificate.as_ref(), |der, out| out.bytes(der)?.ok())?;
        list(out, &self.fingerprints, |one, out| out.array(2)?.str(&one.slot)?.bytes(&one.value)?.ok())?;
        optional(out, self.salt.as_ref(), SealedSalt::write)?;
        optional(out, self.entropy.as_ref(), |entropy, out| {
            out.array(3)?.str(&entropy.source)?.u64(entropy.samples)?.u32(entropy.failures)?.ok()
        })?;
        list(out, &self.hardware, |one, out| out.array(2)?.u8(one.kind.code())?.bytes(&one.value)?.ok())?;
        list(out, &self.checks, |check, out| {
            out.array(3)?.str(&check.name)?.bool(check.passed)?;
            optional(out, check.detail.as_ref(), |detail, out| out.str(detail)?.ok())
        })?;
        list(out, &self.unsafe_marks, |mark, out| out.str(mark)?.ok())?;
        optional(out, self.reason.as_ref(), |reason, out| out.str(reason)?.ok())
    }

    fn read(input: &mut Input<'_>) -> Result<Self, FormatError> {
        input.array(ITEMS)?;
        head(input, Kind::Record, VERSION)?;
        let record = Self {
            batch: BatchId::from_bytes(input.octets()?),
            sequence: input.u64()?,
            previous: input.octets()?,
            device: DeviceId::from_bytes(input.octets()?),
            outcome: known(Outcome::ALL, input.u8()?, outcome_code)?,
            at: UnixMillis(input.u64()?),
            fixture: input.text("fixture", MAX_SHORT_OCTETS)?,
            operator: input.text("operator", MAX_NAME_OCTETS)?,
            recipe: input.octets()?,
            firmware: input.optional(Input::octets)?,
            key: input.optional(read_key)?,
            certificate: input.optional(|input| Ok(input.bytes("certificate", MAX_CERTIFICATE_OCTETS)?.to_vec()))?,
            fingerprints: input.list("fingerprints", MAX_FINGERPRINTS, |input| {
                input.array(2)?;
                Ok(Fingerprint { slot: input.text("fingerprints", MAX_SHORT_OCTETS)?, value: input.octets()? })
            })?,
            salt: input.optional(SealedSalt::read)?,
            entropy: input.optional(read_entropy)?,
            hardware: input.list("hardware", MAX_HARDWARE, read_hardware)?,
            checks: input.list("checks", MAX_CHECKS, read_check)?,
            unsafe_marks: input
                .list("unsafe_marks", MAX_UNSAFE_MARKS, |input| input.text("unsafe_marks", MAX_SHORT_OCTETS))?,
            reason: input.optional(|input| input.text("reason", MAX_REASON_OCTETS))?,
        };
        record.check()?;
        Ok(record)
    }

    /// What must hold of a record by itself: limits, and what each outcome demands.
    fn check(&self) -> Result<(), FormatError> {
        let short =
            [&self.fixture].into_iter().chain(&self.unsafe_marks).chain(self.fingerprints.iter().map(|one| &one.slot));
        let short = short.chain(self.checks.iter().map(|check| &check.name));
        let details = self.checks.iter().filter_map(|check| check.detail.as_ref());
        let limits = [
            ("texts", short.into_iter().all(|text| is_text(text, MAX_SHORT_OCTETS))),
            ("operator", is_text(&self.operator, MAX_NAME_OCTETS)),
            ("checks", details.into_iter().all(|text| is_text(text, MAX_DETAIL_OCTETS))),
            ("reason", self.reason.as_ref().is_none_or(|text| is_text(text, MAX_REASON_OCTETS))),
            ("entropy", self.entropy.as_ref().is_none_or(|entropy| is_text(&entropy.source, MAX_SHORT_OCTETS))),
            ("hardware", self.hardware.iter().all(|one| (1..=MAX_HARDWARE_OCTETS).contains(&one.value.len()))),
            ("certificate", self.certificate.as_ref().is_none_or(|der| der.len() <= MAX_CERTIFICATE_OCTETS)),
            ("lists", self.checks.len() <= MAX_CHECKS && self.hardware.len() <= MAX_HARDWARE),
            ("lists", self.fingerprints.len() <= MAX_FINGERPRINTS && self.unsafe_marks.len() <= MAX_UNSAFE_MARKS),
            ("sequence", self.sequence > 0),
            // Whoever has a certificate has a key.
            ("key", self.certificate.is_none() || self.key.is_some()),
        ];
        let passed = self.outcome == Outcome::Passed;
        let demands = [
            ("certificate", self.certificate.is_some() || !passed),
            ("entropy", self.entropy.as_ref().is_some_and(|entropy| entropy.failures == 0) || !passed),
            ("checks", self.checks.iter().all(|check| check.passed) || !passed),
            ("reason", self.reason.is_some() || passed),
        ];
        match limits.iter().chain(&demands).find(|(_, holds)| !holds) {
            Some((field, _)) => Err(FormatError::Field(field)),
            None => Ok(()),
        }
    }

    /// What the record key signs.
    ///
    /// # Errors
    /// [`FormatError::Field`] for what [`Record::verify`] would refuse.
    pub fn prepare(&self, record_key: &P256Key) -> Result<Unsigned, FormatError> {
        self.check()?;
        Ok(Unsigned::new(Kind::Record, record_key, encode(|out| self.write(out))))
    }

    /// What a document claims, to look up the batch. Nothing is proved.
    ///
    /// # Errors
    /// Those of reading.
    pub fn claimed(document: &[u8]) -> Result<Self, FormatError> {
        decode(Signed::read(Kind::Record, document)?.unverified_payload(), Self::read, Self::write)
    }

    /// The record, if `record_key` signed it.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn verify(document: &[u8], record_key: &P256Key) -> Result<Self, FormatError> {
        let signed = Signed::read(Kind::Record, document)?;
        decode(signed.verify(Kind::Record, record_key)?, Self::read, Self::write)
    }
}

fn read_key(input: &mut Input<'_>) -> Result<MadeKey, FormatError> {
    input.array(2)?;
    let origin = known(&KeyOrigin::ALL, input.u8()?, KeyOrigin::code)?;
    Ok(MadeKey { origin, spki_sha256: input.octets()? })
}

fn read_entropy(input: &mut Input<'_>) -> Result<EntropyEvidence, FormatError> {
    input.array(3)?;
    Ok(EntropyEvidence {
        source: input.text("entropy", MAX_SHORT_OCTETS)?,
        samples: input.u64()?,
        failures: input.u32()?,
    })
}

fn read_hardware(input: &mut Input<'_>) -> Result<Hardware, FormatError> {
    input.array(2)?;
    let kind = known(&HardwareKind::ALL, input.u8()?, HardwareKind::code)?;
    Ok(Hardware { kind, value: input.bytes("hardware", MAX_HARDWARE_OCTETS)?.to_vec() })
}

fn read_check(input: &mut Input<'_>) -> Result<Check, FormatError> {
    input.array(3)?;
    Ok(Check {
        name: input.text("checks", MAX_SHORT_OCTETS)?,
        passed: input.bool()?,
        detail: input.optional(|input| input.text("checks", MAX_DETAIL_OCTETS))?,
    })
}

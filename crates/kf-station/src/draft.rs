//! What a record will say, kept beside the entries of the journal until the unit is finished: so that a device whose power was
//! cut can be finished without its key ever having been written down.

use kf_batch::record::{Check, EntropyEvidence, Fingerprint, Hardware, HardwareKind, KeyOrigin, MadeKey, Record};
use kf_batch::salt::SealedSalt;
use kf_key::{BatchId, DeviceId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::fixture::Destruction;
use crate::line::HardwareId;

/// The slot under which a record carries the hash of a label's one-time code.
pub const CODE_SLOT: &str = kf_batch::record::CLAIM_CODE_SLOT;
/// The mark of a private key in clear.
pub const PLAIN_KEY_MARK: &str = "plain-private-key";

/// The check of a record that says what became of the keys of a device that did not pass.
pub const KEY_DESTROYED: &str = "key-destroyed";
/// As long as a record takes.
const MAX_DETAIL_OCTETS: usize = 128;

/// What is known of one attempt so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Draft {
    /// SHA-256 of the SubjectPublicKeyInfo, hexadecimal.
    pub(crate) spki_sha256: Option<String>,
    /// The SubjectPublicKeyInfo, hexadecimal.
    pub(crate) spki: Option<String>,
    /// Where the key came to be.
    pub(crate) origin: Origin,
    /// The IDevID, hexadecimal.
    pub(crate) certificate: Option<String>,
    /// The sealed salt, hexadecimal.
    pub(crate) salt: Option<String>,
    /// Source of randomness.
    pub(crate) source: String,
    /// Samples that were tested.
    pub(crate) samples: u64,
    /// Health tests that failed.
    #[serde(default)]
    pub(crate) failures: u32,
    /// Hash of the label's code, hexadecimal.
    pub(crate) code: Option<String>,
    /// Fingerprint of the device key, hexadecimal.
    pub(crate) device_key: Option<String>,
    /// The fixture.
    pub(crate) fixture: String,
    /// What became of the keys of a device that did not pass.
    #[serde(skip)]
    pub(crate) destruction: Option<Destruction>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Origin {
    #[default]
    Station,
    Device,
    Element,
}

/// What is the same in all records of a station.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) batch: BatchId,
    pub(crate) recipe: [u8; 32],
    pub(crate) operator: String,
    /// SHA-256 of the firmware that the recipe names.
    pub(crate) firmware: Option<[u8; 32]>,
    pub(crate) is_plain: bool,
}

/// What came of the attempt.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    Passed,
    Scrapped(&'static str),
    Rework(&'static str),
}

fn array<const N: usize>(text: Option<&String>) -> Option<[u8; N]> {
    let mut octets = [0; N];
    hex::decode_to_slice(text?, &mut octets).ok()?;
    Some(octets)
}

impl Draft {
    pub(crate) fn to_document(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn from_document(document: &[u8]) -> Option<Self> {
        serde_json::from_slice(document).ok()
    }

    /// The record; sequence and predecessor are filled in when it is signed.
    pub(crate) fn record(
        &self,
        common: &Common,
        device: DeviceId,
        hardware: &HardwareId,
        ending: &Ending,
        at: UnixMillis,
    ) -> Record {
        use kf_api::batch::Outcome;
        let (outcome, reason) = match ending {
            Ending::Passed => (Outcome::Passed, None),
            Ending::Scrapped(reason) => (Outcome::Scrapped, Some(*reason)),
            Ending::Rework(reason) => (Outcome::Rework, Some(*reason)),
        };
        let passed = outcome == Outcome::Passed;
        let origin = match self.origin {
            Origin::Station => KeyOrigin::StationToken,
            Origin::Device => KeyOrigin::Device,
            Origin::Element => KeyOrigin::SecureElement,
        };
        let fingerprint =
            |slot: &str, value: Option<&String>| array(value).map(|value| Fingerprint { slot: slot.to_owned(), value });
        let fingerprints =
            [fingerprint("device-key", self.device_key.as_ref()), fingerprint(CODE_SLOT, self.code.as_ref())];
        let check = |name: &str| Check { name: name.to_owned(), passed: true, detail: None };
        let checks = ["read-back", "no-key-in-clear", "fuses", "proof-of-possession"];
        Record {
            batch: common.batch,
            sequence: 1,
            previous: [0; 32],
            device,
            outcome,
            at,
            fixture: if self.fixture.is_empty() { "station".to_owned() } else { self.fixture.clone() },
            operator: common.operator.clone(),
            recipe: common.recipe,
            firmware: common.firmware,
            key: array(self.spki_sha256.as_ref()).map(|spki_sha256| MadeKey { origin, spki_sha256 }),
            certificate: self.certificate.as_ref().and_then(|der| hex::decode(der).ok()),
            fingerprints: fingerprints.into_iter().flatten().collect(),
            // Of a device that did not pass nobody derives a key.
            salt: array(self.salt.as_ref().filter(|_| passed)).and_then(|octets| SealedSalt::from_octets(&octets)),
            entropy: (!self.source.is_empty()).then(|| EntropyEvidence {
                source: self.source.clone(),
                samples: self.samples,
                failures: self.failures,
            }),
            hardware: hardware_of(hardware),
            checks: if passed {
                checks.into_iter().filter(|name| !(common.is_plain && *name == "no-key-in-clear")).map(check).collect()
            } else {
                self.destruction.iter().map(destroyed).collect()
            },
            unsafe_marks: if common.is_plain { vec![PLAIN_KEY_MARK.to_owned()] } else { Vec::new() },
            reason: reason.map(str::to_owned),
        }
    }
}

/// As a check: whether the keys are known to be gone, and how, or why not.
fn destroyed(destruction: &Destruction) -> Check {
    let mut detail: String = destruction.method.chars().filter(|c| !c.is_control()).collect();
    while detail.len() > MAX_DETAIL_OCTETS {
        detail.pop();
    }
    let detail = (!detail.is_empty()).then_some(detail);
    Check { name: KEY_DESTROYED.to_owned(), passed: destruction.is_verified, detail }
}

/// MAC and board number as records carry them: addresses as octets, anything else as its text.
fn hardware_of(hardware: &HardwareId) -> Vec<Hardware> {
    const LONGEST: usize = 32;
    let shorten = |text: &str| {
        let octets = text.as_bytes();
        if octets.len() <= LONGEST { octets.to_vec() } else { kf_crypto::sha256(octets).to_vec() }
    };
    let digits: String = hardware.mac().chars().filter(|c| *c != ':' && *c != '-').collect();
    let address = hex::decode(&digits).ok().filter(|octets| matches!(octets.len(), 6 | 8));
    let mut all = vec![match address {
        Some(value) => Hardware { kind: HardwareKind::Address, value },
        None => Hardware { kind: HardwareKind::Serial, value: shorten(hardware.mac()) },
    }];
    // One of each kind: the number on a board without an address would be a second serial number.
    if !hardware.board().is_empty() && all.iter().all(|one| one.kind == HardwareKind::Address) {
        all.push(Hardware { kind: HardwareKind::Serial, value: shorten(hardware.board()) });
    }
    all
}

//! Batches: what a factory station may make, and what it made.

use kf_key::{BatchId, DeviceId, FacilityId, OperatorId, ProductLineId, ProposalId, SerialNumber, UnixMillis};
use serde::{Deserialize, Serialize};

macro_rules! named {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name used in requests and answers.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    )+};
}

named! {
    /// What came of one attempt at a device.
    Outcome {
        /// It is made, checked, and may leave.
        Passed = "passed",
        /// It is destroyed, and its keys with it. Final.
        Scrapped = "scrapped",
        /// It goes back; it may be tried again.
        Rework = "rework",
    }

    /// What became of a device of a batch.
    MadeState {
        /// Nothing was reported.
        Missing = "missing",
        /// It was tried, and neither passed nor was scrapped.
        Rework = "rework",
        /// It passed.
        Passed = "passed",
        /// It was scrapped.
        Scrapped = "scrapped",
    }

    /// What contradicts the quota, the registry or another record.
    ConflictKind {
        /// The device is not in the quota.
        OutsideQuota = "outside-quota",
        /// The device passed twice.
        MadeTwice = "made-twice",
        /// Two devices have one key.
        SameKey = "same-key",
        /// Two devices have one hardware address.
        SameAddress = "same-address",
        /// Two devices have one chip serial number.
        SameSerial = "same-serial",
        /// There are two histories under one record key: the station was copied, or set back to an earlier state.
        ClonedStation = "cloned-station",
        /// The first record is not chained to this quota.
        OtherQuota = "other-quota",
        /// Made before the quota was: the station's clock was set back.
        BeforeQuota = "before-quota",
        /// Made after the quota ended.
        AfterExpiry = "after-expiry",
        /// Made before the record that it follows: the station's clock was set back.
        ClockWentBack = "clock-went-back",
        /// The batch was cancelled.
        BatchCancelled = "batch-cancelled",
        /// Made by another recipe than the one approved.
        UnknownRecipe = "unknown-recipe",
        /// A record of a device that was scrapped.
        AfterScrap = "after-scrap",
        /// The certificate is not what the batch CA may issue for this device and key.
        Certificate = "certificate",
        /// The key is weak, known to others, barred, or bound to another subject.
        BadKey = "bad-key",
        /// It carries unsafe marks, which the quota does not allow.
        UnsafeNotAllowed = "unsafe-not-allowed",
        /// The salt of its symmetric key does not open.
        Salt = "salt",
    }
}

/// Whether something may come of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchState {
    /// Records of it are merged.
    Open,
    /// Given up.
    Cancelled,
    /// Its station is compromised.
    Compromised,
}

impl BatchState {
    /// The name used in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Cancelled => "cancelled",
            Self::Compromised => "compromised",
        }
    }
}

/// A batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Identifier.
    pub id: BatchId,
    /// Unique name, which its devices carry as their batch.
    pub name: String,
    /// The facility in which the devices are registered.
    pub facility: FacilityId,
    /// The product line.
    pub product_line: ProductLineId,
    /// The station.
    pub station: OperatorId,
    /// Counts the quotas of the station.
    pub sequence: u64,
    /// SHA-256 of the one recipe that may run, hexadecimal.
    pub recipe_sha256: String,
    /// How many devices may be made.
    pub devices: u32,
    /// Name of the first device.
    pub first_name: String,
    /// Name of the last one.
    pub last_name: String,
    /// Whether devices with unsafe marks may pass.
    pub allows_unsafe: bool,
    /// Whether devices may enrol before their record has been merged.
    pub allows_early_enrolment: bool,
    /// Serial number of the batch CA's certificate.
    pub authority_serial: SerialNumber,
    /// When the quota was made.
    pub issued: UnixMillis,
    /// Its last moment.
    pub expires: UnixMillis,
    /// Where it stands.
    pub state: BatchState,
    /// When it was cancelled.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<UnixMillis>,
}

/// A batch to be authorised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBatch {
    /// Unique name: 1 to 64 characters of the alphabet of facility names.
    pub name: String,
    /// Name or id of the product line.
    pub product_line: String,
    /// Name or id of the facility.
    pub facility: String,
    /// The profile of the certificates that the station issues; only `idevid`, which is the default.
    #[serde(default)]
    pub profile: Option<kf_key::CertificateProfile>,
    /// How many devices, 1 to 250,000.
    pub count: u32,
    /// Devices are named by this and a number: 1 to 48 characters of the alphabet of device names. The name of the batch and a
    /// hyphen when absent.
    #[serde(default)]
    pub name_prefix: Option<String>,
    /// The number of the first device. Default 1.
    #[serde(default)]
    pub first_number: Option<u64>,
    /// Digits of the number, 1 to 12. Default 6.
    #[serde(default)]
    pub digits: Option<u8>,
    /// What the station handed in (a signed station request), base64.
    pub station_request: String,
    /// SHA-256 of the approved recipe, hexadecimal.
    pub recipe_sha256: String,
    /// Hours until the quota ends, 1 to 2,208 (92 days). Default 168.
    #[serde(default)]
    pub lifetime_hours: Option<u32>,
    /// Whether devices with unsafe marks may pass. Default false.
    #[serde(default)]
    pub allow_unsafe: bool,
    /// Whether devices may enrol before their record has been merged. Default false.
    #[serde(default)]
    pub allow_early_enrolment: bool,
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
    /// Say what would happen, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What came of [`NewBatch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchOutcome {
    /// Whether it was carried out.
    pub done: bool,
    /// The proposal that waits for a second person, if it needs one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proposal: Option<ProposalId>,
    /// The batch as it is, or would be.
    pub batch: Batch,
}

/// The end of a batch before its time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelBatch {
    /// Whether its station is compromised; reason code keyCompromise then, cessationOfOperation otherwise.
    #[serde(default)]
    pub compromised: bool,
    /// Leave what was made, merged and without conflict as it is. Not together with `compromised`.
    #[serde(default)]
    pub keep_made: bool,
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
    /// Say what would happen, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A conflict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BatchConflict {
    /// The sequence of the record.
    pub sequence: u64,
    /// What contradicts what.
    pub kind: ConflictKind,
    /// The device of the record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<DeviceId>,
    /// The other device.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub other: Option<DeviceId>,
}

/// An item of an import that is none: damaged, or signed by somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedItem {
    /// Which one, counted from 1.
    pub item: u64,
    /// What is wrong with it.
    pub problem: String,
}

/// What an import did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchImport {
    /// Whether nothing was written because that was asked for.
    pub dry_run: bool,
    /// Items read: records, manifests and receipts.
    pub items: u64,
    /// Records merged, or that would be.
    pub merged: u64,
    /// Records, manifests and receipts that were there already.
    pub already_there: u64,
    /// Manifests taken.
    pub manifests: u64,
    /// Receipts taken: that the station destroyed the keys of the batch.
    pub receipts: u64,
    /// Conflicts that these items brought about, at most the first 1,000.
    pub conflicts: Vec<BatchConflict>,
    /// How many there are in all.
    pub conflict_count: u64,
    /// Items refused, at most the first 1,000; a refused item is not written, the others are.
    pub refused: Vec<RefusedItem>,
    /// How many were refused in all.
    pub refused_count: u64,
}

/// Records that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first one.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

/// What a manifest says, and whether the records bear it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestLine {
    /// Sequence of the last record that it covers.
    pub last: u64,
    /// Records passed, by its count.
    pub passed: u64,
    /// Records scrapped, by its count.
    pub scrapped: u64,
    /// Records of rework, by its count.
    pub rework: u64,
    /// When it was made.
    pub at: UnixMillis,
    /// Whether it is the last of the batch.
    pub is_final: bool,
    /// Whether the records up to `last` are here, count the same, and end in its head.
    pub agrees: bool,
}

/// A batch by its books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciliation {
    /// The batch.
    pub batch: Batch,
    /// Devices of the quota.
    pub planned: u64,
    /// Devices that passed.
    pub passed: u64,
    /// Devices that were scrapped.
    pub scrapped: u64,
    /// Devices that were tried, and neither passed nor scrapped.
    pub rework: u64,
    /// Devices of which nothing was reported.
    pub missing: u64,
    /// Records merged.
    pub records: u64,
    /// Sequence of the last one.
    pub last_sequence: u64,
    /// Records that are missing, at most the first 100 ranges; those that a manifest names are among them.
    pub gaps: Vec<Gap>,
    /// Manifests, oldest first, at most 1,000.
    pub manifests: Vec<ManifestLine>,
    /// Conflicts, at most the first 1,000.
    pub conflicts: Vec<BatchConflict>,
    /// How many there are in all.
    pub conflict_count: u64,
    /// When the station destroyed the keys of the batch, by its word.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_destroyed: Option<UnixMillis>,
    /// Whether nothing is missing from the chain, nothing conflicts, and every manifest agrees.
    pub balances: bool,
}

/// Which batches to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchFilter {
    /// See [`crate::PageRequest::after`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// See [`crate::PageRequest::limit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// What a station pins when it is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationPins {
    /// The key that signs quotas, SubjectPublicKeyInfo, PEM.
    pub batch_key_pem: String,
    /// SHA-256 of the same in DER, hexadecimal.
    pub batch_key_sha256: String,
}

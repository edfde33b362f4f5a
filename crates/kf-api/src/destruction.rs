//! Destruction of keys, and the receipts for it (SP 800-88r2 section 4.6, SP 800-57 Part 1 section 8.3.4).

use kf_key::{BackupId, DestructionId, FacilityId, ProposalId, UnixMillis};
use serde::{Deserialize, Serialize};

const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Which keys are to be destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "class", deny_unknown_fields)]
pub enum DestructionTarget {
    /// The symmetric keys of a decommissioned device, of all its epochs: they go with its salt.
    DeviceKey {
        /// Name or id of the device.
        device: String,
    },
    /// The key of a CA. Its last CRLs, which never expire, are signed first.
    AuthorityKey {
        /// Name or id of the CA.
        authority: String,
        /// Whether the caller says that certificates of it which are good stay so: nobody can revoke them afterwards.
        #[serde(default)]
        certificates_stay: bool,
        /// How many those are, as counted when it was proposed: it is not carried out for more. Whoever asks need not say.
        #[serde(default, skip_serializing_if = "is_zero")]
        certificates: u64,
    },
    /// A key that devices or stations pin (delivery, order, batch authorisation) and that has a successor.
    PinnedKey {
        /// Id of the key.
        key: String,
        /// Whether the caller says that those who have not proved that they hold its successor are left behind.
        #[serde(default)]
        holders_stay: bool,
        /// How many those are, as counted when it was proposed: it is not carried out for more. Whoever asks need not say.
        #[serde(default, skip_serializing_if = "is_zero")]
        holders: u64,
    },
    /// A version of an encryption key that is below the minimum.
    EncryptionVersion {
        /// Name or id of the key.
        key: String,
        /// The version.
        version: u32,
    },
    /// A version of the server's wrapping key under which nothing lies any more.
    WrappingVersion {
        /// The version.
        version: u32,
    },
    /// The keys of a retired key epoch of a facility.
    FacilityEpoch {
        /// Name or id of the facility.
        facility: String,
        /// The epoch.
        epoch: u32,
    },
    /// Keys that this server does not hold, and that people have destroyed: what they state is what the receipt says.
    Elsewhere {
        /// Name or id of the facility that they belonged to, if it was one.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        facility: Option<String>,
        /// What was done.
        statement: Statement,
    },
}

/// What people say of keys that they destroyed where this server does not reach: the fields that SP 800-88r2 section 4.6 asks
/// of a certificate of sanitization. Each text has 1 to 500 characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Which keys.
    pub keys: HeldElsewhere,
    /// What they were in: kind, maker, model and serial number, or where it was kept.
    pub holder: String,
    /// How thoroughly.
    pub method: Sanitization,
    /// How.
    pub technique: String,
    /// With which tool, and its version.
    pub tool: String,
    /// Who did it.
    pub carried_out_by: String,
    /// When.
    pub carried_out: UnixMillis,
    /// How it was verified, and what that showed.
    pub verification: String,
    /// Who verified it: somebody else.
    pub verified_by: String,
}

/// Keys that this server does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldElsewhere {
    /// The fleet root key, or a copy of it.
    FleetRoot,
    /// Shares of an escrow.
    EscrowShare,
    /// The keys of a factory station, and what it kept of batches.
    Station,
    /// The keys of a device that no order reaches.
    Device,
    /// An operator's key or API token.
    Operator,
    /// The key of a recipient of backups.
    BackupRecipient,
    /// A key that programs were given: a data key, or one that they kept.
    Application,
    /// Disks and other media of this server, and copies of them.
    Media,
}

impl HeldElsewhere {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::FleetRoot,
        Self::EscrowShare,
        Self::Station,
        Self::Device,
        Self::Operator,
        Self::BackupRecipient,
        Self::Application,
        Self::Media,
    ];

    /// The name used in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FleetRoot => "fleet-root",
            Self::EscrowShare => "escrow-share",
            Self::Station => "station",
            Self::Device => "device",
            Self::Operator => "operator",
            Self::BackupRecipient => "backup-recipient",
            Self::Application => "application",
            Self::Media => "media",
        }
    }
}

/// The methods of SP 800-88r2 section 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sanitization {
    /// Against whoever uses the ordinary interfaces.
    Clear,
    /// Against a laboratory; what held the keys can be used again.
    Purge,
    /// Against a laboratory; what held the keys is no more.
    Destroy,
}

impl Sanitization {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Clear, Self::Purge, Self::Destroy];

    /// The name used in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Purge => "purge",
            Self::Destroy => "destroy",
        }
    }
}

/// A destruction is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestructionRequest {
    /// Which keys.
    pub target: DestructionTarget,
    /// Why, for the log and the receipt.
    pub why: String,
    /// Whether the caller says that the records of factory stations, which hold the salts of the devices that they made,
    /// sealed to this server, are erased wherever they were kept.
    #[serde(default)]
    pub station_records_erased: bool,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a destruction comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DestructionResult {
    /// The keys are gone: nobody can derive or unwrap them again.
    Destroyed,
    /// The server derives and opens them no more; what would bring them back exists elsewhere, and the receipt says where.
    Barred,
    /// People say that the keys are gone. The server never held them, and saw nothing of it.
    Stated,
}

impl DestructionResult {
    /// The name used in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Destroyed => "destroyed",
            Self::Barred => "barred",
            Self::Stated => "stated",
        }
    }
}

/// What a destruction would do, as things stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestructionPlan {
    /// What, in words: the class and the identifier.
    pub target: String,
    /// The facility that it belongs to, if it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facility: Option<FacilityId>,
    /// Salts that would be wiped.
    pub salts: u64,
    /// What the receipt would say if nothing changed.
    pub result: DestructionResult,
    /// Backups that can still be opened and hold what would be wiped.
    pub barred_by: Vec<BackupId>,
    /// Whether something else than backups bars it, as the exceptions say.
    #[serde(default)]
    pub barred_otherwise: bool,
    /// How.
    pub technique: String,
    /// What it does not reach.
    pub exceptions: Vec<String>,
}

/// What asking for a destruction came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestructionOutcome {
    /// The proposal that waits; absent for a dry run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proposal: Option<ProposalId>,
    /// What it would do.
    pub plan: DestructionPlan,
}

/// How the database files were searched for what was wiped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileScan {
    /// Files searched.
    pub files: u32,
    /// Octets searched.
    pub octets: u64,
    /// Fragments of 8 octets found before the wipe; the search finds what is there. Absent when the server stopped between
    /// the wipe and the search, so that nothing was left to search for and the files were written anew instead.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fragments_before: Option<u64>,
    /// Fragments found afterwards.
    pub fragments_after: u64,
    /// Whether every page was written anew, because the first search still found something or could not be made.
    pub rebuilt: bool,
}

/// A list that a CA signed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastList {
    /// Its shard; absent for the full list.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shard: Option<u16>,
    /// cRLNumber.
    pub number: u64,
    /// SHA-256 of its DER, hexadecimal.
    pub sha256: String,
}

/// The receipt of a destruction. It is also a log entry, and proven as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Identifier.
    pub id: DestructionId,
    /// The proposal that was approved.
    pub proposal: ProposalId,
    /// What, in words: the class and the identifier.
    pub target: String,
    /// The facility that it belonged to, if it was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facility: Option<FacilityId>,
    /// Salts that were wiped.
    pub salts: u64,
    /// Result.
    pub result: DestructionResult,
    /// Method in the words of SP 800-88r2: `purge`, by cryptographic erase.
    pub method: String,
    /// Technique.
    pub technique: String,
    /// Program and version, and those of the database engine.
    pub tool: String,
    /// Who proposed it.
    pub proposed_by: String,
    /// Who approved it, or that nobody did.
    pub approved_by: String,
    /// Why.
    pub why: String,
    /// When it was carried out.
    pub at: UnixMillis,
    /// Result of the verification; absent where nothing was in the database files.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verification: Option<FileScan>,
    /// What whoever held the key answered when it was asked for again: of keys in a token or a TPM. Of keys elsewhere, how
    /// people verified it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub holder: Option<String>,
    /// The last CRLs of a CA.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub last_lists: Vec<LastList>,
    /// Backups that could still be opened and held what was wiped.
    pub barred_by: Vec<BackupId>,
    /// Whether something else than backups bars it, as the exceptions say.
    #[serde(default)]
    pub barred_otherwise: bool,
    /// What it does not reach.
    pub exceptions: Vec<String>,
    /// When the last backup that barred it was retired, which turned `barred` into `destroyed`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub settled: Option<UnixMillis>,
    /// Index of the log entry that says the same.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_index: Option<u64>,
}

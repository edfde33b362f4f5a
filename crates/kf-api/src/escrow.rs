//! Escrows: which keys are in shares, who holds them, and whether it was shown that they open.

use kf_key::{ProposalId, UnixMillis};
use serde::{Deserialize, Serialize};

/// Who holds a share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custodian {
    /// Number of the share, from 1.
    pub index: u8,
    /// The person.
    pub person: String,
    /// The recipient of age that the share is sealed to; absent for a share on paper.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recipient: Option<String>,
}

/// What a ceremony made, without any secret: `escrow.json` beside the shares, and what the server knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Escrow {
    /// Format version: 1.
    pub v: u8,
    /// The ceremony, 16 hexadecimal digits; every share carries it.
    pub ceremony: String,
    /// Its name.
    pub name: String,
    /// `root` or `backup-key`.
    pub class: String,
    /// How many shares bring the key back.
    pub threshold: u8,
    /// Who holds them.
    pub custodians: Vec<Custodian>,
    /// When it was made.
    pub made: UnixMillis,
    /// Days after which a rehearsal is overdue.
    pub rehearse_days: u32,
    /// SHA-256 of the file that was reviewed, hexadecimal.
    pub reviewed_sha256: String,
    /// The ceremony whose custodians these take over from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replaces: Option<String>,
    /// The ceremony that replaced it, once that was shown to open.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replaced_by: Option<String>,
    /// The last rehearsal that opened it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rehearsed: Option<UnixMillis>,
}

impl Escrow {
    /// Whether a rehearsal is overdue; never of one that was replaced.
    #[must_use]
    pub fn is_overdue(&self, now: UnixMillis) -> bool {
        if self.replaced_by.is_some() {
            return false;
        }
        let last = self.rehearsed.unwrap_or(self.made);
        now > last.plus(u64::from(self.rehearse_days) * UnixMillis::DAY)
    }
}

/// What a share is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShareUse {
    /// To show that the escrow opens.
    Rehearsal,
    /// To bring the key back.
    Release,
}

impl ShareUse {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rehearsal => "rehearsal",
            Self::Release => "release",
        }
    }
}

/// A share is about to be used. It is not used before this is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareUseRequest {
    /// Number of the share.
    pub index: u8,
    /// What for.
    pub purpose: ShareUse,
    /// The approved proposal, for a release.
    #[serde(default)]
    pub proposal: Option<ProposalId>,
}

/// A release is asked for, or a rehearsal is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EscrowRequest {
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
}

/// A release that waits for a second person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EscrowOutcome {
    /// The proposal.
    pub proposal: ProposalId,
}

//! Campaigns: a change that is taken to many devices, a few first, then in waves.

use std::fmt;

use kf_key::{
    CampaignId, CampaignState, DeviceId, FacilityId, KeyAlgorithm, MemberState, OrderId, ProposalId, UnixMillis,
};
use serde::{Deserialize, Serialize};

/// What a campaign asks of each device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CampaignKind {
    /// A new symmetric device key: its next exchange delivers it, and its acknowledgement is the proof.
    DeviceKey,
    /// A new identity key with its certificate, and the newest device key: an order to rotate, and its signed answer.
    Certificate,
    /// To take up the root that succeeds the fleet's: the proof is a handshake in which the device verified the server by
    /// it alone.
    TrustAnchor,
    /// A new storage key: the device re-encrypts what it keeps, record by record, destroys the old key, and signs that it has.
    Storage,
}

impl CampaignKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::DeviceKey, Self::Certificate, Self::TrustAnchor, Self::Storage];

    /// The name in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeviceKey => "device-key",
            Self::Certificate => "certificate",
            Self::TrustAnchor => "trust-anchor",
            Self::Storage => "storage",
        }
    }
}

/// Which devices take part. Every given field must match; barred devices are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CampaignFilter {
    /// Name or id of the facility.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facility: Option<String>,
    /// Name or id of the product line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_line: Option<String>,
    /// Batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// First characters of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_prefix: Option<String>,
}

impl fmt::Display for CampaignFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { facility, product_line, batch, name_prefix } = self;
        let fields = [
            ("facility", facility),
            ("product line", product_line),
            ("batch", batch),
            ("names that begin with", name_prefix),
        ];
        let given: Vec<String> =
            fields.into_iter().filter_map(|(what, value)| Some(format!("{what} `{}`", value.as_ref()?))).collect();
        f.write_str(if given.is_empty() { "the whole fleet" } else { "" })?;
        f.write_str(&given.join(", "))
    }
}

/// Fields of a filter that are to change; those that are absent stay as they are, an empty text stands for whatever it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterChange {
    /// See [`CampaignFilter::facility`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facility: Option<String>,
    /// See [`CampaignFilter::product_line`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_line: Option<String>,
    /// See [`CampaignFilter::batch`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// See [`CampaignFilter::name_prefix`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_prefix: Option<String>,
}

impl FilterChange {
    /// The filter with these fields in it.
    #[must_use]
    pub fn applied_to(self, filter: &CampaignFilter) -> CampaignFilter {
        let field = |change: Option<String>, before: &Option<String>| match change {
            None => before.clone(),
            Some(text) => Some(text).filter(|text| !text.is_empty()),
        };
        CampaignFilter {
            facility: field(self.facility, &filter.facility),
            product_line: field(self.product_line, &filter.product_line),
            batch: field(self.batch, &filter.batch),
            name_prefix: field(self.name_prefix, &filter.name_prefix),
        }
    }
}

/// What a plan is and what changes of one: each number once, with what it is where nobody says it.
macro_rules! plan {
    ($($(#[$meaning:meta])+ $field:ident: $number:ty = $otherwise:expr;)+) => {
        /// How a campaign goes about it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct CampaignPlan {
            $($(#[$meaning])+ pub $field: $number,)+
        }

        impl Default for CampaignPlan {
            fn default() -> Self {
                Self { $($field: $otherwise,)+ }
            }
        }

        /// Numbers of a plan that are to change; those that are absent stay as they are.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct PlanChange {
            $($(#[$meaning])+ #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$number>,)+
        }

        impl PlanChange {
            /// The plan with these numbers in it.
            #[must_use]
            pub fn applied_to(&self, plan: &CampaignPlan) -> CampaignPlan {
                CampaignPlan { $($field: self.$field.unwrap_or(plan.$field),)+ }
            }
        }
    };
}

plan! {
    /// Devices of the first wave, 1 to 100,000.
    canary: u32 = 10;
    /// Devices of each further wave, 1 to 1,000,000.
    wave: u32 = 10_000;
    /// Devices that are asked within a minute at most, 1 to 60,000.
    per_minute: u32 = 300;
    /// Each wave begins up to so many seconds late, at most a day.
    jitter_seconds: u32 = 60;
    /// Seconds between the last question of a wave and the next wave, at most 30 days.
    soak_seconds: u32 = 3_600;
    /// Seconds after which a device that was asked counts as silent, 1 to a year.
    patience_seconds: u32 = 2 * 86_400;
    /// Percent of a wave that may fail, 0 to 100; one device more stops the campaign.
    max_failed_percent: u8 = 2;
    /// Percent of a wave that must be done before the next one begins, 0 to 100.
    min_done_percent: u8 = 80;
}

/// Another plan for a campaign that is a draft, paused or stopped; of a draft, also other devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CampaignEdit {
    /// What changes of its plan.
    pub plan: PlanChange,
    /// What changes of whom it is about; only of a draft.
    pub filter: FilterChange,
    /// The version that the caller looked at; the change is refused when it is another by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Why, for the log.
    pub why: String,
    /// Say what it would take then, change nothing.
    pub dry_run: bool,
}

/// A campaign to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCampaign {
    /// Unique name.
    pub name: String,
    /// What it asks.
    pub kind: CampaignKind,
    /// Of whom.
    #[serde(default)]
    pub filter: CampaignFilter,
    /// How.
    #[serde(default)]
    pub plan: CampaignPlan,
    /// Of kind `certificate`: the algorithm that the new identity keys are to have; as before when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<KeyAlgorithm>,
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
    /// Say what it would take, make nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// Identifier.
    pub id: CampaignId,
    /// Unique name.
    pub name: String,
    /// What it asks.
    pub kind: CampaignKind,
    /// Where it stands.
    pub state: CampaignState,
    /// Why it stopped, was paused or given up.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub reason: String,
    /// Of whom.
    pub filter: CampaignFilter,
    /// How. It changes only while nobody is asked.
    pub plan: CampaignPlan,
    /// Which plan this is: 1 as it was made, one more with each change.
    pub version: u32,
    /// The algorithm that new identity keys are to have.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub algorithm: Option<KeyAlgorithm>,
    /// Why, for the log.
    pub why: String,
    /// The facility, where it is about one alone: its operators see it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facility: Option<FacilityId>,
    /// When it was made.
    pub created: UnixMillis,
    /// When it was first started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started: Option<UnixMillis>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<UnixMillis>,
    /// The wave under way, from 1; 0 while devices are being chosen.
    pub wave: u32,
    /// When that wave may begin.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub begins: Option<UnixMillis>,
}

/// Devices of a campaign that were asked and have not answered, by when they were last heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilenceByAge {
    /// Within a day.
    pub day: u64,
    /// Within a week.
    pub week: u64,
    /// Within 30 days.
    pub month: u64,
    /// Longer ago.
    pub longer: u64,
    /// Never.
    pub never: u64,
}

/// How far a campaign has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignProgress {
    /// Devices in all, as far as they have been chosen.
    pub devices: u64,
    /// Their turn has not come.
    pub waiting: u64,
    /// Asked, and have not answered.
    pub offered: u64,
    /// Of these: asked longer ago than the plan's patience.
    pub silent: u64,
    /// Done, with proof.
    pub done: u64,
    /// Failed, with proof.
    pub failed: u64,
    /// Barred, or with nothing to replace.
    pub skipped: u64,
    /// Asked, and taken back before they came for it.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub taken_back: u64,
    /// Of those asked: have asked for news since, and their program does not know this kind of campaign. They are waited for, and go
    /// on as before.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub too_old: u64,
    /// What it waits for: `choosing`, `jitter`, `rate`, `answers`, `soak`, `gate` or `catching-up`.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub waits_for: String,
    /// The devices that were asked and have not answered, by when they were last heard of.
    pub unheard: SilenceByAge,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A campaign with its progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignStatus {
    /// The campaign.
    #[serde(flatten)]
    pub campaign: Campaign,
    /// How far it has come.
    pub progress: CampaignProgress,
}

/// What a campaign would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignEstimate {
    /// Devices that match now.
    pub devices: u64,
    /// Of these: not heard of for 30 days, or never. They will be waited for.
    pub asleep: u64,
    /// Waves, the canary included.
    pub waves: u64,
    /// The most devices that are asked within one minute.
    pub peak_per_minute: u64,
    /// The most requests to this server within one minute, if all of them answer at once.
    pub peak_requests_per_minute: u64,
    /// Requests to this server in all.
    pub requests: u64,
    /// Seconds if every device answers within a day.
    pub expected_seconds: u64,
    /// Seconds if every wave has a device that does not answer.
    pub longest_seconds: u64,
}

/// The load within a length of time, on average.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadPoint {
    /// Seconds after the start.
    pub from_seconds: u64,
    /// How long.
    pub seconds: u64,
    /// The wave that is under way when it begins.
    pub wave: u64,
    /// Requests in a second.
    pub requests_per_second: f64,
    /// Signatures in a second: of the signer and of TLS handshakes.
    pub signatures_per_second: f64,
}

/// The load that a campaign will bring, against what this server can bear.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CampaignLoad {
    /// The most requests in a second, where devices come when they like.
    pub peak_requests_per_second: f64,
    /// The most signatures in a second then.
    pub peak_signatures_per_second: f64,
    /// Requests in a second where every device acts as soon as it is asked, as over a broker.
    pub pushed_requests_per_second: f64,
    /// Signatures in a second then.
    pub pushed_signatures_per_second: f64,
    /// Requests in a second that the configuration says this server can bear.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub capacity_requests_per_second: Option<f64>,
    /// Signatures in a second that the configuration says, or that were measured just now on one core.
    pub capacity_signatures_per_second: f64,
    /// `configured` or `measured`.
    pub capacity_from: String,
    /// Whether even what is pushed at once stays within both.
    pub fits: bool,
    /// Whether so many devices sleep that a gate is expected to stay shut until somebody opens it.
    pub waits_at_gate: bool,
    /// In order, the whole campaign; at most 48.
    pub points: Vec<LoadPoint>,
}

/// What a campaign would take from here on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CampaignForecast {
    /// In all.
    pub estimate: CampaignEstimate,
    /// Over time.
    pub load: CampaignLoad,
}

/// What keys and signatures of one algorithm weigh: octets of objects that were made to be weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlgorithmSizes {
    /// The algorithm.
    pub algorithm: KeyAlgorithm,
    /// A device's request with such a key (PKCS#10).
    pub request: u64,
    /// A device's certificate for such a key, below today's issuing CA.
    pub certificate: u64,
    /// The same with what leads to today's root, without it.
    pub chain: u64,
    /// What a client says of itself in a TLS 1.3 handshake: Certificate with that chain, and CertificateVerify.
    pub tls_client: u64,
    /// A device's certificate where the CAs are of this algorithm too.
    pub certificate_throughout: u64,
    /// The chain then.
    pub chain_throughout: u64,
    /// What a client says of itself then.
    pub tls_client_throughout: u64,
    /// An empty CRL of such a CA.
    pub crl: u64,
    /// What each revoked certificate adds to it.
    pub crl_entry: u64,
    /// An OCSP answer for one certificate of such a CA, with its responder's certificate.
    pub ocsp_answer: u64,
    /// One renewal of every device that matches: request, certificate, and the handshake as client.
    pub fleet_renewal: u64,
}

/// What rolling a campaign back comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// Devices that are not asked any more, because their turn never came.
    pub never_asked: u64,
    /// Devices that were asked, and have neither come for it nor been told: they notice nothing.
    pub taken_back: u64,
    /// Devices that have come for it, or were told, and have not answered: they may have done it, or still do it.
    pub may_still_act: u64,
    /// Devices that have done it. They stay as they are.
    pub stay: u64,
    /// Why these stay.
    pub because: String,
    /// What can be done about them.
    pub next: String,
}

/// What making, starting or changing a campaign came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CampaignOutcome {
    /// Whether it was carried out; otherwise it waits for a second person, or was only looked at.
    pub done: bool,
    /// The proposal that waits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proposal: Option<ProposalId>,
    /// The campaign.
    pub campaign: Campaign,
    /// What it would take, as counted now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub estimate: Option<CampaignEstimate>,
    /// Of a dry run: the load over time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub load: Option<CampaignLoad>,
    /// Of a dry run that is about certificates: what each algorithm weighs.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub sizes: Vec<AlgorithmSizes>,
    /// Of rolling back: what it comes to, as counted now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rollback: Option<Rollback>,
    /// Index of the log entry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_index: Option<u64>,
}

/// What is to be done with a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CampaignAct {
    /// Begin.
    Start,
    /// Ask nobody further for now.
    Pause,
    /// Go on: past the failures of the wave under way, and past its gate.
    Resume,
    /// Give it up: nobody further is asked, and its open orders are withdrawn.
    Abort,
    /// Give it up, and take back what it has asked of devices that have not come for it.
    RollBack,
    /// Remove a draft.
    Delete,
}

/// A change of a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CampaignActRequest {
    /// What to do.
    pub act: CampaignAct,
    /// Of starting: begin although no device matches. It is completed at once then.
    #[serde(default)]
    pub allow_empty: bool,
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
    /// Say what would happen, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A device's part in a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignMember {
    /// The device.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Where its part stands.
    pub state: MemberState,
    /// Its wave; 0 while its turn has not come.
    pub wave: u32,
    /// When it was asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub offered: Option<UnixMillis>,
    /// When its answer was seen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<UnixMillis>,
    /// When it last authenticated, to the minute.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_seen: Option<UnixMillis>,
    /// The order that it was given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub order: Option<OrderId>,
}

/// Which parts of a campaign to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemberFilter {
    /// Where the part stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<MemberState>,
    /// See [`crate::PageRequest::after`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// See [`crate::PageRequest::limit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

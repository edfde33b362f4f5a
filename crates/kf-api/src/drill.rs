//! Drills: compromise recovery on a copy of the fleet.

use kf_key::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::incident::StepStanding;

/// How long a part of a drill took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillTiming {
    /// What.
    pub what: String,
    /// How long it took, milliseconds.
    pub millis: u64,
    /// How long it may take, where that is promised.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit_millis: Option<u64>,
}

/// Something that must hold after a drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillCheck {
    /// What.
    pub what: String,
    /// Whether it does.
    pub holds: bool,
    /// What was found.
    pub found: String,
}

/// A drill that was held, as the fleet remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedDrill {
    /// When it began.
    pub at: UnixMillis,
    /// When it was recorded.
    pub recorded: UnixMillis,
    /// Who held it, or had it recorded.
    pub by: String,
    /// What was taken to be compromised.
    pub subjects: Vec<String>,
    /// Devices of the fleet.
    pub devices: u64,
    /// Devices that were hit.
    pub hit: u64,
    /// Devices that were brought back, one by one.
    pub sample: u64,
    /// Steps of the plan.
    pub steps: u64,
    /// How long each part took.
    pub timings: Vec<DrillTiming>,
    /// What had to hold.
    pub checks: Vec<DrillCheck>,
    /// Whether all of it did, within the time.
    pub passed: bool,
    /// What a drill on a copy cannot show.
    pub not_shown: Vec<String>,
    /// Index of the log entry that says the same.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_index: Option<u64>,
}

/// What came of a drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillReport {
    /// Name of the fleet.
    pub fleet: String,
    /// When it began.
    pub at: UnixMillis,
    /// What was taken to be compromised.
    pub subjects: Vec<String>,
    /// Devices of the fleet.
    pub devices: u64,
    /// Devices that were hit.
    pub hit: u64,
    /// Devices that were brought back, one by one.
    pub sample: u64,
    /// How long each part took.
    pub timings: Vec<DrillTiming>,
    /// The plan as it was run.
    pub steps: Vec<StepStanding>,
    /// What must hold.
    pub checks: Vec<DrillCheck>,
    /// Whether all of it does, within the time.
    pub passed: bool,
    /// What a drill on a copy cannot show.
    pub not_shown: Vec<String>,
}

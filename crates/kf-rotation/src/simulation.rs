//! A year of a mixed fleet, acted out on the rules of this crate and of `kf-key`: facilities whose epochs are rotated by the
//! sweep, campaigns, devices that sleep, lose power in the middle of an exchange, run on wrong clocks, and are stolen, and a
//! server that is stopped between two acts and whose clock jumps.
//!
//! What is acted out is the rules, not the server: the registry here is a few vectors. After every act the
//! [invariants](Invariant) are checked and counted. The same seed gives the same year.

mod world;

use kf_key::UnixMillis;
use serde::Serialize;

use world::World;

/// The most devices of a simulated fleet.
pub const MAX_DEVICES: u32 = 1_000_000;

/// What must hold at every step; docs/invariants.md has the long form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Invariant {
    /// What a device seals is opened: under the key that it holds or was offered, and no other.
    NothingLost,
    /// No key protects outside the state that allows it, and every change of state is one that SP 800-57 draws.
    StateRespected,
    /// No key seals more often than its AEAD allows.
    LimitRespected,
    /// No key is given up while a device that is not barred may hold it.
    NobodyCutOff,
    /// A device that wakes within the grace of its certificate gets on by itself.
    NobodyStranded,
    /// No device is ever without a path to its server that it can verify, while one root takes over from another.
    TrustBridged,
    /// A device that changes the algorithm of its identity key has one that the server takes, at every step.
    IdentityKept,
    /// What the sweep asked for and was done is not asked for again.
    DoneOnce,
    /// A campaign asks each device once, keeps to its wave, and loses none.
    CampaignKeepsCount,
    /// Each act has its log entry.
    EverythingLogged,
}

impl Invariant {
    /// Every invariant.
    pub const ALL: [Self; 10] = [
        Self::NothingLost,
        Self::StateRespected,
        Self::LimitRespected,
        Self::NobodyCutOff,
        Self::NobodyStranded,
        Self::TrustBridged,
        Self::IdentityKept,
        Self::DoneOnce,
        Self::CampaignKeepsCount,
        Self::EverythingLogged,
    ];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NothingLost => "nothing-lost",
            Self::StateRespected => "state-respected",
            Self::LimitRespected => "limit-respected",
            Self::NobodyCutOff => "nobody-cut-off",
            Self::NobodyStranded => "nobody-stranded",
            Self::TrustBridged => "trust-bridged",
            Self::IdentityKept => "identity-kept",
            Self::DoneOnce => "done-once",
            Self::CampaignKeepsCount => "campaign-keeps-count",
            Self::EverythingLogged => "everything-logged",
        }
    }
}

/// An invariant, how often it was checked, and how often it did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The invariant.
    pub invariant: Invariant,
    /// How often it was checked.
    pub checked: u64,
    /// How often it did not hold.
    pub broken: u64,
    /// Where it first did not hold: the day, and what happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
}

/// What happened in the year.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Happened {
    /// Epochs of facilities made.
    pub epochs_made: u64,
    /// Epochs of facilities retired.
    pub epochs_retired: u64,
    /// Keys that devices acknowledged.
    pub keys_acknowledged: u64,
    /// Messages sealed.
    pub messages_sealed: u64,
    /// Certificates renewed.
    pub certificates_renewed: u64,
    /// Devices asked by campaigns.
    pub devices_asked: u64,
    /// Campaigns that ended.
    pub campaigns_completed: u64,
    /// Steps of the roll-over of the root.
    pub roll_over_steps: u64,
    /// Devices that changed the algorithm of their identity keys.
    pub algorithms_changed: u64,
    /// Devices that were asked to and keep the one they have.
    pub algorithms_kept: u64,
    /// Exchanges that a power cut ended before the acknowledgement.
    pub power_cuts: u64,
    /// Times that a device fell asleep.
    pub sleeps: u64,
    /// Devices that were barred.
    pub barred: u64,
    /// Times that the server was stopped between two acts.
    pub server_stops: u64,
    /// Times that the server's clock jumped.
    pub clock_jumps: u64,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Year {
    /// Devices.
    pub devices: u32,
    /// The seed that gives the same year again.
    pub seed: u64,
    /// Days, those of the quiet end included.
    pub days: u32,
    /// Whether every invariant held at every step.
    pub holds: bool,
    /// The invariants.
    pub invariants: Vec<Checked>,
    /// What happened.
    pub happened: Happened,
}

/// A rule that is broken on purpose, so that tests see each check fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// An epoch is retired while devices hold it.
    RetireWhileHeld,
    /// Devices go on with the epoch that they had first.
    SealUnderTheFirst,
    /// Acknowledging supersedes the key that was just acknowledged.
    SupersedeTheNewOne,
    /// A device goes on with a key past the limit of its AEAD.
    IgnoreLimits,
    /// Nothing is renewed.
    NeverRenew,
    /// The old root is retired although devices have not proved that they trust the new one.
    RetireUnproved,
    /// A device drops its old identity when it makes the new one.
    DropBeforeProof,
    /// The sweep's operations are not carried out, and claimed to be.
    ClaimAndDoNothing,
    /// A campaign forgets whom it has asked.
    ForgetAsked,
    /// Retirements are not logged.
    LogNothing,
}

/// Acts out a year.
///
/// `devices` is at least 1 and at most [`MAX_DEVICES`]; what is outside is brought inside.
#[must_use]
pub fn year(devices: u32, seed: u64) -> Year {
    run(devices, seed, None)
}

pub(crate) fn run(devices: u32, seed: u64, sabotage: Option<Sabotage>) -> Year {
    let devices = devices.clamp(1, MAX_DEVICES);
    let mut world = World::new(devices, seed, sabotage);
    for _ in 0..DAYS {
        world.day(true);
    }
    // A quiet end: who sleeps wakes, nothing further goes wrong, and everything must come to rest.
    for _ in 0..QUIET_DAYS {
        world.day(false);
    }
    world.end();
    let invariants = world.ledger.checked();
    Year {
        devices,
        seed,
        days: DAYS + QUIET_DAYS,
        holds: invariants.iter().all(|one| one.broken == 0 && one.checked > 0),
        invariants,
        happened: world.happened,
    }
}

const DAYS: u32 = 365;
const QUIET_DAYS: u32 = 90;
/// 2027-01-01T00:00:00Z.
const START: UnixMillis = UnixMillis(1_798_761_600_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_holds_and_the_same_seed_gives_the_same_year() {
        for seed in 1..=4 {
            let found = year(300, seed);
            assert!(found.holds, "{found:#?}");
            assert_eq!(found, year(300, seed));
            let Happened { epochs_made, epochs_retired, power_cuts, sleeps, server_stops, clock_jumps, .. } =
                found.happened;
            let roll_over_steps = found.happened.roll_over_steps;
            for (what, count) in [
                ("epochs made", epochs_made),
                ("epochs retired", epochs_retired),
                ("power cuts", power_cuts),
                ("sleeps", sleeps),
                ("server stops", server_stops),
                ("clock jumps", clock_jumps),
                ("steps of a roll-over, all four", roll_over_steps / 4),
                ("algorithms changed", found.happened.algorithms_changed),
                ("algorithms kept", found.happened.algorithms_kept),
            ] {
                assert!(count > 0, "seed {seed}: no {what}");
            }
        }
        assert_ne!(year(300, 1), year(300, 2));
    }

    #[test]
    fn every_check_fails_when_its_rule_is_broken() {
        for (sabotage, invariant) in [
            (Sabotage::RetireWhileHeld, Invariant::NobodyCutOff),
            (Sabotage::SealUnderTheFirst, Invariant::StateRespected),
            (Sabotage::SupersedeTheNewOne, Invariant::NothingLost),
            (Sabotage::IgnoreLimits, Invariant::LimitRespected),
            (Sabotage::NeverRenew, Invariant::NobodyStranded),
            (Sabotage::RetireUnproved, Invariant::TrustBridged),
            (Sabotage::DropBeforeProof, Invariant::IdentityKept),
            (Sabotage::ClaimAndDoNothing, Invariant::DoneOnce),
            (Sabotage::ForgetAsked, Invariant::CampaignKeepsCount),
            (Sabotage::LogNothing, Invariant::EverythingLogged),
        ] {
            let found = run(200, 7, Some(sabotage));
            let broken = found.invariants.iter().find(|one| one.invariant == invariant).unwrap();
            assert!(broken.broken > 0 && !found.holds, "{sabotage:?} does not break {invariant:?}: {found:#?}");
        }
    }
}

//! The fleet of a simulated year.

use std::collections::BTreeMap;

use kf_key::{KeyAlgorithm, KeyState, KeyType, MemberState, SuccessionState, UnixMillis};

use super::{Checked, Happened, Invariant, START, Sabotage};
use crate::campaign::{CampaignFacts, Decision, Plan, PlanNumbers, Tally, decide};
use crate::class::KeyClass;
use crate::migration::{Answer, DeviceFacts, comes_to, may_ask};
use crate::period::Period;
use crate::policy::{Policy, Rule, Scope};
use crate::succession::{SuccessionFacts, may_step};
use crate::sweep::{KeyFacts, Operation, Successor, due, sweep};
use crate::usage::Sealing;

const DAY: u64 = UnixMillis::DAY;
/// Devices of one facility.
const PER_FACILITY: u32 = 100;
/// Messages of a device on a day that it is awake: one a minute, or a thousand a second, which a key bears for a month.
const MESSAGES_A_DAY: u64 = 1_440;
const MANY_MESSAGES_A_DAY: u64 = 86_400_000;
/// Octets of a message, for the limit of the AEAD.
const MESSAGE_OCTETS: u32 = 64;
/// Life of a certificate, and how long after it a renewal is still accepted.
const CERTIFICATE_LIFE: u64 = 90 * DAY;
const GRACE: u64 = 30 * DAY;
/// The longest sleep: shorter than what is left of a certificate after two thirds, and the grace.
const LONGEST_SLEEP_DAYS: u64 = 55;
/// A campaign begins so often.
const CAMPAIGN_EVERY_DAYS: u32 = 45;

/// The root is succeeded on this day.
const ROLL_OVER_DAY: u32 = 40;
/// The new root takes over so many days later.
const SWITCH_AFTER_DAYS: u32 = 20;

/// From this day on devices with certificates alone are asked for keys of another algorithm.
const CHANGE_DAY: u32 = 150;
const CHANGE_TO: KeyAlgorithm = KeyAlgorithm::MlDsa65;

/// SplitMix64: the same numbers for the same seed, on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True `of_million` times in a million.
    fn happens(&mut self, of_million: u64) -> bool {
        self.below(1_000_000) < of_million
    }
}

/// The checks, counted.
#[derive(Default)]
pub(super) struct Ledger(BTreeMap<Invariant, (u64, u64, Option<String>)>);

impl Ledger {
    fn check(&mut self, invariant: Invariant, holds: bool, where_to_look: impl FnOnce() -> String) {
        let (checked, broken, first) = self.0.entry(invariant).or_default();
        *checked += 1;
        if !holds {
            *broken += 1;
            first.get_or_insert_with(where_to_look);
        }
    }

    pub(super) fn checked(&self) -> Vec<Checked> {
        Invariant::ALL
            .into_iter()
            .map(|invariant| {
                let (checked, broken, first) = self.0.get(&invariant).cloned().unwrap_or_default();
                Checked { invariant, checked, broken, first }
            })
            .collect()
    }
}

/// A key of a device by its place: epoch of the facility, epoch of the device.
type Place = (u32, u32);

struct Epoch {
    number: u32,
    state: KeyState,
    created: UnixMillis,
}

struct Facility {
    epochs: Vec<Epoch>,
}

#[derive(Clone)]
struct Device {
    facility: usize,
    /// What the registry wants it to have.
    epoch: u32,
    /// What the registry knows: acknowledged, and offered.
    held: Option<(Place, UnixMillis)>,
    offered: Option<Place>,
    /// What the device itself seals with.
    own: Option<Place>,
    uses: u64,
    certified: UnixMillis,
    wakes: UnixMillis,
    barred: bool,
    messages_a_day: u64,
    /// How wrong its clock is: ahead by so much.
    ahead: u64,
    /// Which roots it believes: the old one, the new one.
    believes: (bool, bool),
    /// Whether the registry knows of a handshake that only the new root explains.
    proved: bool,
    /// Whether its certificate is of the old CA.
    certified_by_old: bool,
    /// Whether it has device keys, or certificates alone.
    has_device_key: bool,
    /// Its identity in two slots: the key in use, and one that is certified and not proved.
    identity: Option<KeyAlgorithm>,
    spare: Option<KeyAlgorithm>,
    /// Whether the server asked it to change; whether its hardware can, and its program knows how.
    asked_to_change: bool,
    can_change: bool,
    /// It answered that it keeps what it has.
    keeps: bool,
}

/// Where the one roll-over of the year stands.
#[derive(Clone, Copy)]
struct RollOver {
    state: SuccessionState,
    since_day: u32,
}

struct Campaign {
    wave: u32,
    begins: UnixMillis,
    members: BTreeMap<usize, (MemberState, u32, UnixMillis, u32)>,
    order: Vec<usize>,
    asked: u64,
    forgiven: u64,
    last_release: Option<UnixMillis>,
    failures: u64,
}

pub(super) struct World {
    random: Random,
    sabotage: Option<Sabotage>,
    facility_rule: Rule,
    device_rule: Rule,
    plan: Option<Plan>,
    limit: u64,
    facilities: Vec<Facility>,
    devices: Vec<Device>,
    campaign: Option<Campaign>,
    roll_over: Option<RollOver>,
    day: u32,
    acts: u64,
    logged: u64,
    pub(super) ledger: Ledger,
    pub(super) happened: Happened,
}

impl World {
    pub(super) fn new(devices: u32, seed: u64, sabotage: Option<Sabotage>) -> Self {
        let mut random = Random(seed);
        let mut policy = Policy::default().rule(KeyClass::FacilityKey, Scope::default());
        // Short enough that a year sees several.
        policy.originator = Some(Period::days(100));
        let mut device_rule = Policy::default().rule(KeyClass::DeviceKey, Scope::default());
        device_rule.originator = Some(Period::days(100));
        let facilities = devices.div_ceil(PER_FACILITY);
        let founded = |random: &mut Random| START.minus(random.below(60) * DAY);
        Self {
            facilities: (0..facilities)
                .map(|_| {
                    let created = founded(&mut random);
                    Facility { epochs: vec![Epoch { number: 1, state: KeyState::Active, created }] }
                })
                .collect(),
            devices: (0..devices)
                .map(|number| Device {
                    facility: usize::try_from(number / PER_FACILITY).unwrap_or_default(),
                    epoch: 1,
                    held: None,
                    offered: None,
                    own: None,
                    uses: 0,
                    certified: founded(&mut random),
                    wakes: START,
                    barred: false,
                    messages_a_day: if number % 100 == 7 { MANY_MESSAGES_A_DAY } else { MESSAGES_A_DAY },
                    ahead: if random.happens(50_000) { random.below(12) * UnixMillis::HOUR } else { 0 },
                    believes: (true, false),
                    proved: false,
                    certified_by_old: true,
                    has_device_key: number % 5 != 3,
                    identity: Some(KeyAlgorithm::P256),
                    spare: None,
                    asked_to_change: false,
                    can_change: number % 7 != 1,
                    keeps: false,
                })
                .collect(),
            random,
            sabotage,
            facility_rule: policy,
            device_rule,
            plan: Plan::checked(PlanNumbers {
                canary: 3,
                wave: devices.div_ceil(10),
                per_minute: 60_000,
                jitter_seconds: 0,
                soak_seconds: 0,
                patience_seconds: 2 * 86_400,
                max_failed_percent: 100,
                min_done_percent: 50,
            })
            .ok(),
            limit: Sealing::CcmCounter.max_messages(MESSAGE_OCTETS),
            campaign: None,
            roll_over: None,
            day: 0,
            acts: 0,
            logged: 0,
            ledger: Ledger::default(),
            happened: Happened::default(),
        }
    }

    /// An act and its entry, which are one transaction.
    fn act(&mut self, is_logged: bool) {
        self.acts += 1;
        self.logged += u64::from(is_logged);
        let (day, acts, logged) = (self.day, self.acts, self.logged);
        self.ledger
            .check(Invariant::EverythingLogged, acts == logged, || format!("day {day}: {acts} acts, {logged} entries"));
    }

    /// One day; `rough` ones bring everything that can go wrong.
    pub(super) fn day(&mut self, rough: bool) {
        self.day += 1;
        let now = START.plus(u64::from(self.day) * DAY);
        let server = self.server_clock(now, rough);
        self.sweep_facilities(server, rough);
        self.go_on_with_roll_over(now, rough);
        if rough && self.campaign.is_none() && self.day.is_multiple_of(CAMPAIGN_EVERY_DAYS) {
            self.begin_campaign(server);
        }
        for quarter in 0..4 {
            self.go_on_with_campaign(server.plus(quarter * 6 * UnixMillis::HOUR));
        }
        for number in 0..self.devices.len() {
            self.live(number, now, server, rough);
        }
    }

    fn server_clock(&mut self, now: UnixMillis, rough: bool) -> UnixMillis {
        if !rough || !self.random.happens(30_000) {
            return now;
        }
        self.happened.clock_jumps += 1;
        let by = (1 + self.random.below(20)) * DAY;
        if self.random.happens(500_000) { now.plus(by) } else { now.minus(by) }
    }

    fn facility_facts(&self, facility: usize, epoch: usize) -> Option<KeyFacts<'static>> {
        let found = self.facilities.get(facility)?;
        let one = found.epochs.get(epoch).filter(|one| one.state != KeyState::Destroyed)?;
        let is_last = epoch + 1 == found.epochs.len();
        let holders = if is_last { 1 } else { self.holders(facility, one.number) };
        Some(KeyFacts {
            class: KeyClass::FacilityKey,
            state: one.state,
            activated: Some(one.created),
            uses: 0,
            octets: 0,
            events: &[],
            successor: if is_last { Successor::None } else { Successor::Active },
            protected: holders,
        })
    }

    /// Devices of a facility that are not barred.
    fn devices_of(&self, facility: usize) -> impl Iterator<Item = &Device> {
        let size = usize::try_from(PER_FACILITY).unwrap_or(usize::MAX);
        let devices = self.devices.chunks(size).nth(facility).unwrap_or_default();
        devices.iter().filter(|device| !device.barred)
    }

    /// Devices that may hold a key of an epoch and are not barred, as the registry knows them.
    fn holders(&self, facility: usize, epoch: u32) -> u64 {
        let of = |place: Option<Place>| place.is_some_and(|place| place.0 == epoch);
        let holds = |device: &&Device| of(device.held.map(|held| held.0)) || of(device.offered);
        u64::try_from(self.devices_of(facility).filter(holds).count()).unwrap_or(u64::MAX)
    }

    /// Devices that seal under an epoch in truth.
    fn users(&self, facility: usize, epoch: u32) -> usize {
        self.devices_of(facility).filter(|device| device.own.is_some_and(|place| place.0 == epoch)).count()
    }

    /// The sweep over every facility. A server that is stopped in the middle of it goes on the next day.
    fn sweep_facilities(&mut self, server: UnixMillis, rough: bool) {
        for facility in 0..self.facilities.len() {
            let epochs = self.facilities.get(facility).map_or(0, |found| found.epochs.len());
            for epoch in 0..epochs {
                let Some(facts) = self.facility_facts(facility, epoch) else { continue };
                let asked = sweep(&facts, &self.facility_rule, server);
                for operation in &asked {
                    if rough && self.random.happens(20_000) {
                        self.happened.server_stops += 1;
                        return;
                    }
                    self.carry_out(facility, epoch, *operation, server);
                }
                self.check_done_once(facility, epoch, &asked, server);
            }
        }
    }

    fn carry_out(&mut self, facility: usize, epoch: usize, operation: Operation, server: UnixMillis) {
        let is_cut_short = self.sabotage == Some(Sabotage::ClaimAndDoNothing);
        let forced = self.sabotage == Some(Sabotage::RetireWhileHeld) && matches!(operation, Operation::Reprotect(_));
        match operation {
            Operation::MakeSuccessor(_) if !is_cut_short => {
                let Some(found) = self.facilities.get_mut(facility) else { return };
                // One at a time: the one before must have been retired.
                let pending = found.epochs.iter().filter(|one| one.state == KeyState::Active).count() > 1;
                if pending {
                    return;
                }
                let number = found.epochs.last().map_or(1, |last| last.number + 1);
                found.epochs.push(Epoch { number, state: KeyState::Active, created: server });
                self.happened.epochs_made += 1;
                self.act(true);
            }
            Operation::Destroy(_) | Operation::Reprotect(_)
                if (forced || matches!(operation, Operation::Destroy(_))) && !is_cut_short =>
            {
                let number =
                    self.facilities.get(facility).and_then(|found| found.epochs.get(epoch)).map_or(0, |one| one.number);
                let users = self.users(facility, number);
                let day = self.day;
                self.ledger.check(Invariant::NobodyCutOff, users == 0, || {
                    format!("day {day}: epoch {number} of facility {facility} was retired under {users} devices")
                });
                let Some(one) = self.facilities.get_mut(facility).and_then(|found| found.epochs.get_mut(epoch)) else {
                    return;
                };
                let next = one.state.transition(KeyState::Destroyed, KeyType::SymmetricMaster);
                self.ledger.check(Invariant::StateRespected, next.is_ok(), || format!("day {day}: {next:?}"));
                one.state = KeyState::Destroyed;
                self.happened.epochs_retired += 1;
                self.act(self.sabotage != Some(Sabotage::LogNothing));
            }
            _ => {}
        }
    }

    /// What was asked for and carried out is not asked for again at once.
    fn check_done_once(&mut self, facility: usize, epoch: usize, asked: &[Operation], server: UnixMillis) {
        let is_act = |operation: &&Operation| matches!(operation, Operation::MakeSuccessor(_) | Operation::Destroy(_));
        let acts: Vec<_> = asked.iter().filter(is_act).collect();
        if acts.is_empty() {
            return;
        }
        let Some(facts) = self.facility_facts(facility, epoch) else { return };
        let again = sweep(&facts, &self.facility_rule, server);
        // A successor waits for the one before it to be retired.
        let waits = self.facilities.get(facility).is_some_and(|found| {
            epoch + 1 == found.epochs.len()
                && found.epochs.iter().filter(|one| one.state == KeyState::Active).count() > 1
        });
        let repeated = again.iter().filter(is_act).any(|operation| acts.contains(&operation));
        let day = self.day;
        self.ledger.check(Invariant::DoneOnce, waits || !repeated, || {
            format!("day {day}: facility {facility}: {again:?} after it was done")
        });
    }

    /// A device's day.
    fn live(&mut self, number: usize, now: UnixMillis, server: UnixMillis, rough: bool) {
        let Some(device) = self.devices.get(number).cloned() else { return };
        if device.barred || now < device.wakes {
            return;
        }
        if rough && self.random.happens(100) {
            self.happened.barred += 1;
            self.change(number, |device| device.barred = true);
            return self.act(true);
        }
        self.verify_server(number, rough);
        self.change_algorithm(number, rough);
        self.renew(number, now);
        self.exchange(number, server, rough);
        self.seal(number);
        if rough && self.random.happens(4_000) {
            self.happened.sleeps += 1;
            let days = 1 + self.random.below(LONGEST_SLEEP_DAYS);
            self.change(number, |device| device.wakes = now.plus(days * DAY));
        }
    }

    fn change(&mut self, number: usize, change: impl FnOnce(&mut Device)) {
        if let Some(device) = self.devices.get_mut(number) {
            change(device);
        }
    }

    fn renew(&mut self, number: usize, now: UnixMillis) {
        let Some(device) = self.devices.get(number) else { return };
        let (certified, ahead, day) = (device.certified, device.ahead, self.day);
        let expired = now.since(certified) > CERTIFICATE_LIFE + GRACE;
        self.ledger.check(Invariant::NobodyStranded, !expired, || {
            format!("day {day}: device {number} woke {} days after it was certified", now.since(certified) / DAY)
        });
        let wants = now.plus(ahead).since(certified) >= CERTIFICATE_LIFE / 3 * 2;
        if wants && !expired && self.sabotage != Some(Sabotage::NeverRenew) {
            self.happened.certificates_renewed += 1;
            let by_old = self.roll_over.is_none_or(|roll_over| roll_over.state < SuccessionState::Switched);
            self.change(number, |device| {
                device.certified = now;
                device.certified_by_old = by_old;
            });
            self.act(true);
        }
    }

    /// What the server is known by, as the old root and the new one explain it: the chain for everybody, and the one for
    /// devices that name the new root.
    fn is_explained(&self, (old, new): (bool, bool)) -> bool {
        match self.roll_over.map(|roll_over| roll_over.state) {
            None | Some(SuccessionState::Withdrawn) => old,
            // The chain of the old root, or the one of the new root for who names that.
            Some(SuccessionState::Prepared) => old || new,
            // The link leads from the new one to the old one.
            Some(SuccessionState::Switched) => old || new,
            Some(SuccessionState::Retired | SuccessionState::Closed) => new,
        }
    }

    /// A device meets its server, takes up what it hands out, and proves it with the next handshake.
    fn verify_server(&mut self, number: usize, rough: bool) {
        let Some(device) = self.devices.get(number).cloned() else { return };
        let day = self.day;
        self.ledger.check(Invariant::TrustBridged, self.is_explained(device.believes), || {
            format!("day {day}: device {number} believes {:?} and cannot verify its server", device.believes)
        });
        let Some(RollOver { state, .. }) = self.roll_over else { return };
        if device.believes.1 && !device.proved && state < SuccessionState::Retired {
            self.change(number, |device| device.proved = true);
            return self.act(true);
        }
        let is_open = state < SuccessionState::Retired;
        // Not every device asks on the day that the root is there, and a power cut may come before it is stored.
        let takes_up = is_open && !device.believes.1 && (!rough || self.random.happens(300_000));
        if takes_up {
            self.change(number, |device| device.believes.1 = true);
        } else if !is_open && device.believes.0 {
            self.change(number, |device| device.believes.0 = false);
        }
    }

    /// The next step of the roll-over, when the rules allow it.
    fn go_on_with_roll_over(&mut self, now: UnixMillis, rough: bool) {
        let Some(RollOver { state, since_day }) = self.roll_over else {
            if self.day >= ROLL_OVER_DAY {
                self.step_roll_over(SuccessionState::Prepared);
            }
            return;
        };
        let to = match state {
            SuccessionState::Prepared if self.day < since_day + SWITCH_AFTER_DAYS => return,
            SuccessionState::Prepared => SuccessionState::Switched,
            SuccessionState::Switched => SuccessionState::Retired,
            SuccessionState::Retired => SuccessionState::Closed,
            SuccessionState::Closed | SuccessionState::Withdrawn => return,
        };
        let count = |is_counted: &dyn Fn(&Device) -> bool| {
            let counted = self.devices.iter().filter(|device| !device.barred && is_counted(device)).count();
            u64::try_from(counted).unwrap_or(u64::MAX)
        };
        let is_live = |device: &Device| device.certified_by_old && now.since(device.certified) <= CERTIFICATE_LIFE;
        let facts = SuccessionFacts {
            state,
            heirless: 0,
            waits_for_root: false,
            handed_out_below: 0,
            unproved: count(&|device| !device.proved),
            agreed: if self.sabotage == Some(Sabotage::RetireUnproved) { u64::MAX } else { 0 },
            unexpired: count(&is_live),
        };
        if may_step(&facts, to).is_err() {
            return;
        }
        if rough && self.random.happens(200_000) {
            // The server was stopped before the step: it is taken on another day.
            self.happened.server_stops += 1;
            return;
        }
        self.step_roll_over(to);
    }

    fn step_roll_over(&mut self, to: SuccessionState) {
        self.roll_over = Some(RollOver { state: to, since_day: self.day });
        self.happened.roll_over_steps += 1;
        self.act(true);
    }

    /// One exchange: what the registry wants the device to have, unless the power fails before it has acknowledged it.
    fn exchange(&mut self, number: usize, server: UnixMillis, rough: bool) {
        let Some(device) = self.devices.get(number).filter(|device| device.has_device_key).cloned() else { return };
        let newest =
            self.facilities.get(device.facility).and_then(|found| found.epochs.last()).map_or(1, |one| one.number);
        let mut epoch = device.epoch;
        if let Some((place, since)) = device.held
            && place == (newest, epoch)
        {
            let facts = KeyFacts {
                class: KeyClass::DeviceKey,
                state: KeyState::Active,
                activated: Some(since),
                uses: device.uses,
                octets: 0,
                events: &[],
                successor: Successor::None,
                protected: 1,
            };
            let limited = Rule { uses: Some(self.limit), ..self.device_rule.clone() };
            if due(&facts, &limited, server).is_none() {
                return;
            }
            epoch += 1;
            self.change(number, |device| device.epoch = epoch);
            self.act(true);
        }
        let place = (newest, epoch);
        if device.offered != Some(place) {
            self.change(number, |device| device.offered = Some(place));
            self.act(true);
        }
        if rough && self.random.happens(20_000) {
            self.happened.power_cuts += 1;
            return;
        }
        let held = if self.sabotage == Some(Sabotage::SupersedeTheNewOne) { (newest, epoch + 1) } else { place };
        self.change(number, |device| {
            device.held = Some((held, server));
            device.offered = None;
            device.own = Some(place);
            device.uses = 0;
        });
        self.happened.keys_acknowledged += 1;
        self.act(true);
    }

    /// A device that is asked for a key of another algorithm makes it in its spare slot, proves it, and puts it into use; a
    /// power cut may come between any two of these.
    fn change_algorithm(&mut self, number: usize, rough: bool) {
        let Some(device) = self.devices.get(number).cloned() else { return };
        let day = self.day;
        self.ledger.check(Invariant::IdentityKept, device.identity.is_some(), || {
            format!("day {day}: device {number} has no identity that the server takes")
        });
        if self.day < CHANGE_DAY || device.identity == Some(CHANGE_TO) || device.keeps {
            return;
        }
        let facts = DeviceFacts { newest: device.identity, allowed: true, has_device_key: device.has_device_key };
        if !device.asked_to_change {
            if may_ask(&facts, CHANGE_TO).is_ok() {
                self.change(number, |device| device.asked_to_change = true);
                self.act(true);
            }
            return;
        }
        let cut = rough && self.random.happens(300_000);
        match device.spare {
            None => {
                let made = if device.can_change { CHANGE_TO } else { KeyAlgorithm::P256 };
                let too_early = self.sabotage == Some(Sabotage::DropBeforeProof);
                self.change(number, |device| {
                    device.spare = Some(made);
                    if too_early {
                        device.identity = None;
                    }
                });
                self.act(true);
            }
            // The proof did not come about: what is in use stays.
            Some(_) if cut => self.happened.power_cuts += 1,
            Some(made) => {
                let answer = if device.can_change { Answer::Rotated } else { Answer::Declined };
                let is_done = comes_to(answer, Some(made), CHANGE_TO) == MemberState::Done;
                self.happened.algorithms_changed += u64::from(is_done);
                self.happened.algorithms_kept += u64::from(!is_done);
                self.change(number, |device| {
                    device.identity = Some(made);
                    device.spare = None;
                    // Who keeps its algorithm has answered, and is not asked again.
                    device.keeps = !is_done;
                });
                self.act(true);
            }
        }
    }

    /// What a device seals in a day, and whether the server opens it.
    fn seal(&mut self, number: usize) {
        let Some(device) = self.devices.get(number).cloned() else { return };
        let Some(own) = device.own else { return };
        let own = if self.sabotage == Some(Sabotage::SealUnderTheFirst) { (1, own.1) } else { own };
        let day = self.day;
        let epoch =
            self.facilities.get(device.facility).and_then(|found| found.epochs.iter().find(|one| one.number == own.0));
        let may_protect = epoch.is_some_and(|epoch| epoch.state.may_protect());
        self.ledger.check(Invariant::StateRespected, may_protect, || {
            format!("day {day}: device {number} sealed under epoch {} that is no longer active", own.0)
        });
        let opens = device.held.is_some_and(|held| held.0 == own) || device.offered == Some(own);
        self.ledger.check(Invariant::NothingLost, opens && may_protect, || {
            format!("day {day}: what device {number} sealed under {own:?} is not opened")
        });
        let more = if self.sabotage == Some(Sabotage::IgnoreLimits) { self.limit + 1 } else { device.messages_a_day };
        let uses = device.uses + more;
        self.ledger.check(Invariant::LimitRespected, uses <= self.limit, || {
            format!("day {day}: device {number} sealed {uses} times under one key")
        });
        self.happened.messages_sealed += more;
        self.change(number, |device| device.uses = uses);
    }

    /// A campaign for new device keys over the whole fleet.
    fn begin_campaign(&mut self, server: UnixMillis) {
        let mut order: Vec<usize> =
            (0..self.devices.len()).filter(|number| self.devices.get(*number).is_some_and(|one| !one.barred)).collect();
        for index in (1..order.len()).rev() {
            let other = usize::try_from(self.random.below(u64::try_from(index).unwrap_or(0) + 1)).unwrap_or_default();
            order.swap(index, other);
        }
        let members = order.iter().map(|number| (*number, (MemberState::Waiting, 0, server, 0))).collect();
        let (last_release, failures) = (None, 0);
        let campaign =
            Campaign { wave: 1, begins: server, members, order, asked: 0, forgiven: 0, last_release, failures };
        self.campaign = Some(campaign);
        self.act(true);
    }

    fn go_on_with_campaign(&mut self, server: UnixMillis) {
        let (Some(mut campaign), Some(plan)) = (self.campaign.take(), self.plan) else { return };
        self.observe(&mut campaign);
        let facts = campaign.facts(&plan, server);
        match decide(&plan, &facts, server) {
            Decision::Release { count } => self.ask(&mut campaign, count, &plan, server),
            Decision::NextWave => {
                campaign.wave += 1;
                campaign.forgiven = 0;
                self.act(true);
            }
            Decision::Stop { .. } => campaign.forgiven = campaign.failures,
            Decision::Complete => {
                self.happened.campaigns_completed += 1;
                return self.act(true);
            }
            Decision::Wait { .. } => {}
        }
        self.check_campaign(&campaign, &plan);
        self.campaign = Some(campaign);
    }

    /// What the members have proved: they hold the epoch that they were asked for.
    fn observe(&self, campaign: &mut Campaign) {
        for (number, (state, _, _, target)) in &mut campaign.members {
            let Some(device) = self.devices.get(*number) else { continue };
            if *state != MemberState::Offered {
                continue;
            }
            if device.held.is_some_and(|held| held.0.1 >= *target) {
                *state = MemberState::Done;
            } else if device.barred {
                *state = MemberState::Skipped;
            }
        }
    }

    fn ask(&mut self, campaign: &mut Campaign, count: u32, plan: &Plan, server: UnixMillis) {
        let wave = campaign.wave;
        for _ in 0..count {
            let Some(number) = campaign.order.pop() else { break };
            let Some(device) = self.devices.get(number).cloned() else { continue };
            let Some(member) = campaign.members.get_mut(&number) else { continue };
            if device.barred || device.held.is_none() {
                *member = (MemberState::Skipped, wave, server, 0);
                self.act(true);
                continue;
            }
            *member = (MemberState::Offered, wave, server, device.epoch + 1);
            campaign.asked += 1;
            self.happened.devices_asked += 1;
            self.change(number, |device| device.epoch += 1);
            self.act(true);
            if self.sabotage == Some(Sabotage::ForgetAsked) {
                campaign.order.push(number);
            }
        }
        campaign.last_release = Some(server);
        let taken = campaign.tally(plan, server).taken();
        let day = self.day;
        self.ledger.check(Invariant::CampaignKeepsCount, taken <= u64::from(plan.size(wave)), || {
            format!("day {day}: wave {wave} has {taken} devices")
        });
    }

    fn check_campaign(&mut self, campaign: &Campaign, plan: &Plan) {
        let members = u64::try_from(campaign.members.len()).unwrap_or(u64::MAX);
        let waiting = u64::try_from(campaign.order.len()).unwrap_or(u64::MAX);
        let count = |state| campaign.members.values().filter(|member| member.0 == state).count();
        let counted: usize = MemberState::ALL.into_iter().map(count).sum();
        let asked = count(MemberState::Offered) + count(MemberState::Done);
        let holds = u64::try_from(counted) == Ok(members)
            && u64::try_from(count(MemberState::Waiting)) == Ok(waiting)
            && campaign.asked >= u64::try_from(asked).unwrap_or(u64::MAX)
            && campaign.asked <= members;
        let (day, of) = (self.day, plan.size(campaign.wave));
        self.ledger.check(Invariant::CampaignKeepsCount, holds, || {
            format!("day {day}: {members} members, {waiting} waiting, {} asked, waves of {of}", campaign.asked)
        });
    }

    /// At rest: everybody who is not barred holds the newest key, and no old epoch is left but for barred devices; the old root
    /// is closed.
    pub(super) fn end(&mut self) {
        let closed = self.roll_over.is_some_and(|roll_over| roll_over.state == SuccessionState::Closed);
        let found = self.roll_over.map(|roll_over| roll_over.state.name());
        self.ledger.check(Invariant::TrustBridged, closed, || format!("at the end: the roll-over is {found:?}"));
        for number in 0..self.devices.len() {
            let Some(device) = self.devices.get(number).filter(|device| !device.barred).cloned() else { continue };
            let newest =
                self.facilities.get(device.facility).and_then(|found| found.epochs.last()).map_or(0, |one| one.number);
            // Devices with certificates alone have come to the new algorithm.
            let up_to_date = if device.has_device_key {
                device.held.is_some_and(|held| held.0 == (newest, device.epoch))
            } else {
                device.identity == Some(CHANGE_TO) || device.keeps
            };
            self.ledger.check(Invariant::NobodyStranded, up_to_date, || {
                format!("at the end: device {number} holds {:?}, epoch {newest} is the newest", device.held)
            });
        }
    }
}

impl Campaign {
    fn tally(&self, plan: &Plan, now: UnixMillis) -> Tally {
        let mut tally = Tally::default();
        for (state, wave, asked, _) in self.members.values() {
            if *wave != self.wave {
                continue;
            }
            match state {
                MemberState::Waiting => {}
                MemberState::Offered => {
                    tally.offered += 1;
                    tally.silent += u64::from(*asked <= plan.silent_since(now));
                }
                MemberState::Done => tally.done += 1,
                MemberState::Failed => tally.failed += 1,
                // The simulated year rolls nothing back.
                MemberState::Skipped | MemberState::TakenBack => tally.skipped += 1,
            }
        }
        tally
    }

    fn facts(&self, plan: &Plan, now: UnixMillis) -> CampaignFacts {
        let open = self.members.values().filter(|member| member.0 == MemberState::Offered);
        let oldest_open = open.clone().map(|member| member.2).filter(|asked| *asked > plan.silent_since(now)).min();
        CampaignFacts {
            wave: self.wave,
            begins: self.begins,
            tally: self.tally(plan, now),
            forgiven: self.forgiven,
            gate_open: false,
            waiting: u64::try_from(self.order.len()).unwrap_or(u64::MAX),
            open: u64::try_from(open.count()).unwrap_or(u64::MAX),
            last_release: self.last_release,
            oldest_open,
        }
    }
}

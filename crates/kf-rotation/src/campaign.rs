//! Campaigns: a change taken to many devices, a few first, then in waves, with gates between them.
//!
//! [`decide`] looks at tallies and a moment and says what comes next. It keeps nothing: whoever carries it out records each
//! release and each answer, and asks again. It never asks more devices at a time than the plan allows, whatever the clock
//! does: a clock that jumps ahead brings two seconds' worth of releases at most, and makes devices silent, which opens no
//! gate; one that goes back brings one release and no more.

use kf_key::UnixMillis;

pub mod load;

/// How a campaign goes about it. Made by [`Plan::checked`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    canary: u32,
    wave: u32,
    per_minute: u32,
    jitter: u64,
    soak: u64,
    patience: u64,
    max_failed_percent: u8,
    min_done_percent: u8,
}

/// The numbers of a plan as somebody gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanNumbers {
    /// Devices of the first wave, 1 to 100,000.
    pub canary: u32,
    /// Devices of each further wave, 1 to 1,000,000.
    pub wave: u32,
    /// Devices that are asked within a minute at most, 1 to 60,000.
    pub per_minute: u32,
    /// Each wave begins up to so many seconds late, at most a day.
    pub jitter_seconds: u32,
    /// Seconds between the last question of a wave and the next wave, at most 30 days.
    pub soak_seconds: u32,
    /// Seconds after which a device that was asked counts as silent, 1 to a year.
    pub patience_seconds: u32,
    /// Percent of a wave that may fail, 0 to 100; one device more stops the campaign.
    pub max_failed_percent: u8,
    /// Percent of a wave that must be done before the next one begins, 0 to 100.
    pub min_done_percent: u8,
}

/// A number that is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is not {least} to {most}")]
pub struct PlanError {
    /// Which.
    pub field: &'static str,
    /// The least.
    pub least: u32,
    /// The most.
    pub most: u32,
}

const DAY_SECONDS: u32 = 86_400;

impl Plan {
    /// A plan within the limits.
    ///
    /// # Errors
    /// [`PlanError`] naming the first number that is out of range.
    pub fn checked(numbers: PlanNumbers) -> Result<Self, PlanError> {
        let PlanNumbers { canary, wave, per_minute, jitter_seconds, soak_seconds, patience_seconds, .. } = numbers;
        let PlanNumbers { max_failed_percent, min_done_percent, .. } = numbers;
        for (field, value, least, most) in [
            ("canary", canary, 1, 100_000),
            ("wave", wave, 1, 1_000_000),
            ("per_minute", per_minute, 1, 60_000),
            ("jitter_seconds", jitter_seconds, 0, DAY_SECONDS),
            ("soak_seconds", soak_seconds, 0, 30 * DAY_SECONDS),
            ("patience_seconds", patience_seconds, 1, 365 * DAY_SECONDS),
            ("max_failed_percent", u32::from(max_failed_percent), 0, 100),
            ("min_done_percent", u32::from(min_done_percent), 0, 100),
        ] {
            if !(least..=most).contains(&value) {
                return Err(PlanError { field, least, most });
            }
        }
        let milliseconds = |seconds| u64::from(seconds) * UnixMillis::SECOND;
        Ok(Self {
            canary,
            wave,
            per_minute,
            jitter: milliseconds(jitter_seconds),
            soak: milliseconds(soak_seconds),
            patience: milliseconds(patience_seconds),
            max_failed_percent,
            min_done_percent,
        })
    }

    /// Devices that a wave is to have; the first is number 1.
    #[must_use]
    pub const fn size(&self, wave: u32) -> u32 {
        if wave <= 1 { self.canary } else { self.wave }
    }

    /// How long after the gate a wave begins, from 64 random bits; milliseconds.
    #[must_use]
    pub const fn delay(&self, random: u64) -> u64 {
        if self.jitter == 0 { 0 } else { random % (self.jitter + 1) }
    }

    /// Since when a device must have been asked to count as silent at `now`.
    #[must_use]
    pub const fn silent_since(&self, now: UnixMillis) -> UnixMillis {
        now.minus(self.patience)
    }
}

/// The devices of one wave, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Asked, and not answered; silent ones included.
    pub offered: u64,
    /// Of these: asked longer ago than the patience of the plan.
    pub silent: u64,
    /// Done.
    pub done: u64,
    /// Failed.
    pub failed: u64,
    /// Barred, or with nothing to replace.
    pub skipped: u64,
}

impl Tally {
    /// Devices that this wave has taken.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.offered + self.done + self.failed + self.skipped
    }
}

/// What is known of a running campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CampaignFacts {
    /// Number of the wave, from 1.
    pub wave: u32,
    /// When it may begin.
    pub begins: UnixMillis,
    /// Its devices.
    pub tally: Tally,
    /// Failures of it that somebody has looked at and decided to go on.
    pub forgiven: u64,
    /// Whether somebody has decided to go past its gate.
    pub gate_open: bool,
    /// Devices whose turn has not come, in all.
    pub waiting: u64,
    /// Devices that were asked and have not answered, in all.
    pub open: u64,
    /// When a device was last asked.
    pub last_release: Option<UnixMillis>,
    /// When the device that was asked longest ago, and is not silent yet, was asked.
    pub oldest_open: Option<UnixMillis>,
}

/// Why nothing is done for the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pause {
    /// The wave begins a little later, so that not all campaigns ask at once.
    Jitter,
    /// As many as a minute allows have been asked.
    Rate,
    /// Devices of the wave have been asked and still have time to answer.
    Answers,
    /// The wave has answered, and is left alone for a while.
    Soak,
    /// Too few of the wave are done; somebody has to look.
    Gate,
    /// Everybody was asked; devices that sleep are waited for.
    CatchingUp,
}

impl Pause {
    /// The name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jitter => "jitter",
            Self::Rate => "rate",
            Self::Answers => "answers",
            Self::Soak => "soak",
            Self::Gate => "gate",
            Self::CatchingUp => "catching-up",
        }
    }
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// Ask so many devices more.
    Release {
        /// At least 1.
        count: u32,
    },
    /// The next wave is to begin.
    NextWave,
    /// Too many of the wave have failed.
    Stop {
        /// Failures that nobody has looked at.
        failed: u64,
        /// Devices of the wave.
        of: u64,
    },
    /// There is nobody left to be waited for.
    Complete,
    /// Nothing, until then at the earliest.
    Wait {
        /// Why.
        pause: Pause,
        /// When to ask again.
        until: UnixMillis,
    },
}

/// How long a campaign that nothing but a person or a sleeping device moves is left alone.
const REST: u64 = 60 * UnixMillis::SECOND;
const MINUTE: u64 = 60 * UnixMillis::SECOND;
/// The longest pause that is made up for: who waited longer begins at the rate of the plan, not with a crowd.
const BURST: u64 = 2 * UnixMillis::SECOND;

/// What a running campaign does next.
#[must_use]
pub fn decide(plan: &Plan, facts: &CampaignFacts, now: UnixMillis) -> Decision {
    let CampaignFacts { tally, waiting, .. } = facts;
    // What the wave will have in the end: its size, or all who are left. A plan that was changed to smaller waves does not give
    // back who was taken.
    let size = u64::from(plan.size(facts.wave)).max(tally.taken()).min(tally.taken().saturating_add(*waiting));
    let failed = tally.failed.saturating_sub(facts.forgiven);
    if failed > 0 && failed * 100 > u64::from(plan.max_failed_percent) * size {
        return Decision::Stop { failed, of: size };
    }
    if now < facts.begins && facts.tally.taken() == 0 && facts.begins.since(now) <= plan.jitter {
        return Decision::Wait { pause: Pause::Jitter, until: facts.begins };
    }
    let missing = size.saturating_sub(tally.taken()).min(*waiting);
    if missing > 0 {
        return release(plan, facts, missing, now);
    }
    if tally.offered > tally.silent {
        let until = facts.oldest_open.unwrap_or(now).plus(plan.patience).max(now.plus(UnixMillis::SECOND));
        return Decision::Wait { pause: Pause::Answers, until };
    }
    after_answers(plan, facts, now)
}

/// Every device of the wave has answered or is silent.
fn after_answers(plan: &Plan, facts: &CampaignFacts, now: UnixMillis) -> Decision {
    let Tally { silent, done, failed, .. } = facts.tally;
    let judged = silent + done + failed;
    let passes = facts.gate_open || done * 100 >= u64::from(plan.min_done_percent) * judged;
    let rest = |pause| Decision::Wait { pause, until: now.plus(REST) };
    match (facts.waiting, facts.open) {
        (0, 0) => Decision::Complete,
        (0, _) => rest(Pause::CatchingUp),
        _ if !passes => rest(Pause::Gate),
        _ => match facts.last_release.map(|last| last.plus(plan.soak)) {
            // A last release in the future is that of a clock that has gone back since.
            Some(until) if now < until && facts.last_release.is_some_and(|last| last <= now) => {
                Decision::Wait { pause: Pause::Soak, until }
            }
            _ => Decision::NextWave,
        },
    }
}

fn release(plan: &Plan, facts: &CampaignFacts, missing: u64, now: UnixMillis) -> Decision {
    let rate = u64::from(plan.per_minute);
    let interval = MINUTE.div_ceil(rate);
    let elapsed = match facts.last_release {
        None => UnixMillis::SECOND.max(interval),
        Some(last) if now < last => interval,
        Some(last) => now.since(last).min(BURST.max(interval)),
    };
    let allowed = (elapsed * rate / MINUTE).max(u64::from(elapsed >= interval));
    match u32::try_from(allowed.min(missing)) {
        Ok(0) => {
            let until = facts.last_release.unwrap_or(now).plus(interval);
            Decision::Wait { pause: Pause::Rate, until }
        }
        Ok(count) => Decision::Release { count },
        Err(_) => Decision::Release { count: u32::MAX },
    }
}

/// What a campaign will take, before anybody is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Waves, the canary included.
    pub waves: u64,
    /// The most devices that are asked within one minute.
    pub peak_per_minute: u64,
    /// Seconds if every device answers when it is expected to.
    pub expected_seconds: u64,
    /// Seconds if every wave has a device that does not answer.
    pub longest_seconds: u64,
}

/// What a campaign over `devices` devices takes, if each answers within `answer_seconds` of being asked: the interval at
/// which devices ask for news.
#[must_use]
pub fn estimate(plan: &Plan, devices: u64, answer_seconds: u64) -> Estimate {
    let canary = u64::from(plan.canary).min(devices);
    let later = devices.saturating_sub(canary).div_ceil(u64::from(plan.wave));
    let waves = u64::from(canary > 0) + later;
    let rate = u64::from(plan.per_minute);
    let releases = devices.saturating_mul(60).div_ceil(rate);
    let between = later.saturating_mul(plan.soak / UnixMillis::SECOND);
    let delays = waves.saturating_mul(plan.jitter / UnixMillis::SECOND);
    let patience = plan.patience / UnixMillis::SECOND;
    let sum = |answers: u64, delays: u64| {
        releases.saturating_add(between).saturating_add(delays).saturating_add(waves.saturating_mul(answers))
    };
    Estimate {
        waves,
        peak_per_minute: rate.min(u64::from(plan.wave.max(plan.canary))).min(devices),
        expected_seconds: sum(answer_seconds.min(patience), delays / 2),
        longest_seconds: sum(patience, delays),
    }
}

#[cfg(test)]
mod tests;

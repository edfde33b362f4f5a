//! The load that a campaign will bring, acted out in expected values before anybody is asked.
//!
//! A wave of n devices is asked at the plan's rate, over D. Each device acts when it next asks for news, which is uniform over
//! the interval A at which it asks. So the share that has acted is the integral of a trapezoid that is 1/max(D, A) high. Devices
//! that sleep act not at all; a wave that has one lasts as long as the plan's patience.

use kf_key::UnixMillis;

use super::Plan;

/// Lengths of time into which a campaign is cut.
const POINTS: u64 = 48;
/// The most waves that are acted out one by one; those behind are like the last one.
const MAX_WAVES: u64 = 100_000;

/// What one device brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Requests, when it acts.
    pub requests: u32,
    /// Signatures of the server when it is asked.
    pub signatures_to_ask: u32,
    /// Signatures of the server when it acts.
    pub signatures_to_answer: u32,
}

/// The load within one length of time, on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadPoint {
    /// Seconds after the start.
    pub from_seconds: u64,
    /// How long.
    pub seconds: u64,
    /// The wave that is under way when it begins.
    pub wave: u64,
    /// Requests in a second.
    pub requests_per_second: f64,
    /// Signatures in a second.
    pub signatures_per_second: f64,
}

/// What a campaign will bring.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// In order; together the whole campaign.
    pub points: Vec<LoadPoint>,
    /// The most requests in a second, where devices come when they like.
    pub peak_requests_per_second: f64,
    /// The most signatures in a second then.
    pub peak_signatures_per_second: f64,
    /// Requests in a second where every device acts at once when it is asked, as over a broker.
    pub pushed_requests_per_second: f64,
    /// Signatures in a second then.
    pub pushed_signatures_per_second: f64,
    /// Whether so many devices sleep that the gate of a wave is expected to stay shut.
    pub waits_at_gate: bool,
}

/// A number as one that can be divided; exact below 2^53.
#[expect(
    clippy::as_conversions,
    reason = "there is no lossless conversion; counts and milliseconds stay far below 2^53"
)]
const fn float(number: u64) -> f64 {
    number as f64
}

/// One wave: milliseconds and devices.
#[derive(Clone, Copy, Debug)]
struct Wave {
    begins: u64,
    asking: u64,
    answering: u64,
    devices: u64,
    awake: f64,
}

impl Wave {
    /// Devices that were asked until `at`.
    fn asked(&self, at: u64) -> f64 {
        let passed = at.saturating_sub(self.begins).min(self.asking);
        if self.asking == 0 { float(self.devices) } else { float(self.devices) * float(passed) / float(self.asking) }
    }

    /// Devices that have acted until `at`.
    fn acted(&self, at: u64) -> f64 {
        let passed = float(at.saturating_sub(self.begins));
        let (least, most) = (float(self.asking.min(self.answering)), float(self.asking.max(self.answering)));
        let share = if passed >= least + most || most == 0.0 {
            1.0
        } else if passed >= most {
            1.0 - (least + most - passed).powi(2) / (2.0 * least * most)
        } else if passed >= least {
            (passed - least / 2.0) / most
        } else {
            passed.powi(2) / (2.0 * least * most)
        };
        self.awake * share
    }

    const fn ends(&self) -> u64 {
        self.begins.saturating_add(self.asking).saturating_add(self.answering)
    }
}

/// Acts a campaign over `devices` devices out, of which `asleep` do not answer and the others ask for news every
/// `answer_seconds`.
#[must_use]
pub fn load(plan: &Plan, devices: u64, asleep: u64, weight: &Weight, answer_seconds: u64) -> Load {
    let asleep = asleep.min(devices);
    let waves = waves_of(plan, devices, asleep, answer_seconds * UnixMillis::SECOND);
    let end = waves.iter().map(Wave::ends).max().unwrap_or_default();
    let step = end.div_ceil(POINTS).max(UnixMillis::SECOND).next_multiple_of(UnixMillis::SECOND);
    let points = if end == 0 { Vec::new() } else { points_of(&waves, weight, end, step) };
    let rate = float(u64::from(plan.per_minute)) / 60.0;
    let (asking, answering) = (float(weight.signatures_to_ask.into()), float(weight.signatures_to_answer.into()));
    let requests = float(weight.requests.into());
    // The highest wave, as often as waves overlap at most.
    let height = |wave: &Wave| wave.awake / (float(wave.asking.max(wave.answering).max(1)) / 1_000.0);
    let highest = waves.iter().map(height).fold(0.0, f64::max) * overlap(&waves);
    let largest = plan.wave.max(plan.canary);
    let most_at_once = rate.min(float(devices.min(largest.into())));
    Load {
        points,
        peak_requests_per_second: highest.min(most_at_once) * requests,
        peak_signatures_per_second: highest.min(most_at_once) * answering + most_at_once * asking,
        pushed_requests_per_second: most_at_once * requests,
        pushed_signatures_per_second: most_at_once * (answering + asking),
        waits_at_gate: waves.len() > 1
            && (devices - asleep).saturating_mul(100) < devices.saturating_mul(plan.min_done_percent.into()),
    }
}

/// Every wave with its times. Where one has a sleeping device, the next one waits for the patience of the plan.
fn waves_of(plan: &Plan, devices: u64, asleep: u64, answer: u64) -> Vec<Wave> {
    let awake_share = if devices == 0 { 0.0 } else { float(devices - asleep) / float(devices) };
    let (mut waves, mut left, mut begins) = (Vec::new(), devices, 0_u64);
    while left > 0 {
        let number = u32::try_from(waves.len()).unwrap_or(u32::MAX).saturating_add(1);
        let taken = left.min(plan.size(number).into());
        let devices = if u64::from(number) >= MAX_WAVES { left } else { taken };
        // Rounded up: never faster than the plan's rate.
        let asking = devices.saturating_mul(60 * UnixMillis::SECOND).div_ceil(plan.per_minute.into());
        begins = begins.saturating_add(plan.jitter / 2);
        waves.push(Wave { begins, asking, answering: answer, devices, awake: float(devices) * awake_share });
        let answers = if asleep > 0 { plan.patience } else { answer.min(plan.patience) };
        begins = begins.saturating_add(asking).saturating_add(answers.max(plan.soak));
        left -= devices;
    }
    waves
}

/// How many waves answer at the same time at most.
fn overlap(waves: &[Wave]) -> f64 {
    let mut most = 0;
    for (place, wave) in waves.iter().enumerate() {
        let later = waves.get(place..).unwrap_or_default();
        most = most.max(later.iter().take_while(|next| next.begins < wave.ends()).count());
        if most >= later.len() {
            break;
        }
    }
    float(u64::try_from(most).unwrap_or(u64::MAX))
}

fn points_of(waves: &[Wave], weight: &Weight, end: u64, step: u64) -> Vec<LoadPoint> {
    let (mut points, mut from, mut first) = (Vec::new(), 0, 0);
    while from < end {
        let until = from + step;
        // Waves that were over before this one began are over for good.
        while waves.get(first).is_some_and(|wave| wave.ends() <= from) {
            first += 1;
        }
        let (mut asked, mut acted, mut wave) = (0.0, 0.0, first);
        for (place, one) in waves.iter().enumerate().skip(first).take_while(|(_, one)| one.begins < until) {
            asked += one.asked(until) - one.asked(from);
            acted += one.acted(until) - one.acted(from);
            wave = if one.begins <= from { place } else { wave };
        }
        let seconds = step / UnixMillis::SECOND;
        let per_second = |number: f64| number / float(seconds);
        let (asking, answering) = (float(weight.signatures_to_ask.into()), float(weight.signatures_to_answer.into()));
        points.push(LoadPoint {
            from_seconds: from / UnixMillis::SECOND,
            seconds,
            wave: u64::try_from(wave).unwrap_or(u64::MAX).saturating_add(1),
            requests_per_second: per_second(acted * float(weight.requests.into())),
            signatures_per_second: per_second(acted * answering + asked * asking),
        });
        from = until;
    }
    points
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::PlanNumbers;
    use super::*;

    const WEIGHT: Weight = Weight { requests: 3, signatures_to_ask: 1, signatures_to_answer: 2 };

    fn plan(canary: u32, wave: u32, per_minute: u32) -> Plan {
        Plan::checked(PlanNumbers {
            canary,
            wave,
            per_minute,
            jitter_seconds: 0,
            soak_seconds: 60,
            patience_seconds: 86_400,
            max_failed_percent: 2,
            min_done_percent: 80,
        })
        .unwrap()
    }

    fn total(load: &Load, of: impl Fn(&LoadPoint) -> f64) -> f64 {
        load.points.iter().map(|point| of(point) * float(point.seconds)).sum()
    }

    #[test]
    fn a_wave_is_as_high_as_its_rate_where_devices_come_often_and_flat_where_they_come_daily() {
        let often = load(&plan(600, 600, 600), 600, 0, &WEIGHT, 1);
        assert!((often.peak_requests_per_second - 30.0).abs() < 1e-9, "{often:?}");
        assert!((often.pushed_signatures_per_second - 30.0).abs() < 1e-9);
        let daily = load(&plan(600, 600, 600), 600, 0, &WEIGHT, 86_400);
        assert!((daily.peak_requests_per_second - 600.0 * 3.0 / 86_400.0).abs() < 1e-9, "{daily:?}");
        assert!((daily.pushed_requests_per_second - 30.0).abs() < 1e-9, "a broker brings them at once");
    }

    #[test]
    fn devices_that_sleep_bring_nothing_make_waves_long_and_keep_gates_shut() {
        let awake = load(&plan(10, 100, 60), 1_000, 0, &WEIGHT, 3_600);
        let asleep = load(&plan(10, 100, 60), 1_000, 100, &WEIGHT, 3_600);
        assert!((total(&asleep, |point| point.requests_per_second) - 2_700.0).abs() < 1e-6);
        let last = |load: &Load| load.points.last().unwrap().from_seconds;
        assert!(last(&asleep) > 5 * last(&awake));
        assert!(!awake.waits_at_gate && !asleep.waits_at_gate);
        assert!(load(&plan(10, 100, 60), 1_000, 300, &WEIGHT, 3_600).waits_at_gate);
        assert_eq!(load(&plan(10, 100, 60), 0, 0, &WEIGHT, 3_600).points, []);
    }

    #[test]
    fn a_rate_that_is_no_whole_number_of_milliseconds_is_never_exceeded() {
        let found = load(&plan(49, 49, 599), 40, 0, &WEIGHT, 1);
        let highest = found.points.iter().map(|point| point.requests_per_second).fold(0.0, f64::max);
        assert!(highest > 29.9 && highest <= 599.0 * 3.0 / 60.0 + 1e-9, "{found:?}");
        assert!(highest <= found.peak_requests_per_second + 1e-9, "{found:?}");
    }

    proptest! {
        /// Devices that are drawn one by one come to the same.
        #[test]
        fn the_load_is_that_of_devices_drawn_one_by_one(
            canary in 1..50_u32, wave in 1..200_u32, per_minute in 1..600_u32, devices in 1..2_000_u64,
            answer in prop_oneof![1..20_u64, 1..10_000_u64],
        ) {
            let plan = plan(canary, wave, per_minute);
            let found = load(&plan, devices, 0, &WEIGHT, answer);
            prop_assert!(found.points.len() <= 48);
            prop_assert!((total(&found, |point| point.requests_per_second) - float(devices * 3)).abs() < 1e-6 * float(devices * 3));
            prop_assert!((total(&found, |point| point.signatures_per_second) - float(devices * 3)).abs() < 1e-6 * float(devices * 3));
            prop_assert!(found.points.iter().all(|point| point.requests_per_second <= found.peak_requests_per_second * (1.0 + 1e-9)));
            // Each device of a wave is asked in its turn, and acts at each moment of the interval alike.
            let mut acted = vec![0.0; found.points.len()];
            let step = found.points[0].seconds * 1_000;
            for wave in waves_of(&plan, devices, 0, answer * 1_000) {
                for place in 0..wave.devices {
                    let asked = wave.begins + wave.asking * (2 * place + 1) / (2 * wave.devices);
                    for part in 0..20 {
                        let at = asked + answer * 1_000 * (2 * part + 1) / 40;
                        let point = usize::try_from(at / step).unwrap().min(acted.len() - 1);
                        acted[point] += 3.0 / 20.0;
                    }
                }
            }
            for (point, acted) in found.points.iter().zip(acted) {
                let modelled = point.requests_per_second * float(point.seconds);
                prop_assert!((modelled - acted).abs() <= 6.0 + 0.06 * float(devices * 3), "{modelled} {acted}");
            }
        }
    }
}

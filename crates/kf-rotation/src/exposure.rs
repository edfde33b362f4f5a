//! What a stolen key exposes, and for how long a stolen identity is believed: arithmetic that the server, the command line
//! and the explorers share.
//!
//! The model, so that nobody reads more into the numbers than there is: a key serves for a period T, then its successor
//! takes over and the key is destroyed together with what it still protected under it. It is stolen at a moment that is
//! uniform over T, the theft is noticed and answered a time M later. What was protected under the key from its beginning until the answer, or
//! until the end of T, is exposed. S devices share the key, each protecting r octets a second.
//!
//! For M < T the expected exposure is r·S·(T/2 + M − M²/2T), at worst it is r·S·T; for M ≥ T it is r·S·T always, and the
//! thief who stays has the successor as well, which no rotation helps against. A device that is offline when the rotation is
//! due goes on with the old key for a gap G: for the share of devices that are, T is T + G.
//!
//! A key derived from a static root is exposed with the root, whatever its own period: S is then every device below it,
//! and T the life of the root's epoch.

use kf_key::UnixMillis;
use serde::{Deserialize, Serialize};

/// A key, how it is used, and how theft is noticed. Times are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exposed {
    /// Octets that one device protects in a second; finite and not negative.
    pub octets_per_second: f64,
    /// Devices that share the key; 1 for a device key.
    pub sharing_devices: u64,
    /// T: how long the key serves.
    pub period: u64,
    /// M: from the theft to the answer.
    pub detection: u64,
    /// The share of devices that are offline when a rotation is due, 0 to 1.
    #[serde(default)]
    pub offline_share: f64,
    /// G: for how much longer an offline device goes on with the old key.
    #[serde(default)]
    pub offline_gap: u64,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExposureError {
    /// The period is zero.
    #[error("the period must be longer than zero")]
    Period,
    /// The rate is negative, infinite or not a number.
    #[error("octets per second must be a finite number, zero or more")]
    Rate,
    /// The share is not between 0 and 1.
    #[error("the share of offline devices must be between 0 and 1")]
    Share,
}

/// What is exposed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exposure {
    /// Octets, expected over the moment of the theft.
    pub expected_octets: f64,
    /// Octets, at the worst moment.
    pub worst_octets: f64,
    /// How much of the past and future of one device that is, milliseconds, expected.
    pub expected_time: f64,
    /// The same at worst; includes the gap of an offline device if there are any.
    pub worst_time: f64,
    /// Whether detection takes longer than the key serves, so that the thief also sees the successor being made.
    pub outlived: bool,
}

impl Exposed {
    /// The exposure.
    ///
    /// # Errors
    /// [`ExposureError`], naming the field.
    pub fn exposure(&self) -> Result<Exposure, ExposureError> {
        let Self { octets_per_second, sharing_devices, period, detection, offline_share, offline_gap } = *self;
        if period == 0 {
            return Err(ExposureError::Period);
        }
        if !octets_per_second.is_finite() || octets_per_second < 0.0 {
            return Err(ExposureError::Rate);
        }
        if !(0.0..=1.0).contains(&offline_share) {
            return Err(ExposureError::Share);
        }
        let stretched = period.saturating_add(offline_gap);
        let expected_time = (1.0 - offline_share) * expected_window(period, detection)
            + offline_share * expected_window(stretched, detection);
        let worst_time = float(if offline_share > 0.0 { stretched } else { period });
        let octets_per_milli = octets_per_second / float(UnixMillis::SECOND) * float(sharing_devices);
        Ok(Exposure {
            expected_octets: expected_time * octets_per_milli,
            worst_octets: worst_time * octets_per_milli,
            expected_time,
            worst_time,
            outlived: detection >= period,
        })
    }
}

/// For how long a stolen device key passes for the device: until the theft is answered and the answer has reached the
/// relying parties, or until the certificate expires. All in milliseconds; `validity` is more than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Impersonation {
    /// How long a certificate is valid.
    pub validity: u64,
    /// From the theft to the revocation.
    pub detection: u64,
    /// From the revocation until a relying party knows: the age of the CRL or OCSP answer that it accepts. `None` for
    /// one that does not ask: it believes the certificate until it expires.
    pub freshness: Option<u64>,
}

impl Impersonation {
    /// Expected and worst window, milliseconds, over a theft at a uniform moment of the certificate's validity. The thief
    /// who can renew with the key is stopped by the revocation only; that is why renewal checks it.
    ///
    /// # Errors
    /// [`ExposureError::Period`].
    pub fn window(&self) -> Result<(f64, f64), ExposureError> {
        let Self { validity, detection, freshness } = *self;
        if validity == 0 {
            return Err(ExposureError::Period);
        }
        let answered = freshness.map_or(validity, |freshness| detection.saturating_add(freshness)).min(validity);
        let (d, v) = (float(answered), float(validity));
        Ok((d - d * d / (2.0 * v), d))
    }
}

/// E[min(t + M, T)] for t uniform over T.
fn expected_window(period: u64, detection: u64) -> f64 {
    let (t, m) = (float(period), float(detection));
    if detection >= period { t } else { t / 2.0 + m - m * m / (2.0 * t) }
}

/// A length of time as a number that can be multiplied; above 2^53 ms, which is 285,000 years, it is rounded.
#[expect(clippy::as_conversions, reason = "there is no lossless conversion, and the loss is as stated")]
const fn float(milliseconds: u64) -> f64 {
    milliseconds as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = UnixMillis::DAY;

    fn exposed(period: u64, detection: u64) -> Exposed {
        Exposed { octets_per_second: 10.0, sharing_devices: 3, period, detection, offline_share: 0.0, offline_gap: 0 }
    }

    /// The model acted out: thefts spread evenly over the period, each with what was protected until its answer.
    fn simulated(period: u64, detection: u64) -> f64 {
        const THEFTS: u32 = 10_000;
        let moment = |theft: u32| (f64::from(theft) + 0.5) / f64::from(THEFTS) * float(period);
        let window = |theft| (moment(theft) + float(detection)).min(float(period));
        (0..THEFTS).map(window).sum::<f64>() / f64::from(THEFTS)
    }

    proptest! {
        #[test]
        fn the_formula_agrees_with_the_model_acted_out(period in 1..1_000 * DAY, detection in 0..1_500 * DAY) {
            let expected = exposed(period, detection).exposure().expect("valid").expected_time;
            let acted = simulated(period, detection);
            prop_assert!((expected - acted).abs() <= 1e-4 * float(period), "{expected} {acted}");
        }

        #[test]
        fn a_shorter_period_never_exposes_more_and_worst_is_never_below_expected(
            period in 2..1_000 * DAY, detection in 0..1_500 * DAY, gap in 0..100 * DAY, share in 0.0..=1.0_f64,
        ) {
            let long = Exposed { offline_gap: gap, offline_share: share, ..exposed(period, detection) };
            let short = Exposed { period: period / 2, ..long };
            let (long, short) = (long.exposure().expect("valid"), short.exposure().expect("valid"));
            prop_assert!(short.expected_octets <= long.expected_octets * (1.0 + 1e-12));
            prop_assert!(long.expected_octets <= long.worst_octets * (1.0 + 1e-12));
        }

        #[test]
        fn the_window_of_impersonation_agrees_with_thefts_acted_out(
            validity in 1..1_000 * DAY, detection in 0..100 * DAY, freshness in proptest::option::of(0..7 * DAY),
        ) {
            let (expected, worst) = Impersonation { validity, detection, freshness }.window().expect("valid");
            let acted = (0..10_000_u32).map(|theft| {
                let left = float(validity) * (1.0 - (f64::from(theft) + 0.5) / 10_000.0);
                freshness.map_or(left, |freshness| left.min(float(detection + freshness)))
            });
            let acted = acted.sum::<f64>() / 10_000.0;
            prop_assert!((expected - acted).abs() <= 1e-4 * float(validity), "{expected} {acted}");
            prop_assert!(expected <= worst);
        }
    }

    #[test]
    fn a_month_with_a_week_to_notice_exposes_what_the_formula_says() {
        // T = 30 d, M = 7 d: 15 + 7 - 49/60 days of 3 devices at 10 octets a second.
        let exposure = exposed(30 * DAY, 7 * DAY).exposure().expect("valid");
        let days = exposure.expected_time / float(DAY);
        assert!((days - (22.0 - 49.0 / 60.0)).abs() < 1e-9);
        assert!((exposure.expected_octets - days * 86_400.0 * 30.0).abs() < 1.0);
        assert!((exposure.worst_octets - 30.0 * 86_400.0 * 30.0).abs() < 1.0);
        assert!(!exposure.outlived);
    }

    #[test]
    fn a_theft_that_is_noticed_after_the_rotation_exposes_the_whole_period() {
        let exposure = exposed(DAY, 2 * DAY).exposure().expect("valid");
        assert!(exposure.outlived);
        assert!((exposure.expected_time - float(DAY)).abs() < f64::EPSILON);
    }

    #[test]
    fn questions_without_an_answer_name_the_field() {
        let good = exposed(DAY, 0);
        assert_eq!(Exposed { period: 0, ..good }.exposure(), Err(ExposureError::Period));
        for rate in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Exposed { octets_per_second: rate, ..good }.exposure(), Err(ExposureError::Rate));
        }
        for share in [-0.1, 1.1, f64::NAN] {
            assert_eq!(Exposed { offline_share: share, ..good }.exposure(), Err(ExposureError::Share));
        }
        assert_eq!(Impersonation { validity: 0, detection: 1, freshness: None }.window(), Err(ExposureError::Period));
    }
}

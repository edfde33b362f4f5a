//! Duties to report: Regulation (EU) 2024/2847 (Cyber Resilience Act), article 14.

use kf_api::incident::Duty;
use kf_key::UnixMillis;

/// When the reports of article 14 are due, from when the operator became aware and, for the last one, from when a corrective measure was
/// available: here, when every step of the plan that is not by hand was done.
///
/// What the law asks a manufacturer to say beyond registry and log is the manufacturer's; for a severe incident the last report is
/// due a month after the second one, which is later than the fourteen days counted here.
#[must_use]
pub fn duties(aware: UnixMillis, corrected: Option<UnixMillis>) -> Vec<Duty> {
    let duty = |name: &str, what: &str, due| Duty { name: name.to_owned(), what: what.to_owned(), due };
    vec![
        duty(
            "24h",
            "early warning: that it happened, and in which member states the product is sold (article 14(2)(a), (4)(a))",
            Some(aware.plus(24 * UnixMillis::HOUR)),
        ),
        duty(
            "72h",
            "notification: the product, the nature of it, measures taken and measures users can take (article 14(2)(b), (4)(b))",
            Some(aware.plus(72 * UnixMillis::HOUR)),
        ),
        duty(
            "14d",
            "final report: description, severity, impact, cause, corrective measures (article 14(2)(c), (4)(c))",
            corrected.map(|corrected| corrected.plus(14 * UnixMillis::DAY)),
        ),
    ]
}

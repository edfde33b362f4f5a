//! What a policy says of a key at one moment, in one word and its reason: for lists that people read.

use core::fmt;
use core::str::FromStr;

use kf_key::{KeyState, UnixMillis};

use crate::policy::Rule;
use crate::preset::Preset;
use crate::sweep::{KeyFacts, Reason, Successor, due, ended};

/// 2031-01-01T00:00:00Z: until then SP 800-131A accepts 112 bits, from then on 128.
const FLOOR_RISES: UnixMillis = UnixMillis(1_924_992_000_000);

/// The standing of a key under its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing is to be done.
    Good,
    /// Its successor is due; it may still protect.
    Due(Reason),
    /// It must protect nothing more, and has no successor.
    Overdue(Reason),
    /// Its successor has taken over; it goes when nothing needs it any more.
    Succeeded,
    /// It protects nothing more, and still processes what it protected.
    ProcessingOnly,
    /// Its algorithm or strength is not accepted, whatever its age.
    Algorithm(AlgorithmFault),
    /// Nothing uses it any more.
    Ended,
}

/// Why an algorithm is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AlgorithmFault {
    /// The preset names the algorithms that it allows, and this is none of them.
    NotOfPreset(Preset),
    /// Weaker than SP 800-131A accepts at that moment; the floor in bits.
    Below(u16),
}

/// A name of no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected good, due, overdue, succeeded, processing-only, algorithm or ended")]
pub struct UnknownVerdict;

impl Verdict {
    /// Every name, in the order of the enumeration.
    pub const NAMES: [&'static str; 7] =
        ["good", "due", "overdue", "succeeded", "processing-only", "algorithm", "ended"];

    /// The name in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Due(_) => "due",
            Self::Overdue(_) => "overdue",
            Self::Succeeded => "succeeded",
            Self::ProcessingOnly => "processing-only",
            Self::Algorithm(_) => "algorithm",
            Self::Ended => "ended",
        }
    }
}

impl fmt::Display for Verdict {
    /// The reason, in words; empty where there is nothing to be said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good | Self::Ended => Ok(()),
            Self::Due(reason) => write!(f, "a successor is due: {reason}"),
            Self::Overdue(reason) => write!(f, "must protect nothing more: {reason}"),
            Self::Succeeded => f.write_str("its successor has taken over"),
            Self::ProcessingOnly => f.write_str("within its recipient-usage period"),
            Self::Algorithm(AlgorithmFault::NotOfPreset(preset)) => {
                write!(f, "the algorithm is none that {} allows", preset.name())
            }
            Self::Algorithm(AlgorithmFault::Below(bits)) => write!(f, "weaker than {bits} bits (SP 800-131A)"),
        }
    }
}

/// A name, as filters give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictName(&'static str);

impl VerdictName {
    /// Whether a verdict of this name is meant.
    #[must_use]
    pub fn is_named(self, name: &str) -> bool {
        name == self.0
    }
}

impl FromStr for VerdictName {
    type Err = UnknownVerdict;

    fn from_str(text: &str) -> Result<Self, UnknownVerdict> {
        Verdict::NAMES.into_iter().find(|name| *name == text).map(Self).ok_or(UnknownVerdict)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time { .. } => f.write_str("its period is over"),
            Self::Uses(uses) => write!(f, "it was used {uses} times"),
            Self::Octets(octets) => write!(f, "it protected {octets} octets"),
            Self::Event(event) => write!(f, "{event:?}"),
            Self::Succeeded => f.write_str("its successor has taken over"),
            Self::NothingLeft => f.write_str("nothing is protected by it any more"),
            Self::RecipientPeriod { .. } => f.write_str("its recipient-usage period is over"),
        }
    }
}

/// What a rule says of a key at `now`. Of the facts, `protected` plays no part: what is still protected decides what may
/// be destroyed, not what is due.
#[must_use]
pub fn verdict(facts: &KeyFacts<'_>, rule: &Rule, now: UnixMillis) -> Verdict {
    match facts.state {
        KeyState::PreActivation => Verdict::Good,
        KeyState::Destroyed => Verdict::Ended,
        KeyState::Compromised => Verdict::Overdue(Reason::Event(crate::sweep::Event::Compromise)),
        KeyState::Deactivated => processing(facts, rule, now),
        KeyState::Active | KeyState::Suspended if facts.successor == Successor::Active => Verdict::Succeeded,
        KeyState::Active | KeyState::Suspended => match (ended(facts, rule, now), due(facts, rule, now)) {
            (Some(reason), _) => Verdict::Overdue(reason),
            (None, Some(reason)) => Verdict::Due(reason),
            (None, None) => Verdict::Good,
        },
    }
}

/// Whether an algorithm is accepted at `now`, by its name in the inventory and its strength.
#[must_use]
pub fn algorithm_fault(preset: Preset, algorithm: &str, strength_bits: u16, now: UnixMillis) -> Option<AlgorithmFault> {
    let floor = if now < FLOOR_RISES { 112 } else { 128 };
    if strength_bits < floor {
        return Some(AlgorithmFault::Below(floor));
    }
    preset.algorithms().filter(|allowed| !allowed.contains(&algorithm)).map(|_| AlgorithmFault::NotOfPreset(preset))
}

fn processing(facts: &KeyFacts<'_>, rule: &Rule, now: UnixMillis) -> Verdict {
    if !facts.class.seals() {
        return Verdict::Ended;
    }
    if let (Some(activated), Some(originator), Some(after)) = (facts.activated, rule.originator, rule.recipient_after) {
        let since = activated.plus(originator.plus(after).milliseconds());
        if now >= since {
            return Verdict::Overdue(Reason::RecipientPeriod { since });
        }
    }
    Verdict::ProcessingOnly
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::KeyClass;
    use crate::policy::{Policy, Scope};

    const START: UnixMillis = UnixMillis(1_800_000_000_000);

    fn of(class: KeyClass, state: KeyState, successor: Successor, days: u64) -> Verdict {
        let facts =
            KeyFacts { class, state, activated: Some(START), uses: 0, octets: 0, events: &[], successor, protected: 1 };
        let rule = Policy::default().rule(class, Scope::default());
        verdict(&facts, &rule, START.plus(days * UnixMillis::DAY))
    }

    #[test]
    fn a_key_is_good_then_due_then_overdue_and_its_successor_ends_the_matter() {
        let named = |successor, days| of(KeyClass::FacilityKey, KeyState::Active, successor, days).name();
        let story = [1, 291, 292, 364, 365, 4_000].map(|days| named(Successor::None, days));
        assert_eq!(story, ["good", "good", "due", "due", "overdue", "overdue"]);
        assert_eq!(named(Successor::Active, 400), "succeeded");
        assert_eq!(named(Successor::Made, 400), "overdue", "a successor that nobody uses replaces nothing");
    }

    #[test]
    fn what_seals_is_read_for_its_recipient_period_and_what_signs_ends_at_once() {
        let named = |class, days| of(class, KeyState::Deactivated, Successor::Active, days).name();
        assert_eq!(named(KeyClass::DataEncryptionKey, 1_000), "processing-only");
        assert_eq!(named(KeyClass::DataEncryptionKey, 1_825), "overdue");
        assert_eq!(named(KeyClass::LDevIdKey, 1), "ended");
        assert_eq!(of(KeyClass::LogKey, KeyState::Destroyed, Successor::None, 1), Verdict::Ended);
        assert_eq!(of(KeyClass::LogKey, KeyState::Compromised, Successor::Active, 1).name(), "overdue");
    }

    #[test]
    fn a_preset_about_algorithms_refuses_all_but_its_own_and_the_floor_rises_with_2031() {
        let fault = |preset, algorithm, bits, now| algorithm_fault(preset, algorithm, bits, UnixMillis(now));
        let before = FLOOR_RISES.0 - 1;
        assert_eq!(fault(Preset::Nist, "rsa-2048", 112, before), None);
        assert_eq!(fault(Preset::Nist, "rsa-2048", 112, FLOOR_RISES.0), Some(AlgorithmFault::Below(128)));
        assert_eq!(fault(Preset::Nist, "p-256", 128, FLOOR_RISES.0), None);
        let refused = Some(AlgorithmFault::NotOfPreset(Preset::Cnsa2));
        assert_eq!(fault(Preset::Cnsa2, "p-384", 192, before), refused);
        assert_eq!(fault(Preset::Cnsa2, "hmac-sha-256", 256, before), refused);
        assert_eq!(fault(Preset::Cnsa2, "aes-256-gcm", 256, before), None);
    }

    #[test]
    fn every_verdict_is_found_by_its_name() {
        for name in Verdict::NAMES {
            assert!(name.parse::<VerdictName>().is_ok(), "{name}");
        }
        assert_eq!("bad".parse::<VerdictName>(), Err(UnknownVerdict));
    }
}

//! What a policy must not say.

use super::{Policy, Rule, Scope};
use crate::class::KeyClass;
use crate::period::Period;
use crate::usage::Sealing;

/// A place where a policy contradicts itself, its preset or a bound. `scope` is empty for the rules of the whole fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The override, as `facility lyon`, `product line thermo` or both; empty for the fleet.
    pub scope: String,
    /// The class; `None` for what concerns an override as a whole.
    pub class: Option<KeyClass>,
    /// What is wrong.
    pub kind: Kind,
}

/// What is wrong, in words that say what to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Kind {
    /// A recipient-usage period for a key that nobody uses after its originator.
    #[error("recipient-after: keys of this class have no recipient-usage period; remove the field")]
    NoRecipient,
    /// Longer than SP 800-57 recommends, and no exception written.
    #[error("originator: longer than the {0} that SP 800-57 recommends; shorten it, or say why in `exception`")]
    BeyondRecommendation(Period),
    /// Longer than three years after the originator-usage period, and no exception written.
    #[error("recipient-after: longer than the 3y that SP 800-57 recommends; shorten it, or say why in `exception`")]
    RecipientBeyondRecommendation,
    /// Longer than that of the class above.
    #[error("originator: a key cannot outlive the {parent} above it, which ends after {ends}")]
    OutlivesParent {
        /// The class above.
        parent: KeyClass,
        /// Its period.
        ends: Period,
    },
    /// Not from 1 to 100.
    #[error("rotate-at: expected a percentage from 1 to 100")]
    RotateAt,
    /// A limit of uses for a key whose uses nobody counts, or of octets for one that seals nothing.
    #[error("uses, octets: they are not counted for keys of this class; remove the field")]
    DoesNotSeal,
    /// No use at all.
    #[error("uses, octets: a limit of zero forbids the key; suspend it instead")]
    Zero,
    /// Beyond the bound of the AEAD.
    #[error("uses: beyond the {0} uses that the AEAD allows under one key")]
    BeyondBound(u64),
    /// The preset asks for a period at most this long.
    #[error("originator: the preset asks for at most {0}")]
    BeyondPreset(Period),
    /// An override that names neither facility nor product line.
    #[error("an override names a facility, a product line, or both")]
    EmptyScope,
    /// Two overrides for the same scope.
    #[error("there are two overrides for this scope; write one")]
    DuplicateScope,
}

/// Every contradiction: of the fleet's rules, then of each override's.
pub(super) fn find(policy: &Policy) -> Vec<Contradiction> {
    let mut found = Vec::new();
    check_scope(policy, Scope::default(), &mut found);
    for (index, one) in policy.overrides.iter().enumerate() {
        let about = |kind| Contradiction { scope: shown(one.scope()), class: None, kind };
        if one.specificity() == 0 {
            found.push(about(Kind::EmptyScope));
            continue;
        }
        if policy.overrides.iter().take(index).any(|other| other.scope() == one.scope()) {
            found.push(about(Kind::DuplicateScope));
            continue;
        }
        check_scope(policy, one.scope(), &mut found);
    }
    // What is wrong for the fleet is wrong in every override that does not touch it: say it once.
    let fleet: Vec<_> = found.iter().filter(|one| one.scope.is_empty()).map(|one| (one.class, one.kind)).collect();
    found.retain(|one| one.scope.is_empty() || !fleet.contains(&(one.class, one.kind)));
    found
}

fn check_scope(policy: &Policy, scope: Scope<'_>, found: &mut Vec<Contradiction>) {
    for class in KeyClass::ALL {
        let rule = policy.rule(class, scope);
        let parent = class.parent().map(|parent| (parent, policy.rule(parent, scope).originator));
        let mut kinds = about_periods(class, &rule, parent);
        kinds.extend(about_limits(class, &rule));
        kinds.extend(policy.preset.broken_by(class, &rule));
        let said = kinds.into_iter().map(|kind| Contradiction { scope: shown(scope), class: Some(class), kind });
        found.extend(said);
    }
}

fn about_periods(class: KeyClass, rule: &Rule, parent: Option<(KeyClass, Option<Period>)>) -> Vec<Kind> {
    let mut kinds = Vec::new();
    let recommended = class.recommended_originator();
    let has_exception = rule.exception.is_some();
    if rule.originator.is_none_or(|period| period > recommended) && !has_exception {
        kinds.push(Kind::BeyondRecommendation(recommended));
    }
    if rule.recipient_after.is_some() && !class.seals() {
        kinds.push(Kind::NoRecipient);
    } else if rule.recipient_after.is_some_and(|period| period > Period::years(3)) && !has_exception {
        kinds.push(Kind::RecipientBeyondRecommendation);
    }
    if let Some((parent, Some(ends))) = parent
        && rule.originator.is_none_or(|period| period > ends)
    {
        kinds.push(Kind::OutlivesParent { parent, ends });
    }
    if !(1..=100).contains(&rule.rotate_at) {
        kinds.push(Kind::RotateAt);
    }
    kinds
}

fn about_limits(class: KeyClass, rule: &Rule) -> Vec<Kind> {
    let mut kinds = Vec::new();
    if (rule.uses.is_some() && !class.counts_uses()) || (rule.octets.is_some() && !class.seals()) {
        kinds.push(Kind::DoesNotSeal);
    }
    if rule.uses == Some(0) || rule.octets == Some(0) {
        kinds.push(Kind::Zero);
    }
    let bound = Sealing::GcmRandomNonce.max_messages(0);
    if class.seals() && rule.uses.is_some_and(|uses| uses > bound) {
        kinds.push(Kind::BeyondBound(bound));
    }
    kinds
}

fn shown(scope: Scope<'_>) -> String {
    let facility = scope.facility.map(|name| format!("facility {name}"));
    let product_line = scope.product_line.map(|name| format!("product line {name}"));
    facility.into_iter().chain(product_line).collect::<Vec<_>>().join(", ")
}

impl std::fmt::Display for Contradiction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.scope.is_empty() {
            write!(f, "{}: ", self.scope)?;
        }
        if let Some(class) = self.class {
            write!(f, "{class}: ")?;
        }
        write!(f, "{}", self.kind)
    }
}

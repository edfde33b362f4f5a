//! Policies: what a reviewed file says of each class of keys, for the fleet, a facility or a product line.
//!
//! ```toml
//! version = 1
//! preset = "pci-dss"
//!
//! [class.data-encryption-key]
//! originator = "1y"          # then it protects nothing new
//! recipient-after = "3y"     # and goes on decrypting for this long
//! rotate-at = 80             # percent of the originator-usage period at which its successor is made
//! uses = 1000000             # whichever comes first
//! rotate-on = ["compromise", "custodian-left"]
//!
//! [[override]]
//! facility = "lyon"
//! [override.class.data-encryption-key]
//! originator = "90d"
//! ```
//!
//! A file is refused as a whole if it contradicts itself: every contradiction is named, not only the first.

mod contradiction;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use contradiction::{Contradiction, Kind};

use crate::class::KeyClass;
use crate::period::Period;
use crate::preset::Preset;
use crate::sweep::Event;

/// The most octets of a policy.
pub const MAX_POLICY_OCTETS: usize = 256 * 1024;
/// The most overrides in a policy.
pub const MAX_OVERRIDES: usize = 1_000;
/// The version of the format that this code reads.
const VERSION: u32 = 1;

/// What holds for a class of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rule {
    /// Originator-usage period, from activation; `None`: no limit in time.
    pub originator: Option<Period>,
    /// For how long after the originator-usage period the key still decrypts or unwraps.
    pub recipient_after: Option<Period>,
    /// Percent of the originator-usage period, and of the limits of uses and octets, at which the successor is made; 1 to 100.
    pub rotate_at: u8,
    /// The most uses; then it protects nothing more.
    pub uses: Option<u64>,
    /// The most octets protected; then it protects nothing more.
    pub octets: Option<u64>,
    /// What calls for a successor at once.
    pub rotate_on: BTreeSet<Event>,
    /// Why the rule goes beyond what SP 800-57 recommends, in the owner's words.
    pub exception: Option<String>,
}

/// A change to a rule, as a file has it: what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Change {
    pub(crate) originator: Option<Period>,
    pub(crate) recipient_after: Option<Period>,
    pub(crate) rotate_at: Option<u8>,
    pub(crate) uses: Option<u64>,
    pub(crate) octets: Option<u64>,
    pub(crate) rotate_on: Option<BTreeSet<Event>>,
    pub(crate) exception: Option<String>,
}

/// The rules of a facility, of a product line, or of both together.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Override {
    /// Name of the facility; `None`: any.
    pub facility: Option<String>,
    /// Name of the product line; `None`: any.
    pub product_line: Option<String>,
    #[serde(default)]
    pub(crate) class: BTreeMap<KeyClass, Change>,
}

/// Whose key a rule is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope<'a> {
    /// Name of the facility, for keys that have one.
    pub facility: Option<&'a str>,
    /// Name of the product line, for keys that have one.
    pub product_line: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Document {
    version: u32,
    #[serde(default)]
    preset: Preset,
    #[serde(default)]
    class: BTreeMap<KeyClass, Change>,
    #[serde(default)]
    r#override: Vec<Override>,
}

/// A policy without contradictions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    preset: Preset,
    rules: BTreeMap<KeyClass, Rule>,
    overrides: Vec<Override>,
}

/// Why a policy is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Larger than [`MAX_POLICY_OCTETS`].
    #[error("the policy is larger than {MAX_POLICY_OCTETS} octets")]
    TooLarge,
    /// Not TOML, or with a field, class or value that is not known; the parser names the line.
    #[error("the policy cannot be read: {0}")]
    Syntax(String),
    /// Of a version that this code does not read.
    #[error("the policy is of version {0}; this program reads version {VERSION}")]
    Version(u32),
    /// More than [`MAX_OVERRIDES`].
    #[error("the policy has {0} overrides; at most {MAX_OVERRIDES} are read")]
    TooManyOverrides(usize),
    /// It contradicts itself, or its preset.
    #[error("the policy contradicts itself in {} places", .0.len())]
    Contradictions(Vec<Contradiction>),
}

impl Default for Policy {
    fn default() -> Self {
        Self { preset: Preset::Nist, rules: rules::defaults(), overrides: Vec::new() }
    }
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError`]; nothing of a policy with an error is used.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY_OCTETS {
            return Err(PolicyError::TooLarge);
        }
        let document: Document =
            toml::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string().trim_end().to_owned()))?;
        let Document { version, preset, class, r#override: overrides } = document;
        if version != VERSION {
            return Err(PolicyError::Version(version));
        }
        if overrides.len() > MAX_OVERRIDES {
            return Err(PolicyError::TooManyOverrides(overrides.len()));
        }
        let mut base = rules::defaults();
        preset.tighten(&mut base, &class);
        for (class, change) in &class {
            base.entry(*class).and_modify(|rule| change.apply(rule));
        }
        let policy = Self { preset, rules: base, overrides };
        let found = contradiction::find(&policy);
        if found.is_empty() { Ok(policy) } else { Err(PolicyError::Contradictions(found)) }
    }

    /// The preset that the policy claims to satisfy.
    #[must_use]
    pub const fn preset(&self) -> Preset {
        self.preset
    }

    /// The overrides, in the order of the file.
    #[must_use]
    pub fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    /// The rule of a class for one scope. An override for facility and product line together wins over one for either;
    /// where a facility's and a product line's both apply, each field takes the stricter value.
    #[must_use]
    pub fn rule(&self, class: KeyClass, scope: Scope<'_>) -> Rule {
        let mut rule = self.rules.get(&class).cloned().unwrap_or_else(|| rules::default(class));
        for specificity in 1..=2 {
            let applicable = self.overrides.iter().filter(|one| one.specificity() == specificity && one.covers(scope));
            let changes = applicable.filter_map(|one| one.class.get(&class));
            if let Some(change) = changes.cloned().reduce(Change::stricter) {
                change.apply(&mut rule);
            }
        }
        rule
    }
}

impl Override {
    fn specificity(&self) -> usize {
        usize::from(self.facility.is_some()) + usize::from(self.product_line.is_some())
    }

    fn covers(&self, scope: Scope<'_>) -> bool {
        let fits = |wanted: &Option<String>, given| wanted.as_deref().is_none_or(|wanted| Some(wanted) == given);
        fits(&self.facility, scope.facility) && fits(&self.product_line, scope.product_line)
    }

    /// The scope that exactly this override speaks of.
    pub(crate) fn scope(&self) -> Scope<'_> {
        Scope { facility: self.facility.as_deref(), product_line: self.product_line.as_deref() }
    }
}

impl Change {
    fn apply(&self, rule: &mut Rule) {
        let Self { originator, recipient_after, rotate_at, uses, octets, rotate_on, exception } = self;
        rule.originator = originator.or(rule.originator);
        rule.recipient_after = recipient_after.or(rule.recipient_after);
        rule.rotate_at = rotate_at.unwrap_or(rule.rotate_at);
        rule.uses = uses.or(rule.uses);
        rule.octets = octets.or(rule.octets);
        if let Some(events) = rotate_on {
            rule.rotate_on.clone_from(events);
        }
        // An exception is for the periods that it was written for.
        if exception.is_some() || originator.is_some() || recipient_after.is_some() {
            rule.exception.clone_from(exception);
        }
    }

    /// Of each field the value that asks for more.
    fn stricter(self, other: Self) -> Self {
        fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        let rotate_on = match (self.rotate_on, other.rotate_on) {
            (Some(a), Some(b)) => Some(a.union(&b).copied().collect()),
            (a, b) => a.or(b),
        };
        Self {
            originator: least(self.originator, other.originator),
            recipient_after: least(self.recipient_after, other.recipient_after),
            rotate_at: least(self.rotate_at, other.rotate_at),
            uses: least(self.uses, other.uses),
            octets: least(self.octets, other.octets),
            rotate_on,
            exception: self.exception.or(other.exception),
        }
    }
}

#[cfg(test)]
mod tests;

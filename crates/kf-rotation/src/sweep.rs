//! The sweep: what is to be done with a key now, and why.
//!
//! [`sweep`] looks at one key at a time and keeps nothing. Whoever carries out what it says records each act together with
//! its log entry, and asks again: after a crash the question is the same and so is the answer. What has been done is never
//! said again, so that sweeping twice does nothing twice.
//!
//! A clock that went back makes keys look younger, never older: nothing is destroyed too early by it, and what was
//! deactivated stays so, because states do not go back.

use kf_key::{KeyState, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::class::KeyClass;
use crate::policy::Rule;

/// What calls for a successor whatever the age of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// Its secrecy is in doubt. Always calls for a successor, and nothing more may be protected with the key.
    Compromise,
    /// Somebody opened the device.
    Tamper,
    /// The device changed hands.
    OwnerChange,
    /// Somebody who had access left.
    CustodianLeft,
    /// Its algorithm is to be replaced.
    AlgorithmWeakened,
    /// The firmware that uses it had a hole.
    FirmwareVulnerability,
}

/// How far the successor of a key is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Successor {
    /// There is none.
    #[default]
    None,
    /// Made, and not yet where it is needed.
    Made,
    /// Where it is needed first: it can be activated.
    Ready,
    /// Active.
    Active,
}

/// What is known about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFacts<'a> {
    /// Its class.
    pub class: KeyClass,
    /// Its state.
    pub state: KeyState,
    /// When it was activated; `None` before.
    pub activated: Option<UnixMillis>,
    /// How often it has protected something.
    pub uses: u64,
    /// How many octets it has protected.
    pub octets: u64,
    /// What has happened to it.
    pub events: &'a [Event],
    /// How far its successor is.
    pub successor: Successor,
    /// What it still protects: objects, wrapped keys, or devices that hold a key below it and are not barred.
    pub protected: u64,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// The share of its originator-usage period at which rotation begins, or all of it, is over since then.
    Time {
        /// Since when.
        since: UnixMillis,
    },
    /// So many uses.
    Uses(u64),
    /// So many octets.
    Octets(u64),
    /// Something happened.
    Event(Event),
    /// Its successor has taken over.
    Succeeded,
    /// Nothing is protected by it any more.
    NothingLeft,
    /// Its recipient-usage period is over since then, and something is still protected by it.
    RecipientPeriod {
        /// Since when.
        since: UnixMillis,
    },
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Operation {
    /// Make the successor.
    MakeSuccessor(Reason),
    /// Activate the successor, which is where it is needed.
    ActivateSuccessor(Reason),
    /// Protect nothing more with it from now on; its state stays, because its type knows no deactivation.
    Stop(Reason),
    /// Move what it protects under its successor; so many remain.
    Reprotect(u64),
    /// Deactivate it.
    Deactivate(Reason),
    /// Destroy it.
    Destroy(Reason),
    /// Tell somebody: it cannot be ended without losing what it protects, and cannot go on by policy.
    Alarm(Reason),
}

/// What is to be done with a key at `now`, in this order. Empty when nothing is.
///
/// Nothing is ever destroyed while it protects something: an alarm is raised instead.
#[must_use]
pub fn sweep(facts: &KeyFacts<'_>, rule: &Rule, now: UnixMillis) -> Vec<Operation> {
    match facts.state {
        // It waits for its own activation, which its predecessor's sweep asks for.
        KeyState::PreActivation | KeyState::Destroyed => Vec::new(),
        KeyState::Active => active(facts, rule, now),
        KeyState::Suspended => ended(facts, rule, now).map_or_else(Vec::new, |reason| vec![end(facts, reason)]),
        KeyState::Deactivated => deactivated(facts, rule, now),
        KeyState::Compromised => compromised(facts),
    }
}

/// Why a key must protect nothing more, if so.
#[must_use]
pub fn ended(facts: &KeyFacts<'_>, rule: &Rule, now: UnixMillis) -> Option<Reason> {
    if facts.events.contains(&Event::Compromise) {
        return Some(Reason::Event(Event::Compromise));
    }
    reached(facts, rule, now, 100)
}

/// Why a successor is due, if so.
#[must_use]
pub fn due(facts: &KeyFacts<'_>, rule: &Rule, now: UnixMillis) -> Option<Reason> {
    let calls = |event: &&Event| **event == Event::Compromise || rule.rotate_on.contains(event);
    if let Some(event) = facts.events.iter().find(calls) {
        return Some(Reason::Event(*event));
    }
    reached(facts, rule, now, rule.rotate_at)
}

/// When time alone makes a successor due; `None` for a key that is not active or has no period.
#[must_use]
pub fn due_at(facts: &KeyFacts<'_>, rule: &Rule) -> Option<UnixMillis> {
    Some(facts.activated?.plus(share(rule.originator?.milliseconds(), rule.rotate_at)))
}

fn active(facts: &KeyFacts<'_>, rule: &Rule, now: UnixMillis) -> Vec<Operation> {
    if facts.successor == Successor::Active {
        return succeeded(facts);
    }
    let mut operations = Vec::new();
    if let Some(reason) = due(facts, rule, now) {
        match facts.successor {
            Successor::None => operations.push(Operation::MakeSuccessor(reason)),
            Successor::Ready => operations.push(Operation::ActivateSuccessor(reason)),
            Successor::Made | Successor::Active => {}
        }
    }
    operations.extend(ended(facts, rule, now).map(|reason| stop(facts, reason)));
    operations
}

/// A key whose successor is active: it protects nothing more, and goes when nothing needs it.
fn succeeded(facts: &KeyFacts<'_>) -> Vec<Operation> {
    if !facts.class.key_type().ends_in_destruction() {
        return vec![Operation::Deactivate(Reason::Succeeded)];
    }
    match facts.protected {
        0 => vec![Operation::Destroy(Reason::NothingLeft)],
        remaining => vec![Operation::Stop(Reason::Succeeded), Operation::Reprotect(remaining)],
    }
}

fn deactivated(facts: &KeyFacts<'_>, rule: &Rule, now: UnixMillis) -> Vec<Operation> {
    if facts.protected == 0 {
        return vec![Operation::Destroy(Reason::NothingLeft)];
    }
    let mut operations = Vec::new();
    if facts.successor == Successor::None {
        operations.push(Operation::MakeSuccessor(Reason::Succeeded));
    } else {
        operations.push(Operation::Reprotect(facts.protected));
    }
    if let (Some(activated), Some(originator), Some(after)) = (facts.activated, rule.originator, rule.recipient_after) {
        let since = activated.plus(originator.plus(after).milliseconds());
        if now >= since {
            operations.push(Operation::Alarm(Reason::RecipientPeriod { since }));
        }
    }
    operations
}

fn compromised(facts: &KeyFacts<'_>) -> Vec<Operation> {
    let reason = Reason::Event(Event::Compromise);
    match (facts.successor, facts.protected) {
        (Successor::None, _) => vec![Operation::MakeSuccessor(reason)],
        (Successor::Made, _) => Vec::new(),
        (Successor::Ready, _) => vec![Operation::ActivateSuccessor(reason)],
        (Successor::Active, 0) => vec![Operation::Destroy(Reason::NothingLeft)],
        (Successor::Active, remaining) => vec![Operation::Reprotect(remaining)],
    }
}

/// A key without an active successor that must protect nothing more.
fn stop(facts: &KeyFacts<'_>, reason: Reason) -> Operation {
    if facts.class.key_type().ends_in_destruction() { Operation::Stop(reason) } else { Operation::Deactivate(reason) }
}

/// A suspended key whose time is over (SP 800-57 Part 1 section 7, transitions 9 and 12).
fn end(facts: &KeyFacts<'_>, reason: Reason) -> Operation {
    match (facts.class.key_type().ends_in_destruction(), facts.protected) {
        (false, _) => Operation::Deactivate(reason),
        (true, 0) => Operation::Destroy(reason),
        (true, _) => Operation::Alarm(reason),
    }
}

/// Which limit has been reached to `percent` hundredths.
fn reached(facts: &KeyFacts<'_>, rule: &Rule, now: UnixMillis, percent: u8) -> Option<Reason> {
    if rule.uses.is_some_and(|limit| facts.uses >= share(limit, percent)) {
        return Some(Reason::Uses(facts.uses));
    }
    if rule.octets.is_some_and(|limit| facts.octets >= share(limit, percent)) {
        return Some(Reason::Octets(facts.octets));
    }
    let since = facts.activated?.plus(share(rule.originator?.milliseconds(), percent));
    (now >= since).then_some(Reason::Time { since })
}

/// `percent` hundredths of `whole`, rounded down, and never zero of something.
fn share(whole: u64, percent: u8) -> u64 {
    let part = u128::from(whole) * u128::from(percent.min(100)) / 100;
    u64::try_from(part).unwrap_or(whole).max(whole.min(1))
}

#[cfg(test)]
mod tests;

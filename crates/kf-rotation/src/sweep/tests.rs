use std::collections::BTreeSet;

use kf_key::{KeyState, UnixMillis};
use proptest::prelude::*;

use super::*;
use crate::period::Period;
use crate::policy::{Policy, Scope};

const START: UnixMillis = UnixMillis(1_800_000_000_000);
const DAY: u64 = UnixMillis::DAY;

fn rule() -> Rule {
    Rule {
        originator: Some(Period::days(100)),
        recipient_after: Some(Period::days(50)),
        rotate_at: 80,
        uses: Some(1_000),
        octets: Some(1_000_000),
        rotate_on: BTreeSet::from([Event::CustodianLeft]),
        exception: None,
    }
}

fn facts() -> KeyFacts<'static> {
    KeyFacts {
        class: KeyClass::DataEncryptionKey,
        state: KeyState::Active,
        activated: Some(START),
        uses: 0,
        octets: 0,
        events: &[],
        successor: Successor::None,
        protected: 5,
    }
}

fn after(days: u64) -> UnixMillis {
    START.plus(days * DAY)
}

#[test]
fn a_successor_is_made_at_the_share_of_the_period_and_the_key_ends_with_the_period() {
    assert_eq!(sweep(&facts(), &rule(), after(79)), []);
    let due = Reason::Time { since: after(80) };
    assert_eq!(sweep(&facts(), &rule(), after(80)), [Operation::MakeSuccessor(due)]);
    let made = KeyFacts { successor: Successor::Made, ..facts() };
    assert_eq!(sweep(&made, &rule(), after(99)), []);
    let ended = Operation::Deactivate(Reason::Time { since: after(100) });
    assert_eq!(sweep(&made, &rule(), after(100)), [ended]);
    let ready = KeyFacts { successor: Successor::Ready, ..facts() };
    assert_eq!(sweep(&ready, &rule(), after(81)), [Operation::ActivateSuccessor(due)]);
}

#[test]
fn whichever_limit_comes_first_calls_for_a_successor_and_then_ends_the_key() {
    let used = |uses, octets| sweep(&KeyFacts { uses, octets, ..facts() }, &rule(), after(1));
    assert_eq!(used(799, 799_999), []);
    assert_eq!(used(800, 0), [Operation::MakeSuccessor(Reason::Uses(800))]);
    assert_eq!(used(0, 800_000), [Operation::MakeSuccessor(Reason::Octets(800_000))]);
    let both = [Operation::MakeSuccessor(Reason::Uses(1_000)), Operation::Deactivate(Reason::Uses(1_000))];
    assert_eq!(used(1_000, 0), both);
}

#[test]
fn an_event_calls_for_a_successor_only_where_the_policy_names_it_except_a_compromise() {
    let with = |events| sweep(&KeyFacts { events, ..facts() }, &rule(), after(1));
    let left = Reason::Event(Event::CustodianLeft);
    assert_eq!(with(&[Event::CustodianLeft]), [Operation::MakeSuccessor(left)]);
    assert_eq!(with(&[Event::Tamper]), []);
    let compromise = Reason::Event(Event::Compromise);
    let expected = [Operation::MakeSuccessor(compromise), Operation::Deactivate(compromise)];
    assert_eq!(with(&[Event::Compromise]), expected);
}

#[test]
fn a_key_is_destroyed_when_nothing_is_left_and_an_alarm_is_raised_when_something_is() {
    let old = KeyFacts { state: KeyState::Deactivated, successor: Successor::Active, ..facts() };
    assert_eq!(sweep(&old, &rule(), after(120)), [Operation::Reprotect(5)]);
    let over = Operation::Alarm(Reason::RecipientPeriod { since: after(150) });
    assert_eq!(sweep(&old, &rule(), after(150)), [Operation::Reprotect(5), over]);
    let empty = KeyFacts { protected: 0, ..old };
    assert_eq!(sweep(&empty, &rule(), after(120)), [Operation::Destroy(Reason::NothingLeft)]);
}

#[test]
fn a_key_that_knows_no_deactivation_stays_until_nobody_holds_a_key_below_it() {
    let facility = KeyFacts { class: KeyClass::FacilityKey, successor: Successor::Active, ..facts() };
    let held = [Operation::Stop(Reason::Succeeded), Operation::Reprotect(5)];
    assert_eq!(sweep(&facility, &rule(), after(90)), held);
    let empty = KeyFacts { protected: 0, ..facility };
    assert_eq!(sweep(&empty, &rule(), after(90)), [Operation::Destroy(Reason::NothingLeft)]);
}

#[test]
fn a_clock_that_went_back_ends_nothing() {
    assert_eq!(sweep(&facts(), &rule(), UnixMillis(0)), []);
    let future = KeyFacts { activated: Some(after(10_000)), ..facts() };
    assert_eq!(sweep(&future, &rule(), after(1)), []);
}

#[test]
fn a_suspended_key_ends_with_its_period_and_is_otherwise_left_alone() {
    let suspended = KeyFacts { state: KeyState::Suspended, ..facts() };
    assert_eq!(sweep(&suspended, &rule(), after(90)), []);
    let over = Reason::Time { since: after(100) };
    assert_eq!(sweep(&suspended, &rule(), after(100)), [Operation::Deactivate(over)]);
    let identity = KeyFacts { class: KeyClass::LDevIdKey, protected: 0, ..suspended };
    assert_eq!(sweep(&identity, &rule(), after(100)), [Operation::Destroy(over)]);
}

#[test]
fn a_rotation_of_a_tiny_limit_begins_with_its_first_use_and_never_before() {
    let once = Rule { uses: Some(1), ..rule() };
    assert_eq!(sweep(&facts(), &once, START), []);
    let used = KeyFacts { uses: 1, ..facts() };
    assert_eq!(sweep(&used, &once, START).len(), 2);
}

/// A key as a service keeps it, to carry out what the sweep says.
#[derive(Clone, Debug)]
struct Kept {
    class: KeyClass,
    state: KeyState,
    uses: u64,
    events: Vec<Event>,
    successor: Successor,
    protected: u64,
    stopped: bool,
}

impl Kept {
    fn facts(&self) -> KeyFacts<'_> {
        KeyFacts {
            class: self.class,
            state: self.state,
            activated: Some(START),
            uses: self.uses,
            octets: 0,
            events: &self.events,
            successor: self.successor,
            protected: self.protected,
        }
    }

    fn go(&mut self, to: KeyState) {
        self.state = self.state.transition(to, self.class.key_type()).expect("a transition of SP 800-57");
    }

    /// Whether anything changed.
    fn carry_out(&mut self, operation: Operation) -> bool {
        match operation {
            Operation::MakeSuccessor(_) => self.successor = Successor::Ready,
            Operation::ActivateSuccessor(_) => self.successor = Successor::Active,
            Operation::Stop(_) => return !std::mem::replace(&mut self.stopped, true),
            Operation::Reprotect(remaining) => {
                assert_eq!(remaining, self.protected);
                // Only an active successor can take something over.
                if self.successor != Successor::Active {
                    self.successor = Successor::Active;
                } else {
                    self.protected -= 1;
                }
            }
            Operation::Deactivate(_) => self.go(KeyState::Deactivated),
            Operation::Destroy(_) => {
                assert_eq!(self.protected, 0, "destroyed while something is protected");
                self.go(KeyState::Destroyed);
            }
            Operation::Alarm(_) => return false,
        }
        true
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    proptest::collection::vec(
        prop_oneof![Just(Event::Compromise), Just(Event::Tamper), Just(Event::CustodianLeft)],
        0..3,
    )
}

proptest! {
    /// Whatever the key, carrying out what the sweep says, one operation at a time as if the program were killed after
    /// each, ends: by legal transitions, never destroying what protects something.
    #[test]
    fn carrying_out_one_operation_after_another_ends_and_loses_nothing(
        class in proptest::sample::select(KeyClass::ALL.to_vec()),
        state in proptest::sample::select(KeyState::ALL.to_vec()),
        successor in prop_oneof![Just(Successor::None), Just(Successor::Made), Just(Successor::Ready), Just(Successor::Active)],
        uses in 0..2_000_u64, protected in 0..20_u64, days in 0..300_u64, events in events(),
    ) {
        let mut kept = Kept { class, state, uses, events, successor, protected, stopped: false };
        let mut steps = 0;
        while let Some(operation) =
            sweep(&kept.facts(), &rule(), after(days)).into_iter().find(|one| kept.clone().carry_out(*one))
        {
            kept.carry_out(operation);
            steps += 1;
            prop_assert!(steps < 100, "does not end: {kept:?}");
        }
        if state == KeyState::Active && ended(&kept.facts(), &rule(), after(days)).is_some() {
            prop_assert!(kept.stopped || kept.state != KeyState::Active, "still protects: {kept:?}");
        }
    }

    #[test]
    fn a_stricter_time_never_asks_for_less(days in 0..300_u64, more in 0..300_u64) {
        let count = |days| sweep(&facts(), &rule(), after(days)).len();
        prop_assert!(count(days + more) >= count(days));
    }
}

#[test]
fn the_default_policy_asks_for_nothing_on_the_first_day_and_for_something_in_the_end() {
    let policy = Policy::default();
    for class in KeyClass::ALL {
        let rule = policy.rule(class, Scope::default());
        let key = KeyFacts { class, ..facts() };
        let first = START.plus(UnixMillis::HOUR);
        assert_eq!(sweep(&key, &rule, first), [], "{class}");
        let last = START.plus(Period::MAX.milliseconds());
        assert_eq!(sweep(&key, &rule, last).is_empty(), class == KeyClass::IDevIdKey, "{class}");
        assert_eq!(due_at(&key, &rule).is_none(), class == KeyClass::IDevIdKey, "{class}");
    }
}

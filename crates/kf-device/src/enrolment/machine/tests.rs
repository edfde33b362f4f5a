use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::enrolment::schedule::renew_at;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn validity(from: UnixMillis, lifetime: u64) -> Validity {
    let to = from.plus(lifetime);
    Validity { not_before: from, not_after: to, renew_at: renew_at(from, to, 0) }
}

fn fresh() -> State {
    State::new(None, Spare::Empty, true, false, false)
}

fn holding(validity: Validity) -> State {
    State::new(Some(validity), Spare::Empty, false, false, false)
}

/// Carries out what is decided until a wait, with `answer` for the world.
fn drive(state: &mut State, now: UnixMillis, mut answer: impl FnMut(Step) -> Outcome) -> (Vec<Step>, UnixMillis) {
    let mut steps = Vec::new();
    loop {
        let step = decide(state, now);
        if let Step::Wait { until } = step {
            return (steps, until);
        }
        steps.push(step);
        assert!(steps.len() < 50, "it never comes to rest: {steps:?}");
        state.observe(answer(step), now, 0);
    }
}

fn friendly(step: Step) -> Outcome {
    match step {
        Step::RunHook => Outcome::HookRan,
        Step::MakeRequest => Outcome::RequestMade,
        Step::Enrol(_) => Outcome::Issued(validity(NOW, UnixMillis::DAY)),
        Step::Prove => Outcome::Proved,
        Step::Adopt => Outcome::Adopted,
        Step::AskForAttention(_) => Outcome::AttentionAsked,
        Step::Wait { .. } => panic!("a wait is no act"),
    }
}

#[test]
fn a_new_device_enrols_proves_and_adopts_then_waits_for_two_thirds() {
    let mut state = fresh();
    let (steps, until) = drive(&mut state, NOW, friendly);
    let code = Step::Enrol(Credential::Code);
    assert_eq!(steps, [Step::MakeRequest, code, Step::Prove, Step::Adopt, Step::RunHook]);
    assert_eq!(until, NOW.plus(16 * UnixMillis::HOUR));
}

#[test]
fn a_due_certificate_is_renewed_by_itself() {
    let mut state = holding(validity(NOW.minus(20 * UnixMillis::HOUR), UnixMillis::DAY));
    state.has_code = true;
    let (steps, _) = drive(&mut state, NOW, friendly);
    assert_eq!(steps[1], Step::Enrol(Credential::Certificate));
    assert_eq!(state.in_use, Some(validity(NOW, UnixMillis::DAY)));
}

#[test]
fn an_expired_certificate_is_tried_first_then_the_code_then_the_idevid() {
    let mut state = holding(validity(NOW.minus(90 * UnixMillis::DAY), UnixMillis::DAY));
    (state.has_code, state.has_idevid) = (true, true);
    let (steps, until) = drive(&mut state, NOW, |step| match step {
        Step::Enrol(credential) => Outcome::Refused(credential),
        other => friendly(other),
    });
    let expected = [
        Step::MakeRequest,
        Step::Enrol(Credential::Certificate),
        Step::Enrol(Credential::Code),
        Step::Enrol(Credential::IDevId),
        Step::AskForAttention(Attention::AllRefused),
    ];
    assert_eq!(steps, expected);
    assert_eq!(until, NOW.plus(UnixMillis::HOUR));
    // An hour later everything is tried again: somebody may have acted.
    let (steps, _) = drive(&mut state, until, friendly);
    assert_eq!(steps[0], Step::Enrol(Credential::Certificate));
}

#[test]
fn without_any_credential_somebody_is_asked_and_no_key_is_made() {
    let mut state = State::new(None, Spare::Empty, false, false, false);
    let (steps, until) = drive(&mut state, NOW, friendly);
    assert_eq!(steps, [Step::AskForAttention(Attention::NoBootstrap)]);
    assert!(until > NOW);
}

#[test]
fn a_pending_request_is_kept_and_asked_again_when_the_server_said() {
    let mut state = fresh();
    let (_, until) = drive(&mut state, NOW, |step| match step {
        Step::Enrol(_) => Outcome::Pending { retry_after: 300_000 },
        other => friendly(other),
    });
    assert_eq!((state.spare, until), (Spare::Requested, NOW.plus(300_000)));
    let (steps, _) = drive(&mut state, until, friendly);
    assert_eq!(steps[0], Step::Enrol(Credential::Code), "the same request, not a new key");
}

#[test]
fn an_unproven_certificate_never_replaces_the_one_in_use() {
    let old = validity(NOW.minus(20 * UnixMillis::HOUR), UnixMillis::DAY);
    let mut state = holding(old);
    let mut now = NOW;
    for _ in 0..MAX_PROOF_REFUSALS {
        let (_, until) = drive(&mut state, now, |step| match step {
            Step::Prove => Outcome::ProofRefused,
            other => friendly(other),
        });
        assert_eq!(state.in_use, Some(old));
        now = until;
    }
    assert!(state.gives_up_proof());
    state.observe(Outcome::Discarded, now, 0);
    assert_eq!((state.in_use, state.spare), (Some(old), Spare::Empty));
}

#[test]
fn a_request_that_the_server_cannot_accept_is_made_anew_after_a_wait() {
    let mut state = fresh();
    let (_, until) = drive(&mut state, NOW, |step| match step {
        Step::Enrol(_) => Outcome::RequestRefused,
        other => friendly(other),
    });
    assert!(until > NOW);
    assert_eq!(decide(&state, until), Step::MakeRequest);
}

#[test]
fn a_failing_server_is_left_in_peace_for_longer_and_longer() {
    let mut state = fresh();
    let mut now = NOW;
    let mut waits = Vec::new();
    for _ in 0..14 {
        let (_, until) = drive(&mut state, now, |step| match step {
            Step::Enrol(_) => Outcome::Failed { retry_after: 0 },
            other => friendly(other),
        });
        waits.push(until.since(now));
        now = until;
    }
    assert!(waits.is_sorted() && waits[0] < waits[5]);
    assert_eq!(*waits.last().unwrap(), UnixMillis::HOUR / 2);
}

#[test]
fn a_start_with_a_certificate_in_the_spare_slot_goes_on_with_its_proof() {
    let old = validity(NOW.minus(UnixMillis::HOUR), UnixMillis::DAY);
    let state = State::new(Some(old), Spare::Issued(validity(NOW, UnixMillis::DAY)), false, false, false);
    assert_eq!(decide(&state, NOW), Step::Prove);
}

proptest! {
    /// Whatever happens in whatever order: the certificate in use changes by adoption of a proven one only, and there
    /// is always a next step.
    #[test]
    fn only_a_proven_certificate_comes_into_use(outcomes in proptest::collection::vec((0u8..12, any::<u64>()), 0..60)) {
        let mut state = holding(validity(NOW, UnixMillis::DAY));
        let mut now = NOW;
        for (choice, random) in outcomes {
            let before = state.clone();
            let outcome = match choice {
                0 => Outcome::HookRan,
                1 => Outcome::RequestMade,
                2 => Outcome::Issued(validity(now, UnixMillis::DAY)),
                3 => Outcome::Pending { retry_after: random % 1_000_000 },
                4 => Outcome::Refused(Credential::Certificate),
                5 => Outcome::RequestRefused,
                6 => Outcome::Proved,
                7 => Outcome::ProofRefused,
                8 => Outcome::Discarded,
                9 => Outcome::Adopted,
                10 => Outcome::AttentionAsked,
                _ => Outcome::Failed { retry_after: random % 1_000_000 },
            };
            state.observe(outcome, now, random);
            if state.in_use != before.in_use {
                prop_assert!(outcome == Outcome::Adopted && matches!(before.spare, Spare::Proven(_)));
            }
            if let Step::Wait { until } = decide(&state, now) {
                prop_assert!(until > now);
                now = until;
            }
        }
    }
}

#[test]
fn a_device_survives_a_year_without_a_server_and_renews_itself_when_it_is_back() {
    // A certificate of ninety days that was due long ago; nobody answers for a year.
    let mut state = holding(validity(NOW, 90 * UnixMillis::DAY));
    let (mut now, mut attempts) = (NOW, 0_u32);
    let end = NOW.plus(365 * UnixMillis::DAY);
    while now < end {
        let (steps, until) = drive(&mut state, now, |step| match step {
            Step::Enrol(_) => {
                attempts += 1;
                Outcome::Failed { retry_after: 0 }
            }
            other => friendly(other),
        });
        // Only ever the request of before, with the certificate of before: nothing is given up, nobody is called.
        assert!(!steps.iter().any(|step| matches!(step, Step::AskForAttention(_))), "{steps:?}");
        assert!(until > now, "it waits");
        now = until;
    }
    // From day 60 on, no more than once in a quarter of an hour and no less than once in a day.
    assert!((300..30_000).contains(&attempts), "{attempts}");
    assert!(!state.is_valid(now) && state.in_use.is_some());
    // The server is back, and its policy's grace covers the year.
    let (steps, _) = drive(&mut state, now, |step| match step {
        Step::Enrol(Credential::Certificate) => Outcome::Issued(validity(now, 90 * UnixMillis::DAY)),
        other => friendly(other),
    });
    assert!(steps.contains(&Step::Adopt), "{steps:?}");
    assert!(state.is_valid(now));
}

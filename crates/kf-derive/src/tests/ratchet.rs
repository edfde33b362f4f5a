use super::*;

fn ratchet() -> Ratchet {
    device().into_ratchet().unwrap()
}

fn session(ratchet: &Ratchet) -> SecretArray<32> {
    ratchet.session(b"session").unwrap().into_secret()
}

#[test]
fn steps_one_by_one_and_at_once_lead_to_the_same_key() {
    let mut slow = ratchet();
    for position in 1..=7 {
        assert_eq!(slow.advance_to(position), Ok(1));
    }
    let mut fast = ratchet();
    assert_eq!(fast.advance_to(7), Ok(7));
    assert!(session(&fast).equals(&session(&slow)));
}

#[test]
fn a_replayed_request_and_a_clock_that_went_back_change_nothing() {
    let mut ratchet = ratchet();
    ratchet.advance_to(5).unwrap();
    let before = session(&ratchet);
    for requested in [5, 4, 0] {
        assert_eq!(ratchet.advance_to(requested), Err(RatchetError::NotAhead { position: 5, requested }));
    }
    assert_eq!(ratchet.position(), 5);
    assert!(session(&ratchet).equals(&before));
}

#[test]
fn a_jump_beyond_the_bound_changes_nothing() {
    let mut ratchet = ratchet();
    let before = session(&ratchet);
    for requested in [Ratchet::<SoftwareKey>::MAX_STEPS + 1, u32::MAX] {
        assert_eq!(ratchet.advance_to(requested), Err(RatchetError::TooFar { position: 0, requested }));
    }
    assert!(session(&ratchet).equals(&before));
    assert_eq!(ratchet.advance_to(Ratchet::<SoftwareKey>::MAX_STEPS), Ok(Ratchet::<SoftwareKey>::MAX_STEPS));
}

#[test]
fn the_last_position_is_the_end() {
    let key = SecretArray::fill(|key| key.fill(1));
    let mut ratchet = Ratchet::<SoftwareKey>::resume(key, u32::MAX - 1);
    assert_eq!(ratchet.advance_to(u32::MAX), Ok(1));
    let refused = RatchetError::NotAhead { position: u32::MAX, requested: u32::MAX };
    assert_eq!(ratchet.advance_to(u32::MAX), Err(refused));
}

#[test]
fn a_ratchet_resumes_from_what_was_stored() {
    let mut first = ratchet();
    first.advance_to(3).unwrap();
    let stored = SecretArray::fill(|key| key.copy_from_slice(first.key().expose()));
    let mut second = Ratchet::<SoftwareKey>::resume(stored, first.position());
    first.advance_to(9).unwrap();
    second.advance_to(9).unwrap();
    assert!(session(&first).equals(&session(&second)));
}

#[test]
fn every_position_has_its_own_key_and_sessions() {
    let mut ratchet = ratchet();
    let mut seen = std::collections::BTreeSet::new();
    assert!(seen.insert(device().into_secret().expose().to_vec()));
    for position in 0..20 {
        if position > 0 {
            ratchet.advance_to(position).unwrap();
        }
        assert!(seen.insert(ratchet.key().expose().to_vec()));
        assert!(seen.insert(session(&ratchet).expose().to_vec()));
    }
}

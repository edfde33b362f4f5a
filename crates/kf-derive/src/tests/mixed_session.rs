use super::*;

fn shared(octet: u8) -> SecretArray<32> {
    SecretArray::fill(|secret| secret.fill(octet))
}

fn mixed(octet: u8, transcript: u8, epoch: u32) -> SecretArray<32> {
    device().mixed_session(shared(octet), &[transcript; 32], epoch).unwrap().into_secret()
}

#[test]
fn both_sides_of_an_exchange_get_the_same_session() {
    assert!(mixed(1, 2, 3).equals(&mixed(1, 2, 3)));
}

#[test]
fn a_thief_with_the_root_but_without_the_ephemeral_secret_gets_another_session() {
    // The thief recomputes the device key and has heard everything that was sent, so he lacks one thing only.
    let session = mixed(1, 2, 3);
    for guess in 2..=255 {
        assert!(!mixed(guess, 2, 3).equals(&session));
    }
    let static_sessions = [b"".as_slice(), &[2; 32], b"session"];
    for context in static_sessions {
        assert!(!device().session(context, 3).unwrap().into_secret().equals(&session));
    }
}

#[test]
fn who_knows_the_shared_secret_but_not_the_device_key_gets_another_session() {
    let stranger = DeviceKey::from_keyed_hmac(SoftwareKey::new(shared(9)));
    let session = stranger.mixed_session(shared(1), &[2; 32], 3).unwrap();
    assert!(!session.into_secret().equals(&mixed(1, 2, 3)));
}

#[test]
fn another_transcript_or_epoch_is_another_session() {
    assert!(!mixed(1, 3, 3).equals(&mixed(1, 2, 3)));
    assert!(!mixed(1, 2, 4).equals(&mixed(1, 2, 3)));
}

#[test]
fn an_all_zero_secret_is_refused() {
    let refused = device().mixed_session(shared(0), &[2; 32], 3).unwrap_err();
    assert_eq!(refused, MixError::SmallOrder);
}

#[test]
fn a_mixed_session_is_extract_then_expand() {
    let mix = Info::new(Level::Mix, Algorithm::HkdfSha256, Purpose::Derive, b"", 3).unwrap();
    let salt = expand(&SoftwareKey::new(device().into_secret()), &mix).unwrap().into_secret();
    let prk = extract(salt.expose(), &[1; 32]);
    let info = Info::new(Level::MixedSession, Algorithm::HkdfSha256, Purpose::Derive, &[2; 32], 3).unwrap();
    assert!(expand(&prk, &info).unwrap().into_secret().equals(&mixed(1, 2, 3)));
}

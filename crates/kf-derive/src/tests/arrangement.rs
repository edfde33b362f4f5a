use super::*;

#[test]
fn counter_mode_is_sp_800_108r1_with_one_block() {
    let info = Info::new(Level::Facility, Algorithm::HkdfSha256, Purpose::Derive, b"context", 7).unwrap();
    let message = [&[0, 0, 0, 1], b"keyfleet-v1".as_slice(), &[0], info.as_bytes(), &[0, 0, 1, 0]].concat();
    let mut expected = [0; 32];
    let parent = || SoftwareKey::new(SecretArray::fill(|key| key.fill(7)));
    parent().hmac_sha256(&message, &mut expected).unwrap();
    assert_eq!(CounterMode::new(parent()).derive(&info).unwrap().expose(), &expected);
}

#[test]
fn counter_mode_states_128_bits_for_a_key_of_16_octets() {
    let info = Info::new(Level::Boot, Algorithm::Aes128Ccm, Purpose::Encrypt, b"", 0).unwrap();
    let message = [&[0, 0, 0, 1], b"keyfleet-v1".as_slice(), &[0], info.as_bytes(), &[0, 0, 0, 128]].concat();
    let mut expected = [0; 32];
    let parent = || SoftwareKey::new(SecretArray::fill(|key| key.fill(7)));
    parent().hmac_sha256(&message, &mut expected).unwrap();
    assert_eq!(CounterMode::new(parent()).derive(&info).unwrap().expose(), &expected);
}

#[test]
fn the_longest_info_fits_the_fixed_input_of_counter_mode() {
    let context = [0xff; MAX_CONTEXT_OCTETS];
    let info = |epoch| Info::new(Level::Wrapping, Algorithm::Aes256Gcm, Purpose::WrapSignatureKey, &context, epoch);
    let key = CounterMode::new(SoftwareKey::new(SecretArray::fill(|key| key.fill(7))));
    let [one, other] = [1, 2].map(|epoch| key.derive(&info(epoch).unwrap()).unwrap());
    assert!(!one.equals(&other), "the last octets of info reach the HMAC");
}

#[test]
fn the_two_arrangements_share_no_key_at_any_level() {
    let facility = FacilityId::from_bytes([0x11; 16]);
    let device_id = DeviceId::from_bytes([0x33; 16]);
    let secret = || SoftwareKey::new(SecretArray::fill(|key| key.fill(7)));
    let expanded = FleetRoot::from_keyed_hmac(secret()).facility(facility, 1).unwrap();
    let counted = FleetRoot::from_keyed_hmac(CounterMode::new(secret())).facility(facility, 1).unwrap();
    let one = expanded.device(device_id, &[0; 16], 1).unwrap();
    let other = counted.device(device_id, &[0; 16], 1).unwrap();
    let [one_session, other_session] =
        [one.session(b"s", 1).unwrap().into_secret(), other.session(b"s", 1).unwrap().into_secret()];
    assert!(!one_session.equals(&other_session));
    assert!(!one.into_secret().equals(&other.into_secret()));
}

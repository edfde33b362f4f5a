use super::*;

fn tag<K: KeyedHmac<Error = core::convert::Infallible>>(key: &K, message: &[u8]) -> [u8; 32] {
    let mut tag = [0; 32];
    let Ok(()) = key.hmac_sha256(message, &mut tag);
    tag
}

#[test]
fn a_prepared_key_gives_the_same_hmac_at_every_length() {
    let key = || SoftwareKey::new(SecretArray::fill(|key| key.fill(0xa5)));
    let prepared = PreparedKey::new(key());
    let message: Vec<u8> = (0..=255).cycle().take(300).collect();
    for length in 0..message.len() {
        assert_eq!(tag(&prepared, &message[..length]), tag(&key(), &message[..length]), "{length}");
    }
}

#[test]
fn the_tree_below_a_prepared_facility_is_the_same_tree() {
    let facility = || root().facility(FacilityId::from_bytes([0x11; 16]), 1).unwrap();
    let prepared = facility().prepare();
    for last in 0..50 {
        let id = DeviceId::from_bytes([last; 16]);
        let keys = [facility().device(id, &[last; 16], 1), prepared.device(id, &[last; 16], 1)];
        let [one, other] = keys.map(|key| key.unwrap().into_secret());
        assert!(one.equals(&other));
    }
}

#[test]
fn debug_of_a_prepared_key_shows_no_state() {
    assert_eq!(std::format!("{:?}", root().prepare()), "FleetRoot(PreparedKey)");
}

use kf_backend::{BackendError, HeldRoot, KeyBackend, SoftwareBackend, conformance};
use kf_derive::{FleetRoot, SoftwareKey};
use kf_key::{FacilityId, KeyAlgorithm, KeyId, SecretArray};

fn backend(octet: u8) -> SoftwareBackend {
    SoftwareBackend::new(SecretArray::fill(|root| root.fill(octet)), "test".to_owned()).unwrap()
}

fn key(octet: u8) -> KeyId {
    KeyId::from_bytes([octet; 16])
}

#[test]
fn the_software_back_end_conforms() {
    conformance::check(&backend(1), [key(1), key(2)]).unwrap();
}

#[test]
fn the_published_tree_is_derived_in_software_at_every_level() {
    let covered = conformance::check_vectors(&mut |key| {
        let key = SecretArray::fill(|octets| octets.copy_from_slice(key.expose()));
        Ok(Box::new(SoftwareBackend::new(key, "vector".to_owned())?))
    });
    let covered = covered.unwrap();
    assert_eq!(covered.refused, 0);
    assert!(covered.hosts >= 10 && covered.steps >= 40, "{covered:?}");
}

#[test]
fn a_back_end_with_another_key_does_not_pass_for_the_published_tree() {
    let refused = conformance::check_vectors(&mut |_key| Ok(Box::new(backend(9)))).unwrap_err();
    assert!(matches!(refused, conformance::Nonconformance::Vector(_)));
}

#[test]
fn the_comparison_of_roots_notices_another_root() {
    conformance::check_same_root(&backend(1), &backend(1)).unwrap();
    assert!(conformance::check_same_root(&backend(1), &backend(2)).is_err());
}

#[test]
fn the_tree_over_a_held_root_is_the_tree_over_the_same_root_in_the_clear() {
    let facility = FacilityId::from_bytes([7; 16]);
    let backend = backend(1);
    let held = FleetRoot::from_keyed_hmac(HeldRoot::new(&backend)).facility(facility, 1).unwrap();
    let root = SoftwareKey::new(SecretArray::fill(|root| root.fill(1)));
    let clear = FleetRoot::from_keyed_hmac(root).facility(facility, 1).unwrap();
    let batches = [held, clear].map(|facility| facility.batch(b"batch", 1).unwrap().into_secret());
    assert!(batches[0].equals(&batches[1]));
}

#[test]
fn a_key_wrapped_under_another_root_does_not_open() {
    let pair = backend(1).generate_key_pair(key(1), KeyAlgorithm::P256).unwrap();
    assert_eq!(backend(2).open_key(key(1), &pair.handle).err(), Some(BackendError::Handle));
}

#[test]
fn no_secret_shows_in_debug() {
    // A name that has the digits.
    let shown = format!("{:?}", backend(0x41)).replace("MlDsa65", "");
    assert!(!shown.contains("65") && !shown.contains("41") && !shown.contains("AA"), "{shown}");
}

use kf_backend::{HandleError, KeyHandle, MAX_HANDLE_OCTETS};
use kf_key::KeyAlgorithm;
use proptest::prelude::*;

#[test]
fn other_versions_kinds_algorithms_and_sizes_are_refused() {
    let good = KeyHandle::Token { algorithm: KeyAlgorithm::P256, label: "key".to_owned() }.to_bytes();
    assert!(KeyHandle::from_bytes(&good).is_ok());
    for position in 0..3 {
        for octet in [0, 10, 255] {
            let mut changed = good.clone();
            changed[position] = octet;
            assert_eq!(KeyHandle::from_bytes(&changed), Err(HandleError), "octet {position} = {octet}");
        }
    }
    assert_eq!(KeyHandle::from_bytes(&good[..3]), Err(HandleError));
    assert_eq!(KeyHandle::from_bytes(&[1, 2, 1, 0xff]), Err(HandleError), "a label is UTF-8");
    let long = [good.as_slice(), &[b'x'; MAX_HANDLE_OCTETS]].concat();
    assert_eq!(KeyHandle::from_bytes(&long), Err(HandleError));
}

proptest! {
    #[test]
    fn whatever_is_read_is_written_back_the_same(bytes in proptest::collection::vec(0..4_u8, 0..12)) {
        if let Ok(handle) = KeyHandle::from_bytes(&bytes) {
            prop_assert_eq!(handle.to_bytes(), bytes);
        }
    }
}

use kf_derive::{FleetRoot, SoftwareKey};
use kf_key::{DeviceId, FacilityId, SecretArray, SecretBytes};
use kf_signer::{DeviceKeyPlace, RateCeilings, SealingKey, SignerClient, SignerError, SignerRefusal};

use crate::authority::{backend, in_process};

const PLACE: DeviceKeyPlace = DeviceKeyPlace {
    facility: FacilityId::from_bytes([1; 16]),
    facility_epoch: 3,
    device: DeviceId::from_bytes([2; 16]),
    device_epoch: 5,
};

async fn leaf(signer: &SignerClient, place: DeviceKeyPlace, salt: &[u8], service: &str) -> Vec<u8> {
    let wanted = SealingKey { place, wrapped_salt: salt, service };
    signer.derive_sealing(wanted).await.unwrap().expose().to_vec()
}

#[tokio::test]
async fn a_leaf_is_the_one_of_the_tree() {
    let (facility, device) = (PLACE.facility, PLACE.device);
    let signer = in_process();
    let salt = signer.new_device_salt(device).await.unwrap();
    // Nobody but the signer unwraps a salt, so equality is shown over all that could differ: the root and the place.
    let found = leaf(&signer, PLACE, &salt, "telemetry").await;
    assert_eq!(found, leaf(&signer, PLACE, &salt, "telemetry").await, "the same again");
    let others = [
        DeviceKeyPlace { facility: FacilityId::from_bytes([9; 16]), ..PLACE },
        DeviceKeyPlace { facility_epoch: 4, ..PLACE },
        DeviceKeyPlace { device_epoch: 6, ..PLACE },
    ];
    for other in others {
        assert_ne!(found, leaf(&signer, other, &salt, "telemetry").await, "{other:?}");
    }
    assert_ne!(found, leaf(&signer, PLACE, &salt, "commands").await);
    let another = signer.new_device_salt(device).await.unwrap();
    assert_ne!(found, leaf(&signer, PLACE, &another, "telemetry").await);
    let root = FleetRoot::from_keyed_hmac(SoftwareKey::new(SecretArray::fill(|root| root.fill(1))));
    let without_salt = root.facility(facility, 3).unwrap().device(device, &[0; 16], 5).unwrap();
    let without_salt = without_salt.session(b"sealed", 0).unwrap().application(b"telemetry", 0).unwrap();
    assert_ne!(found, without_salt.into_secret().expose().to_vec());
}

#[tokio::test]
async fn a_salt_serves_its_device_and_root_only() {
    let signer = in_process();
    let salt = signer.new_device_salt(PLACE.device).await.unwrap();
    let stranger = DeviceKeyPlace { device: DeviceId::from_bytes([7; 16]), ..PLACE };
    let wanted = SealingKey { place: stranger, wrapped_salt: &salt, service: "telemetry" };
    assert_eq!(signer.derive_sealing(wanted).await.unwrap_err(), SignerError::Wrapped);
    let elsewhere = SignerClient::in_process(backend(2), RateCeilings::default()).unwrap();
    let wanted = SealingKey { place: PLACE, wrapped_salt: &salt, service: "telemetry" };
    assert_eq!(elsewhere.derive_sealing(wanted).await.unwrap_err(), SignerError::Wrapped);
    let wanted = SealingKey { place: PLACE, wrapped_salt: &[7; 1_000], service: "telemetry" };
    assert_eq!(signer.derive_sealing(wanted).await.unwrap_err(), SignerError::Wrapped);
}

#[tokio::test]
async fn the_server_neither_unwraps_a_salt_nor_makes_one_of_its_own() {
    let signer = in_process();
    let salt = signer.new_device_salt(PLACE.device).await.unwrap();
    let context = [b"device salt ".as_slice(), PLACE.device.as_bytes()].concat();
    let refused = SignerError::Refused(SignerRefusal::Purpose);
    assert_eq!(signer.unwrap(&context, &salt).await.unwrap_err(), refused);
    assert_eq!(signer.wrap(&context, &SecretBytes::from_vec(vec![0; 16])).await.unwrap_err(), refused);
    assert_eq!(signer.unwrap(b"anything", &salt).await.unwrap_err(), SignerError::Wrapped);
}

#[tokio::test]
async fn a_label_that_names_no_service_is_refused() {
    let signer = in_process();
    let salt = signer.new_device_salt(PLACE.device).await.unwrap();
    for service in ["", "Telemetry", "a_b", "seventeen-octets-", "tel emetry"] {
        let wanted = SealingKey { place: PLACE, wrapped_salt: &salt, service };
        let refused = signer.derive_sealing(wanted).await.unwrap_err();
        assert!(matches!(refused, SignerError::Refused(SignerRefusal::Content(_))), "{service}: {refused:?}");
    }
}

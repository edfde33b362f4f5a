//! Versions of the wrapping key: what moves from one to the next, and what ends with one.

use std::sync::Arc;

use kf_key::{DeviceId, KeyAlgorithm, KeyId, SecretArray, SecretBytes};
use kf_signer::{
    DeviceKeyPlace, FIRST_VERSION, KeyFacts, KeyHandle, KeyPurpose, MAX_REWRAPPED, RateCeilings, RewrapItem,
    SealingKey, SignerClient, SignerError, SignerRefusal, SoftwareBackend, wrapped_version,
};

const CONTEXT: &[u8] = b"row 7";
const DEVICE: DeviceId = DeviceId::from_bytes([2; 16]);

fn signer(root: u8) -> SignerClient {
    let backend = SoftwareBackend::new(SecretArray::fill(|octets: &mut [u8; 32]| octets.fill(root)), "test".into());
    SignerClient::in_process(Arc::new(backend.unwrap()), RateCeilings::default()).unwrap()
}

async fn advance(signer: &SignerClient, version: u32) -> Vec<u8> {
    let sealed = signer.new_wrapping(version).await.unwrap();
    signer.register_wrapping(version, sealed.clone());
    sealed
}

async fn wrap(signer: &SignerClient) -> Vec<u8> {
    signer.wrap(CONTEXT, &SecretBytes::from_vec(b"secret".to_vec())).await.unwrap()
}

async fn opens(signer: &SignerClient, wrapped: &[u8]) -> bool {
    match signer.unwrap(CONTEXT, wrapped).await {
        Ok(secret) => secret.equals(b"secret"),
        Err(SignerError::Wrapped) => false,
        Err(other) => panic!("{other}"),
    }
}

fn secret(context: Vec<u8>, wrapped: &[u8]) -> RewrapItem {
    RewrapItem { context, wrapped: wrapped.to_vec() }
}

#[tokio::test]
async fn a_new_version_wraps_and_every_older_one_still_opens_also_in_the_next_life_of_the_signer() {
    let first = signer(1);
    let one = wrap(&first).await;
    let sealed = advance(&first, 2).await;
    let two = wrap(&first).await;
    assert_eq!((wrapped_version(&one), wrapped_version(&two)), (Some(FIRST_VERSION), Some(2)));
    assert!(opens(&first, &one).await && opens(&first, &two).await);
    let again = signer(1);
    assert!(opens(&again, &one).await && !opens(&again, &two).await, "a version is not derived from the root");
    again.register_wrapping(2, sealed.clone());
    assert!(opens(&again, &two).await);
    let stranger = signer(9);
    stranger.register_wrapping(2, sealed);
    assert_eq!(stranger.load_wrapping().await.unwrap_err(), SignerError::Wrapped, "sealed under another root");
}

#[tokio::test]
async fn rewrapping_moves_what_opens_and_names_what_does_not() {
    let signer = signer(1);
    let (good, salt) = (wrap(&signer).await, signer.new_device_salt(DEVICE).await.unwrap());
    advance(&signer, 2).await;
    let moved = signer
        .rewrap(&[
            secret(CONTEXT.to_vec(), &good),
            secret(b"another row".to_vec(), &good),
            secret(SignerClient::salt_context(DEVICE), &salt),
            secret(CONTEXT.to_vec(), b"no secret"),
        ])
        .await
        .unwrap();
    let versions: Vec<_> = moved.iter().map(|one| one.as_deref().and_then(wrapped_version)).collect();
    assert_eq!(versions, [Some(2), None, Some(2), None]);
    assert!(opens(&signer, moved[0].as_ref().unwrap()).await);
    // The same salt: the same leaf.
    let place = DeviceKeyPlace {
        facility: kf_key::FacilityId::from_bytes([1; 16]),
        facility_epoch: 1,
        device: DEVICE,
        device_epoch: 1,
    };
    let mut leaves = Vec::new();
    for wrapped_salt in [&salt, moved[2].as_ref().unwrap()] {
        let wanted = SealingKey { place, wrapped_salt, service: "telemetry" };
        leaves.push(signer.derive_sealing(wanted).await.unwrap().expose().to_vec());
    }
    assert_eq!(leaves[0], leaves[1]);
    let many = vec![secret(Vec::new(), b""); MAX_REWRAPPED + 1];
    let refused = signer.rewrap(&many).await.unwrap_err();
    assert_eq!(refused, SignerError::Refused(SignerRefusal::TooLarge { limit: MAX_REWRAPPED }));
}

#[tokio::test]
async fn an_ended_version_opens_nothing_more_and_wraps_nothing_more() {
    let signer = signer(1);
    let one = wrap(&signer).await;
    advance(&signer, 2).await;
    let two = wrap(&signer).await;
    advance(&signer, 3).await;
    for (version, wrapped) in [(2, &two), (1, &one)] {
        assert!(opens(&signer, wrapped).await);
        signer.end_wrapping(version).await.unwrap();
        assert!(!opens(&signer, wrapped).await, "version {version}");
    }
    assert_eq!(wrapped_version(&wrap(&signer).await), Some(3));
}

#[tokio::test]
async fn a_signature_key_goes_on_as_the_same_key_under_another_version_and_ends_with_it() {
    let signer = signer(1);
    let id = KeyId::from_bytes([3; 16]);
    let made = signer.generate_key(id, KeyPurpose::LogCheckpoint, KeyAlgorithm::Ed25519).await.unwrap();
    assert_eq!(made.handle.wrapping_version(), FIRST_VERSION);
    let sealed = advance(&signer, 2).await;
    let moved = signer.rewrap_handle(id, &made.handle).await.unwrap();
    assert_eq!((moved.wrapping_version(), moved.purpose()), (2, KeyPurpose::LogCheckpoint));
    assert_eq!(KeyHandle::from_bytes(&moved.to_bytes()).unwrap(), moved);
    let before = signer.sign_checkpoint(id, "example.org/log", 1, [1; 32]).await.unwrap();

    let again = self::signer(1);
    let facts = KeyFacts { purpose: KeyPurpose::LogCheckpoint, issuer_name: Vec::new() };
    again.register_key(id, moved.clone(), facts.clone());
    let unknown = again.sign_checkpoint(id, "example.org/log", 1, [1; 32]).await.unwrap_err();
    assert_eq!(unknown, SignerError::Wrapped, "the handle is of use with its version alone");
    again.register_wrapping(2, sealed);
    assert_eq!(again.sign_checkpoint(id, "example.org/log", 1, [1; 32]).await.unwrap(), before, "the same key");

    // A handle that says another version, or that lies under another key's identifier, is none of ours.
    let mut forged = moved.to_bytes();
    forged[5] ^= 1;
    let forged = KeyHandle::from_bytes(&forged).unwrap();
    assert!(matches!(signer.rewrap_handle(id, &forged).await, Err(SignerError::Refused(_))));
    let other = KeyId::from_bytes([4; 16]);
    assert!(matches!(signer.rewrap_handle(other, &moved).await, Err(SignerError::Refused(_))));
}

#[tokio::test]
async fn the_seal_of_a_backup_is_the_roots_and_outlives_every_version() {
    let signer = signer(1);
    advance(&signer, 2).await;
    let digest = SecretBytes::from_vec(vec![7; 32]);
    let sealed = signer.wrap(b"backup manifest", &digest).await.unwrap();
    signer.end_wrapping(1).await.unwrap();
    let (again, stranger) = (self::signer(1), self::signer(9));
    for knows in [&signer, &again] {
        assert!(knows.unwrap(b"backup manifest", &sealed).await.unwrap().equals(&[7; 32]));
    }
    assert_eq!(stranger.unwrap(b"backup manifest", &sealed).await.unwrap_err(), SignerError::Wrapped);
}

#[tokio::test]
async fn nobody_takes_a_private_key_out_by_naming_its_context() {
    let signer = signer(1);
    let context = [&b"signature key "[..], &[3; 16]].concat();
    let refused = SignerError::Refused(SignerRefusal::Purpose);
    assert_eq!(signer.unwrap(&context, &[1; 60]).await.unwrap_err(), refused);
    assert_eq!(signer.wrap(&context, &SecretBytes::from_vec(vec![1])).await.unwrap_err(), refused);
}

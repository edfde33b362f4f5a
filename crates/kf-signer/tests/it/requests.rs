use kf_crypto::PrivateKey;
use kf_key::{CertificateProfile, KeyAlgorithm, SecretBytes};
use kf_pki::certificate::{Subject, check_issuance, check_root};
use kf_signer::{KeyFacts, KeyHandle, KeyPurpose, RateCeilings, SignerClient, SignerError, SignerRefusal};

use crate::authority::{
    Hierarchy, assert_signed_by, authority_name, backend, crl, device, in_process, issuing_authority, key_id, request,
};

fn spki() -> Vec<u8> {
    PrivateKey::generate(KeyAlgorithm::P256).unwrap().spki()
}

fn is_content<T: std::fmt::Debug>(outcome: Result<T, SignerError>, part: &str) -> bool {
    matches!(outcome, Err(SignerError::Refused(SignerRefusal::Content(reason))) if reason.contains(part))
}

#[tokio::test]
async fn a_hierarchy_of_every_algorithm_signs_certificates_and_crls() {
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
        let signer = in_process();
        let made = Hierarchy::make(&signer, algorithm).await;
        let checked = device(&made.issuing, &spki(), 3);
        let tbs = checked.tbs().to_vec();
        let issued = signer.sign_certificate(made.issuing_key.key, checked).await.unwrap();
        assert_signed_by(&made.issuing, &tbs, &issued.der);
        let checked = crl(&made.root, 3);
        let tbs = checked.tbs().to_vec();
        assert_signed_by(&made.root, &tbs, &signer.sign_crl(made.root_key.key, checked).await.unwrap());
    }
}

#[tokio::test]
async fn many_requests_in_flight_each_get_their_own_answer() {
    let signer = in_process();
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    let key = spki();
    let mut tasks = Vec::new();
    for serial in 0..200 {
        let (signer, key, checked) = (signer.clone(), made.issuing_key.key, device(&made.issuing, &key, serial));
        tasks.push(tokio::spawn(async move {
            let tbs = checked.tbs().to_vec();
            (tbs, signer.sign_certificate(key, checked).await.unwrap())
        }));
    }
    for task in tasks {
        let (tbs, issued) = task.await.unwrap();
        assert_signed_by(&made.issuing, &tbs, &issued.der);
    }
    let health = signer.health().await.unwrap();
    assert_eq!(health.signatures, [(key_id(1), 2), (key_id(2), 200)]);
    assert_eq!((health.keys_loaded, health.restarts), (2, 0));
}

#[tokio::test]
async fn a_crl_of_many_megabytes_passes_between_small_requests() {
    let signer = in_process();
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    let checked = crl(&made.issuing, 100_000);
    assert!(checked.tbs().len() > 3 * 1024 * 1024);
    let (tbs, key) = (checked.tbs().to_vec(), spki());
    let small = signer.sign_certificate(made.issuing_key.key, device(&made.issuing, &key, 9));
    let (small, large) = tokio::join!(small, signer.sign_crl(made.issuing_key.key, checked));
    assert!(small.is_ok());
    assert_signed_by(&made.issuing, &tbs, &large.unwrap());
}

#[tokio::test]
async fn a_certificate_of_another_issuer_is_refused() {
    let signer = in_process();
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    // The root's name on a certificate that the issuing CA is to sign.
    let foreign = signer.sign_certificate(made.issuing_key.key, device(&made.root, &spki(), 3)).await;
    assert!(is_content(foreign, "issued by somebody else"));
    let foreign = signer.sign_crl(made.issuing_key.key, crl(&made.root, 1)).await;
    assert!(matches!(foreign, Err(SignerError::Refused(SignerRefusal::Content(_)))));
}

#[tokio::test]
async fn an_issuing_key_signs_no_authority_and_a_root_no_device() {
    let signer = in_process();
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    let key = made.issuing_key.key;
    // Same name as the root, so that only the content tells: the issuing key poses as the root's by its facts.
    let authority = issuing_authority(&made.root, &spki());
    assert!(signer.sign_certificate(key, authority).await.is_err());
    let device = signer.sign_certificate(made.root_key.key, device(&made.root, &spki(), 3)).await;
    assert!(is_content(device, "issuing CAs, link certificates and OCSP responders only"));
    let responder = Subject::OcspSigner { common_name: "Responder".to_owned() };
    let responder = check_issuance(&made.root, request(CertificateProfile::OcspSigner, responder, &spki(), 4)).unwrap();
    assert!(signer.sign_certificate(made.root_key.key, responder).await.is_ok());
}

#[tokio::test]
async fn an_issuing_key_registered_under_the_roots_name_still_signs_no_authority() {
    let signer = in_process();
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    let fresh = in_process();
    let facts = KeyFacts { purpose: KeyPurpose::IssuingCa, issuer_name: made.root.name.to_vec() };
    fresh.register_key(made.issuing_key.key, made.issuing_key.handle.clone(), facts);
    let refused = fresh.sign_certificate(made.issuing_key.key, issuing_authority(&made.root, &spki())).await;
    assert!(is_content(refused, "a CA certificate"));
}

#[tokio::test]
async fn a_root_certifies_itself_only_with_its_own_key_and_keeps_its_name() {
    let signer = in_process();
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    let root =
        |name: &str, spki: &[u8]| check_root(request(CertificateProfile::Root, authority_name(name), spki, 5)).unwrap();
    let foreign = signer.sign_root(made.root_key.key, root("Root", &spki())).await;
    assert!(is_content(foreign, "its own key"));
    let renamed = signer.sign_root(made.root_key.key, root("Another", &made.root_key.spki)).await;
    assert!(is_content(renamed, "another issuer name"));
    assert!(signer.sign_root(made.root_key.key, root("Root", &made.root_key.spki)).await.is_ok());
    let issuing = signer.sign_root(made.issuing_key.key, root("Issuing", &made.issuing_key.spki)).await;
    assert_eq!(issuing, Err(SignerError::Refused(SignerRefusal::Purpose)));
}

#[tokio::test]
async fn nobody_who_writes_to_the_registry_changes_what_a_key_is_for() {
    let signer = in_process();
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    let mut bytes = made.issuing_key.handle.to_bytes();
    // Version, purpose: from issuing CA to root.
    assert_eq!(bytes[..2], [1, 2]);
    bytes[1] = 1;
    let promoted = KeyHandle::from_bytes(&bytes).unwrap();
    let fresh = in_process();
    let facts = KeyFacts { purpose: KeyPurpose::RootCa, issuer_name: made.issuing.name.to_vec() };
    fresh.register_key(made.issuing_key.key, promoted, facts.clone());
    let checked = || issuing_authority(&made.root, &spki());
    let unknown = SignerError::Refused(SignerRefusal::UnknownKey(made.issuing_key.key));
    assert_eq!(fresh.sign_certificate(made.issuing_key.key, checked()).await, Err(unknown.clone()));
    // The true handle under another identifier, and facts that contradict the handle.
    fresh.register_key(key_id(9), made.issuing_key.handle.clone(), facts.clone());
    assert_eq!(fresh.sign_certificate(key_id(9), checked()).await, Err(SignerError::Refused(SignerRefusal::Purpose)));
    let facts = KeyFacts { purpose: KeyPurpose::IssuingCa, ..facts };
    fresh.register_key(key_id(9), made.issuing_key.handle.clone(), facts);
    assert_eq!(
        fresh.sign_certificate(key_id(9), checked()).await,
        Err(SignerError::Refused(SignerRefusal::UnknownKey(key_id(9))))
    );
}

#[tokio::test]
async fn a_key_made_under_another_root_is_unknown() {
    let made = Hierarchy::make(&in_process(), KeyAlgorithm::P256).await;
    let other = SignerClient::in_process(backend(2), RateCeilings::default()).unwrap();
    made.register(&other);
    let refused = other.sign_certificate(made.issuing_key.key, device(&made.issuing, &spki(), 3)).await;
    assert_eq!(refused, Err(SignerError::Refused(SignerRefusal::UnknownKey(made.issuing_key.key))));
}

#[tokio::test]
async fn an_unregistered_key_and_an_unheld_algorithm_are_refused() {
    let signer = in_process();
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    let refused = signer.sign_certificate(key_id(77), device(&made.issuing, &spki(), 3)).await;
    assert_eq!(refused, Err(SignerError::Refused(SignerRefusal::UnknownKey(key_id(77)))));
    for (purpose, algorithm) in
        [(KeyPurpose::RootCa, KeyAlgorithm::Rsa4096), (KeyPurpose::LogCheckpoint, KeyAlgorithm::P256)]
    {
        let refused = signer.generate_key(key_id(78), purpose, algorithm).await;
        assert_eq!(refused, Err(SignerError::Refused(SignerRefusal::Algorithm)));
    }
}

#[tokio::test]
async fn a_checkpoint_is_signed_forward_only() {
    let signer = in_process();
    let key = signer.generate_key(key_id(3), KeyPurpose::LogCheckpoint, KeyAlgorithm::Ed25519).await.unwrap();
    let sign = |size, root: u8| signer.sign_checkpoint(key.key, "log.test", size, [root; 32]);
    let signature = sign(10, 1).await.unwrap();
    let note = kf_log::Checkpoint { origin: "log.test".to_owned(), size: 10, root: [1; 32] }.to_text();
    let (algorithm, public) = kf_crypto::public_key_of_spki(&key.spki).unwrap();
    kf_crypto::verify(algorithm, public, note.as_bytes(), &signature).unwrap();
    assert!(sign(10, 1).await.is_ok(), "the same checkpoint again is no fork");
    let refused = Err(SignerError::Refused(SignerRefusal::Checkpoint { last: 10 }));
    assert_eq!(sign(9, 1).await, refused);
    assert_eq!(sign(10, 2).await, refused);
    assert!(sign(11, 2).await.is_ok());
    for origin in ["", "two\nlines", &"x".repeat(256)] {
        let refused = signer.sign_checkpoint(key.key, origin, 12, [1; 32]).await;
        assert!(is_content(refused, "origin"), "{origin}");
    }
}

#[tokio::test]
async fn a_log_key_signs_checkpoints_only_and_no_other_key_signs_them() {
    let signer = in_process();
    let made = Hierarchy::make(&signer, KeyAlgorithm::Ed25519).await;
    let log = signer.generate_key(key_id(3), KeyPurpose::LogCheckpoint, KeyAlgorithm::Ed25519).await.unwrap();
    let purpose = SignerError::Refused(SignerRefusal::Purpose);
    let refused = signer.sign_certificate(log.key, device(&made.issuing, &spki(), 3)).await;
    assert_eq!(refused, Err(purpose.clone()));
    assert_eq!(signer.sign_crl(log.key, crl(&made.issuing, 1)).await, Err(purpose.clone()));
    assert_eq!(signer.sign_checkpoint(made.issuing_key.key, "log.test", 1, [1; 32]).await, Err(purpose));
}

#[tokio::test]
async fn a_wrapped_secret_opens_under_its_context_and_root_only() {
    let signer = in_process();
    let secret = SecretBytes::from_vec(b"sixteen octets..".to_vec());
    let wrapped = signer.wrap(b"device salt", &secret).await.unwrap();
    assert!(signer.unwrap(b"device salt", &wrapped).await.unwrap().equals(secret.expose()));
    let refused = |outcome: Result<SecretBytes, SignerError>| assert_eq!(outcome.unwrap_err(), SignerError::Wrapped);
    refused(signer.unwrap(b"another context", &wrapped).await);
    let other = SignerClient::in_process(backend(2), RateCeilings::default()).unwrap();
    refused(other.unwrap(b"device salt", &wrapped).await);
    for position in 0..wrapped.len() {
        let mut changed = wrapped.clone();
        changed[position] ^= 1;
        refused(signer.unwrap(b"device salt", &changed).await);
    }
    refused(signer.unwrap(b"", b"").await);
}

#[tokio::test]
async fn oversized_secrets_and_contexts_are_refused() {
    let signer = in_process();
    let large = SecretBytes::from_vec(vec![0; 64 * 1024 + 1]);
    let refused = signer.wrap(b"", &large).await.unwrap_err();
    assert_eq!(refused, SignerError::Refused(SignerRefusal::TooLarge { limit: 64 * 1024 }));
    let small = SecretBytes::from_vec(vec![0]);
    let refused = signer.wrap(&[0; 1025], &small).await.unwrap_err();
    assert_eq!(refused, SignerError::Refused(SignerRefusal::TooLarge { limit: 1024 }));
    assert!(signer.wrap(&[0; 1024], &SecretBytes::from_vec(vec![0; 64 * 1024])).await.is_ok());
}

#[tokio::test]
async fn a_key_beyond_its_ceiling_is_refused_and_named() {
    let ceilings = RateCeilings { issuing_ca_per_minute: 3, ..RateCeilings::default() };
    let signer = SignerClient::in_process(backend(1), ceilings).unwrap();
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    let key = made.issuing_key.key;
    for serial in 0..3 {
        signer.sign_certificate(key, device(&made.issuing, &spki(), serial)).await.unwrap();
    }
    let refused = signer.sign_certificate(key, device(&made.issuing, &spki(), 9)).await;
    assert_eq!(refused, Err(SignerError::Rate { key, per_minute: 3 }));
    // Another key has its own ceiling.
    assert!(signer.sign_crl(made.root_key.key, crl(&made.root, 1)).await.is_ok());
}

#[tokio::test]
async fn a_destroyed_key_signs_no_more() {
    let signer = in_process();
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    signer.destroy_key(made.issuing_key.key).await.unwrap();
    let refused = signer.sign_certificate(made.issuing_key.key, device(&made.issuing, &spki(), 3)).await;
    assert_eq!(refused, Err(SignerError::Refused(SignerRefusal::UnknownKey(made.issuing_key.key))));
}

#[tokio::test]
async fn after_shutdown_the_signer_is_unavailable() {
    let signer = in_process();
    signer.shutdown().await;
    assert_eq!(signer.health().await, Err(SignerError::Unavailable));
    signer.shutdown().await;
}

#[tokio::test]
async fn a_handle_survives_its_stored_and_text_forms_and_foreign_ones_are_refused() {
    let made = Hierarchy::make(&in_process(), KeyAlgorithm::P256).await;
    let handle = made.issuing_key.handle;
    assert_eq!(KeyHandle::from_bytes(&handle.to_bytes()), Ok(handle.clone()));
    assert_eq!(handle.to_string().parse(), Ok(handle.clone()));
    let bytes = handle.to_bytes();
    // Version, purpose, tag, and of the back end's handle version, kind and algorithm with nothing behind them.
    for length in 0..2 + 32 + 4 {
        assert!(KeyHandle::from_bytes(&bytes[..length]).is_err());
    }
    for text in ["", "handle_", "handle_0", "key_00", &handle.to_string()[7..]] {
        assert!(text.parse::<KeyHandle>().is_err(), "{text}");
    }
}

//! Operators, their tokens and certificates, and that what is withdrawn is out at once.

use kf_api::certificate::IssueRequest;
use kf_api::operator::{Credential, NewOperator, Role, TokenRequest};
use kf_api::revocation::{RevocationTarget, RevokeRequest};
use kf_crypto::PrivateKey;
use kf_fleet::{ClientCertificate, FleetError, Principal};
use kf_key::{CertificateProfile, KeyAlgorithm, RevocationReason, SecretBytes, SerialNumber, UnixMillis};

use crate::scratch::{Scratch, csr, field_of};

async fn token(scratch: &Scratch, operator: &str, lifetime_days: Option<u32>) -> (kf_key::TokenId, SecretBytes) {
    let request = TokenRequest { operator: operator.into(), lifetime_days };
    let made = scratch.fleet.token_create(&scratch.owner, request).await.unwrap();
    (made.id, SecretBytes::from_vec(made.token.expose().as_bytes().to_vec()))
}

fn is_out(outcome: Result<Principal, FleetError>) -> bool {
    matches!(outcome, Err(FleetError::Unauthenticated))
}

#[tokio::test]
async fn a_token_says_who_its_holder_is() {
    let scratch = Scratch::new().await;
    let lena = scratch.operator("lena", Role::FacilityOperator, &["plant-a", "plant-a"]).await;
    let (id, token) = token(&scratch, "lena", None).await;
    let who = scratch.fleet.authenticate_token(&token).await.unwrap();
    assert_eq!(who, lena.by_token(id));
    let me = scratch.fleet.who_am_i(&who);
    assert_eq!((me.name.as_str(), me.role, me.credential), ("lena", Role::FacilityOperator, Credential::Token));
    assert_eq!(me.facilities.len(), 1);
    assert!(scratch.fleet.who_am_i(&scratch.owner).facilities.is_empty());
}

#[tokio::test]
async fn an_unknown_withdrawn_or_expired_token_is_out_at_once() {
    let scratch = Scratch::new().await;
    scratch.operator("fred", Role::FleetOperator, &[]).await;
    let (id, withdrawn) = token(&scratch, "fred", None).await;
    scratch.pass(1);
    let (_, other) = token(&scratch, "fred", Some(1)).await;
    assert!(scratch.fleet.authenticate_token(&withdrawn).await.is_ok());
    scratch.fleet.token_withdraw(&scratch.owner, id).await.unwrap();
    assert!(is_out(scratch.fleet.authenticate_token(&withdrawn).await));
    assert!(scratch.fleet.authenticate_token(&other).await.is_ok());
    scratch.pass(UnixMillis::DAY);
    assert!(scratch.fleet.authenticate_token(&other).await.is_ok());
    scratch.pass(1);
    assert!(is_out(scratch.fleet.authenticate_token(&other).await));
    for wrong in ["", "kft_", "kft_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "Bearer x"] {
        let wrong = SecretBytes::from_vec(wrong.as_bytes().to_vec());
        assert!(is_out(scratch.fleet.authenticate_token(&wrong).await));
    }
    let tokens = scratch.fleet.token_list(&scratch.owner, "fred").await.unwrap();
    assert_eq!(tokens.iter().map(|token| token.withdrawn).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn a_disabled_operator_is_out_at_once_and_back_when_enabled() {
    let scratch = Scratch::new().await;
    scratch.operator("fred", Role::FleetOperator, &[]).await;
    let (_, token) = token(&scratch, "fred", None).await;
    let enable = |enabled| scratch.fleet.operator_enable(&scratch.owner, "fred", enabled, "test".into());
    assert!(!enable(false).await.unwrap().enabled);
    assert!(is_out(scratch.fleet.authenticate_token(&token).await));
    let request = TokenRequest { operator: "fred".into(), lifetime_days: None };
    let error = scratch.fleet.token_create(&scratch.owner, request).await.unwrap_err();
    assert_eq!(field_of(&error), "operator");
    assert!(enable(true).await.unwrap().enabled);
    assert!(scratch.fleet.authenticate_token(&token).await.is_ok());
}

#[tokio::test]
async fn the_last_enabled_owner_stays_even_when_two_disable_each_other_at_once() {
    let scratch = Scratch::new().await;
    let disable = |name: &'static str| scratch.fleet.operator_enable(&scratch.owner, name, false, String::new());
    let error = disable("olga").await.unwrap_err();
    assert!(matches!(error, FleetError::Conflict { .. }));
    scratch.operator("otto", Role::Owner, &[]).await;
    let (olga, otto) = tokio::join!(disable("olga"), disable("otto"));
    assert!(olga.is_ok() != otto.is_ok(), "{olga:?} {otto:?}");
    let operators = scratch.fleet.operator_list(&scratch.owner, Default::default()).await.unwrap().items;
    assert_eq!(operators.iter().filter(|operator| operator.role == Role::Owner && operator.enabled).count(), 1);
}

#[tokio::test]
async fn no_token_and_no_code_is_stored_in_clear() {
    let scratch = Scratch::new().await;
    scratch.operator("fred", Role::FleetOperator, &[]).await;
    scratch.device("t-1").await;
    let (_, token) = token(&scratch, "fred", None).await;
    let code = scratch.code("t-1").await;
    scratch.fleet.close().await;
    let mut read = 0;
    for entry in walk(scratch.dir.path()) {
        let octets = std::fs::read(&entry).unwrap();
        read += octets.len();
        for secret in [token.expose(), code.as_bytes(), code.replace('-', "").as_bytes()] {
            assert!(!octets.windows(secret.len()).any(|window| window == secret), "{}", entry.display());
        }
    }
    assert!(read > 10_000, "there was nothing to look through");
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

async fn operator_certificate(scratch: &Scratch, name: &str) -> (SerialNumber, ClientCertificate) {
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let request = IssueRequest {
        profile: CertificateProfile::Operator,
        csr_pem: kf_pki::pem::encode("CERTIFICATE REQUEST", &csr(&key)),
        device: None,
        operator: Some(name.into()),
        dns_names: Vec::new(),
        authority: None,
        lifetime_hours: Some(24),
        dry_run: false,
    };
    let issued = scratch.fleet.certificate_issue(&scratch.owner, request).await.unwrap();
    let ders = |pem: &str| kf_pki::pem::decode_all("CERTIFICATE", pem).unwrap();
    let (leaf, chain) = (ders(&issued.pem), ders(&issued.chain_pem));
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    (issued.certificate.serial, scratch.fleet.verify_client_path(&leaf[0], &chain).unwrap())
}

#[tokio::test]
async fn an_operator_certificate_says_who_its_holder_is_until_it_expires() {
    let scratch = Scratch::new().await;
    let fred = scratch.operator("fred", Role::FleetOperator, &[]).await;
    let (_, certificate) = operator_certificate(&scratch, "fred").await;
    let who = scratch.fleet.authenticate_certificate(&certificate).await.unwrap();
    assert_eq!(who, Principal { credential: Credential::Certificate, ..fred });
    scratch.pass(UnixMillis::DAY + 1_000);
    assert!(
        is_out(scratch.fleet.authenticate_certificate(&certificate).await),
        "a connection outlived its certificate"
    );
}

#[tokio::test]
async fn a_held_revoked_or_disabled_operator_certificate_is_out_on_open_connections() {
    let scratch = Scratch::new().await;
    scratch.operator("fred", Role::FleetOperator, &[]).await;
    let (serial, certificate) = operator_certificate(&scratch, "fred").await;
    let revoke = |reason| {
        let target = RevocationTarget::Certificate(serial);
        let request = RevokeRequest { target, reason, why: "test".into(), verify: false, dry_run: false };
        scratch.fleet.revoke(&scratch.owner, request)
    };
    let enter = || scratch.fleet.authenticate_certificate(&certificate);
    scratch.fleet.operator_enable(&scratch.owner, "fred", false, String::new()).await.unwrap();
    assert!(is_out(enter().await));
    scratch.fleet.operator_enable(&scratch.owner, "fred", true, String::new()).await.unwrap();
    assert!(enter().await.is_ok());
    revoke(RevocationReason::CertificateHold).await.unwrap();
    assert!(is_out(enter().await));
    revoke(RevocationReason::RemoveFromCrl).await.unwrap();
    assert!(enter().await.is_ok());
    revoke(RevocationReason::KeyCompromise).await.unwrap();
    assert!(is_out(enter().await));
}

#[tokio::test]
async fn a_device_certificate_is_no_operator() {
    let scratch = Scratch::new().await;
    scratch.device("t-1").await;
    let identity = scratch.enrol("t-1").await;
    assert!(is_out(scratch.fleet.authenticate_certificate(&scratch.client(&identity)).await));
}

#[tokio::test]
async fn a_stations_voucher_key_is_one_p256_public_key() {
    let scratch = Scratch::new().await;
    let pem = |algorithm| kf_pki::pem::encode("PUBLIC KEY", &PrivateKey::generate(algorithm).unwrap().spki());
    let create = |name: &str, key: String| {
        let new = NewOperator {
            name: name.into(),
            role: Role::Station,
            facilities: vec!["plant-a".into()],
            voucher_key_pem: Some(key),
        };
        scratch.fleet.operator_create(&scratch.owner, new)
    };
    let good = pem(KeyAlgorithm::P256);
    assert_eq!(create("s-1", good.clone()).await.unwrap().voucher_key_pem, Some(good.clone()));
    for wrong in [pem(KeyAlgorithm::P384), pem(KeyAlgorithm::Ed25519), good.repeat(2), String::new(), "x".into()] {
        let error = create("s-2", wrong).await.unwrap_err();
        assert_eq!(field_of(&error), "voucher_key_pem");
    }
}

#[tokio::test]
async fn an_operator_of_a_facility_that_does_not_exist_is_not_made() {
    let scratch = Scratch::new().await;
    let new = NewOperator {
        name: "lena".into(),
        role: Role::FacilityOperator,
        facilities: vec!["plant-a".into(), "nowhere".into()],
        voucher_key_pem: None,
    };
    let outcome = scratch.fleet.operator_create(&scratch.owner, new).await;
    assert!(matches!(outcome, Err(FleetError::NotFound("facility"))));
    assert_eq!(scratch.fleet.operator_list(&scratch.owner, Default::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_token_lives_one_to_366_days() {
    let scratch = Scratch::new().await;
    for days in [0, 367, u32::MAX] {
        let request = TokenRequest { operator: "olga".into(), lifetime_days: Some(days) };
        let error = scratch.fleet.token_create(&scratch.owner, request).await.unwrap_err();
        assert_eq!(field_of(&error), "lifetime_days");
    }
}

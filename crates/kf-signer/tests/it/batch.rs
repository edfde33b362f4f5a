//! Quotas and what comes back: the batch key is the one of the tree, and only the station opens it.

use kf_batch::P256Key;
use kf_batch::device_list::{DeviceList, Naming};
use kf_batch::quota::{Quota, QuotaTerms};
use kf_batch::salt::SaltSealer;
use kf_crypto::{HpkePrivateKey, PrivateKey};
use kf_derive::{BatchKey, FleetRoot, SoftwareKey};
use kf_key::{
    AuthorityId, BatchId, CertificateProfile, FacilityId, KeyAlgorithm, KeyId, OperatorId, ProductLineId, SecretArray,
    SerialNumber, UnixMillis,
};
use kf_pki::certificate::{IssuanceRequest, Subject, check_issuance, check_root};
use kf_pki::issuer::Issuer;
use kf_pki::request::RequestedKey;
use kf_signer::{BatchPlace, DeviceKeyPlace, KeyPurpose, SealingKey, SignerClient, SignerError, SignerRefusal};

use crate::authority::in_process;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const FACILITY: FacilityId = FacilityId::from_bytes([1; 16]);
const EPOCH: u32 = 3;

fn batch() -> BatchId {
    BatchId::from_bytes([2; 16])
}

/// A factory root, and a batch CA below it.
fn authorities() -> (Vec<u8>, Vec<u8>) {
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let request = |profile, key: &PrivateKey, days| IssuanceRequest {
        profile,
        subject: Subject::Authority { common_name: format!("{profile}"), organization: "Acme".into() },
        key: RequestedKey::from_spki(&key.spki()).unwrap(),
        serial: SerialNumber::from_parts(NOW, [1; 16]),
        not_before: NOW,
        not_after: Some(NOW.plus(days * UnixMillis::DAY)),
    };
    let checked = check_root(request(CertificateProfile::Root, &key, 100)).unwrap();
    let signature = key.sign(checked.tbs()).unwrap();
    let root = checked.complete(&signature).unwrap().der;
    let issuer = Issuer::from_certificate(AuthorityId::from_bytes([3; 16]), &root, 1, "http://pki.example").unwrap();
    let batch = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let checked = check_issuance(&issuer, request(CertificateProfile::IssuingCa, &batch, 7)).unwrap();
    let signature = key.sign(checked.tbs()).unwrap();
    (root, checked.complete(&signature).unwrap().der)
}

fn terms(transport: &HpkePrivateKey) -> QuotaTerms {
    let (factory_certificate, authority_certificate) = authorities();
    let record = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let naming = Naming { prefix: "pump-".into(), digits: 6, first: 1 };
    QuotaTerms {
        batch: batch(),
        name: "b-1".into(),
        facility: FACILITY,
        facility_epoch: EPOCH,
        product_line: ProductLineId::from_bytes([4; 16]),
        product_line_name: "pump".into(),
        organization: "Acme".into(),
        station: OperatorId::from_bytes([5; 16]),
        station_name: "line-1".into(),
        sequence: 1,
        recipe: [6; 32],
        allows_unsafe: false,
        allows_early_enrolment: false,
        issued: NOW,
        expires: NOW.plus(7 * UnixMillis::DAY),
        server: "fleet.example".into(),
        anchor: factory_certificate.clone(),
        authority: AuthorityId::from_bytes([7; 16]),
        authority_certificate,
        factory_certificate,
        base_url: "http://pki.example".into(),
        devices: DeviceList::fresh(NOW, [8; 10], 10, naming).unwrap(),
        transport_key: P256Key::from_point(*transport.public_key()).unwrap(),
        record_key: P256Key::from_spki(&record.spki()).unwrap(),
    }
}

async fn key_for(signer: &SignerClient, purpose: KeyPurpose) -> (KeyId, P256Key) {
    let id = KeyId::from_bytes([9; 16]);
    let made = signer.generate_key(id, purpose, KeyAlgorithm::P256).await.unwrap();
    (id, P256Key::from_spki(&made.spki).unwrap())
}

fn transport() -> HpkePrivateKey {
    HpkePrivateKey::derive(&kf_crypto::random_secret().unwrap()).unwrap()
}

#[tokio::test]
async fn the_station_gets_the_batch_key_of_the_tree_and_nobody_else_does() {
    let signer = in_process();
    let (key, server) = key_for(&signer, KeyPurpose::BatchAuthorisation).await;
    let transport = transport();
    let terms = terms(&transport);
    let document = signer.sign_quota(key, &terms).await.unwrap();
    let quota = Quota::open(&document, &server).unwrap();
    assert_eq!(quota.terms, terms);
    let agreed = transport.agree(quota.batch_key.encapsulated()).unwrap();
    let opened = quota.open_batch_key(&agreed).unwrap();
    let root = FleetRoot::from_keyed_hmac(SoftwareKey::new(SecretArray::fill(|root| root.fill(1))));
    let expected = root.facility(FACILITY, EPOCH).unwrap().batch(batch().as_bytes(), 0).unwrap();
    assert!(opened.equals(&expected.into_secret()));
    let stranger = HpkePrivateKey::derive(&kf_crypto::random_secret().unwrap()).unwrap();
    let agreed = stranger.agree(quota.batch_key.encapsulated()).unwrap();
    assert!(quota.open_batch_key(&agreed).is_err());
    // Nothing that the station holds leads to the key with which the server opens salts.
    let agreement = root.facility(FACILITY, EPOCH).unwrap().batch_agreement(batch().as_bytes(), 0).unwrap();
    assert_eq!(HpkePrivateKey::derive(&agreement).unwrap().public_key(), quota.salt_key.point());
    assert_ne!(HpkePrivateKey::derive(&opened).unwrap().public_key(), quota.salt_key.point());
}

#[tokio::test]
async fn what_the_station_derives_for_a_device_the_server_derives_from_the_sealed_salt() {
    let signer = in_process();
    let (key, server) = key_for(&signer, KeyPurpose::BatchAuthorisation).await;
    let transport = transport();
    let terms = terms(&transport);
    let quota = Quota::open(&signer.sign_quota(key, &terms).await.unwrap(), &server).unwrap();
    let batch_key = quota.open_batch_key(&transport.agree(quota.batch_key.encapsulated()).unwrap()).unwrap();
    let batch_key = BatchKey::from_keyed_hmac(SoftwareKey::new(batch_key));
    let mut sealer = SaltSealer::new(&quota.salt_key, batch()).unwrap();
    let devices: Vec<_> = (0..3).map(|position| terms.devices.device(position).unwrap()).collect();
    let mut sealed: Vec<_> = devices
        .iter()
        .map(|device| (*device, sealer.seal(*device, &SecretArray::fill(|salt| salt.fill(7))).unwrap()))
        .collect();
    // The salt of another device does not open, and says nothing about the others.
    sealed.push((devices[0], sealed[1].1.clone()));
    let place = BatchPlace { facility: FACILITY, facility_epoch: EPOCH, batch: batch() };
    let wrapped = signer.open_salts(place, &sealed).await.unwrap();
    assert_eq!(wrapped.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, true, false]);
    for (device, wrapped) in devices.iter().zip(&wrapped) {
        let place = DeviceKeyPlace { facility: FACILITY, facility_epoch: EPOCH, device: *device, device_epoch: 0 };
        let wrapped_salt = wrapped.as_deref().unwrap();
        let found = signer.derive_sealing(SealingKey { place, wrapped_salt, service: "telemetry" }).await.unwrap();
        let injected = batch_key.device(*device, &[7; 16], 0).unwrap().session(b"sealed", 0).unwrap();
        let expected = injected.application(b"telemetry", 0).unwrap().into_secret();
        assert!(found.equals(&expected));
        // The first delivery is another key, which no station can derive.
        let place = DeviceKeyPlace { device_epoch: 1, ..place };
        let delivered = signer.derive_sealing(SealingKey { place, wrapped_salt, service: "telemetry" }).await.unwrap();
        assert!(!delivered.equals(&expected));
    }
    // A salt that was not made in a batch has no place below one.
    let own = signer.new_device_salt(devices[0]).await.unwrap();
    let place = DeviceKeyPlace { facility: FACILITY, facility_epoch: EPOCH, device: devices[0], device_epoch: 0 };
    let wanted = SealingKey { place, wrapped_salt: &own, service: "telemetry" };
    assert_eq!(signer.derive_sealing(wanted).await.unwrap_err(), SignerError::Wrapped);
}

#[tokio::test]
async fn a_quota_key_signs_nothing_else_and_no_other_key_signs_quotas() {
    let signer = in_process();
    let terms = terms(&transport());
    let (order, _) = key_for(&signer, KeyPurpose::Order).await;
    let refused = signer.sign_quota(order, &terms).await.unwrap_err();
    assert_eq!(refused, SignerError::Refused(SignerRefusal::Purpose));
    let signer = in_process();
    let (key, _) = key_for(&signer, KeyPurpose::BatchAuthorisation).await;
    let greedy = QuotaTerms { authority_certificate: terms.factory_certificate.clone(), ..terms };
    let refused = signer.sign_quota(key, &greedy).await.unwrap_err();
    assert!(matches!(refused, SignerError::Refused(SignerRefusal::Content(_))), "{refused:?}");
}

use std::convert::Infallible;

use kf_exchange::order::{Order, OrderAct};
use kf_exchange::succession::{KeyRole, Succession};
use kf_exchange::{
    AwaitChallenge, AwaitDelivery, Ephemeral, IdentityKey, KeyPlace, Message, P256IdentityKey, PublicKey, Purpose,
    Refused,
};
use kf_key::{DeviceId, FacilityId, KeyAlgorithm, SecretArray, UnixMillis};
use kf_signer::{
    DeviceKeyPlace, DeviceProof, GeneratedKey, KeyPurpose, RateCeilings, SealingKey, SignerClient, SignerError,
    SignerRefusal,
};

use crate::authority::{backend, in_process, key_id};

const DEVICE: DeviceId = DeviceId::from_bytes([2; 16]);
const PLACE: DeviceKeyPlace =
    DeviceKeyPlace { facility: FacilityId::from_bytes([1; 16]), facility_epoch: 3, device: DEVICE, device_epoch: 5 };
const HELD: KeyPlace = KeyPlace { facility: PLACE.facility, facility_epoch: 3, device_epoch: 5 };

fn secret(octet: u8) -> SecretArray<32> {
    SecretArray::fill(|secret| secret.fill(octet))
}

fn identity(octet: u8) -> P256IdentityKey {
    P256IdentityKey::from_secret(&secret(octet)).unwrap()
}

async fn delivery_key(signer: &SignerClient) -> GeneratedKey {
    signer.generate_key(key_id(4), KeyPurpose::Delivery, KeyAlgorithm::P256).await.unwrap()
}

fn is_refused<T: std::fmt::Debug>(outcome: Result<T, SignerError>) -> bool {
    matches!(outcome, Err(SignerError::Refused(SignerRefusal::Exchange(_))))
}

/// A device that has been challenged and has made its proof.
async fn proof(signer: &SignerClient, key: &GeneratedKey, random: u8) -> (AwaitDelivery, Message) {
    let ephemeral = Ephemeral::from_random(secret(random)).unwrap();
    let (waiting, hello) = AwaitChallenge::start(Purpose::Delivery, ephemeral, [random; 16]).unwrap();
    let challenge = signer.exchange_challenge(key.key, hello.as_bytes()).await.unwrap();
    let pin = PublicKey::from_spki(&key.spki).unwrap();
    let proved: Result<_, Refused<_, Infallible>> = waiting.prove(&challenge, &[pin], DEVICE, &identity(0x11));
    proved.unwrap()
}

fn given<'a>(spki: &'a [u8], salt: &'a [u8], proof: &'a Message) -> DeviceProof<'a> {
    DeviceProof { place: PLACE, spki, wrapped_salt: salt, proof: proof.as_bytes() }
}

#[tokio::test]
async fn a_device_gets_the_key_that_the_server_derives_leaves_of() {
    let signer = in_process();
    let key = delivery_key(&signer).await;
    let salt = signer.new_device_salt(DEVICE).await.unwrap();
    let spki = identity(0x11).public_key().to_spki();
    let (waiting, proof) = proof(&signer, &key, 0x33).await;
    let delivery = signer.exchange_deliver(given(&spki, &salt, &proof)).await.unwrap();
    let delivered = waiting.open(&delivery, None).unwrap();
    assert_eq!(delivered.place(), HELD);
    let (device_key, done, acknowledgement) = delivered.acknowledge().unwrap();
    let answer = signer.exchange_acknowledge(PLACE, &salt, acknowledgement.as_bytes()).await.unwrap();
    done.finish(&answer).unwrap();
    let wanted = SealingKey { place: PLACE, wrapped_salt: &salt, service: "telemetry" };
    let leaf = device_key.session(b"sealed", 0).unwrap().application(b"telemetry", 0).unwrap();
    assert!(leaf.into_secret().equals(&signer.derive_sealing(wanted).await.unwrap()));
    // Of another place it proves nothing.
    let other = DeviceKeyPlace { device_epoch: 6, ..PLACE };
    assert!(is_refused(signer.exchange_acknowledge(other, &salt, acknowledgement.as_bytes()).await));
}

#[tokio::test]
async fn a_proof_is_answered_once() {
    let signer = in_process();
    let key = delivery_key(&signer).await;
    let salt = signer.new_device_salt(DEVICE).await.unwrap();
    let spki = identity(0x11).public_key().to_spki();
    let (_, proof) = proof(&signer, &key, 0x33).await;
    signer.exchange_deliver(given(&spki, &salt, &proof)).await.unwrap();
    assert!(is_refused(signer.exchange_deliver(given(&spki, &salt, &proof)).await));
}

#[tokio::test]
async fn a_forged_proof_does_not_end_the_session_but_many_do() {
    let signer = in_process();
    let key = delivery_key(&signer).await;
    let salt = signer.new_device_salt(DEVICE).await.unwrap();
    let (spki, other) = (identity(0x11).public_key().to_spki(), identity(0x12).public_key().to_spki());
    let (_, first) = proof(&signer, &key, 0x33).await;
    for _ in 0..3 {
        assert!(is_refused(signer.exchange_deliver(given(&other, &salt, &first)).await));
    }
    signer.exchange_deliver(given(&spki, &salt, &first)).await.unwrap();
    let (_, second) = proof(&signer, &key, 0x34).await;
    for _ in 0..8 {
        assert!(is_refused(signer.exchange_deliver(given(&other, &salt, &second)).await));
    }
    assert!(is_refused(signer.exchange_deliver(given(&spki, &salt, &second)).await));
}

#[tokio::test]
async fn a_salt_of_another_device_costs_no_session() {
    let signer = in_process();
    let key = delivery_key(&signer).await;
    let stranger = signer.new_device_salt(DeviceId::from_bytes([9; 16])).await.unwrap();
    let salt = signer.new_device_salt(DEVICE).await.unwrap();
    let spki = identity(0x11).public_key().to_spki();
    let (_, proof) = proof(&signer, &key, 0x33).await;
    let refused = signer.exchange_deliver(given(&spki, &stranger, &proof)).await.unwrap_err();
    assert_eq!(refused, SignerError::Wrapped);
    signer.exchange_deliver(given(&spki, &salt, &proof)).await.unwrap();
}

#[tokio::test]
async fn another_life_of_the_signer_knows_no_session() {
    let signer = in_process();
    let key = delivery_key(&signer).await;
    let salt = signer.new_device_salt(DEVICE).await.unwrap();
    let spki = identity(0x11).public_key().to_spki();
    let (_, proof) = proof(&signer, &key, 0x33).await;
    // The same root, another process.
    let restarted = in_process();
    assert!(is_refused(restarted.exchange_deliver(given(&spki, &salt, &proof)).await));
}

#[tokio::test]
async fn octets_that_are_no_message_are_refused() {
    let signer = in_process();
    let key = delivery_key(&signer).await;
    let salt = signer.new_device_salt(DEVICE).await.unwrap();
    for octets in [&[][..], &[0x86, 1, 1], &[0; 384]] {
        assert!(is_refused(signer.exchange_challenge(key.key, octets).await));
        assert!(is_refused(signer.exchange_acknowledge(PLACE, &salt, octets).await));
        let spki = identity(0x11).public_key().to_spki();
        let given = DeviceProof { place: PLACE, spki: &spki, wrapped_salt: &salt, proof: octets };
        assert!(is_refused(signer.exchange_deliver(given).await));
    }
    let long = signer.exchange_challenge(key.key, &[0; 385]).await.unwrap_err();
    assert_eq!(long, SignerError::Refused(SignerRefusal::TooLarge { limit: 384 }));
}

#[tokio::test]
async fn the_delivery_key_signs_no_order_and_the_order_key_no_challenge() {
    let signer = in_process();
    let delivery = delivery_key(&signer).await;
    let orders = signer.generate_key(key_id(5), KeyPurpose::Order, KeyAlgorithm::P256).await.unwrap();
    let now = UnixMillis(1_800_000_000_000);
    let order = Order { act: OrderAct::Rotate, device: DEVICE, counter: 3, expires: now.plus(1) };
    let signed = signer.sign_order(orders.key, &order).await.unwrap();
    let pin = PublicKey::from_spki(&orders.spki).unwrap();
    assert_eq!(Order::verify(&signed, &pin, DEVICE, 2, now), Ok(order));
    let refused = SignerError::Refused(SignerRefusal::Purpose);
    assert_eq!(signer.sign_order(delivery.key, &order).await.unwrap_err(), refused);
    let ephemeral = Ephemeral::from_random(secret(0x33)).unwrap();
    let (_, hello) = AwaitChallenge::start(Purpose::Delivery, ephemeral, [0; 16]).unwrap();
    assert_eq!(signer.exchange_challenge(orders.key, hello.as_bytes()).await.unwrap_err(), refused);
    let wrong = signer.generate_key(key_id(6), KeyPurpose::Delivery, KeyAlgorithm::Ed25519).await.unwrap_err();
    assert_eq!(wrong, SignerError::Refused(SignerRefusal::Algorithm));
}

#[tokio::test]
async fn challenges_have_a_ceiling() {
    let ceilings = RateCeilings { delivery_per_minute: 2, ..RateCeilings::default() };
    let signer = SignerClient::in_process(backend(1), ceilings).unwrap();
    let key = delivery_key(&signer).await;
    let ephemeral = Ephemeral::from_random(secret(0x33)).unwrap();
    let (_, hello) = AwaitChallenge::start(Purpose::Delivery, ephemeral, [0; 16]).unwrap();
    for _ in 0..2 {
        signer.exchange_challenge(key.key, hello.as_bytes()).await.unwrap();
    }
    let refused = signer.exchange_challenge(key.key, hello.as_bytes()).await.unwrap_err();
    assert_eq!(refused, SignerError::Rate { key: key.key, per_minute: 2 });
}

#[tokio::test]
async fn a_key_vouches_for_a_key_of_its_purpose_that_is_held_here_and_for_nothing_else() {
    let signer = in_process();
    let old = delivery_key(&signer).await;
    let generate = |octet, purpose| signer.generate_key(key_id(octet), purpose, KeyAlgorithm::P256);
    let new = generate(5, KeyPurpose::Delivery).await.unwrap();
    let order = generate(6, KeyPurpose::Order).await.unwrap();
    let authority = generate(7, KeyPurpose::IssuingCa).await.unwrap();
    let at = (2, UnixMillis(1_800_000_000_000));
    let link = signer.sign_succession(old.key, new.key, at).await.unwrap();
    let held = PublicKey::from_spki(&old.spki).unwrap();
    let said = Succession::verify(&link, &held, KeyRole::Delivery).unwrap();
    assert_eq!((said.key.to_spki().as_slice(), said.version, said.made), (new.spki.as_slice(), 2, at.1));
    for (before, after) in [(&old, &order), (&order, &new), (&authority, &authority), (&old, &old), (&authority, &new)]
    {
        let refused = signer.sign_succession(before.key, after.key, at).await;
        assert_eq!(refused, Err(SignerError::Refused(SignerRefusal::Purpose)));
    }
    let unknown = signer.sign_succession(old.key, key_id(99), at).await;
    assert!(matches!(unknown, Err(SignerError::Refused(SignerRefusal::UnknownKey(_)))), "{unknown:?}");
}

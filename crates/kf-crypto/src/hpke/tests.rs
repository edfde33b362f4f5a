use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::DhP256HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};

use super::*;

type PrivateKeyOfHpke = <DhP256HkdfSha256 as Kem>::PrivateKey;

fn material(hex: &str) -> SecretArray<32> {
    SecretArray::fill(|octets| octets.copy_from_slice(&hex::decode(hex).unwrap()))
}

fn point(hex: &str) -> Point {
    hex::decode(hex).unwrap().try_into().unwrap()
}

const RECIPIENT_MATERIAL: &str = "668b37171f1072f3cf12ea8a236a45df23fc13b82af3609ad1e354f6ef817550";
const RECIPIENT: &str = "04fe8c19ce0905191ebc298a9245792531f26f0cece2460639e8bc39cb7f706a82\
                         6a779b4cf969b8a0e539c7f62fb3d30ad6aa8f80e30f1d128aafd68a2ce72ea0";
const ENCAPSULATED: &str = "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac9\
                            8536d7b61a1af4b78e5b7f951c0900be863c403ce65c9bfcb9382657222d18c4";

#[test]
fn the_pairs_and_the_shared_secret_of_rfc_9180_appendix_a_3_come_out() {
    let recipient = HpkePrivateKey::derive(&material(RECIPIENT_MATERIAL)).unwrap();
    assert_eq!(recipient.public_key(), &point(RECIPIENT));
    let peer = UnparsedPublicKey::new(&ECDH_P256, point(ENCAPSULATED));
    let shared = agree(&recipient.0, peer, CryptoError, |agreed| {
        Ok(shared_secret(agreed, &point(ENCAPSULATED), recipient.public_key()))
    })
    .unwrap();
    assert_eq!(hex::encode(shared.expose()), "c0d26aeab536609a572b07695d933b589dcf363ff9d93c93adea537aeabb8cb8");
}

#[test]
fn the_crate_hpke_opens_what_we_seal() {
    let recipient = HpkePrivateKey::derive(&material(RECIPIENT_MATERIAL)).unwrap();
    let mut sender = HpkeSender::new(recipient.public_key(), b"info").unwrap();
    let (theirs, _) = DhP256HkdfSha256::derive_keypair(&hex::decode(RECIPIENT_MATERIAL).unwrap());
    let encapsulated = <DhP256HkdfSha256 as Kem>::EncappedKey::from_bytes(sender.encapsulated()).unwrap();
    let mut receiver = hpke::setup_receiver::<AesGcm256, HkdfSha256, DhP256HkdfSha256>(
        &OpModeR::Base,
        &theirs,
        &encapsulated,
        b"info",
    )
    .unwrap();
    for text in [b"first".as_slice(), b"", &[7; 300]] {
        let (_, sealed) = sender.seal(b"context", text).unwrap();
        assert_eq!(receiver.open(&sealed, b"context").unwrap(), text);
    }
}

#[test]
fn we_open_what_the_crate_hpke_seals_in_any_order() {
    let recipient = HpkePrivateKey::derive(&material(RECIPIENT_MATERIAL)).unwrap();
    let theirs = <DhP256HkdfSha256 as Kem>::PublicKey::from_bytes(recipient.public_key()).unwrap();
    let (encapsulated, mut sender) =
        hpke::setup_sender::<AesGcm256, HkdfSha256, DhP256HkdfSha256>(&OpModeS::Base, &theirs, b"info").unwrap();
    let sealed: Vec<_> = (0..3u8).map(|octet| sender.seal(&[octet; 16], b"context").unwrap()).collect();
    let encapsulated: Point = encapsulated.to_bytes().as_slice().try_into().unwrap();
    let receiver = recipient.receive(&encapsulated, b"info").unwrap();
    for number in [2u8, 0, 1] {
        let opened = receiver.open(number.into(), b"context", &sealed[usize::from(number)]).unwrap();
        assert!(opened.equals(&[number; 16]));
    }
    assert!(receiver.open(1, b"context", &sealed[0]).is_err(), "another number");
    assert!(receiver.open(0, b"other", &sealed[0]).is_err(), "another context");
    assert!(recipient.receive(&encapsulated, b"other").unwrap().open(0, b"context", &sealed[0]).is_err());
}

#[test]
fn the_recipients_private_operation_is_one_ecdh() {
    let scalar = PrivateKeyOfHpke::from_bytes(
        &DhP256HkdfSha256::derive_keypair(b"0123456789abcdef0123456789abcdef").0.to_bytes(),
    );
    let scalar = scalar.unwrap().to_bytes();
    let token = PrivateKey::from_private_key(&ECDH_P256, &scalar).unwrap();
    let public: Point = token.compute_public_key().unwrap().as_ref().try_into().unwrap();
    let mut sender = HpkeSender::new(&public, b"info").unwrap();
    let (number, sealed) = sender.seal(b"context", b"secret").unwrap();
    let agreed = agree(&token, UnparsedPublicKey::new(&ECDH_P256, sender.encapsulated()), CryptoError, |agreed| {
        Ok(SecretArray::<32>::fill(|octets| octets.copy_from_slice(agreed)))
    })
    .unwrap();
    let receiver = HpkeReceiver::new(&agreed, sender.encapsulated(), &public, b"info");
    assert!(receiver.open(number, b"context", &sealed).unwrap().equals(b"secret"));
}

#[test]
fn a_point_off_the_curve_is_refused_by_both_sides() {
    let recipient = HpkePrivateKey::derive(&material(RECIPIENT_MATERIAL)).unwrap();
    assert!(HpkeSender::new(&[4; 65], b"info").is_err());
    assert!(recipient.receive(&[4; 65], b"info").is_err());
    assert!(recipient.receive(&[0; 65], b"info").is_err());
}

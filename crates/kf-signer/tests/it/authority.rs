//! A small hierarchy to sign with.

use std::sync::Arc;

use kf_key::{AuthorityId, CertificateProfile, DeviceId, KeyAlgorithm, KeyId, SecretArray, SerialNumber, UnixMillis};
use kf_pki::certificate::{CheckedTbs, IssuanceRequest, Subject, check_issuance, check_root};
use kf_pki::crl::{CheckedCrl, CrlEntry, CrlScope, check_crl};
use kf_pki::issuer::Issuer;
use kf_pki::request::RequestedKey;
use kf_signer::{GeneratedKey, KeyFacts, KeyPurpose, RateCeilings, SignerClient, SoftwareBackend};

pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

pub(crate) fn backend(octet: u8) -> Arc<SoftwareBackend> {
    let root = SecretArray::fill(|root| root.fill(octet));
    Arc::new(SoftwareBackend::new(root, "test".to_owned()).unwrap())
}

pub(crate) fn in_process() -> SignerClient {
    SignerClient::in_process(backend(1), RateCeilings::default()).unwrap()
}

pub(crate) fn key_id(octet: u8) -> KeyId {
    KeyId::from_bytes([octet; 16])
}

pub(crate) fn request(profile: CertificateProfile, subject: Subject, spki: &[u8], serial: u8) -> IssuanceRequest {
    let days = match profile {
        CertificateProfile::Root => 3000,
        CertificateProfile::IssuingCa => 1000,
        _ => 7,
    };
    IssuanceRequest {
        profile,
        subject,
        key: RequestedKey::from_spki(spki).unwrap(),
        serial: SerialNumber::from_parts(NOW, [serial; 16]),
        not_before: NOW,
        not_after: Some(NOW.plus(days * UnixMillis::DAY)),
    }
}

pub(crate) fn authority_name(name: &str) -> Subject {
    Subject::Authority { common_name: name.to_owned(), organization: "Test fleet".to_owned() }
}

/// What an issuing CA is asked for a device; a fresh one each time.
pub(crate) fn device(issuer: &Issuer, spki: &[u8], serial: u8) -> CheckedTbs {
    let subject = Subject::Device {
        organization: "Test fleet".to_owned(),
        device: DeviceId::from_bytes([serial; 16]),
        name: format!("device {serial}"),
        product_line: "line".to_owned(),
    };
    check_issuance(issuer, request(CertificateProfile::LDevId, subject, spki, serial)).unwrap()
}

pub(crate) fn crl(issuer: &Issuer, entries: u32) -> CheckedCrl {
    let entries: Vec<_> = (0..entries)
        .map(|number| {
            let mut random = [0; 16];
            random[..4].copy_from_slice(&number.to_be_bytes());
            let serial = SerialNumber::from_parts(NOW, random);
            CrlEntry { serial, revoked: NOW, reason: kf_key::RevocationReason::KeyCompromise }.encode()
        })
        .collect();
    check_crl(issuer, CrlScope::Full, 1, NOW, NOW.plus(UnixMillis::DAY), entries.iter()).unwrap()
}

/// A root and an issuing CA below it, both registered with the signer.
pub(crate) struct Hierarchy {
    pub(crate) root_key: GeneratedKey,
    pub(crate) root: Issuer,
    pub(crate) issuing_key: GeneratedKey,
    pub(crate) issuing: Issuer,
}

impl Hierarchy {
    pub(crate) async fn make(signer: &SignerClient, algorithm: KeyAlgorithm) -> Self {
        let root_key = signer.generate_key(key_id(1), KeyPurpose::RootCa, algorithm).await.unwrap();
        let checked = check_root(request(CertificateProfile::Root, authority_name("Root"), &root_key.spki, 1)).unwrap();
        let root = signer.sign_root(root_key.key, checked).await.unwrap();
        let root = issuer(&root.der);
        let issuing_key = signer.generate_key(key_id(2), KeyPurpose::IssuingCa, algorithm).await.unwrap();
        let checked = issuing_authority(&root, &issuing_key.spki);
        let issuing = issuer(&signer.sign_certificate(root_key.key, checked).await.unwrap().der);
        let this = Self { root_key, root, issuing_key, issuing };
        this.register(signer);
        this
    }

    pub(crate) fn register(&self, signer: &SignerClient) {
        for (key, issuer) in [(&self.root_key, &self.root), (&self.issuing_key, &self.issuing)] {
            let facts = KeyFacts { purpose: key.purpose, issuer_name: issuer.name.to_vec() };
            signer.register_key(key.key, key.handle.clone(), facts);
        }
    }
}

pub(crate) fn issuing_authority(root: &Issuer, spki: &[u8]) -> CheckedTbs {
    check_issuance(root, request(CertificateProfile::IssuingCa, authority_name("Issuing"), spki, 2)).unwrap()
}

pub(crate) fn issuer(certificate: &[u8]) -> Issuer {
    Issuer::from_certificate(AuthorityId::from_bytes([1; 16]), certificate, 1, "http://pki.test").unwrap()
}

/// The signature in a Certificate or CertificateList verifies under the issuer's key.
pub(crate) fn assert_signed_by(issuer: &Issuer, tbs: &[u8], whole: &[u8]) {
    // The BIT STRING is last: its contents follow one octet that says that no bits are unused.
    let bits = whole.len() - (4..whole.len()).find(|back| is_bit_string(&whole[whole.len() - back..])).unwrap();
    let signature = &whole[bits + 3..];
    kf_crypto::verify(issuer.algorithm, &issuer.public_key, tbs, signature).unwrap();
}

fn is_bit_string(tail: &[u8]) -> bool {
    matches!(tail, [0x03, length, 0x00, rest @ ..] if usize::from(*length) == rest.len() + 1 && rest.len() >= 64)
}

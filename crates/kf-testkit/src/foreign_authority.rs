//! A root and an issuing CA made by rcgen: a second producer of certificates and CRLs beside ours.

use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    RevokedCertParams, SerialNumber, SignatureAlgorithm, date_time_ymd,
};

/// Year, month, day.
pub type Day = (i32, u8, u8);

const LONG_AGO: Day = (2020, 1, 1);
const FAR_AWAY: Day = (4000, 1, 1);

/// A root and an issuing CA, P-256.
#[derive(Debug)]
pub struct ForeignAuthority {
    root: Certificate,
    issuing: Certificate,
    issuer: Issuer<'static, KeyPair>,
    next_serial: AtomicU64,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct IssuedIdentity {
    /// Leaf and issuing CA, DER.
    pub chain: Vec<Vec<u8>>,
    /// The P-256 key, PKCS#8 DER. A test's key guards nothing.
    pub pkcs8: Vec<u8>,
    /// Serial number of the leaf.
    pub serial: u64,
}

struct RawP256<'a>(&'a [u8]);

impl PublicKeyData for RawP256<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn authority_params(name: &str, path_length: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

impl Default for ForeignAuthority {
    fn default() -> Self {
        Self::new()
    }
}

impl ForeignAuthority {
    /// Fresh keys, fresh certificates.
    ///
    /// # Panics
    /// When rcgen fails.
    #[must_use]
    pub fn new() -> Self {
        let root_key = KeyPair::generate().expect("root key");
        let root_params = authority_params("Foreign Root", 1);
        let root = root_params.self_signed(&root_key).expect("root certificate");
        let root_issuer = Issuer::new(root_params, root_key);
        let issuing_key = KeyPair::generate().expect("issuing key");
        let mut issuing_params = authority_params("Foreign Issuing", 0);
        issuing_params.use_authority_key_identifier_extension = true;
        let issuing = issuing_params.signed_by(&issuing_key, &root_issuer).expect("issuing certificate");
        let issuer = Issuer::new(issuing_params, issuing_key);
        Self { root, issuing, issuer, next_serial: AtomicU64::new(0x1000) }
    }

    /// The root certificate, DER.
    #[must_use]
    pub fn root_der(&self) -> Vec<u8> {
        self.root.der().to_vec()
    }

    /// The issuing CA's certificate, DER.
    #[must_use]
    pub fn issuing_der(&self) -> Vec<u8> {
        self.issuing.der().to_vec()
    }

    /// Issuing CA and root, PEM.
    #[must_use]
    pub fn authorities_pem(&self) -> String {
        format!("{}{}", self.issuing.pem(), self.root.pem())
    }

    /// A TLS server for these names and addresses.
    ///
    /// # Panics
    /// When rcgen fails.
    #[must_use]
    pub fn issue_server(&self, names: &[&str]) -> IssuedIdentity {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("server names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name = common_name("server");
        self.issue(params)
    }

    /// A TLS client with this common name, valid for ages.
    #[must_use]
    pub fn issue_client(&self, name: &str) -> IssuedIdentity {
        self.issue_client_for_days(name, LONG_AGO, FAR_AWAY)
    }

    /// A TLS client with this common name, valid from one day to another.
    #[must_use]
    pub fn issue_client_for_days(&self, name: &str, from: Day, to: Day) -> IssuedIdentity {
        self.issue(client_params(name, from, to))
    }

    /// A TLS client's certificate, DER, for a P-256 key that we hold only the public half of (65 octets).
    ///
    /// # Panics
    /// When rcgen fails.
    #[must_use]
    pub fn certify_client(&self, name: &str, public_key: &[u8], from: Day, to: Day) -> Vec<u8> {
        let mut params = client_params(name, from, to);
        params.serial_number = Some(self.serial().1);
        params.signed_by(&RawP256(public_key), &self.issuer).expect("certificate").der().to_vec()
    }

    /// The issuing CA's CRL with these serial numbers, PEM.
    ///
    /// # Panics
    /// When rcgen fails.
    #[must_use]
    pub fn crl_pem(&self, revoked: &[u64]) -> String {
        let entry = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(LONG_AGO.0, LONG_AGO.1, LONG_AGO.2),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(LONG_AGO.0, LONG_AGO.1, LONG_AGO.2),
            next_update: date_time_ymd(FAR_AWAY.0, FAR_AWAY.1, FAR_AWAY.2),
            crl_number: self.serial().1,
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).and_then(|crl| crl.pem()).expect("CRL")
    }

    fn serial(&self) -> (u64, SerialNumber) {
        let serial = self.next_serial.fetch_add(1, Ordering::Relaxed);
        (serial, SerialNumber::from(serial))
    }

    fn issue(&self, mut params: CertificateParams) -> IssuedIdentity {
        let (serial, number) = self.serial();
        params.serial_number = Some(number);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("key");
        let leaf = params.signed_by(&key, &self.issuer).expect("certificate");
        IssuedIdentity { chain: vec![leaf.der().to_vec(), self.issuing_der()], pkcs8: key.serialize_der(), serial }
    }
}

fn client_params(name: &str, from: Day, to: Day) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date_time_ymd(from.0, from.1, from.2);
    params.not_after = date_time_ymd(to.0, to.1, to.2);
    params
}

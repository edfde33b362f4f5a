//! A root, an issuing CA and one certificate of every profile, at a fixed time.

use std::path::{Path, PathBuf};

use kf_crypto::{PrivateKey, fill_random, random_array};
use kf_key::{AuthorityId, CertificateProfile, DeviceId, KeyAlgorithm, SerialNumber, UnixMillis};
use kf_pki::certificate::{
    CheckedTbs, IssuanceRequest, IssueRefusal, IssuedCertificate, Subject, check_issuance, check_root,
};
use kf_pki::issuer::Issuer;
use kf_pki::request::RequestedKey;
use kf_testkit::{TempDir, Tool, scratch};

/// 2026-06-01T12:00:00Z.
pub(crate) const NOW: UnixMillis = UnixMillis(1_780_315_200_000);
/// The same, for faketime.
const NOW_TEXT: &str = "2026-06-01 12:00:00";
pub(crate) const SHARDS: u16 = 4;
pub(crate) const ORGANIZATION: &str = "Acme Fleet";

pub(crate) struct Authority {
    pub(crate) key: PrivateKey,
    pub(crate) issuer: Issuer,
}

pub(crate) struct Fleet {
    pub(crate) root: Authority,
    pub(crate) ca: Authority,
}

/// A program that believes it is [`NOW`].
pub(crate) struct Dated(Tool, &'static str);

impl Dated {
    pub(crate) fn run(&self, arguments: &[&str]) -> kf_testkit::Output {
        self.run_with_input(arguments, &[])
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> kf_testkit::Output {
        let arguments = [&[NOW_TEXT, self.1], arguments].concat();
        self.0.run_with_input(&arguments, input)
    }
}

pub(crate) fn tool(name: &'static str) -> Dated {
    drop(Tool::new(name));
    Dated(Tool::new("faketime").env("TZ", "UTC"), name)
}

/// Files for programs that read files.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(scratch())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and returns its path as text.
    pub(crate) fn put(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

pub(crate) fn serial() -> SerialNumber {
    SerialNumber::from_parts(NOW, random_array().unwrap())
}

/// A serial number in this shard of [`SHARDS`].
pub(crate) fn serial_in(shard: u16) -> SerialNumber {
    std::iter::repeat_with(serial).find(|serial| serial.shard(SHARDS) == shard).unwrap()
}

pub(crate) fn device_id() -> DeviceId {
    let mut random = [0; 10];
    fill_random(&mut random).unwrap();
    DeviceId::from_parts(NOW, random)
}

pub(crate) fn device(name: &str) -> Subject {
    Subject::Device {
        organization: ORGANIZATION.into(),
        device: device_id(),
        name: name.into(),
        product_line: "pump-7".into(),
    }
}

pub(crate) fn authority(name: &str) -> Subject {
    Subject::Authority { common_name: name.into(), organization: ORGANIZATION.into() }
}

/// The subject that a profile names, an ordinary lifetime, a fresh key.
pub(crate) fn request(profile: CertificateProfile, key: &PrivateKey) -> IssuanceRequest {
    let (subject, days) = match profile {
        CertificateProfile::Root | CertificateProfile::LinkCa => (authority("Acme Root"), 3650),
        CertificateProfile::IssuingCa => (authority("Acme Issuing CA 1"), 1825),
        CertificateProfile::IDevId => (device("pump 7-0001"), 0),
        CertificateProfile::LDevId => (device("pump 7-0001"), 365),
        CertificateProfile::TlsServer => {
            let names = ["est.fleet.example", "pki.fleet.example", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
            (Subject::Server { dns_names: names }, 90)
        }
        CertificateProfile::OcspSigner => (Subject::OcspSigner { common_name: "Acme OCSP 1".into() }, 7),
        CertificateProfile::Operator => {
            (Subject::Operator { organization: ORGANIZATION.into(), name: "Grace Müller".into() }, 365)
        }
    };
    let not_before = NOW.minus(UnixMillis::HOUR);
    IssuanceRequest {
        profile,
        subject,
        key: RequestedKey::from_spki(&key.spki()).unwrap(),
        serial: serial(),
        not_before,
        not_after: (profile != CertificateProfile::IDevId).then(|| NOW.plus(days * UnixMillis::DAY)),
    }
}

pub(crate) fn sign(key: &PrivateKey, checked: CheckedTbs) -> IssuedCertificate {
    let signature = key.sign(checked.tbs()).unwrap();
    checked.complete(&signature).unwrap()
}

impl Authority {
    pub(crate) fn new(key: PrivateKey, certificate: &[u8]) -> Self {
        let id = AuthorityId::from_parts(NOW, random_array().unwrap());
        let issuer = Issuer::from_certificate(id, certificate, SHARDS, "http://pki.fleet.example:8080").unwrap();
        Self { key, issuer }
    }

    pub(crate) fn issue(&self, request: IssuanceRequest) -> Result<IssuedCertificate, IssueRefusal> {
        check_issuance(&self.issuer, request).map(|checked| sign(&self.key, checked))
    }

    pub(crate) fn pem(&self) -> String {
        kf_pki::pem::certificate(&self.issuer.certificate)
    }
}

impl Fleet {
    pub(crate) fn new(algorithm: KeyAlgorithm) -> Self {
        let root_key = PrivateKey::generate(algorithm).unwrap();
        let root = sign(&root_key, check_root(request(CertificateProfile::Root, &root_key)).unwrap());
        let root = Authority::new(root_key, &root.der);
        let ca_key = PrivateKey::generate(algorithm).unwrap();
        let ca = root.issue(request(CertificateProfile::IssuingCa, &ca_key)).unwrap();
        Self { root, ca: Authority::new(ca_key, &ca.der) }
    }

    /// A certificate of any profile from the CA that issues it, with its key.
    pub(crate) fn issue(&self, profile: CertificateProfile) -> (IssuedCertificate, PrivateKey) {
        let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
        let issued = self.ca.issue(request(profile, &key)).unwrap();
        (issued, key)
    }

    /// A device certificate in this shard.
    pub(crate) fn device_in(&self, shard: u16) -> (IssuedCertificate, PrivateKey) {
        let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
        let mut request = request(CertificateProfile::LDevId, &key);
        request.serial = serial_in(shard);
        (self.ca.issue(request).unwrap(), key)
    }
}

pub(crate) const SIGNING: [KeyAlgorithm; 3] = [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519];
pub(crate) const POST_QUANTUM: [KeyAlgorithm; 3] =
    [KeyAlgorithm::MlDsa44, KeyAlgorithm::MlDsa65, KeyAlgorithm::MlDsa87];
pub(crate) const END_ENTITIES: [CertificateProfile; 5] = [
    CertificateProfile::IDevId,
    CertificateProfile::LDevId,
    CertificateProfile::TlsServer,
    CertificateProfile::OcspSigner,
    CertificateProfile::Operator,
];

//! A fleet in a scratch directory.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use kf_api::device::{Device, NewDevice};
use kf_api::enrolment::CodeRequest;
use kf_api::facility::NewFacility;
use kf_api::operator::{Credential, NewOperator, Role};
use kf_api::product_line::{EnrolmentPolicy, NewProductLine};
use kf_backend::SoftwareBackend;
use kf_crypto::PrivateKey;
use kf_fleet::{
    ClientCertificate, Clock, DataDir, EnrolCredential, EnrolOutcome, EstLabel, Fleet, FleetConfig, FleetError,
    InitOptions, Knows, News, Principal, TestClock, TlsClient, init,
};
use kf_key::{KeyAlgorithm, SecretArray, SecretBytes, SerialNumber, UnixMillis};
use kf_pki::certificate::PresentedCertificate;
use kf_pki::request::make_request;
use kf_signer::{RateCeilings, SignerClient};
use kf_store::{Options, Store};
use tempfile::TempDir;

use crate::crash::SPAWNING;

/// 2026-11-01T00:00:00Z.
pub(crate) const START: UnixMillis = UnixMillis(1_793_491_200_000);
pub(crate) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) struct Scratch {
    pub(crate) dir: TempDir,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) owner: Principal,
    pub(crate) root: [u8; 32],
}

/// What a device holds after it enrolled.
pub(crate) struct Identity {
    pub(crate) key: PrivateKey,
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) serial: SerialNumber,
}

fn signer(root: [u8; 32]) -> SignerClient {
    let backend = SoftwareBackend::new(SecretArray::fill(|bytes| *bytes = root), "scratch".into()).unwrap();
    SignerClient::in_process(Arc::new(backend), RateCeilings::default()).unwrap()
}

impl Scratch {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A fleet with facilities `plant-a` and `plant-b` and product line `thermo`.
    pub(crate) async fn with(adjust: impl FnOnce(&mut FleetConfig)) -> Self {
        let _open = SPAWNING.read().await;
        let dir = tempfile::tempdir().unwrap();
        let root = kf_crypto::random_array().unwrap();
        let clock = Arc::new(TestClock::at(START));
        let mut config = FleetConfig::named("Scratch");
        config.witness_dir = Some(dir.path().join("witness"));
        adjust(&mut config);
        let options = InitOptions {
            config: config.clone(),
            owner: "olga".into(),
            algorithm: KeyAlgorithm::P256,
            root_lifetime_hours: 24 * 3_650,
        };
        let data = DataDir::new(dir.path().join("data"));
        let signer = signer(root);
        let made = init(&data, signer.clone(), clock.clone(), options).await.unwrap();
        let fleet = Fleet::open(data, config, signer, clock.clone()).await.unwrap();
        let token = SecretBytes::from_vec(made.owner_token.expose().as_bytes().to_vec());
        let owner = fleet.authenticate_token(&token).await.unwrap();
        let scratch = Self { dir, fleet, clock, owner, root };
        for name in ["plant-a", "plant-b"] {
            let new = NewFacility { name: name.into(), description: String::new() };
            scratch.fleet.facility_create(&scratch.owner, new).await.unwrap();
        }
        scratch.line("thermo", EnrolmentPolicy::default()).await;
        scratch
    }

    /// Closes the fleet; its directory, from which [`Scratch::at`] opens it anywhere.
    pub(crate) async fn closed(self) -> TempDir {
        self.fleet.close().await;
        self.note_root_and_owner();
        self.dir
    }

    /// What a power cut at this moment would leave, opened; this fleet goes on.
    pub(crate) async fn cut_off(&self) -> Self {
        self.note_root_and_owner();
        Self::at(crate::crash::copied(self.dir.path())).await
    }

    fn note_root_and_owner(&self) {
        std::fs::write(self.dir.path().join("root"), self.root).unwrap();
        std::fs::write(self.dir.path().join("owner"), &self.owner.id).unwrap();
    }

    /// Opens what [`Scratch::closed`] left, or a copy of it.
    pub(crate) async fn at(dir: TempDir) -> Self {
        Self::try_at(dir).await.unwrap()
    }

    /// As [`Scratch::at`], where opening may be refused.
    pub(crate) async fn try_at(dir: TempDir) -> Result<Self, FleetError> {
        let (fleet, clock, owner, root) = Self::open_in(dir.path()).await?;
        Ok(Self { dir, fleet, clock, owner, root })
    }

    /// Opens what [`Scratch::closed`] left in a directory that somebody else removes.
    pub(crate) async fn open_in(
        dir: &std::path::Path,
    ) -> Result<(Arc<Fleet>, Arc<TestClock>, Principal, [u8; 32]), FleetError> {
        let _open = SPAWNING.read().await;
        let root: [u8; 32] = std::fs::read(dir.join("root")).unwrap().try_into().unwrap();
        let id = std::fs::read_to_string(dir.join("owner")).unwrap();
        let owner = Principal::new(id, "olga".into(), Role::Owner, [], Credential::Token);
        let data = DataDir::new(dir.join("data"));
        let mut config = data.load_config().unwrap();
        config.witness_dir = config.witness_dir.map(|_elsewhere| dir.join("witness"));
        let clock = Arc::new(TestClock::at(START.plus(UnixMillis::HOUR)));
        let fleet = Fleet::open(data, config, signer(root), clock.clone()).await?;
        Ok((fleet, clock, owner, root))
    }

    /// Closes the fleet and opens it again from what is on disk.
    pub(crate) async fn reopen(self) -> Self {
        self.reopen_with(Options::default()).await
    }

    /// Closes the fleet and opens it again with a changed configuration, which stays.
    pub(crate) async fn configured(self, adjust: impl FnOnce(&mut FleetConfig)) -> Self {
        let data = DataDir::new(self.dir.path().join("data"));
        let mut config = data.load_config().unwrap();
        adjust(&mut config);
        std::fs::write(data.config_file(), toml::to_string(&config).unwrap()).unwrap();
        self.reopen().await
    }

    /// As [`Scratch::reopen`], for a fleet that starts a program when it is opened: nobody else opens a registry until `during` is over.
    pub(crate) async fn reopen_alone<T>(self, during: impl AsyncFnOnce() -> T) -> (Self, T) {
        let _alone = SPAWNING.write().await;
        let Self { dir, fleet, clock, owner, root } = self;
        fleet.close().await;
        drop(fleet);
        let data = DataDir::new(dir.path().join("data"));
        let config = data.load_config().unwrap();
        let fleet = Fleet::open(data, config, signer(root), clock.clone()).await.unwrap();
        let value = during().await;
        (Self { dir, fleet, clock, owner, root }, value)
    }

    /// As [`Scratch::reopen`], with these options of the registry.
    pub(crate) async fn reopen_with(self, options: Options) -> Self {
        let _open = SPAWNING.read().await;
        let Self { dir, fleet, clock, owner, root } = self;
        fleet.close().await;
        drop(fleet);
        let data = DataDir::new(dir.path().join("data"));
        let config = data.load_config().unwrap();
        let store = Store::open(&data.database(), options).unwrap();
        let fleet = Fleet::open_with_store(data, config, signer(root), clock.clone(), store).await.unwrap();
        Self { dir, fleet, clock, owner, root }
    }

    /// Closes the fleet, has `edit` work on the registry and a signer of the same root, and opens the fleet again.
    pub(crate) async fn edited<T>(self, edit: impl AsyncFnOnce(&Store, &SignerClient) -> T) -> (Self, T) {
        let _open = SPAWNING.read().await;
        self.fleet.close().await;
        let Self { dir, fleet, clock, owner, root } = self;
        drop(fleet);
        let data = DataDir::new(dir.path().join("data"));
        let store = Store::open(&data.database(), Options::default()).unwrap();
        let edited = edit(&store, &signer(root)).await;
        store.close().await;
        drop(store);
        let config = data.load_config().unwrap();
        let store = Store::open(&data.database(), Options::default()).unwrap();
        let fleet = Fleet::open_with_store(data, config, signer(root), clock.clone(), store).await.unwrap();
        (Self { dir, fleet, clock, owner, root }, edited)
    }

    pub(crate) fn pass(&self, milliseconds: u64) {
        self.clock.set(self.clock.now().plus(milliseconds));
    }

    pub(crate) fn clock_now(&self) -> UnixMillis {
        self.clock.now()
    }

    pub(crate) async fn line(&self, name: &str, policy: EnrolmentPolicy) {
        let new = NewProductLine { name: name.into(), authority: None, policy };
        self.fleet.product_line_create(&self.owner, new).await.unwrap();
    }

    pub(crate) async fn device(&self, name: &str) -> Device {
        self.device_at(name, "plant-a", "thermo").await
    }

    pub(crate) async fn device_at(&self, name: &str, facility: &str, line: &str) -> Device {
        let new = NewDevice {
            name: name.into(),
            facility: facility.into(),
            product_line: line.into(),
            batch: Some("batch-1".into()),
            attributes: Default::default(),
        };
        self.fleet.device_register(&self.owner, new).await.unwrap()
    }

    pub(crate) async fn operator(&self, name: &str, role: Role, facilities: &[&str]) -> Principal {
        let new = NewOperator {
            name: name.into(),
            role,
            facilities: facilities.iter().map(ToString::to_string).collect(),
            voucher_key_pem: None,
        };
        let made = self.fleet.operator_create(&self.owner, new).await.unwrap();
        Principal::new(made.id.to_string(), made.name, made.role, made.facilities, Credential::Token)
    }

    pub(crate) async fn code(&self, device: &str) -> String {
        let request = CodeRequest { device: device.into(), lifetime_hours: None };
        self.fleet.code_create(&self.owner, request).await.unwrap().code.expose().to_owned()
    }

    /// Enrols a registered device with a fresh code and a fresh key.
    pub(crate) async fn enrol(&self, device: &str) -> Identity {
        let code = self.code(device).await;
        let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
        let chain = issued(self.enrol_with(device, &code, &csr(&key)).await.unwrap());
        Identity { serial: serial_of(&chain), key, chain }
    }

    pub(crate) async fn enrol_with(&self, device: &str, code: &str, csr: &[u8]) -> Result<EnrolOutcome, FleetError> {
        let client = TlsClient::anonymous(HERE);
        self.fleet.est_simple_enroll(EstLabel::Line("thermo"), client, basic(device, code), csr).await
    }

    pub(crate) async fn renew(&self, identity: &Identity, csr: &[u8]) -> Result<EnrolOutcome, FleetError> {
        let certificate = self.client(identity);
        let client = TlsClient::with_certificate(&certificate, HERE);
        self.fleet.est_simple_reenroll(EstLabel::None, client, csr).await
    }

    /// The client certificate as the TLS handshake would see it.
    pub(crate) fn client(&self, identity: &Identity) -> ClientCertificate {
        let intermediates: Vec<&[u8]> = identity.chain[1..].iter().map(Vec::as_slice).collect();
        self.fleet.verify_client_path(&identity.chain[0], &intermediates).unwrap()
    }

    /// What waits for a device whose program says nothing of what it knows.
    pub(crate) async fn news(&self, certificate: &ClientCertificate) -> News {
        self.fleet.device_news(TlsClient::with_certificate(certificate, HERE), Knows::default()).await.unwrap()
    }
}

pub(crate) fn basic(device: &str, password: &str) -> EnrolCredential {
    EnrolCredential::Basic { user: device.into(), password: SecretBytes::from_vec(password.as_bytes().to_vec()) }
}

pub(crate) fn csr(key: &PrivateKey) -> Vec<u8> {
    make_request(key, "").unwrap()
}

pub(crate) fn fresh_csr() -> Vec<u8> {
    csr(&PrivateKey::generate(KeyAlgorithm::P256).unwrap())
}

pub(crate) fn issued(outcome: EnrolOutcome) -> Vec<Vec<u8>> {
    match outcome {
        EnrolOutcome::Issued(chain) => chain,
        EnrolOutcome::Waiting { .. } => panic!("waits for a person"),
    }
}

pub(crate) fn serial_of(chain: &[Vec<u8>]) -> SerialNumber {
    PresentedCertificate::from_der(&chain[0]).unwrap().serial.unwrap()
}

/// The field that an error names.
pub(crate) fn field_of(error: &FleetError) -> &str {
    match error {
        FleetError::Invalid { field, .. }
        | FleetError::Conflict { field, .. }
        | FleetError::Forbidden { field, .. } => field,
        other => panic!("names no field: {other}"),
    }
}

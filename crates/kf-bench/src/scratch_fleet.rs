//! A fleet in a scratch folder, in this process: the use cases without a network.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use kf_access::Principal;
use kf_api::certificate::IssueRequest;
use kf_api::device::ImportFormat;
use kf_api::enrolment::CodeRequest;
use kf_api::facility::NewFacility;
use kf_api::product_line::{EnrolmentPolicy, NewProductLine};
use kf_backend::SoftwareBackend;
use kf_crypto::{PrivateKey, random_secret};
use kf_fleet::{Clock, DataDir, Fleet, FleetConfig, FleetError, InitOptions, ListenConfig, SystemClock, init};
use kf_key::{CertificateProfile, KeyAlgorithm, SecretBytes, SerialNumber};
use kf_pki::request::make_request;
use kf_signer::{RateCeilings, SignerClient, SignerConfig};
use tokio::runtime::Runtime;

use crate::error::BenchError;
use crate::populated_store::Places;

/// The facility of every device.
pub(crate) const FACILITY: &str = "plant";
/// The product line of every device.
pub(crate) const LINE: &str = "meter";
/// Requests in flight at the same time, unless said otherwise.
pub(crate) const IN_FLIGHT: usize = 64;

/// A fleet, opened.
pub(crate) struct ScratchFleet {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) owner: Principal,
    signer: SignerClient,
    backend: Arc<SoftwareBackend>,
    folder: tempfile::TempDir,
}

/// The error with its causes.
pub(crate) fn fleet_error(error: FleetError) -> BenchError {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        why = format!("{why}: {cause}");
        source = cause.source();
    }
    BenchError::Failed { what: "the fleet", why }
}

fn configuration() -> FleetConfig {
    FleetConfig {
        fleet: "bench".to_owned(),
        listen: ListenConfig::default(),
        signer: SignerConfig::default(),
        witness_dir: None,
        backup_dir: None,
        single_control: true,
        dual_control_above: 10_000_000,
        batch_dual_control_above: 10_000_000,
        crl_lifetime_seconds: 86_400,
        ocsp_lifetime_seconds: 3_600,
        rotation_policy_file: None,
        rotation_automatic: false,
        campaign_requests_per_second: None,
        campaign_signatures_per_second: None,
        drill_days: 180,
        alarm_command: None,
        broker: Vec::new(),
        demo: false,
    }
}

/// A fleet that is closed, so that its registry may be opened by itself.
pub(crate) struct ClosedFleet {
    pub(crate) owner: Principal,
    pub(crate) signer: SignerClient,
    backend: Arc<SoftwareBackend>,
    pub(crate) directory: DataDir,
    _folder: tempfile::TempDir,
}

impl ClosedFleet {
    /// Opens the fleet; close and drop it before the registry is opened by itself again.
    pub(crate) fn open(&self, runtime: &Runtime) -> Result<Arc<Fleet>, BenchError> {
        runtime.block_on(open(&self.directory, &self.signer, Arc::new(SystemClock)))
    }

    /// Opens a copy of it elsewhere, with a signer of its own: one that has signed a log refuses to sign a shorter one.
    pub(crate) fn open_at(&self, runtime: &Runtime, directory: &DataDir) -> Result<Arc<Fleet>, BenchError> {
        runtime.block_on(async {
            let signer = signer_over(Arc::clone(&self.backend))?;
            open(directory, &signer, Arc::new(SystemClock)).await
        })
    }
}

impl ScratchFleet {
    /// Closes it.
    pub(crate) fn close(self, runtime: &Runtime) -> ClosedFleet {
        let Self { fleet, owner, signer, backend, folder } = self;
        runtime.block_on(fleet.close());
        let directory = DataDir::new(folder.path().join("fleet"));
        ClosedFleet { owner, signer, backend, directory, _folder: folder }
    }

    /// A fleet with one facility and one product line.
    pub(crate) fn create(runtime: &Runtime) -> Result<Self, BenchError> {
        runtime.block_on(Self::create_async(false, Arc::new(SystemClock)))
    }

    /// As [`ScratchFleet::create`], by another clock.
    pub(crate) fn with_clock(runtime: &Runtime, clock: Arc<dyn Clock>) -> Result<Self, BenchError> {
        runtime.block_on(Self::create_async(false, clock))
    }

    /// As [`ScratchFleet::create`], with a witness in the same folder.
    pub(crate) fn with_witness(runtime: &Runtime) -> Result<Self, BenchError> {
        runtime.block_on(Self::create_async(true, Arc::new(SystemClock)))
    }

    /// A path in the scratch folder.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Where its devices belong.
    pub(crate) fn places(&self, runtime: &Runtime) -> Result<Places, BenchError> {
        runtime.block_on(async {
            let facility = self.fleet.facility_show(&self.owner, FACILITY).await.map_err(fleet_error)?.id;
            let line = self.fleet.product_line_show(&self.owner, LINE).await.map_err(fleet_error)?.id;
            let authority = kf_key::AuthorityId::from_bytes([0; 16]);
            Ok(Places { facility, line, authority, now: self.fleet.clock().now() })
        })
    }

    /// Opens another data directory with the same root.
    pub(crate) fn opened_at(&self, runtime: &Runtime, directory: &DataDir) -> Result<Arc<Fleet>, BenchError> {
        runtime.block_on(open(directory, &self.signer, Arc::new(SystemClock)))
    }

    async fn create_async(has_witness: bool, clock: Arc<dyn Clock>) -> Result<Self, BenchError> {
        let folder = tempfile::tempdir().map_err(BenchError::io("a scratch folder"))?;
        let witness_dir = has_witness.then(|| folder.path().join("witness"));
        let directory = DataDir::new(folder.path().join("fleet"));
        let root = random_secret::<32>().map_err(BenchError::failed("a root key"))?;
        let backend = SoftwareBackend::new(root, "benchmark".to_owned()).map_err(BenchError::failed("a back end"))?;
        let backend = Arc::new(backend);
        let signer = signer_over(Arc::clone(&backend))?;
        let options = InitOptions {
            config: FleetConfig { witness_dir, ..configuration() },
            owner: "owner".to_owned(),
            algorithm: KeyAlgorithm::P256,
            root_lifetime_hours: 24 * 365 * 20,
        };
        let made = init(&directory, signer.clone(), Arc::clone(&clock), options).await.map_err(fleet_error)?;
        let fleet = open(&directory, &signer, clock).await?;
        // Exposed to be shown to the fleet, as the owner would.
        let token = SecretBytes::from_vec(made.owner_token.expose().as_bytes().to_vec());
        let owner = fleet.authenticate_token(&token).await.map_err(fleet_error)?;
        let facility = NewFacility { name: FACILITY.to_owned(), description: String::new() };
        fleet.facility_create(&owner, facility).await.map_err(fleet_error)?;
        let policy = EnrolmentPolicy { max_live_ldevids: 16, ..EnrolmentPolicy::default() };
        let line = NewProductLine { name: LINE.to_owned(), authority: None, policy };
        fleet.product_line_create(&owner, line).await.map_err(fleet_error)?;
        Ok(Self { fleet, owner, signer, backend, folder })
    }

    /// Octets of the registry with its write-ahead log.
    pub(crate) fn database_octets(&self) -> Result<u64, BenchError> {
        let file = DataDir::new(self.folder.path().join("fleet")).database();
        let mut octets = 0;
        for ending in ["", "-wal"] {
            octets += std::fs::metadata(format!("{}{ending}", file.display())).map_or(0, |metadata| metadata.len());
        }
        Ok(octets)
    }

    /// Registers devices named `PREFIX-0` and so on; returns their names.
    pub(crate) fn register(&self, runtime: &Runtime, prefix: &str, count: u32) -> Result<Vec<String>, BenchError> {
        let names: Vec<String> = (0..count).map(|number| format!("{prefix}-{number}")).collect();
        let mut csv = String::from("name,facility,product_line\n");
        for name in &names {
            csv.push_str(&format!("{name},{FACILITY},{LINE}\n"));
        }
        let import = self.fleet.device_import(&self.owner, ImportFormat::Csv, csv.as_bytes(), false);
        let report = runtime.block_on(import).map_err(fleet_error)?;
        if report.registered == u64::from(count) {
            return Ok(names);
        }
        Err(BenchError::Failed { what: "registering devices", why: format!("{:?}", report.errors.first()) })
    }

    /// A one-time code for each device.
    pub(crate) fn codes(&self, runtime: &Runtime, devices: &[String]) -> Result<Vec<SecretBytes>, BenchError> {
        runtime.block_on(async {
            let mut codes = Vec::with_capacity(devices.len());
            for device in devices {
                let request = CodeRequest { device: device.clone(), lifetime_hours: None };
                let code = self.fleet.code_create(&self.owner, request).await.map_err(fleet_error)?;
                // Exposed to be sent back as the device would.
                codes.push(SecretBytes::from_vec(code.code.expose().as_bytes().to_vec()));
            }
            Ok(codes)
        })
    }

    /// LDevIDs for devices, on the word of the owner; returns their serial numbers.
    pub(crate) fn issue(
        &self,
        runtime: &Runtime,
        lanes: usize,
        requests: Vec<IssueRequest>,
    ) -> Result<Vec<SerialNumber>, BenchError> {
        let (fleet, owner) = (Arc::clone(&self.fleet), self.owner.clone());
        runtime.block_on(in_flight(lanes, requests, move |request| {
            let (fleet, owner) = (Arc::clone(&fleet), owner.clone());
            async move {
                let issued = fleet.certificate_issue(&owner, request).await.map_err(fleet_error)?;
                Ok(issued.certificate.serial)
            }
        }))
    }
}

/// A signer that takes whatever a benchmark asks of it. Within a runtime.
fn signer_over(backend: Arc<SoftwareBackend>) -> Result<SignerClient, BenchError> {
    let ceilings = RateCeilings {
        root_ca_per_minute: u32::MAX,
        issuing_ca_per_minute: u32::MAX,
        log_per_minute: u32::MAX,
        order_per_minute: u32::MAX,
        ..RateCeilings::default()
    };
    SignerClient::in_process(backend, ceilings).map_err(BenchError::failed("the signer"))
}

async fn open(directory: &DataDir, signer: &SignerClient, clock: Arc<dyn Clock>) -> Result<Arc<Fleet>, BenchError> {
    let config = directory.load_config().map_err(fleet_error)?;
    Fleet::open(directory.clone(), config, signer.clone(), clock).await.map_err(fleet_error)
}

/// A PKCS#10 request with a fresh key, DER; an empty name for us, who take none from it.
pub(crate) fn request(common_name: &str) -> Result<Vec<u8>, BenchError> {
    let key = PrivateKey::generate(KeyAlgorithm::P256).map_err(BenchError::failed("a device's key"))?;
    make_request(&key, common_name).map_err(BenchError::failed("a request"))
}

/// An operator's request for a device's LDevID with a fresh key.
pub(crate) fn issue_request(device: &str) -> Result<IssueRequest, BenchError> {
    Ok(IssueRequest {
        profile: CertificateProfile::LDevId,
        csr_pem: kf_pki::pem::encode("CERTIFICATE REQUEST", &request("")?),
        device: Some(device.to_owned()),
        operator: None,
        dns_names: Vec::new(),
        authority: None,
        lifetime_hours: None,
        dry_run: false,
    })
}

/// Does `act` for every item in `lanes` lanes, as connections of a server do; results in any order.
pub(crate) async fn in_flight<T, R, F>(
    lanes: usize,
    items: Vec<T>,
    act: impl Fn(T) -> F + Clone + Send + 'static,
) -> Result<Vec<R>, BenchError>
where
    T: Send + 'static,
    R: Send + 'static,
    F: Future<Output = Result<R, BenchError>> + Send + 'static,
{
    let items = Arc::new(Mutex::new(items.into_iter()));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..lanes {
        let (items, act) = (Arc::clone(&items), act.clone());
        running.spawn(async move {
            let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
            let mut results = Vec::new();
            while let Some(item) = next() {
                results.push(act(item).await?);
            }
            Ok(results)
        });
    }
    let mut results = Vec::new();
    while let Some(ended) = running.join_next().await {
        results.extend(ended.map_err(BenchError::failed("a task"))??);
    }
    Ok(results)
}

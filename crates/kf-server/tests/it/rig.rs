//! A fleet in a scratch directory, served on port 0, and the programs that talk to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kf_api::certificate::CertificateWithPem;
use kf_api::device::NewDevice;
use kf_api::enrolment::CodeRequest;
use kf_api::facility::NewFacility;
use kf_api::operator::{NewOperator, Role, TokenRequest};
use kf_api::product_line::{EnrolmentPolicy, NewProductLine};
use kf_api::revocation::{RevocationTarget, RevokeRequest};
use kf_backend::SoftwareBackend;
use kf_fleet::{
    Clock as _, DataDir, Fleet, FleetConfig, FleetError, InitOptions, ListenConfig, Principal, SystemClock, TestClock,
};
use kf_key::{KeyAlgorithm, RevocationReason, SecretArray, SecretBytes, SerialNumber, UnixMillis};
use kf_server::{Limits, Listeners, ServeError, serve};
use kf_signer::{RateCeilings, SignerClient, SignerConfig};
use kf_testkit::{Output, TempDir, Tool};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A served fleet with facilities `factory-a` and `factory-b`, product line `pumps`, and nothing else.
pub(crate) struct Rig {
    scratch: TempDir,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) owner: Principal,
    pub(crate) owner_token: String,
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    stop: watch::Sender<bool>,
    server: JoinHandle<Result<(), ServeError>>,
}

/// What curl brought back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers, as sent.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// A key and a certification request that openssl made.
pub(crate) struct Request {
    pub(crate) key: PathBuf,
    /// DER.
    pub(crate) der: PathBuf,
    /// base64, one line.
    pub(crate) base64: PathBuf,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::start_with(Limits::default(), EnrolmentPolicy::default()).await
    }

    pub(crate) async fn start_with(limits: Limits, policy: EnrolmentPolicy) -> Self {
        // A test that fails shows why the server refused; the first rig of the process sets it up for all.
        drop(tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_test_writer().try_init());
        let scratch = kf_testkit::scratch();
        let clock = Arc::new(TestClock::at(SystemClock.now()));
        let https = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addresses = (https.local_addr().unwrap(), http.local_addr().unwrap());
        let (fleet, owner_token) = found(scratch.path(), addresses.1, &clock).await;
        let owner = fleet.authenticate_token(&secret(&owner_token)).await.unwrap();
        for name in ["factory-a", "factory-b"] {
            fleet.facility_create(&owner, NewFacility { name: name.into(), description: String::new() }).await.unwrap();
        }
        let line = NewProductLine { name: "pumps".into(), authority: None, policy };
        fleet.product_line_create(&owner, line).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(Arc::clone(&fleet).run(stopped.clone()));
        let server = tokio::spawn(serve(Arc::clone(&fleet), Listeners { https, http }, limits, stopped));
        Self { scratch, fleet, clock, owner, owner_token, https: addresses.0, http: addresses.1, stop, server }
    }

    /// Stops the server and waits for it.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        self.server.await.unwrap().unwrap();
    }

    /// Tells the server to stop.
    pub(crate) fn tell_to_stop(&self) {
        self.stop.send_replace(true);
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(crate) fn root(&self) -> PathBuf {
        DataDir::new(self.file("data")).root_certificate()
    }

    pub(crate) fn https_url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.https.port())
    }

    pub(crate) fn http_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http.port())
    }

    /// curl with further arguments, the last of which is a URL.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Answer {
        let root = self.root();
        let mut all = vec!["-sS", "-i", "--cacert", root.to_str().unwrap(), "-H", "Expect:"];
        all.extend(arguments);
        Answer::parse(&Tool::new("curl").run(&all).expect_success().stdout)
    }

    /// A request to the API in a bearer's name.
    pub(crate) fn api(&self, token: &str, method: &str, path: &str, body: Option<&str>) -> Answer {
        let (bearer, url) = (format!("Authorization: Bearer {token}"), self.https_url(path));
        let mut arguments = vec!["-X", method, "-H", &bearer];
        if let Some(body) = body {
            arguments.extend(["-H", "Content-Type: application/json", "--data-binary", body]);
        }
        arguments.push(&url);
        self.curl(&arguments)
    }

    /// Registers a device of `pumps` in `factory-a`.
    pub(crate) async fn device(&self, name: &str) {
        let new = NewDevice {
            name: name.into(),
            facility: "factory-a".into(),
            product_line: "pumps".into(),
            batch: None,
            attributes: Default::default(),
        };
        self.fleet.device_register(&self.owner, new).await.unwrap();
    }

    /// A registered device's `name:code` for HTTP Basic.
    pub(crate) async fn code(&self, name: &str) -> String {
        let request = CodeRequest { device: name.into(), lifetime_hours: None };
        let code = self.fleet.code_create(&self.owner, request).await.unwrap();
        // Exposed to be used once by the client under test.
        format!("{name}:{}", code.code.expose())
    }

    /// A fresh P-256 key and request for `name`, made by openssl.
    pub(crate) fn request(&self, name: &str) -> Request {
        self.request_for(name, &format!("/CN={name}"))
    }

    /// A fresh key and a request with an empty subject: a renewal takes no names from it (RFC 7030 section 4.2.2).
    pub(crate) fn renewal(&self) -> Request {
        self.request_for("renewal", "/")
    }

    /// The files are called `file_name` with endings of their own.
    pub(crate) fn request_for(&self, file_name: &str, subject: &str) -> Request {
        let path = |suffix: &str| self.file(&format!("{file_name}.{suffix}"));
        let (key, der, base64) = (path("key"), path("csr"), path("b64"));
        let arguments = [
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            key.to_str().unwrap(),
            "-subj",
            subject,
            "-outform",
            "DER",
            "-out",
            der.to_str().unwrap(),
        ];
        openssl(&arguments).succeeds();
        openssl(&["base64", "-A", "-in", der.to_str().unwrap(), "-out", base64.to_str().unwrap()]).succeeds();
        Request { key, der, base64 }
    }

    /// POSTs a request to an EST operation with curl.
    pub(crate) fn est(&self, path: &str, more: &[&str], request: &Request) -> Answer {
        let (data, url) = (format!("@{}", request.base64.display()), self.https_url(path));
        let mut arguments = vec!["-H", "Content-Type: application/pkcs10", "--data-binary", &data];
        arguments.extend(more);
        arguments.push(&url);
        self.curl(&arguments)
    }

    /// Registers and enrols a device with a code; returns its request and its certificate file, PEM.
    pub(crate) async fn enrolled(&self, name: &str) -> (Request, PathBuf) {
        self.device(name).await;
        let code = self.code(name).await;
        let request = self.request(name);
        let answer = self.est("/.well-known/est/pumps/simpleenroll", &["--user", &code], &request);
        answer.expect(200);
        let certificate = self.certificate(name, &answer);
        (request, certificate)
    }

    /// Writes the certificates of an EST answer to `<name>.pem`.
    pub(crate) fn certificate(&self, name: &str, answer: &Answer) -> PathBuf {
        let (message, pem) = (self.file(&format!("{name}.p7")), self.file(&format!("{name}.pem")));
        let text: String = answer.text().split_whitespace().collect();
        std::fs::write(&message, STANDARD.decode(text).unwrap()).unwrap();
        let print = ["pkcs7", "-inform", "DER", "-print_certs", "-in", message.to_str().unwrap()];
        std::fs::write(&pem, openssl(&print).expect_success().stdout).unwrap();
        pem
    }

    /// The serial number of the first certificate in a PEM file.
    pub(crate) fn serial(&self, pem: &Path) -> SerialNumber {
        let arguments = ["x509", "-noout", "-serial", "-in", pem.to_str().unwrap()];
        let text = openssl(&arguments).expect_success().stdout_text();
        text.trim().trim_start_matches("serial=").parse().unwrap()
    }

    pub(crate) async fn revoke(&self, serial: SerialNumber) {
        let request = RevokeRequest {
            target: RevocationTarget::Certificate(serial),
            reason: RevocationReason::KeyCompromise,
            why: "the test says so".into(),
            verify: false,
            dry_run: false,
        };
        assert!(self.fleet.revoke(&self.owner, request).await.unwrap().done);
    }

    pub(crate) async fn show(&self, serial: SerialNumber) -> CertificateWithPem {
        self.fleet.certificate_show(&self.owner, serial).await.unwrap()
    }

    /// An operator's token.
    pub(crate) async fn operator(&self, name: &str, role: Role, facilities: &[&str]) -> String {
        let facilities = facilities.iter().map(|facility| (*facility).to_owned()).collect();
        let new = NewOperator { name: name.into(), role, facilities, voucher_key_pem: None };
        self.fleet.operator_create(&self.owner, new).await.unwrap();
        let request = TokenRequest { operator: name.into(), lifetime_days: None };
        // Exposed to be used by the client under test.
        self.fleet.token_create(&self.owner, request).await.unwrap().token.expose().to_owned()
    }

    /// The issuing CA's certificate, PEM.
    pub(crate) async fn issuer(&self) -> PathBuf {
        let page = self.fleet.authority_list(&self.owner, Default::default()).await.unwrap();
        let issuing = page.items.iter().find(|authority| authority.issuer.is_some()).unwrap();
        let path = self.file("issuer.pem");
        std::fs::write(&path, &issuing.certificate_pem).unwrap();
        path
    }
}

impl Answer {
    fn parse(octets: &[u8]) -> Self {
        let end = octets.windows(4).position(|window| window == b"\r\n\r\n").expect("no end of head");
        let head = String::from_utf8(octets[..end + 4].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head, body: octets[end + 4..].to_vec() }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header, by its name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{}{}", self.head, self.text());
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// For runs of which only the end matters.
pub(crate) trait Ends {
    fn succeeds(self);
    fn fails(self);
}

impl Ends for Output {
    #[track_caller]
    fn succeeds(self) {
        drop(self.expect_success());
    }

    #[track_caller]
    fn fails(self) {
        drop(self.expect_failure());
    }
}

pub(crate) fn openssl(arguments: &[&str]) -> Output {
    Tool::new("openssl").run(arguments)
}

pub(crate) fn secret(text: &str) -> SecretBytes {
    SecretBytes::from_vec(text.as_bytes().to_vec())
}

async fn found(scratch: &Path, http: SocketAddr, clock: &Arc<TestClock>) -> (Arc<Fleet>, String) {
    let dir = DataDir::new(scratch.join("data"));
    std::fs::create_dir(dir.path()).unwrap();
    let backend = SoftwareBackend::new(SecretArray::fill(|root| root.fill(7)), "test".into()).unwrap();
    let signer = SignerClient::in_process(Arc::new(backend), RateCeilings::default()).unwrap();
    let config = FleetConfig {
        fleet: "test-fleet".into(),
        listen: ListenConfig { public_http: format!("http://127.0.0.1:{}", http.port()), ..ListenConfig::default() },
        signer: SignerConfig::default(),
        witness_dir: None,
        backup_dir: None,
        single_control: false,
        dual_control_above: 10,
        batch_dual_control_above: 1_000,
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
    };
    let options = InitOptions {
        config: config.clone(),
        owner: "olga".into(),
        algorithm: KeyAlgorithm::P256,
        root_lifetime_hours: 24 * 3_650,
    };
    let clock: Arc<dyn kf_fleet::Clock> = Arc::<TestClock>::clone(clock);
    let founded = kf_fleet::init(&dir, signer.clone(), Arc::clone(&clock), options).await.unwrap();
    let open = async {
        loop {
            match Fleet::open(dir.clone(), config.clone(), signer.clone(), Arc::clone(&clock)).await {
                // A program that another test is just starting holds a copy of the lock until it has begun.
                Err(FleetError::Store(_)) => tokio::task::yield_now().await,
                opened => return opened.unwrap(),
            }
        }
    };
    let fleet = tokio::time::timeout(Duration::from_secs(20), open).await.unwrap();
    // Exposed to be used by the client under test.
    (fleet, founded.owner_token.expose().to_owned())
}

/// The clock's moment, moved by hours.
pub(crate) fn hours_from(moment: UnixMillis, hours: u64) -> UnixMillis {
    moment.plus(hours * UnixMillis::HOUR)
}

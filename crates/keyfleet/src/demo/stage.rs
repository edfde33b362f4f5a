//! The fleet of the demonstration: signer process, registry, listeners, and the owner's client.

use std::path::Path;
use std::sync::Arc;

use kf_api::enrolment::{CodeRequest, NewCode};
use kf_api::facility::{Facility, NewFacility};
use kf_api::product_line::{EnrolmentPolicy, NewProductLine, ProductLine};
use kf_api::{Page, ShownOnce, device};
use kf_client::{Client, Method, est};
use kf_fleet::{DataDir, Fleet, FleetConfig, InitOptions, SystemClock, init};
use kf_key::{KeyAlgorithm, SecretBytes};
use kf_server::{Limits, Listeners};
use kf_signer::{SignerClient, SignerCommand, SignerConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::report::Report;
use super::{DemoError, at, failed, first};
use crate::failure::Failure;
use crate::file;
use crate::profile::Profile;

/// Product line and EST label.
pub(crate) const LINE: &str = "thermo";
/// Where the devices are.
pub(crate) const FACILITY: &str = "plant-a";

/// A running fleet in a directory that is thrown away.
pub(crate) struct Stage {
    pub(crate) dir: TempDir,
    pub(crate) fleet: Arc<Fleet>,
    /// Root certificate, DER.
    pub(crate) root: Vec<u8>,
    /// Speaks to the server as the owner.
    pub(crate) owner: Client,
    pub(crate) verifier_key: String,
    owner_token: ShownOnce,
    https: String,
    stop: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
}

impl Stage {
    pub(crate) async fn set(report: &mut Report) -> Result<Self, DemoError> {
        let dir = tempfile::Builder::new().prefix("keyfleet-demo-").tempdir().map_err(at("directory"))?;
        let https = TcpListener::bind("127.0.0.1:0").await.map_err(at("listen"))?;
        let http = TcpListener::bind("127.0.0.1:0").await.map_err(at("listen"))?;
        let https_address = https.local_addr().map_err(at("listen"))?;
        let http_address = http.local_addr().map_err(at("listen"))?;
        let data = DataDir::new(dir.path().join("fleet"));
        let config = config(&data, &https_address.to_string(), &http_address.to_string());
        let signer = start_signer(&config.signer).await?;
        let options = InitOptions {
            config: config.clone(),
            owner: "owner".to_owned(),
            algorithm: KeyAlgorithm::P256,
            root_lifetime_hours: 24,
        };
        let made = init(&data, signer.clone(), Arc::new(SystemClock), options).await.map_err(at("root"))?;
        let fleet = Fleet::open(data, config, signer, Arc::new(SystemClock)).await.map_err(at("open"))?;
        report.check(
            "root",
            &format!(
                "fleet root and issuing CA made by a signer process of its own (root sha256 {}…)",
                first(&made.root_fingerprint)
            ),
            true,
        );
        let (stop, stopped) = watch::channel(false);
        let serving = serve(&fleet, Listeners { https, http }, &stopped);
        let stage = Self {
            owner: client_of(&made.root, &made.owner_token)?,
            root: made.root,
            verifier_key: made.verifier_key,
            owner_token: made.owner_token,
            https: format!("https://{https_address}"),
            dir,
            fleet,
            stop,
            serving,
        };
        stage.check_anchor(report).await?;
        Ok(stage)
    }

    pub(crate) fn server(&self) -> &str {
        &self.https
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.https)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// EST over HTTPS hands out the root that was made: the TLS session was verified under it.
    async fn check_anchor(&self, report: &mut Report) -> Result<(), DemoError> {
        let client = Client::builder().roots(vec![self.root.clone()]).build().map_err(at("serve"))?;
        let service = est::Service::new(&self.https, None).map_err(at("serve"))?;
        let certificates = est::cacerts(&client, &service).await.map_err(at("serve"))?;
        report.check(
            "serve",
            &format!("HTTPS answers at {}; EST cacerts hands out the root", self.https),
            certificates.contains(&self.root),
        );
        Ok(())
    }

    /// Registers the devices and makes a one-time code for each.
    pub(crate) async fn register(
        &self,
        names: &[String],
        report: &mut Report,
    ) -> Result<Vec<(String, ShownOnce)>, DemoError> {
        let step = "register";
        self.create_line(step).await?;
        let mut codes = Vec::new();
        for name in names {
            let new = device::NewDevice {
                name: name.clone(),
                facility: FACILITY.to_owned(),
                product_line: LINE.to_owned(),
                batch: None,
                attributes: Default::default(),
            };
            let _: device::Device = self.post("/v1/devices", &new, step).await?;
            let request = CodeRequest { device: name.clone(), lifetime_hours: Some(1) };
            let code: NewCode = self.post("/v1/codes", &request, step).await?;
            codes.push((name.clone(), code.code));
        }
        let listed: Page<device::Device> =
            self.owner.get_json(&self.url("/v1/devices?limit=1000")).await.map_err(at(step))?;
        report.check(
            step,
            &format!("{} devices registered at {FACILITY}, one single-use code each", names.len()),
            listed.items.len() == names.len(),
        );
        Ok(codes)
    }

    /// Makes facility and product line.
    pub(crate) async fn create_line(&self, step: &'static str) -> Result<(), DemoError> {
        let facility = NewFacility { name: FACILITY.to_owned(), description: "demonstration".to_owned() };
        let _: Facility = self.post("/v1/facilities", &facility, step).await?;
        let policy = EnrolmentPolicy { ldevid_lifetime_hours: 6, ..EnrolmentPolicy::default() };
        let line = NewProductLine { name: LINE.to_owned(), authority: None, policy };
        let _: ProductLine = self.post("/v1/product-lines", &line, step).await?;
        Ok(())
    }

    pub(crate) async fn get<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        step: &'static str,
    ) -> Result<T, DemoError> {
        self.owner.get_json(&self.url(path)).await.map_err(at(step))
    }

    /// Reads a resource with a filter in its query.
    pub(crate) async fn query<F, T>(&self, path: &str, filter: &F, step: &'static str) -> Result<T, DemoError>
    where
        F: serde::Serialize,
        T: serde::de::DeserializeOwned,
    {
        let filter = serde_json::to_value(filter).map_err(at(step))?;
        self.get(&format!("{path}?{}", crate::api::query_of(&filter)), step).await
    }

    pub(crate) async fn post<B, T>(&self, path: &str, body: &B, step: &'static str) -> Result<T, DemoError>
    where
        B: serde::Serialize + Sync,
        T: serde::de::DeserializeOwned,
    {
        self.owner.send_json(Method::POST, &self.url(path), body).await.map_err(at(step))
    }

    /// Leaves everything up until somebody stops it, with a profile for the command line.
    pub(crate) async fn keep_up(&self, beside: &str, report: &Report) -> Result<(), DemoError> {
        let data = self.path().join("fleet");
        let failed_at = |failure: Failure| failed("keep", failure.to_string());
        // Exposed to the owner's file, mode 0600, in a directory that is thrown away.
        file::write_private(&data.join("owner.token"), self.owner_token.expose().as_bytes()).map_err(failed_at)?;
        let profile = Profile {
            server: self.https.clone(),
            root: Some("root.pem".into()),
            token_file: Some("owner.token".into()),
            ..Profile::default()
        };
        crate::command::profile::write(&data.join("cli.toml"), &profile).map_err(failed_at)?;
        report.say(&format!(
            "the server stays up at {} with {beside}; explore it from another terminal:\n  \
             keyfleet --data {} device list\nCtrl-C ends it and removes the directory",
            self.https,
            data.display()
        ));
        tokio::signal::ctrl_c().await.map_err(at("keep"))
    }

    /// Ends the server; the directory goes with it.
    pub(crate) async fn strike(self) {
        // Nobody listens any more if serving ended by itself.
        let _ = self.stop.send(true);
        for serving in self.serving {
            let _ = serving.await;
        }
        self.fleet.close().await;
    }
}

fn config(data: &DataDir, https: &str, http: &str) -> FleetConfig {
    let mut config = FleetConfig::named("Keyfleet Demo");
    config.demo = true;
    config.listen.https = https.to_owned();
    config.listen.http = http.to_owned();
    config.listen.public_http = format!("http://{http}");
    config.signer = SignerConfig::default().below(data.path());
    config.witness_dir = Some(data.path().with_file_name("witness"));
    config
}

async fn start_signer(config: &SignerConfig) -> Result<SignerClient, DemoError> {
    if let Some(parent) = config.sealed_file.path.parent() {
        std::fs::create_dir_all(parent).map_err(at("signer"))?;
    }
    let random = kf_crypto::random_secret::<32>().map_err(at("signer"))?;
    // Exposed to be written as text into the pipe of the signer; it protects a root that lives minutes.
    let passphrase = SecretBytes::from_vec(hex::encode(random.expose()).into_bytes());
    let mut command = SignerCommand::of_this_program("signer", config.clone());
    command.throwaway_passphrase = Some(passphrase);
    command.create_root = true;
    SignerClient::spawn(command).await.map_err(at("signer"))
}

fn serve(fleet: &Arc<Fleet>, listeners: Listeners, stopped: &watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
    let server = {
        let (fleet, stopped) = (Arc::clone(fleet), stopped.clone());
        tokio::spawn(async move {
            if let Err(error) = kf_server::serve(fleet, listeners, Limits::default(), stopped).await {
                crate::output::say(&format!("error: {error}"));
            }
        })
    };
    let background = tokio::spawn(Arc::clone(fleet).run(stopped.clone()));
    vec![server, background]
}

/// Speaks to the server as whoever has this token.
pub(super) fn client_of(root: &[u8], token: &ShownOnce) -> Result<Client, DemoError> {
    // Exposed to become the Authorization header.
    let token = SecretBytes::from_vec(token.expose().as_bytes().to_vec());
    Client::builder().roots(vec![root.to_vec()]).bearer(&token).build().map_err(at("owner"))
}

/// The issuing CA of the demonstration.
pub(crate) async fn issuing_authority(stage: &Stage) -> Result<kf_api::authority::Authority, DemoError> {
    let page: Page<kf_api::authority::Authority> =
        stage.owner.get_json(&stage.url("/v1/authorities")).await.map_err(at("authority"))?;
    page.items.into_iter().find(|authority| authority.is_default).ok_or_else(|| failed("authority", "no issuing CA"))
}

//! The devices: one agent process each, its key its own, its events read from its standard output.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use kf_api::ShownOnce;
use kf_client::Method;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::broker::Broker;
use super::stage::{LINE, Stage};
use super::{DemoError, at, failed};

const STEP: &str = "devices";

/// An event of one device.
struct Seen {
    device: String,
    event: String,
    line: String,
}

/// All device processes.
pub(crate) struct Devices {
    children: Vec<Child>,
    names: Vec<String>,
    events: mpsc::UnboundedReceiver<Seen>,
    /// How often each event was seen, per device, since the device was last marked.
    counts: BTreeMap<(String, String), u64>,
    last: BTreeMap<String, String>,
}

impl Devices {
    pub(crate) async fn start(
        stage: &Stage,
        broker: &Broker,
        codes: Vec<(String, ShownOnce)>,
    ) -> Result<Self, DemoError> {
        let root_file = stage.path().join("root.pem");
        std::fs::write(&root_file, kf_pki::pem::certificate(&stage.root)).map_err(at(STEP))?;
        let (sender, events) = mpsc::unbounded_channel();
        let mut devices =
            Self { children: Vec::new(), names: Vec::new(), events, counts: BTreeMap::new(), last: BTreeMap::new() };
        for (name, code) in codes {
            let directory = stage.path().join("devices").join(&name);
            std::fs::create_dir_all(&directory).map_err(at(STEP))?;
            let config = configuration(stage, broker, &name, &root_file, &directory);
            let config_file = directory.join("agent.toml");
            std::fs::write(&config_file, config).map_err(at(STEP))?;
            // The label on the box: read once by the device, worthless after its first use.
            write_secret(&directory.join("code"), code.expose().as_bytes())?;
            let child = spawn(&name, &config_file, sender.clone()).await?;
            devices.children.push(child);
            devices.names.push(name);
        }
        Ok(devices)
    }

    /// Waits until every device has reported `event`.
    pub(crate) async fn wait_for_all(&mut self, event: &str, patience: Duration) -> Result<(), DemoError> {
        for name in self.names.clone() {
            self.wait_for(&name, event, patience).await?;
        }
        Ok(())
    }

    /// Waits until `device` has reported `event` since it was marked.
    pub(crate) async fn wait_for(&mut self, device: &str, event: &str, patience: Duration) -> Result<(), DemoError> {
        self.wait_for_count(device, event, 1, patience).await
    }

    async fn wait_for_count(
        &mut self,
        device: &str,
        event: &str,
        count: u64,
        patience: Duration,
    ) -> Result<(), DemoError> {
        let key = (device.to_owned(), event.to_owned());
        let wait = async {
            while self.counts.get(&key).copied().unwrap_or(0) < count {
                match self.events.recv().await {
                    Some(seen) => note(&mut self.counts, &mut self.last, seen),
                    None => return false,
                }
            }
            true
        };
        match tokio::time::timeout(patience, wait).await {
            Ok(true) => Ok(()),
            _ => {
                let last = self.last.get(device).map_or("nothing", String::as_str);
                Err(failed(STEP, format!("{device} did not report `{event}`; it last said {last}")))
            }
        }
    }

    /// Forgets what `device` reported so far.
    pub(crate) fn mark(&mut self, device: &str) {
        while let Ok(seen) = self.events.try_recv() {
            note(&mut self.counts, &mut self.last, seen);
        }
        self.counts.retain(|(name, _), _| name != device);
    }

    /// Whether every device but one publishes at least one more message, on the session it had.
    pub(crate) async fn others_still_publish(&mut self, but: &str, patience: Duration) -> bool {
        while let Ok(seen) = self.events.try_recv() {
            note(&mut self.counts, &mut self.last, seen);
        }
        for name in self.names.clone().into_iter().filter(|name| name != but) {
            let published =
                |counts: &BTreeMap<_, u64>| counts.get(&(name.clone(), "published".to_owned())).copied().unwrap_or(0);
            let so_far = published(&self.counts);
            let dropped = self.counts.contains_key(&(name.clone(), "disconnected".to_owned()));
            if dropped || self.wait_for_count(&name, "published", so_far + 1, patience).await.is_err() {
                return false;
            }
        }
        true
    }

    pub(crate) async fn stop(&mut self) {
        for child in &mut self.children {
            if let Err(error) = child.kill().await {
                crate::output::say(&format!("a device did not stop: {error}"));
            }
        }
    }
}

fn note(counts: &mut BTreeMap<(String, String), u64>, last: &mut BTreeMap<String, String>, seen: Seen) {
    last.insert(seen.device.clone(), seen.line);
    *counts.entry((seen.device, seen.event)).or_default() += 1;
}

fn configuration(stage: &Stage, broker: &Broker, name: &str, root_file: &Path, directory: &Path) -> String {
    format!(
        "server = \"{}\"\nlabel = \"{LINE}\"\ndevice_name = \"{name}\"\nstate_dir = \"{}\"\n\n\
         [trust]\nroot_file = \"{}\"\n\n[bootstrap]\ncode_file = \"{}\"\n\n[key]\nseal_fd = 0\n\n\
         [telemetry]\nkind = \"{}\"\nhost = \"localhost\"\nport = {}\ninterval_millis = 200\nreconnect_max_millis = 500\n",
        stage.server(),
        directory.join("state").display(),
        root_file.display(),
        directory.join("code").display(),
        broker.telemetry_kind(),
        broker.port,
    )
}

pub(crate) fn write_secret(path: &Path, octets: &[u8]) -> Result<(), DemoError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(STEP))?;
    file.write_all(octets).map_err(at(STEP))
}

async fn spawn(name: &str, config: &Path, events: mpsc::UnboundedSender<Seen>) -> Result<Child, DemoError> {
    let mut child = Command::new("/proc/self/exe")
        .args(["agent", "run", "--config"])
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(at(STEP))?;
    // The seal key of the device's own key: through a pipe, kept nowhere.
    let seal = kf_crypto::random_secret::<32>().map_err(at(STEP))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(seal.expose()).await.map_err(at(STEP))?;
    }
    let Some(stdout) = child.stdout.take() else { return Err(failed(STEP, "a device without standard output")) };
    let device = name.to_owned();
    tokio::spawn(async move {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let parsed: Option<serde_json::Value> = serde_json::from_str(&line).ok();
            let event = parsed.as_ref().and_then(|value| value.get("event")).and_then(|event| event.as_str());
            let Some(event) = event.map(str::to_owned) else { continue };
            if events.send(Seen { device: device.clone(), event, line }).is_err() {
                break;
            }
        }
    });
    Ok(child)
}

/// The certificates of a device, as the owner sees them.
pub(crate) async fn history(stage: &Stage, name: &str) -> Result<kf_api::device::DeviceHistory, DemoError> {
    stage
        .owner
        .request(Method::GET, &stage.url(&format!("/v1/devices/{name}")), &[], Vec::new())
        .await
        .and_then(kf_client::Response::json)
        .map_err(at(STEP))
}

//! A throw-away `keyfleet serve` on loopback, and the command line against it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::modem;

/// Why the fleet is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error("cannot run {program}")]
    Start { program: PathBuf, source: std::io::Error },
    #[error("`keyfleet {arguments}` failed: {said}")]
    Failed { arguments: String, code: Option<i32>, said: String },
    #[error("keyfleet printed something else than it does: {0}")]
    Form(String),
    #[error("a file of the fleet")]
    File(#[from] std::io::Error),
}

/// Who approves.
const SECOND: &str = "second";
const SECOND_PROFILE: &str = "second.toml";

/// A fleet in a folder that is thrown away, served on a port of the kernel's choice.
#[derive(Debug)]
pub(crate) struct Fleet {
    folder: tempfile::TempDir,
    program: PathBuf,
    serving: Child,
    url: String,
}

impl Fleet {
    /// `keyfleet init` and `keyfleet serve`.
    ///
    /// # Errors
    /// [`ServerError`].
    pub(crate) fn start(program: &Path) -> Result<Self, ServerError> {
        let folder = tempfile::Builder::new().prefix("keyfleet-firmware-").tempdir()?;
        private(&folder.path().join("passphrase"), "of a fleet that is thrown away")?;
        let ports = ["--https", "127.0.0.1:0", "--http", "127.0.0.1:0"];
        let init = [&["--data", "fleet", "init", "--passphrase-file", "passphrase"][..], &ports].concat();
        run(program, folder.path(), &init)?;
        let mut serving = command(program, folder.path())
            .args(["--data", "fleet", "serve"])
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("serve.log"))?)
            .spawn()
            .map_err(|source| ServerError::Start { program: program.to_owned(), source })?;
        let ready = serving.stdout.take().map(ready_line).transpose()?.unwrap_or_default();
        let Some(address) = ready.split_whitespace().find_map(|word| word.strip_prefix("https=")) else {
            let _has_ended = serving.kill();
            let _has_ended = serving.wait();
            return Err(ServerError::Form(ready));
        };
        let url = format!("https://{address}");
        let profile = format!("server = \"{url}\"\nroot = \"root.pem\"\ntoken_file = \"owner.token\"\n");
        private(&folder.path().join("fleet/cli.toml"), &profile)?;
        Ok(Self { program: program.to_owned(), serving, url, folder })
    }

    /// Runs a verb as the owner and gives what it prints.
    ///
    /// # Errors
    /// [`ServerError::Failed`].
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String, ServerError> {
        run(&self.program, self.folder.path(), &[&["--data", "fleet"], arguments].concat())
    }

    /// Runs a verb and reads the JSON it prints.
    ///
    /// # Errors
    /// [`ServerError`].
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value, ServerError> {
        let text = self.run(&[&["--format", "json"], arguments].concat())?;
        serde_json::from_str(&text).map_err(|_form| ServerError::Form(text))
    }

    /// Proposes what takes two people, which is why it is not done yet; the proposal.
    ///
    /// # Errors
    /// [`ServerError`].
    pub(crate) fn propose(&self, arguments: &[&str]) -> Result<String, ServerError> {
        let arguments = [&["--data", "fleet", "--format", "json"], arguments].concat();
        let output = output(&self.program, self.folder.path(), &arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let outcome: Value = serde_json::from_str(&text).map_err(|_form| ServerError::Form(text.clone()))?;
        outcome.get("proposal").and_then(Value::as_str).map(str::to_owned).ok_or(ServerError::Form(text))
    }

    /// Signs up a second person, who approves what the owner proposes.
    ///
    /// # Errors
    /// [`ServerError`].
    pub(crate) fn sign_up_second(&self) -> Result<(), ServerError> {
        self.run(&["operator", "create", SECOND, "--role", "fleet-operator"])?;
        self.run(&["token", "create", SECOND, "--out", "second.token"])?;
        let root = self.path("fleet/root.pem");
        let profile = format!("server = {:?}\nroot = {root:?}\ntoken_file = \"second.token\"\n", self.url);
        private(&self.path(SECOND_PROFILE), &profile)
    }

    /// Approves a proposal as the second person.
    ///
    /// # Errors
    /// [`ServerError`].
    pub(crate) fn approve(&self, proposal: &str) -> Result<(), ServerError> {
        let arguments = ["--profile", SECOND_PROFILE, "proposal", "approve", proposal];
        run(&self.program, self.folder.path(), &arguments).map(drop)
    }

    /// A file in the folder, which is also the current directory of every run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the server has logged about requests that it refused, to say why something failed.
    pub(crate) fn refusals(&self) -> String {
        let log = std::fs::read_to_string(self.path("serve.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("status=4") || line.contains("WARN")).collect();
        format!("the server refused: {}", if lines.is_empty() { "nothing".to_owned() } else { lines.join("; ") })
    }

    /// Where it is, for the modem.
    ///
    /// # Errors
    /// When the root's certificate cannot be read.
    pub(crate) fn address(&self) -> Result<modem::Server, ServerError> {
        let root = pem(&std::fs::read_to_string(self.path("fleet/root.pem"))?);
        let root = root.into_iter().next().ok_or_else(|| ServerError::Form("root.pem".to_owned()))?;
        Ok(modem::Server { url: self.url.clone(), root })
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _has_ended = self.serving.kill();
        let _has_ended = self.serving.wait();
    }
}

/// The contents of all PEM blocks of a text.
pub(crate) fn pem(text: &str) -> Vec<Vec<u8>> {
    use base64::Engine as _;
    let mut blocks = Vec::new();
    let mut inside: Option<String> = None;
    for line in text.lines() {
        if line.starts_with("-----BEGIN ") {
            inside = Some(String::new());
        } else if line.starts_with("-----END ") {
            let block = inside.take().and_then(|text| base64::prelude::BASE64_STANDARD.decode(text).ok());
            blocks.extend(block);
        } else if let Some(text) = &mut inside {
            text.push_str(line.trim());
        }
    }
    blocks
}

fn ready_line(stdout: impl std::io::Read + Send + 'static) -> Result<String, ServerError> {
    let mut lines = BufReader::new(stdout).lines();
    let mut seen = String::new();
    for line in lines.by_ref() {
        let line = line?;
        if line.starts_with("ready https=") {
            // Whatever comes later is read, so that the server never waits for us.
            std::thread::spawn(move || lines.for_each(drop));
            return Ok(line);
        }
        seen.push_str(&line);
    }
    Err(ServerError::Form(seen))
}

fn private(path: &Path, contents: &str) -> Result<(), ServerError> {
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(contents.as_bytes())?)
}

fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env("HOME", folder).env("XDG_CONFIG_HOME", "").stdin(Stdio::null());
    command
}

fn output(program: &Path, folder: &Path, arguments: &[&str]) -> Result<Output, ServerError> {
    command(program, folder)
        .args(arguments)
        .output()
        .map_err(|source| ServerError::Start { program: program.to_owned(), source })
}

fn run(program: &Path, folder: &Path, arguments: &[&str]) -> Result<String, ServerError> {
    let output = output(program, folder, arguments)?;
    if output.status.success() {
        return String::from_utf8(output.stdout).map_err(|_not_utf8| ServerError::Form("no text".to_owned()));
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ServerError::Failed { arguments: arguments.join(" "), code: output.status.code(), said })
}

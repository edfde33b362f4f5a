//! A TPM 2.0 in a scratch directory: swtpm with a state and two loopback ports of its own.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::Running;
use crate::{Tool, scratch};

/// How many pairs of ports are tried before a test gives up.
const ATTEMPTS: usize = 8;
/// How long one attempt to start may take, in steps of [`STEP`].
const STEPS: usize = 500;
const STEP: Duration = Duration::from_millis(20);

/// A TPM that nobody else uses; gone when dropped.
#[derive(Debug)]
pub struct SoftwareTpm {
    directory: TempDir,
    port: u16,
    running: Option<Running>,
}

impl SoftwareTpm {
    /// A TPM fresh from the factory, without endorsement certificates.
    ///
    /// # Panics
    /// When swtpm is not installed or does not start.
    #[must_use]
    pub fn new() -> Self {
        Self::start_in(scratch())
    }

    /// A TPM whose maker gave it endorsement keys (RSA-2048 and ECC P-384) and certificates under a CA of its own, see
    /// [`SoftwareTpm::authority_certificates`].
    ///
    /// # Panics
    /// When swtpm-tools is not installed or the TPM is not made.
    #[must_use]
    pub fn with_endorsement() -> Self {
        let directory = scratch();
        let path = directory.path().to_owned();
        let write = |name: &str, text: String| {
            let file = path.join(name);
            std::fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            file
        };
        let authority = path.join("authority");
        std::fs::create_dir(&authority).unwrap_or_else(|error| panic!("{}: {error}", authority.display()));
        let place = |name: &str| authority.join(name).display().to_string();
        let localca = write(
            "localca.conf",
            format!(
                "statedir = {}\nsigningkey = {}\nissuercert = {}\ncertserial = {}\n",
                authority.display(),
                place("signkey.pem"),
                place("issuercert.pem"),
                place("serial"),
            ),
        );
        let options = write(
            "localca.options",
            "--platform-manufacturer Test\n--platform-version 1\n--platform-model Gateway\n".to_owned(),
        );
        let tool = Tool::new("swtpm_localca");
        let setup = write(
            "setup.conf",
            format!(
                "create_certs_tool = {}\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\n\
                 active_pcr_banks = sha256\n",
                tool.path().display(),
                localca.display(),
                options.display(),
            ),
        );
        let state = path.display().to_string();
        let config = setup.display().to_string();
        let arguments =
            ["--tpm2", "--tpmstate", &state, "--create-ek-cert", "--create-platform-cert", "--config", &config];
        let output = Tool::new("swtpm_setup").run(&arguments);
        assert!(output.success(), "swtpm_setup: {}", output.text());
        Self::start_in(directory)
    }

    fn start_in(directory: TempDir) -> Self {
        let mut this = Self { directory, port: 0, running: None };
        for _ in 0..ATTEMPTS {
            this.port = free_pair();
            if this.start() {
                return this;
            }
        }
        panic!("swtpm does not start: is a TPM emulator of this version usable here?")
    }

    /// Starts the emulator on the ports it has; false when it did not come up.
    fn start(&mut self) -> bool {
        let control = self.port.saturating_add(1);
        let state = format!("dir={},mode=0600", self.directory.path().display());
        let server = format!("type=tcp,port={},bindaddr=127.0.0.1", self.port);
        let control_channel = format!("type=tcp,port={control},bindaddr=127.0.0.1");
        let arguments = [
            "socket",
            "--tpm2",
            "--tpmstate",
            &state,
            "--server",
            &server,
            "--ctrl",
            &control_channel,
            "--flags",
            "not-need-init,startup-clear",
        ];
        // It outlives the connections of other tests, which the TPM2 software stack lets every child inherit.
        let mut running = Tool::new("swtpm").without_inherited_files().start(&arguments);
        // Paces the attempts to connect; nothing is ever sent.
        let (_sender, pace) = mpsc::channel::<()>();
        for _ in 0..STEPS {
            if !running.is_alive() {
                return false;
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, control)).is_ok() {
                self.running = Some(running);
                return true;
            }
            let _paced = pace.recv_timeout(STEP);
        }
        false
    }

    /// Its address for the TPM2 software stack.
    #[must_use]
    pub fn address(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// A program that sees this TPM: one of tpm2-tools. One client at a time: drop the TPM in the test first. The thread that
    /// owns the connection closes it a moment later, which the program waits for; so it must not have inherited it.
    ///
    /// # Panics
    /// As [`Tool::new`].
    #[must_use]
    pub fn tool(&self, program: &str) -> Tool {
        let tool = Tool::new(program).without_inherited_files();
        tool.env("TPM2TOOLS_TCTI", self.address()).directory(self.directory.path())
    }

    /// Certificates of the CA that signed the endorsement certificates, PEM: issuing CA, then root.
    ///
    /// # Panics
    /// When the TPM was made without them.
    #[must_use]
    pub fn authority_certificates(&self) -> [String; 2] {
        let authority = self.directory.path().join("authority");
        ["issuercert.pem", "swtpm-localca-rootca-cert.pem"].map(|name| {
            let file = authority.join(name);
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        })
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A path in its directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Ends it at once, as when the chip loses power.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Starts it again after [`SoftwareTpm::kill`]: a reboot of the platform.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self) {
        self.running = None;
        assert!(self.start(), "swtpm does not start again on port {}", self.port);
    }

    /// Stops it from answering (SIGSTOP), without closing anything.
    ///
    /// # Panics
    /// When it has ended.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`SoftwareTpm::freeze`].
    ///
    /// # Panics
    /// When it has ended.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until a command has arrived that a frozen emulator has not read.
    ///
    /// # Panics
    /// When none arrives in time, or the kernel does not tell.
    pub fn wait_for_unread_command(&self) {
        // /proc/net/tcp: local address and port in hexadecimal, and `transmit queue:receive queue` in octets.
        let local = format!("0100007F:{:04X}", self.port);
        let (_sender, pace) = mpsc::channel::<()>();
        for _ in 0..STEPS {
            let table =
                std::fs::read_to_string("/proc/net/tcp").unwrap_or_else(|error| panic!("/proc/net/tcp: {error}"));
            let is_unread = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|fields| {
                fields.get(1) == Some(&local.as_str())
                    // An established connection; a listener's queue counts connections.
                    && fields.get(3) == Some(&"01")
                    && fields.get(4).is_some_and(|queues| !queues.ends_with(":00000000"))
            });
            if is_unread {
                return;
            }
            let _paced = pace.recv_timeout(STEP);
        }
        panic!("no command arrived at the emulator");
    }

    fn signal(&self, signal: Signal) {
        self.running.as_ref().unwrap_or_else(|| panic!("swtpm was killed")).signal(signal);
    }
}

impl Default for SoftwareTpm {
    fn default() -> Self {
        Self::new()
    }
}

/// Two neighbouring loopback ports that were free a moment ago: the software stack expects the control channel right
/// above the data.
fn free_pair() -> u16 {
    for _ in 0..ATTEMPTS * ATTEMPTS {
        let port = crate::free_port();
        if port < u16::MAX && TcpListener::bind((Ipv4Addr::LOCALHOST, port.saturating_add(1))).is_ok() {
            return port;
        }
    }
    panic!("no two neighbouring free loopback ports")
}

//! One run of a program, from start to end.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::process::Running;

/// How long a program may run unless told otherwise: long enough for a JVM on a busy machine.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);
/// Where daemons live although they are often not in the search path of a user.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// Programs start with the standard streams alone. Some libraries open files and sockets that every child inherits: a child
/// that holds the connection of this process to a server of one client would keep everybody from it, itself above all.
const WITHOUT_INHERITED_FILES: &str = r#"for file in /proc/self/fd/*; do
    number=${file##*/}
    if [ "$number" -gt 2 ]; then exec {number}>&-; fi
done
exec "$0" "$@""#;
/// The kernel writes the memory of a program that ends by a fault to a file, as long as the program does not object.
const WITH_CORE_DUMPS: &str = r#"ulimit -c unlimited || exit 71
exec "$0" "$@""#;

/// The Debian package that brings a program.
fn debian_package(program: &str) -> &str {
    match program {
        "pki" => "strongswan-pki",
        "certtool" | "ocsptool" | "p11tool" | "gnutls-cli" => "gnutls-bin",
        "mosquitto_pub" | "mosquitto_sub" => "mosquitto-clients",
        "mosquitto_ctrl" => "mosquitto",
        "softhsm2-util" => "softhsm2",
        "pkcs11-tool" => "opensc",
        "age-keygen" => "age",
        "keytool" => "default-jre-headless",
        "nm" => "binutils",
        "faketime" => "faketime",
        "swtpm_setup" | "swtpm_localca" => "swtpm-tools",
        "cryptsetup" => "cryptsetup-bin",
        "unshare" => "util-linux",
        "mke2fs" | "debugfs" | "e2fsck" => "e2fsprogs",
        tpm2 if tpm2.starts_with("tpm2_") => "tpm2-tools",
        other => other,
    }
}

/// A program that is installed.
#[derive(Clone, Debug)]
pub struct Tool {
    path: PathBuf,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    deadline: Duration,
    /// What bash does before the program begins.
    prelude: Option<&'static str>,
}

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    command: String,
}

impl Tool {
    /// Finds `program` in the search path and the usual directories of daemons.
    ///
    /// # Panics
    /// When it is not installed, naming the Debian package.
    #[must_use]
    pub fn new(program: &str) -> Self {
        let path = search(program).unwrap_or_else(|| {
            panic!(
                "`{program}` is not installed: apt-get install {}, or cargo xtask test as root",
                debian_package(program)
            )
        });
        Self::at(&path)
    }

    /// The program at `path`, for example one that this workspace built.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        let (environment, directory) = (Vec::new(), None);
        Self { path: path.to_owned(), environment, directory, deadline: DEFAULT_DEADLINE, prelude: None }
    }

    /// Closes whatever the child inherits, beside its standard streams, before the program begins. Needs bash.
    #[must_use]
    pub const fn without_inherited_files(mut self) -> Self {
        self.prelude = Some(WITHOUT_INHERITED_FILES);
        self
    }

    /// Lifts the limit on core dumps for the child. Needs bash, and a hard limit that allows it.
    #[must_use]
    pub const fn with_core_dumps(mut self) -> Self {
        self.prelude = Some(WITH_CORE_DUMPS);
        self
    }

    /// Sets a variable in the environment of the child only.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The current directory of the child.
    #[must_use]
    pub fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// How long a run may take before it is killed and the test fails.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it to its end with nothing on standard input.
    ///
    /// # Panics
    /// When it cannot be started or overruns its deadline.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        self.run_with_input(arguments, &[])
    }

    /// Runs it to its end with `input` on standard input.
    ///
    /// # Panics
    /// As [`Tool::run`].
    pub fn run_with_input<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Output {
        let (mut child, shown, output) = self.spawned(arguments);
        if let Some(mut stdin) = child.stdin.take() {
            let input = input.to_vec();
            // A program that does not read all of its input closes the pipe: that is its right.
            thread::spawn(move || drop(stdin.write_all(&input)));
        }
        let status = wait(child, self.deadline, &shown);
        output(status.code())
    }

    /// Starts it with its output collected: the child, its command, and what makes the output of it once it has ended.
    pub(crate) fn spawned<S: AsRef<OsStr>>(
        &self,
        arguments: &[S],
    ) -> (Child, String, impl FnOnce(Option<i32>) -> Output + use<S>) {
        let mut command = self.command(arguments);
        let shown = format!("{command:?}");
        let mut child = spawn(&mut command, &shown);
        let (stdout, stderr) = (read_all(child.stdout.take()), read_all(child.stderr.take()));
        let (deadline, command) = (self.deadline, shown.clone());
        let output = move |code| {
            let collect = |stream: &mpsc::Receiver<Vec<u8>>| {
                let all = stream.recv_timeout(deadline);
                all.unwrap_or_else(|_| panic!("{command}: a grandchild keeps its output open"))
            };
            let (stdout, stderr) = (collect(&stdout), collect(&stderr));
            Output { code, stdout, stderr, command }
        };
        (child, shown, output)
    }

    /// How long a run may take.
    pub(crate) const fn time_allowed(&self) -> Duration {
        self.deadline
    }

    /// Starts it and leaves it running; it is killed when the value is dropped.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Running {
        let mut command = self.command(arguments);
        let shown = format!("{command:?}");
        Running::new(spawn(&mut command, &shown), self.deadline, shown)
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = match self.prelude {
            None => Command::new(&self.path),
            Some(prelude) => {
                let mut shell = Command::new("bash");
                shell.arg("-c").arg(prelude).arg(&self.path);
                shell
            }
        };
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }
}

impl Output {
    /// Whether it exited with 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// The run, if it exited with 0.
    ///
    /// # Panics
    /// Otherwise, with the command and what it printed.
    #[must_use = "look at the output, or call `.success()`"]
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert!(self.success(), "{} exited with {:?}\n{}", self.command, self.code, self.text());
        self
    }

    /// The run, if it exited with anything but 0.
    ///
    /// # Panics
    /// Otherwise, with the command and what it printed.
    #[must_use = "look at the output for the reason that was expected"]
    #[track_caller]
    pub fn expect_failure(self) -> Self {
        assert!(!self.success(), "{} succeeded\n{}", self.command, self.text());
        self
    }

    /// Standard output as text.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Both outputs as text, standard output first.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout_text(), self.stderr_text())
    }

    /// The run, if it printed `needle` anywhere.
    ///
    /// # Panics
    /// Otherwise, with the command and what it printed.
    #[track_caller]
    #[allow(clippy::must_use_candidate)]
    pub fn expect_text(self, needle: &str) -> Self {
        let text = self.text();
        assert!(text.contains(needle), "{} did not print {needle:?}\n{text}", self.command);
        self
    }
}

fn search(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

fn spawn(command: &mut Command, shown: &str) -> Child {
    command.spawn().unwrap_or_else(|error| panic!("{shown}: cannot be started: {error}"))
}

fn read_all(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error is still worth showing.
            drop(stream.read_to_end(&mut bytes));
        }
        drop(sender.send(bytes));
    });
    receiver
}

/// Waits for the end of a child, killing it at the deadline through a pidfd, which cannot hit another process.
pub(crate) fn wait(mut child: Child, deadline: Duration, shown: &str) -> ExitStatus {
    let pidfd = Pid::from_raw(child.id().cast_signed()).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || drop(sender.send(child.wait())));
    match receiver.recv_timeout(deadline) {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => panic!("{shown}: cannot be waited for: {error}"),
        Err(_) => {
            if let Some(pidfd) = pidfd {
                // It may have ended in this very moment.
                let _gone = pidfd_send_signal(&pidfd, Signal::KILL);
            }
            panic!("{shown}: not finished after {deadline:?}, killed")
        }
    }
}

//! A PostgreSQL server in a scratch directory, on a socket of its own and, where a test asks for it, on loopback.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Output, Running, Tool, free_port, scratch};

/// Debian keeps the programs of the server outside the search path, by version.
const INSTALLED: &str = "/usr/lib/postgresql";

/// A database server that nobody else uses; gone when dropped.
#[derive(Debug)]
pub struct Postgres {
    directory: TempDir,
    port: u16,
    server: Option<Running>,
}

fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir(INSTALLED).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin").join(name)).collect();
    found.retain(|path| path.is_file());
    found.sort();
    found.pop().unwrap_or_else(|| {
        panic!("`{name}` is not installed: apt-get install postgresql-15, or cargo xtask test as root")
    })
}

/// The server refuses to run as root: then as the user that Debian's package makes.
fn unprivileged(name: &str) -> (Tool, Vec<String>) {
    let program = program(name);
    if !rustix::process::geteuid().is_root() {
        return (Tool::at(&program), Vec::new());
    }
    let arguments = ["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"];
    let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
    arguments.push(program.display().to_string());
    (Tool::new("setpriv"), arguments)
}

fn run(name: &str, arguments: &[&str]) -> Output {
    let (tool, mut all) = unprivileged(name);
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    tool.run(&all).expect_success()
}

fn start(directory: &Path, port: u16, settings: &[String]) -> Running {
    let (tool, mut all) = unprivileged("postgres");
    let data = directory.join("data").display().to_string();
    let sockets = directory.display().to_string();
    let (number, fast) = (port.to_string(), "fsync=off".to_owned());
    all.extend(["-D", &data, "-k", &sockets, "-p", &number, "-c", &fast].map(str::to_owned));
    for setting in settings {
        all.extend(["-c".to_owned(), setting.clone()]);
    }
    tool.without_inherited_files().start(&all)
}

impl Postgres {
    /// The superuser.
    pub const USER: &'static str = "keys";
    /// Its password. A scratch database guards nothing, so that this one may be known.
    pub const PASSWORD: &'static str = "a scratch database";

    /// A server that listens on its socket alone.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn new() -> Self {
        Self::serving(5432, &["listen_addresses=".to_owned()])
    }

    /// A server that listens on loopback with this certificate and key, both PEM.
    ///
    /// # Panics
    /// As [`Postgres::new`].
    #[must_use]
    pub fn with_tls(certificate: &str, key: &str) -> Self {
        let files = scratch();
        let place = |name: &str, text: &str| {
            let path = files.path().join(name);
            fs::write(&path, text).expect("a scratch file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
            own(&path);
            path.display().to_string()
        };
        let (certificate, key) = (place("server.pem", certificate), place("server.key", key));
        own(files.path());
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={certificate}"),
            format!("ssl_key_file={key}"),
        ];
        let server = Self::serving(free_port(), &settings);
        // The server reads them when it starts, and again on a signal that nobody sends.
        drop(files);
        server
    }

    fn serving(port: u16, settings: &[String]) -> Self {
        let directory = scratch();
        own(directory.path());
        let password = directory.path().join("password");
        fs::write(&password, Self::PASSWORD).expect("a scratch file");
        own(&password);
        let data = directory.path().join("data").display().to_string();
        let (user, file) = (format!("--username={}", Self::USER), format!("--pwfile={}", password.display()));
        let encoding = "--encoding=UTF8";
        drop(run("initdb", &["-D", &data, &user, &file, "--auth=scram-sha-256", "--no-sync", "--no-locale", encoding]));
        let mut server = start(directory.path(), port, settings);
        drop(server.wait_for_line(|line| line.contains("ready to accept connections")));
        Self { directory, port, server: Some(server) }
    }

    /// How libpq reaches it through its socket.
    #[must_use]
    pub fn connection(&self) -> String {
        format!("host={} port={} dbname=postgres user={}", self.directory.path().display(), self.port, Self::USER)
    }

    /// The port, for a server with TLS.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `psql` with errors that end it, and rows as plain text.
    ///
    /// # Panics
    /// When it is not installed.
    #[must_use]
    pub fn psql(&self) -> (Tool, Vec<String>) {
        let tool = Tool::new("psql").env("PGPASSWORD", Self::PASSWORD);
        (tool, ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.connection()].map(str::to_owned).to_vec())
    }

    /// Runs SQL; what it prints, without the last line end.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        let (tool, mut arguments) = self.psql();
        arguments.extend(["-f".to_owned(), "-".to_owned()]);
        tool.run_with_input(&arguments, sql.as_bytes()).expect_success().stdout_text().trim_end().to_owned()
    }

    /// Starts SQL and leaves it running.
    ///
    /// # Panics
    /// When psql cannot be started.
    #[must_use]
    pub fn start_sql(&self, sql: &str) -> Running {
        let (tool, mut arguments) = self.psql();
        arguments.extend(["-c".to_owned(), sql.to_owned()]);
        tool.without_inherited_files().start(&arguments)
    }
}

impl Default for Postgres {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // A fast shutdown: its own processes end with it, and its shared memory is given back.
            server.signal(Signal::INT);
            let _ended = server.wait();
        }
    }
}

/// Gives a file or directory to the user that the server runs as.
fn own(path: &Path) {
    if rustix::process::geteuid().is_root() {
        let id = |option: &str| {
            let text = Tool::new("id").run(&[option, "postgres"]).expect_success().stdout_text();
            text.trim().parse::<u32>().unwrap_or_else(|error| panic!("id {option} postgres: {error}"))
        };
        chown(path, Some(id("-u")), Some(id("-g"))).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

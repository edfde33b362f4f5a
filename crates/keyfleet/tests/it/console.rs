//! Running the binary: alone, or against a server of its own on loopback.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kf_testkit::{Output, Running, TempDir, Tool, scratch};
use serde_json::Value;

/// The binary under test, with a home directory that holds nothing.
pub(crate) fn keyfleet(home: &Path) -> Tool {
    Tool::at(Path::new(env!("CARGO_BIN_EXE_keyfleet"))).env("HOME", home).env("XDG_CONFIG_HOME", "").directory(home)
}

/// For a run of which nothing but success matters.
pub(crate) trait Succeeds {
    /// Fails the test unless it exited with 0.
    fn succeeds(self);
}

impl Succeeds for Output {
    #[track_caller]
    fn succeeds(self) {
        drop(self.expect_success());
    }
}

/// A file that only its owner may read.
pub(crate) fn private(path: &Path, contents: &str) {
    fs::write(path, contents).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A fleet with its server running. Everything is gone when it is dropped.
pub(crate) struct Fleet {
    pub(crate) scratch: TempDir,
    pub(crate) http: String,
    server: Option<Running>,
}

impl Fleet {
    /// `init` with a passphrase from a file, then `serve` on ports of the kernel's choice.
    pub(crate) fn start(extra: &[&str]) -> Self {
        let fleet = Self::initialised(extra);
        fleet.served()
    }

    /// Only `init`.
    pub(crate) fn initialised(extra: &[&str]) -> Self {
        Self::founded("correct horse battery staple", extra)
    }

    /// Only `init`, under a passphrase of the test's own.
    pub(crate) fn with_passphrase(passphrase: &str) -> Self {
        Self::founded(passphrase, &[])
    }

    fn founded(passphrase: &str, extra: &[&str]) -> Self {
        let scratch = scratch();
        let fleet = Self { scratch, http: String::new(), server: None };
        private(&fleet.path("passphrase"), passphrase);
        let data = fleet.data();
        let mut arguments = vec!["init", "--data", data.to_str().unwrap(), "--passphrase-file", "passphrase"];
        // The address baked into certificates is not known yet: it is only read by tests that ask for it.
        arguments.extend(["--https", "127.0.0.1:0", "--http", "127.0.0.1:0", "--fleet", "acme"]);
        arguments.extend(extra);
        fleet.tool().run(&arguments).succeeds();
        fleet
    }

    /// Starts the server and points the profile at the port it was given.
    pub(crate) fn served(mut self) -> Self {
        let data = self.data();
        let mut server = self.tool().start(&["serve", "--data", data.to_str().unwrap(), "--log", "json"]);
        let ready = server.wait_for_line(|line| line.starts_with("ready https="));
        let address = |key: &str| ready.split_whitespace().find_map(|word| word.strip_prefix(key)).unwrap().to_owned();
        self.http = format!("http://{}", address("http="));
        private(
            &data.join("cli.toml"),
            &format!("server = \"https://{}\"\nroot = \"root.pem\"\ntoken_file = \"owner.token\"\n", address("https=")),
        );
        self.server = Some(server);
        self
    }

    /// The same fleet once more, as its data directory is now; not served. Only while this one is not.
    pub(crate) fn twin(&self) -> Self {
        assert!(self.server.is_none(), "what is copied must not change");
        let scratch = scratch();
        let twin = Self { scratch, http: String::new(), server: None };
        let (from, to) = (self.data(), twin.data());
        Tool::new("cp").run(&["-a", from.to_str().unwrap(), to.to_str().unwrap()]).succeeds();
        twin
    }

    /// The process of the server.
    pub(crate) fn server_id(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A path in the scratch directory, which is also the current directory of every run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(crate) fn tool(&self) -> Tool {
        keyfleet(self.scratch.path())
    }

    /// Runs a verb as the owner.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let data = self.data();
        let mut all = vec!["--data", data.to_str().unwrap()];
        all.extend(arguments);
        self.tool().run(&all)
    }

    /// Runs a verb as the owner and reads the JSON it prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--format", "json"];
        all.extend(arguments);
        json(&self.run(&all).expect_success())
    }

    /// Runs a verb as whoever the profile names.
    pub(crate) fn run_as(&self, profile: &str, arguments: &[&str]) -> Output {
        let mut all = vec!["--profile", profile];
        all.extend(arguments);
        self.tool().run(&all)
    }

    /// A facility, a product line and a device.
    pub(crate) fn with_device(self) -> Self {
        self.run(&["facility", "create", "lyon"]).succeeds();
        self.run(&["product-line", "create", "thermo"]).succeeds();
        self.register("thermo-0001");
        self
    }

    pub(crate) fn register(&self, name: &str) {
        self.run(&["device", "register", name, "--facility", "lyon", "--product-line", "thermo"]).succeeds();
    }

    /// A key and a request made with openssl alone; returns the name of the request file.
    pub(crate) fn request(&self, name: &str) -> String {
        let (key, csr) = (format!("{name}.key"), format!("{name}.csr"));
        Tool::new("openssl")
            .directory(self.scratch.path())
            .run(&[
                "req",
                "-new",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-noenc",
                "-keyout",
                &key,
                "-out",
                &csr,
                "-subj",
                "/CN=whatever",
            ])
            .succeeds();
        csr
    }

    /// Stops the server as systemd does, and sees that it ends well.
    pub(crate) fn stop(&mut self) {
        let server = self.server.take().unwrap();
        // SIGTERM to exactly the process that this test started.
        Tool::new("kill").run(&["-TERM", &server.id().to_string()]).succeeds();
        assert!(server.wait().success());
    }
}

/// The one JSON value on standard output.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.text()))
}

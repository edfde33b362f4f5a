//! `keyfleet init`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use kf_fleet::{DataDir, FleetConfig, InitOptions, Initialised, ListenConfig, SystemClock};
use kf_key::KeyAlgorithm;
use kf_signer::{BackendKind, Pkcs11Config, SecretSource, SignerClient, SignerConfig, TpmConfig};
use serde_json::json;

use crate::api::Context;
use crate::command::serve::unlock::{Unlock, signer_command};
use crate::failure::Failure;
use crate::file;
use crate::output::{Format, Names, object, say};
use crate::profile::Profile;

/// What to create.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Name of the fleet: organisation in certificates, origin of the log
    #[arg(long, default_value = "fleet")]
    fleet: String,
    /// Name of the first owner
    #[arg(long, default_value = "owner")]
    owner: String,
    /// Base of the addresses baked into certificates (CRL, OCSP): must be reachable by whoever checks them
    #[arg(long, value_name = "URL")]
    public_http: Option<String>,
    /// HTTPS address: EST and the API
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8443")]
    https: SocketAddr,
    /// Plain HTTP address: CRLs, OCSP, CA certificates
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// DNS name or address in the server's certificate; repeat for several; localhost and 127.0.0.1 are always there
    #[arg(long = "name", value_name = "DNS")]
    names: Vec<String>,
    /// p-256, p-384 or ed25519: root and issuing CA
    #[arg(long, default_value_t = KeyAlgorithm::P256)]
    algorithm: KeyAlgorithm,
    /// Lifetime of the root; the issuing CA gets half
    #[arg(long, value_name = "DAYS", default_value_t = 7_300, value_parser = clap::value_parser!(u32).range(1..=18_250))]
    root_lifetime_days: u32,
    /// One person runs this fleet: a second approval becomes a delay of 24 hours, and all evidence says so
    #[arg(long)]
    single_control: bool,
    /// Directory on another host that keeps the newest checkpoint, so that a rolled-back database is noticed
    #[arg(long, value_name = "DIR")]
    witness_dir: Option<PathBuf>,
    /// What holds the root
    #[arg(long, value_enum, default_value_t = Seal::Passphrase)]
    seal: Seal,
    /// The token's PKCS#11 module
    #[arg(long, value_name = "PATH", required_if_eq("seal", "pkcs11"))]
    pkcs11_module: Option<PathBuf>,
    /// Label of the token
    #[arg(long, value_name = "LABEL", required_if_eq("seal", "pkcs11"))]
    pkcs11_token: Option<String>,
    /// The TPM: device:/dev/tpmrm0, or swtpm:host=127.0.0.1,port=PORT for an emulator
    #[arg(long, value_name = "ADDRESS", required_if_eq("seal", "tpm"))]
    tpm: Option<String>,
    /// File with the token's PIN, mode 0600
    #[arg(long, value_name = "PATH", conflicts_with = "Unlock")]
    pin_file: Option<PathBuf>,
    #[command(flatten)]
    unlock: Unlock,
    /// The token holds the root already: an earlier init was cut short
    #[arg(long)]
    existing_root: bool,
    /// Say what would be made, make nothing
    #[arg(long)]
    dry_run: bool,
}

/// What holds the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Seal {
    /// A file sealed by a passphrase (Argon2id)
    Passphrase,
    /// A PKCS#11 token or HSM
    Pkcs11,
    /// A TPM 2.0 of this machine, under a PIN
    Tpm,
}

pub(crate) async fn run(context: &Context, init: &Init) -> Result<(), Failure> {
    let dir = context.data_dir()?;
    if dir.config_file().exists() {
        return Err(Failure::InTheWay {
            problem: format!("{} already holds a fleet", dir.path().display()),
            remedy: "choose another directory; nothing was changed".to_owned(),
        });
    }
    let (config, starting) = configuration(init)?;
    if init.dry_run {
        say("nothing was made; this would be the configuration:");
        return object(context.format, &config, &Names::new());
    }
    check_witness(init.witness_dir.as_deref())?;
    file::private_directory(dir.path())?;
    let sealed = dir.path().join(&config.signer.sealed_file.path);
    // A sealed root without a configuration is what an init that was cut short leaves behind: the same passphrase opens it.
    let is_there = match init.seal {
        Seal::Passphrase => sealed.exists(),
        Seal::Tpm => dir.path().join("tpm/root.tpm").exists(),
        Seal::Pkcs11 => false,
    };
    let create_root = !(init.existing_root || is_there);
    if !create_root {
        say("a root is there already: going on with it");
    }
    let signer = SignerClient::spawn(signer_command(&dir, starting, create_root)).await?;
    let options = InitOptions {
        config,
        owner: init.owner.clone(),
        algorithm: init.algorithm,
        root_lifetime_hours: init.root_lifetime_days.saturating_mul(24),
    };
    let made = kf_fleet::init(&dir, signer.clone(), Arc::new(SystemClock), options).await;
    signer.shutdown().await;
    finish(context, init, &dir, &made?)
}

/// The configuration to be written, and the signer's for this start: a descriptor number means nothing tomorrow.
fn configuration(init: &Init) -> Result<(FleetConfig, SignerConfig), Failure> {
    let lasting = match (init.unlock.given()?, &init.pin_file) {
        (None, Some(pin)) => {
            SecretSource::File(std::fs::canonicalize(pin).map_err(|error| Failure::file("read", pin, error))?)
        }
        (Some(source), None) if source.is_rereadable() => source,
        _ => SecretSource::Prompt,
    };
    let pkcs11 = match (&init.pkcs11_module, &init.pkcs11_token) {
        (Some(module), Some(token)) => Some(Pkcs11Config {
            module: std::fs::canonicalize(module).map_err(|error| Failure::file("read", module, error))?,
            token: token.clone(),
            root_label: format!("keyfleet root {}", init.fleet),
        }),
        _ => None,
    };
    let tpm = init.tpm.clone().map(|address| TpmConfig { address, directory: PathBuf::from("tpm") });
    let backend = match init.seal {
        Seal::Passphrase => BackendKind::SealedFile,
        Seal::Pkcs11 => BackendKind::Pkcs11,
        Seal::Tpm => BackendKind::Tpm,
    };
    let signer = SignerConfig { backend, unlock: lasting, pkcs11, tpm, ..SignerConfig::default() };
    let mut starting = signer.clone();
    if !init.dry_run {
        init.unlock.apply_to(&mut starting)?;
    }
    let mut names = init.names.clone();
    for name in ["localhost", "127.0.0.1"] {
        if !names.iter().any(|given| given == name) {
            names.push(name.to_owned());
        }
    }
    let public_http = init.public_http.clone().unwrap_or_else(|| format!("http://{}", reachable(init.http)));
    let listen = ListenConfig { https: init.https.to_string(), http: init.http.to_string(), names, public_http };
    // In the form of the file, so that every field left out gets the default that the file would get.
    let mut config: FleetConfig = toml::from_str("fleet = \"\"\n[listen]\n[signer]\n")
        .map_err(|error| Failure::local(format!("no default configuration: {error}"), "please report this"))?;
    config.fleet.clone_from(&init.fleet);
    config.listen = listen;
    config.signer = signer;
    config.witness_dir.clone_from(&init.witness_dir);
    config.single_control = init.single_control;
    Ok((config, starting))
}

/// The address as somebody on this host reaches it.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::from([127, 0, 0, 1]));
    }
    address
}

fn check_witness(directory: Option<&Path>) -> Result<(), Failure> {
    match directory {
        Some(directory) if !directory.is_dir() => Err(Failure::usage(
            format!("the witness directory {} is not there", directory.display()),
            "mount the share first, or leave --witness-dir away and add it to keyfleet.toml later",
        )),
        _ => Ok(()),
    }
}

fn finish(context: &Context, init: &Init, dir: &DataDir, made: &Initialised) -> Result<(), Failure> {
    let token = dir.owner_token();
    if token.exists() {
        // Left by an init that was cut short: its registry is gone, so it opens nothing.
        std::fs::remove_file(&token).map_err(|error| Failure::file("remove", &token, error))?;
    }
    // Exposed to the file of the first owner, mode 0600.
    file::write_private(&token, made.owner_token.expose().as_bytes())?;
    let profile_file = dir.path().join("cli.toml");
    if !profile_file.exists() {
        let server = format!("https://{}", reachable(init.https));
        let root = Some(PathBuf::from("root.pem"));
        let token_file = Some(PathBuf::from("owner.token"));
        let profile = Profile { server, root, token_file, ..Profile::default() };
        crate::command::profile::write(&profile_file, &profile)?;
    }
    let shown = dir.path().display();
    let facts = json!({
        "fleet": init.fleet,
        "data": dir.path(),
        "root": dir.root_certificate(),
        "root_sha256": made.root_fingerprint,
        "verifier_key": made.verifier_key,
        "owner": init.owner,
        "owner_token": token,
        "profile": profile_file,
    });
    object(context.format, &facts, &Names::new())?;
    if context.format == Format::Table {
        say(&format!(
            "\nKeep the root's SHA-256 and the verifier key where this host cannot change them.\n\
             next: keyfleet serve --data {shown}\n\
             then: keyfleet --data {shown} facility create lyon\n      \
             keyfleet --data {shown} product-line create thermo\n      \
             keyfleet --data {shown} device register thermo-0001 --facility lyon --product-line thermo"
        ));
    }
    if init.witness_dir.is_none() {
        say("warning: no witness: a rollback of the database cannot be noticed; see --witness-dir");
    }
    Ok(())
}

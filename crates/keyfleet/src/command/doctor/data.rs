//! The data directory and the configuration.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use kf_fleet::{Clock as _, DataDir, FleetConfig, SystemClock};
use kf_key::UnixMillis;
use kf_log::{Checkpoint, VerifierKey};
use kf_pki::certificate::PresentedCertificate;
use kf_signer::{BackendKind, SecretSource};

use super::Finding;
use crate::profile::Source;

/// The most entries of the data directory that are looked at; the log's tiles lie deeper and are public.
const MAX_ENTRIES: usize = 1_000;

/// Reads the configuration, and says what is wrong with it.
pub(super) fn config(dir: &DataDir, findings: &mut Vec<Finding>) -> Option<FleetConfig> {
    match dir.load_config() {
        Ok(config) => {
            findings.push(Finding::good("config", dir.config_file().display().to_string()));
            Some(config)
        }
        Err(error) => {
            let fix = if dir.config_file().exists() {
                "correct the field; `keyfleet serve --check-config` tries it"
            } else {
                "check --data, or make a fleet with `keyfleet init --data DIR`"
            };
            findings.push(Finding::critical("config", error.to_string(), fix));
            None
        }
    }
}

/// Everything that can be seen without the server.
pub(super) fn look(dir: &DataDir, config: Option<&FleetConfig>, findings: &mut Vec<Finding>) {
    let now = SystemClock.now();
    permissions(dir, findings);
    findings.push(owner_token(dir));
    findings.push(profile(dir));
    findings.push(root_expiry(dir, now));
    findings.push(checkpoint(dir));
    let Some(config) = config else { return };
    findings.push(demo_data(config));
    findings.push(witness(dir, config));
    findings.push(restart(config));
    findings.extend(secret_file(config));
    findings.extend(token_module(config));
    findings.push(public_address(config));
    findings.push(names(config));
}

fn demo_data(config: &FleetConfig) -> Finding {
    if config.demo {
        return Finding::critical(
            "demo-data",
            "this fleet was made by `keyfleet demo` and lives a day at most",
            "keyfleet init --data DIR",
        );
    }
    Finding::good("demo-data", "not a demonstration")
}

fn permissions(dir: &DataDir, findings: &mut Vec<Finding>) {
    let mut wrong = Vec::new();
    let mut owners = BTreeSet::new();
    let mut paths = vec![dir.path().to_owned()];
    let entries = fs::read_dir(dir.path()).into_iter().flatten().flatten();
    paths.extend(entries.take(MAX_ENTRIES).map(|entry| entry.path()));
    for path in paths {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        owners.insert(metadata.uid());
        let mode = metadata.permissions().mode();
        // Nobody else writes anything; nobody else reads what is secret, or enters at all.
        let forbidden = if is_secret(&path) || path == dir.path() { 0o077 } else { 0o022 };
        if !metadata.is_symlink() && mode & forbidden != 0 {
            wrong.push(format!("{} ({:03o})", path.display(), mode & 0o777));
        }
    }
    findings.push(if wrong.is_empty() {
        Finding::good("permissions", "private to their owner")
    } else {
        Finding::error(
            "permissions",
            format!("others may use {}", wrong.join(", ")),
            format!("chmod -R go-rwx {}", dir.path().display()),
        )
    });
    findings.push(if owners.len() < 2 {
        Finding::good("one-owner", "one user owns everything")
    } else {
        Finding::warning(
            "one-owner",
            format!("{} users own files there", owners.len()),
            format!("chown -R USER {} with the user that runs the server", dir.path().display()),
        )
    });
}

fn is_secret(path: &Path) -> bool {
    let name = path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
    name.ends_with(".seal") || name.ends_with(".token")
}

fn owner_token(dir: &DataDir) -> Finding {
    let path = dir.owner_token();
    if path.exists() {
        return Finding::warning(
            "owner-token",
            format!("{} still lies on the server", path.display()),
            "move it to where the owner works, make a profile there with `keyfleet profile create`, delete it here",
        );
    }
    Finding::good("owner-token", "not on the server any more")
}

fn profile(dir: &DataDir) -> Finding {
    let source = Source::Data(dir.path().join("cli.toml"));
    if !source.path().exists() {
        return Finding::good("profile", "none here");
    }
    let usable = source.load().and_then(|profile| profile.client(std::time::Duration::from_secs(1)));
    match usable {
        Ok(_client) => Finding::good("profile", source.path().display().to_string()),
        Err(failure) => {
            let fix = "correct cli.toml, or delete it if you work from elsewhere";
            Finding::warning("profile", failure.to_string(), fix)
        }
    }
}

fn witness(dir: &DataDir, config: &FleetConfig) -> Finding {
    let Some(place) = &config.witness_dir else {
        return Finding::warning(
            "witness",
            "there is none: a rollback of the database cannot be noticed",
            "set `witness_dir` in keyfleet.toml to a directory on another host (a mounted share)",
        );
    };
    let writable = tempfile::Builder::new().prefix(".keyfleet-doctor-").tempfile_in(place);
    if let Err(error) = writable {
        return Finding::critical(
            "witness",
            format!("{} cannot be written: {error}", place.display()),
            "mount the share and let the server's user write there",
        );
    }
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    if device(place) == device(dir.path()) {
        return Finding::warning(
            "witness",
            format!("{} lies on the same file system: who rolls one back rolls back both", place.display()),
            "use a directory on another host",
        );
    }
    Finding::good("witness", place.display().to_string())
}

fn restart(config: &FleetConfig) -> Finding {
    if config.signer.unlock.is_rereadable() {
        return Finding::good("restart", "the secret is in a file or credential");
    }
    Finding::warning(
        "restart",
        "the passphrase is typed or passed: after a crash of the signer the server waits for a person",
        "a systemd credential (`LoadCredentialEncrypted=`, --passphrase-credential), if unattended restarts matter more",
    )
}

fn secret_file(config: &FleetConfig) -> Option<Finding> {
    let SecretSource::File(path) = &config.signer.unlock else { return None };
    Some(match fs::metadata(path) {
        Err(error) => Finding::critical(
            "secret-file",
            format!("{}: {error}", path.display()),
            "restore it, or change `unlock` in keyfleet.toml",
        ),
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => Finding::critical(
            "secret-file",
            format!("others may read {}", path.display()),
            format!("chmod 600 {}, and change the passphrase or PIN", path.display()),
        ),
        Ok(_) => Finding::good("secret-file", path.display().to_string()),
    })
}

fn token_module(config: &FleetConfig) -> Option<Finding> {
    if config.signer.backend != BackendKind::Pkcs11 {
        return None;
    }
    let module = config.signer.pkcs11.as_ref().map(|token| token.module.clone()).unwrap_or_default();
    Some(if module.is_file() {
        Finding::good("token-module", module.display().to_string())
    } else {
        Finding::critical(
            "token-module",
            format!("the module `{}` is not there", module.display()),
            "install the token's module, or correct `module` in [signer.pkcs11]",
        )
    })
}

/// Host of `http://host[:port]/…`.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or(bracketed),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn listens_outside(address: &str) -> bool {
    address.parse::<SocketAddr>().map_or(true, |address| !address.ip().is_loopback())
}

fn public_address(config: &FleetConfig) -> Finding {
    let url = &config.listen.public_http;
    if is_loopback(host_of(url)) && listens_outside(&config.listen.https) {
        return Finding::error(
            "public-address",
            format!("certificates point to {url} for CRLs and OCSP, which only this host can reach"),
            "set `public_http` under [listen]; certificates issued before keep the old address",
        );
    }
    if url.starts_with("https://") {
        return Finding::warning(
            "public-address",
            format!("{url} is https: checking its certificate may need the very CRL it serves"),
            "use http:// there; CRLs and OCSP answers are signed (RFC 5280 section 4.2.1.13)",
        );
    }
    Finding::good("public-address", url.clone())
}

fn names(config: &FleetConfig) -> Finding {
    let names = &config.listen.names;
    if listens_outside(&config.listen.https) && names.iter().all(|name| is_loopback(name)) {
        return Finding::error(
            "names",
            format!("the server listens on {} and its certificate names only this host", config.listen.https),
            "add its DNS name to `names` under [listen] and restart",
        );
    }
    Finding::good("names", names.join(", "))
}

fn root_expiry(dir: &DataDir, now: UnixMillis) -> Finding {
    let path = dir.root_certificate();
    let root = fs::read_to_string(&path)
        .ok()
        .and_then(|text| kf_pki::pem::decode_all("CERTIFICATE", &text))
        .and_then(|certificates| PresentedCertificate::from_der(certificates.first()?));
    match root {
        None => Finding::error(
            "root-expiry",
            format!("{} holds no certificate", path.display()),
            "`keyfleet authority show root --out FILE` writes it again",
        ),
        Some(root) => expiry("root-expiry", "the root", root.not_after, now),
    }
}

/// How long a CA lasts. Devices that pin it need years to follow a change.
pub(super) fn expiry(check: &'static str, who: &str, not_after: UnixMillis, now: UnixMillis) -> Finding {
    let days = not_after.since(now) / UnixMillis::DAY;
    let says = format!("{who} ends {}, in {days} days", crate::moment::text(not_after));
    let fix =
        "start its roll-over with `keyfleet authority succeed`, and let devices take up the new one before the end";
    match days {
        0 => Finding::critical(check, format!("{who} ended or ends today: {}", crate::moment::text(not_after)), fix),
        1..=89 => Finding::error(check, says, fix),
        90..=364 => Finding::warning(check, says, fix),
        _ => Finding::good(check, says),
    }
}

fn checkpoint(dir: &DataDir) -> Finding {
    let read = |path: PathBuf| fs::read_to_string(path).ok();
    let Some(key) = read(dir.verifier_key()).and_then(|text| VerifierKey::from_text(text.trim()).ok()) else {
        return Finding::error(
            "checkpoint",
            format!("{} holds no verifier key", dir.verifier_key().display()),
            "write there what `keyfleet init` printed as verifier_key",
        );
    };
    let Some(note) = read(dir.log_dir().join("checkpoint")) else {
        return Finding::skipped("checkpoint", "nothing is published yet", "start the server once");
    };
    match Checkpoint::open(&note, &key) {
        Ok(checkpoint) => Finding::good(
            "checkpoint",
            format!("{} entries are signed; `keyfleet audit verify` checks every one", checkpoint.size),
        ),
        Err(error) => Finding::critical(
            "checkpoint",
            format!("the published checkpoint is not to be trusted: {error}"),
            "keep a copy as evidence, compare with the witness, run `keyfleet audit verify`",
        ),
    }
}

#[cfg(test)]
mod tests;

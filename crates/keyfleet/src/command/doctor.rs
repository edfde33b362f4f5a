//! `keyfleet doctor`: named checks, each with a severity and, when something is wrong, what to do.
//!
//! A check that cannot be made here says so (SKIPPED); it never counts as passed.

mod broker;
mod data;
mod host;
mod server;

use clap::Args;
use serde::Serialize;

use crate::api::Context;
use crate::failure::Failure;
use crate::output::{Format, Listing, Names, printable, raw, say};

const COLUMNS: [&str; 4] = ["severity", "check", "says", "fix"];

/// Every check, with what it looks at.
const CHECKS: [(&str, &str); 30] = [
    ("config", "keyfleet.toml is read without an unknown or wrong field"),
    ("demo-data", "the data is not that of a demonstration"),
    ("permissions", "nobody else can read secrets or change the data directory"),
    ("one-owner", "all files of the data directory belong to one user"),
    ("owner-token", "the first owner's token was moved away from the server"),
    ("profile", "cli.toml is a usable profile"),
    ("witness", "the newest checkpoint is kept outside, and that place can be written"),
    ("restart", "the signer can be started without a person"),
    ("secret-file", "the file with the passphrase or PIN is there and private"),
    ("token-module", "the PKCS#11 module is there"),
    ("public-address", "addresses baked into certificates can be reached from outside"),
    ("names", "the server's certificate names it as clients call it"),
    ("root-expiry", "the root certificate lasts"),
    ("checkpoint", "the published log ends in a checkpoint signed by the log's key"),
    ("broker-config", "brokers check certificates and CRLs on every listener"),
    ("swap", "memory is not written to disk in clear"),
    ("core-dumps", "a crash writes no memory to disk"),
    ("locked-memory", "enough memory may be locked"),
    ("open-files", "enough files and sockets may be open"),
    ("clock", "the clock is not behind the data"),
    ("disk-space", "the data directory has room"),
    ("file-system", "the registry lies on a local file system"),
    ("server", "the server answers and is ready"),
    ("issuance", "certificates are being issued"),
    ("signer", "the signer answers"),
    ("authority-expiry", "issuing CAs last"),
    ("crl-freshness", "every CRL is current"),
    ("ocsp", "the OCSP responder answers, its signature verifies and it agrees with the registry"),
    ("server-clock", "the server's clock and this one agree"),
    ("tls-groups", "connections agree their keys in a group that later quantum computers do not open"),
];

/// What to look at.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Look at the server of the profile only, not at this host
    #[arg(long)]
    server: bool,
    /// Only these checks; repeat for several
    #[arg(long = "check", value_name = "NAME", value_parser = check_name)]
    checks: Vec<String>,
    /// List the checks, make none
    #[arg(long)]
    list: bool,
}

/// How bad a finding is. The worst one is the exit code: 0, 10, 11, 12 or 13.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Severity {
    /// As it should be.
    Success,
    /// The check could not be made here.
    Skipped,
    /// Somebody should look at it.
    Warning,
    /// Something does not work, or soon will not.
    Error,
    /// The fleet is not safe, or stands still.
    Critical,
}

impl Severity {
    const fn exit_code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Skipped => 10,
            Self::Warning => 11,
            Self::Error => 12,
            Self::Critical => 13,
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) severity: Severity,
    /// Name of the check.
    pub(crate) check: &'static str,
    /// What was found.
    pub(crate) says: String,
    /// What to do about it; empty when nothing is to be done.
    pub(crate) fix: String,
}

impl Finding {
    /// As it should be.
    pub(crate) fn good(check: &'static str, says: impl Into<String>) -> Self {
        Self { severity: Severity::Success, check, says: says.into(), fix: String::new() }
    }

    /// The check could not be made here.
    pub(crate) fn skipped(check: &'static str, says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Skipped, check, says: says.into(), fix: fix.into() }
    }

    /// Somebody should look at it.
    pub(crate) fn warning(check: &'static str, says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, check, says: says.into(), fix: fix.into() }
    }

    /// Something does not work, or soon will not.
    pub(crate) fn error(check: &'static str, says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Error, check, says: says.into(), fix: fix.into() }
    }

    /// The fleet is not safe, or stands still.
    pub(crate) fn critical(check: &'static str, says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Critical, check, says: says.into(), fix: fix.into() }
    }
}

fn check_name(text: &str) -> Result<String, String> {
    if CHECKS.iter().any(|(name, _)| *name == text) {
        return Ok(text.to_owned());
    }
    Err("not a check; `keyfleet doctor --list` lists them".to_owned())
}

pub(crate) async fn run(context: &Context, doctor: &Doctor) -> Result<(), Failure> {
    if doctor.list {
        return list(context.format);
    }
    if !doctor.server && context.data.is_none() {
        return Err(Failure::usage(
            "neither a data directory nor the server is to be looked at",
            "give --data DIR on the server's host, or --server from anywhere",
        ));
    }
    let mut findings = Vec::new();
    if !doctor.server {
        let dir = context.data_dir()?;
        let config = data::config(&dir, &mut findings);
        data::look(&dir, config.as_ref(), &mut findings);
        if let Some(config) = &config {
            broker::look(config, &mut findings);
        }
        host::look(&host::Host::this(), dir.path(), &mut findings);
    }
    server::look(context, doctor.server, &mut findings).await;
    findings.retain(|finding| doctor.checks.is_empty() || doctor.checks.iter().any(|name| name == finding.check));
    report(context.format, &findings)
}

fn list(format: Format) -> Result<(), Failure> {
    let rows: Vec<_> =
        CHECKS.iter().map(|(name, what)| serde_json::json!({ "check": name, "looks_at": what })).collect();
    let mut listing = Listing::new(format, &["check", "looks_at"]);
    listing.rows(&rows, &Names::new())?;
    listing.end(None)
}

fn report(format: Format, findings: &[Finding]) -> Result<(), Failure> {
    if format == Format::Table {
        for finding in findings {
            let severity = format!("{:?}", finding.severity).to_uppercase();
            let fix = if finding.fix.is_empty() { String::new() } else { format!("{:27}fix: {}\n", "", finding.fix) };
            raw(format!("{severity:9} {:17}{}\n{fix}", finding.check, printable(&finding.says)).as_bytes())?;
        }
    } else {
        let mut listing = Listing::new(format, &COLUMNS);
        listing.rows(findings, &Names::new())?;
        listing.end(None)?;
    }
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Skipped);
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    say(&format!(
        "{} checks good, {} skipped, {} warnings, {} errors, {} critical",
        count(Severity::Success),
        count(Severity::Skipped),
        count(Severity::Warning),
        count(Severity::Error),
        count(Severity::Critical)
    ));
    match worst {
        Severity::Success => Ok(()),
        worse => Err(Failure::Silent(worse.exit_code())),
    }
}

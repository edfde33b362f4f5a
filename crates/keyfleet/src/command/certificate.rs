//! `keyfleet certificate`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use kf_api::certificate::{Certificate, CertificateFilter, CertificateWithPem, IssueRequest};
use kf_api::revocation::RevocationTarget;
use kf_fleet::{Clock as _, SystemClock};
use kf_key::{CertificateProfile, CertificateStatus, RevocationReason, SerialNumber};

use crate::api::{Context, Paging, list, names_for};
use crate::command::revoke::{Manner, judge, send};
use crate::failure::Failure;
use crate::file;
use crate::moment;
use crate::output::{Format, object, raw, say};

const COLUMNS: [&str; 7] = ["serial", "profile", "status", "subject", "not_after", "authority", "facility"];

/// What can be done with certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Issue a certificate for a request made elsewhere; its names come from the registry
    Issue(Issue),
    /// List certificates
    List(Filter),
    /// Show a certificate
    Show {
        /// Serial number, 40 hexadecimal digits
        serial: SerialNumber,
        /// Write certificate and chain here, PEM
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Print certificate and chain only, PEM
        #[arg(long)]
        pem: bool,
    },
    /// Revoke a certificate for good
    Revoke {
        /// Serial number, 40 hexadecimal digits
        serial: SerialNumber,
        /// keyCompromise, superseded, cessationOfOperation and the others of RFC 5280
        #[arg(long)]
        reason: RevocationReason,
        #[command(flatten)]
        manner: Manner,
    },
    /// Put a certificate on hold
    Hold {
        /// Serial number, 40 hexadecimal digits
        serial: SerialNumber,
        #[command(flatten)]
        manner: Manner,
    },
    /// Release a certificate from hold
    Release {
        /// Serial number, 40 hexadecimal digits
        serial: SerialNumber,
        #[command(flatten)]
        manner: Manner,
    },
}

/// What may be issued on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileArgument {
    /// IEEE 802.1AR initial device identifier (needs --device)
    Idevid,
    /// IEEE 802.1AR local device identifier (needs --device)
    Ldevid,
    /// A TLS server (needs --dns-name)
    TlsServer,
    /// An operator (needs --operator)
    Operator,
}

impl From<ProfileArgument> for CertificateProfile {
    fn from(argument: ProfileArgument) -> Self {
        match argument {
            ProfileArgument::Idevid => Self::IDevId,
            ProfileArgument::Ldevid => Self::LDevId,
            ProfileArgument::TlsServer => Self::TlsServer,
            ProfileArgument::Operator => Self::Operator,
        }
    }
}

/// A certificate to be issued.
#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// What it is for
    #[arg(long)]
    profile: ProfileArgument,
    /// The PKCS#10 request, PEM or DER: `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 ...`
    #[arg(long, value_name = "FILE")]
    csr: PathBuf,
    /// Name or id of the device
    #[arg(long, required_if_eq_any([("profile", "idevid"), ("profile", "ldevid")]))]
    device: Option<String>,
    /// Name or id of the operator
    #[arg(long, required_if_eq("profile", "operator"))]
    operator: Option<String>,
    /// DNS name or IP address of the TLS server; repeat for several
    #[arg(long = "dns-name", value_name = "NAME", required_if_eq("profile", "tls-server"))]
    dns_names: Vec<String>,
    /// Name or id of the issuing CA; chosen by the registry when absent
    #[arg(long)]
    authority: Option<String>,
    /// Lifetime in hours; the profile's default when absent
    #[arg(long, value_name = "HOURS")]
    lifetime_hours: Option<u32>,
    /// Write certificate and chain here, PEM, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Leave the chain away
    #[arg(long)]
    leaf_only: bool,
    /// Check everything, issue nothing
    #[arg(long)]
    dry_run: bool,
}

/// Which certificates to list.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Name or id of the device
    #[arg(long)]
    device: Option<String>,
    /// Name or id of the facility
    #[arg(long)]
    facility: Option<String>,
    /// Name or id of the issuing CA
    #[arg(long)]
    authority: Option<String>,
    /// root, issuing-ca, idevid, ldevid, tls-server, ocsp-signer or operator
    #[arg(long)]
    profile: Option<CertificateProfile>,
    /// good, held or revoked
    #[arg(long)]
    status: Option<StatusArgument>,
    /// Only those that end before this: 2027-01-31, 2027-01-31T12:00:00Z, or from now 30d, 12h
    #[arg(long, value_name = "WHEN")]
    expires_before: Option<String>,
    #[command(flatten)]
    paging: Paging,
}

/// Revocation status.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StatusArgument {
    /// Neither revoked nor on hold
    Good,
    /// On hold
    Held,
    /// Revoked for good
    Revoked,
}

impl From<StatusArgument> for CertificateStatus {
    fn from(argument: StatusArgument) -> Self {
        match argument {
            StatusArgument::Good => Self::Good,
            StatusArgument::Held => Self::Held,
            StatusArgument::Revoked => Self::Revoked,
        }
    }
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Issue(wanted) => issue(context, wanted).await,
        Verb::List(filter) => list_matching(context, filter).await,
        Verb::Show { serial, out, pem } => show(context, serial, out.as_deref(), pem).await,
        Verb::Revoke { serial, reason, manner } => revoke(context, serial, reason, &manner).await,
        Verb::Hold { serial, manner } => revoke(context, serial, RevocationReason::CertificateHold, &manner).await,
        Verb::Release { serial, manner } => revoke(context, serial, RevocationReason::RemoveFromCrl, &manner).await,
    }
}

async fn issue(context: &Context, wanted: Issue) -> Result<(), Failure> {
    file::must_be_free(wanted.out.as_deref())?;
    let request = IssueRequest {
        profile: wanted.profile.into(),
        csr_pem: request_pem(&wanted.csr)?,
        device: wanted.device,
        operator: wanted.operator,
        dns_names: wanted.dns_names,
        authority: wanted.authority,
        lifetime_hours: wanted.lifetime_hours,
        dry_run: wanted.dry_run,
    };
    let mut api = context.api()?;
    let issued: CertificateWithPem = api.post("/v1/certificates", &request).await?;
    if wanted.dry_run {
        say("nothing was issued: this is what would be");
        return object(context.format, &issued.certificate, &names_for(context.format, &mut api, &["authority"]).await);
    }
    say(&format!(
        "issued {} to {}, valid until {}",
        issued.certificate.serial,
        issued.certificate.subject,
        moment::text(issued.certificate.not_after)
    ));
    let chain = if wanted.leaf_only { "" } else { issued.chain_pem.as_str() };
    let pem = format!("{}{chain}", issued.pem);
    if let Some(out) = &wanted.out {
        file::write_new(out, pem.as_bytes())?;
        say(&format!("written to {}", out.display()));
        let names = names_for(context.format, &mut api, &["authority", "facility"]).await;
        return object(context.format, &issued.certificate, &names);
    }
    match context.format {
        Format::Table => raw(pem.as_bytes()),
        other => object(other, &issued, &crate::output::Names::new()),
    }
}

/// The request as PEM, whatever the file holds: the server checks it.
fn request_pem(path: &Path) -> Result<String, Failure> {
    let bytes = file::read(path)?;
    match String::from_utf8(bytes) {
        Ok(text) if text.contains("-----BEGIN ") => Ok(text),
        Ok(_neither) => Err(Failure::local(
            format!("{} holds no certification request", path.display()),
            "make one: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout KEY -out CSR -subj /",
        )),
        Err(binary) => Ok(kf_pki::pem::encode("CERTIFICATE REQUEST", &binary.into_bytes())),
    }
}

async fn list_matching(context: &Context, wanted: Filter) -> Result<(), Failure> {
    let expires_before = wanted
        .expires_before
        .map(|text| {
            moment::parse(&text, SystemClock.now())
                .map_err(|expected| Failure::usage(format!("--expires-before `{text}` is no moment"), expected))
        })
        .transpose()?;
    let filter = CertificateFilter {
        device: wanted.device,
        facility: wanted.facility,
        authority: wanted.authority,
        profile: wanted.profile,
        status: wanted.status.map(CertificateStatus::from),
        expires_before,
        after: None,
        limit: None,
    };
    let mut api = context.api()?;
    list::<Certificate>(context, &mut api, "/v1/certificates", filter, &wanted.paging, &COLUMNS).await
}

async fn show(context: &Context, serial: SerialNumber, out: Option<&Path>, pem: bool) -> Result<(), Failure> {
    file::must_be_free(out)?;
    let mut api = context.api()?;
    let found: CertificateWithPem = api.get(&format!("/v1/certificates/{serial}")).await?;
    let text = format!("{}{}", found.pem, found.chain_pem);
    if let Some(out) = out {
        file::write_new(out, text.as_bytes())?;
        say(&format!("certificate and chain written to {}", out.display()));
    }
    match (pem, context.format) {
        (true, _) => raw(text.as_bytes()),
        (false, Format::Table) => {
            let names = names_for(context.format, &mut api, &["authority", "facility"]).await;
            object(context.format, &found.certificate, &names)?;
            raw(format!("\n{}", found.pem).as_bytes())
        }
        (false, other) => object(other, &found, &crate::output::Names::new()),
    }
}

async fn revoke(
    context: &Context,
    serial: SerialNumber,
    reason: RevocationReason,
    manner: &Manner,
) -> Result<(), Failure> {
    let outcome = send(&mut context.api()?, RevocationTarget::Certificate(serial), reason, manner).await?;
    object(context.format, &outcome, &crate::output::Names::new())?;
    judge(&outcome, manner.dry_run)
}

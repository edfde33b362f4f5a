//! `keyfleet operator`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kf_api::PageRequest;
use kf_api::certificate::{CertificateWithPem, IssueRequest};
use kf_api::operator::{NewOperator, Operator, Role};
use kf_crypto::PrivateKey;
use kf_key::{CertificateProfile, KeyAlgorithm};
use serde_json::json;

use crate::api::{Context, Paging, list, names_for, segment};
use crate::failure::Failure;
use crate::file;
use crate::output::{object, say};

const COLUMNS: [&str; 6] = ["name", "role", "enabled", "facilities", "created", "id"];

/// What can be done with operators.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Add an operator; give a token or a certificate next
    Create {
        /// Unique name: a-z, 0-9, `-`, `.`, `_`
        name: String,
        /// owner, fleet-operator, facility-operator, auditor, station, relay or application
        #[arg(long)]
        role: Role,
        /// Name or id of a facility they may act on; repeat for several (facility operators, stations, relays and applications)
        #[arg(long = "facility", value_name = "FACILITY")]
        facilities: Vec<String>,
        /// For a station: the P-256 public key that signs its vouchers, PEM
        #[arg(long, value_name = "FILE")]
        voucher_key: Option<PathBuf>,
    },
    /// List operators
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Let an operator sign in again
    Enable {
        /// Name or id
        operator: String,
        /// Why, for the log
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Bar an operator from their next request on
    Disable {
        /// Name or id
        operator: String,
        /// Why, for the log
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Make a key here and a request for it; the key never leaves this machine
    RequestCertificate(RequestCertificate),
}

/// A key and its request.
#[derive(Debug, Args)]
pub(crate) struct RequestCertificate {
    /// Name of the operator
    operator: String,
    /// Where to write the private key (mode 0600), PKCS#8 PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where to write the request, PEM; an owner issues it with `certificate issue --profile operator`
    #[arg(long, value_name = "FILE", required_unless_present = "certificate")]
    csr: Option<PathBuf>,
    /// Have it issued now (owners only) and write certificate and chain here, PEM
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// p-256, p-384 or ed25519
    #[arg(long, default_value_t = KeyAlgorithm::P256)]
    algorithm: KeyAlgorithm,
    /// Lifetime in hours when issued now; the profile's default when absent
    #[arg(long, value_name = "HOURS", requires = "certificate")]
    lifetime_hours: Option<u32>,
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create { name, role, facilities, voucher_key } => {
            let voucher_key_pem = voucher_key.map(|path| file::read_text(&path)).transpose()?;
            let mut api = context.api()?;
            let new = NewOperator { name, role, facilities, voucher_key_pem };
            let made: Operator = api.post("/v1/operators", &new).await?;
            say(&format!(
                "next: `keyfleet token create {0}`, or `keyfleet operator request-certificate {0}`",
                made.name
            ));
            let names = names_for(context.format, &mut api, &["facilities"]).await;
            object(context.format, &made, &names)
        }
        Verb::List { paging } => {
            let mut api = context.api()?;
            list::<Operator>(context, &mut api, "/v1/operators", PageRequest::default(), &paging, &COLUMNS).await
        }
        Verb::Enable { operator, why } => switch(context, &operator, true, &why).await,
        Verb::Disable { operator, why } => switch(context, &operator, false, &why).await,
        Verb::RequestCertificate(request) => request_certificate(context, &request).await,
    }
}

async fn switch(context: &Context, operator: &str, enabled: bool, why: &str) -> Result<(), Failure> {
    let mut api = context.api()?;
    let path = format!("/v1/operators/{}/enable", segment(operator));
    let changed: Operator = api.post(&path, &json!({ "enabled": enabled, "why": why })).await?;
    let names = names_for(context.format, &mut api, &["facilities"]).await;
    object(context.format, &changed, &names)
}

async fn request_certificate(context: &Context, wanted: &RequestCertificate) -> Result<(), Failure> {
    for path in [Some(&wanted.key), wanted.csr.as_ref(), wanted.certificate.as_ref()] {
        file::must_be_free(path.map(PathBuf::as_path))?;
    }
    let no_key = |problem: String| Failure::usage(problem, "give --algorithm p-256, p-384 or ed25519");
    let key = PrivateKey::generate(wanted.algorithm)
        .map_err(|_refused| no_key(format!("no {} key can be made here", wanted.algorithm)))?;
    let pkcs8 = key.to_pkcs8().map_err(|_refused| no_key("the key cannot be encoded".to_owned()))?;
    // Exposed to the file of its owner; the PEM text is wiped when dropped.
    let pem = kf_key::SecretBytes::from_vec(kf_pki::pem::encode("PRIVATE KEY", pkcs8.expose()).into_bytes());
    let csr = kf_pki::request::make_request(&key, &wanted.operator).map_err(|error| no_key(error.to_string()))?;
    let csr_pem = kf_pki::pem::encode("CERTIFICATE REQUEST", &csr);
    file::write_private(&wanted.key, pem.expose())?;
    say(&format!("private key written to {}", wanted.key.display()));
    if let Some(path) = &wanted.csr {
        file::write_new(path, csr_pem.as_bytes())?;
        say(&format!("request written to {}", path.display()));
    }
    let Some(path) = &wanted.certificate else {
        say(
            "next: an owner runs `keyfleet certificate issue --profile operator --operator NAME --csr FILE --out FILE`",
        );
        return Ok(());
    };
    let request = IssueRequest {
        profile: CertificateProfile::Operator,
        csr_pem,
        device: None,
        operator: Some(wanted.operator.clone()),
        dns_names: Vec::new(),
        authority: None,
        lifetime_hours: wanted.lifetime_hours,
        dry_run: false,
    };
    let issued: CertificateWithPem = context.api()?.post("/v1/certificates", &request).await?;
    file::write_new(path, format!("{}{}", issued.pem, issued.chain_pem).as_bytes())?;
    say(&format!("certificate and chain written to {}", path.display()));
    object(context.format, &issued.certificate, &crate::output::Names::new())
}

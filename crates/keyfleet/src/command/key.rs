//! `keyfleet key`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use kf_api::PageRequest;
use kf_api::succession::UnprovedDevice;
use serde_json::{Value, json};

use crate::api::{Context, Paging, list, segment};
use crate::failure::Failure;
use crate::file;
use crate::output::{Names, object};

const NEEDED_COLUMNS: [&str; 4] = ["name", "facility", "last_seen", "device"];
/// Fingerprints in one call: 67 octets each, well below the server's limit of 1 MiB.
const CHUNK: usize = 10_000;

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Never certify these public keys again; known-leaked keys, for example
    Block {
        /// A file with one SHA-256 of SubjectPublicKeyInfo a line, hexadecimal, or with public keys in PEM
        #[arg(value_name = "FILE", required_unless_present = "spki_sha256")]
        file: Option<PathBuf>,
        /// One SHA-256 of SubjectPublicKeyInfo, hexadecimal; repeat for several
        #[arg(long, value_name = "SHA256")]
        spki_sha256: Vec<String>,
        /// Why, for the log
        #[arg(long, default_value = "")]
        why: String,
        /// Read and check everything, block nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List the devices that have not proved that they hold a newer key than this one, which devices pin
    NeededBy {
        /// Id of the key, `key_...`: `keyfleet inventory --class delivery-key`
        key: String,
        #[command(flatten)]
        paging: Paging,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    let (file, spki_sha256, why, dry_run) = match verb {
        Verb::Block { file, spki_sha256, why, dry_run } => (file, spki_sha256, why, dry_run),
        Verb::NeededBy { key, paging } => {
            let path = format!("/v1/pinned-keys/{}/devices", segment(&key));
            let page = PageRequest::default();
            return list::<UnprovedDevice>(context, &mut context.api()?, &path, page, &paging, &NEEDED_COLUMNS).await;
        }
    };
    let mut fingerprints = Vec::new();
    for text in &spki_sha256 {
        fingerprints.push(fingerprint(text).ok_or_else(|| not_a_fingerprint(&format!("`{text}`")))?);
    }
    if let Some(path) = file {
        fingerprints.append(&mut read(&path)?);
    }
    if dry_run {
        return object(context.format, &json!({ "read": fingerprints.len(), "dry_run": true }), &Names::new());
    }
    let mut api = context.api()?;
    let mut added = 0;
    for chunk in fingerprints.chunks(CHUNK) {
        let answer: Value = api.post("/v1/blocked-keys", &json!({ "spki_sha256": chunk, "why": why })).await?;
        added += answer.get("added").and_then(Value::as_u64).unwrap_or(0);
    }
    object(context.format, &json!({ "read": fingerprints.len(), "added": added }), &Names::new())
}

fn read(path: &Path) -> Result<Vec<String>, Failure> {
    let text = file::read_text(path)?;
    if text.contains("-----BEGIN ") {
        let keys = kf_pki::pem::decode_all("PUBLIC KEY", &text).unwrap_or_default();
        if keys.is_empty() {
            return Err(Failure::local(
                format!("{} holds no public key", path.display()),
                "openssl x509 -in CERTIFICATE -noout -pubkey, or openssl req -in REQUEST -noout -pubkey",
            ));
        }
        return Ok(keys.iter().map(|der| hex::encode(kf_crypto::sha256(der))).collect());
    }
    let mut fingerprints = Vec::new();
    for (number, line) in (1_u64..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = || not_a_fingerprint(&format!("{}, line {number}", path.display()));
        fingerprints.push(fingerprint(line).ok_or_else(place)?);
    }
    Ok(fingerprints)
}

/// 64 hexadecimal digits in lower case, from what tools print.
fn fingerprint(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
    (digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(digits)
}

fn not_a_fingerprint(place: &str) -> Failure {
    Failure::usage(
        format!("{place} is not a SHA-256"),
        "write 64 hexadecimal digits: openssl pkey -pubin -in KEY -outform DER | sha256sum",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_tools_print_them() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(fingerprint(&colons).as_deref(), Some(plain.as_str()));
        assert_eq!(fingerprint("abc"), None);
        assert_eq!(fingerprint(&"zz".repeat(32)), None);
    }
}

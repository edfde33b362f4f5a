//! `keyfleet encrypt` and `keyfleet decrypt`: small files under an encryption key of the server.

use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::Args;
use kf_api::ciphertext::Ciphertext;
use kf_api::encryption_key::{
    CipherItem, CipherRefusal, CipherRequest, DecryptAnswer, DecryptOutcome, EncryptAnswer, EncryptRequest, PlainItem,
};

use crate::api::{Context, segment};
use crate::failure::Failure;
use crate::file;
use crate::output::{Format, Names, object, raw, say};

/// What to encrypt.
#[derive(Debug, Args)]
pub(crate) struct Encrypt {
    /// Name or id of the encryption key
    key: String,
    /// At most 65,536 octets; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What to bind it to, for example the name of the record it belongs to; needed again to decrypt it
    #[arg(long, value_name = "TEXT", default_value = "")]
    external_aad: String,
    /// Where to write the ciphertext [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What to decrypt.
#[derive(Debug, Args)]
pub(crate) struct Decrypt {
    /// The ciphertext; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What it is bound to
    #[arg(long, value_name = "TEXT", default_value = "")]
    external_aad: String,
    /// Where to write the plaintext, which nobody else may then read [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Another answer than one for the one item.
fn unusable() -> Failure {
    Failure::local("the server's answer is not for this request", "update keyfleet or the server")
}

pub(crate) async fn encrypt(context: &Context, encrypt: Encrypt) -> Result<(), Failure> {
    let Encrypt { key, file, external_aad, out } = encrypt;
    file::must_be_free(out.as_deref())?;
    let plaintext = BASE64_STANDARD.encode(file::read_or_stdin(&file)?);
    let item = PlainItem { plaintext, external_aad: BASE64_STANDARD.encode(external_aad) };
    let path = format!("/v1/encryption-keys/{}/encrypt", segment(&key));
    let answer: EncryptAnswer = context.api()?.post(&path, &EncryptRequest { items: vec![item] }).await?;
    let ciphertext = answer.ciphertexts.first().ok_or_else(unusable)?;
    match (out, context.format) {
        (Some(out), _) => file::write_new(&out, format!("{ciphertext}\n").as_bytes()),
        (None, Format::Table) => raw(format!("{ciphertext}\n").as_bytes()),
        (None, format) => object(format, &answer, &Names::new()),
    }
}

pub(crate) async fn decrypt(context: &Context, decrypt: Decrypt) -> Result<(), Failure> {
    let Decrypt { file, external_aad, out } = decrypt;
    file::must_be_free(out.as_deref())?;
    let text = String::from_utf8_lossy(&file::read_or_stdin(&file)?).trim().to_owned();
    let parsed: Ciphertext = text
        .parse()
        .map_err(|error: kf_api::ciphertext::NotACiphertext| Failure::usage(error.to_string(), "check the file"))?;
    let item = CipherItem { ciphertext: text, external_aad: BASE64_STANDARD.encode(external_aad) };
    let path = format!("/v1/encryption-keys/{}/decrypt", parsed.key);
    let answer: DecryptAnswer = context.api()?.post(&path, &CipherRequest { items: vec![item] }).await?;
    match answer.items.into_iter().next().ok_or_else(unusable)? {
        DecryptOutcome::Refused { refusal, problem } => Err(refused(refusal, problem)),
        DecryptOutcome::Decrypted { plaintext, version } => {
            if out.is_none() && context.format != Format::Table {
                return object(context.format, &DecryptOutcome::Decrypted { plaintext, version }, &Names::new());
            }
            let plaintext = BASE64_STANDARD.decode(plaintext).map_err(|_not_base64| unusable())?;
            say(&format!("{} octets, encrypted under version {version} of {}", plaintext.len(), parsed.key));
            match out {
                Some(out) => file::write_private(&out, &plaintext),
                None => raw(&plaintext),
            }
        }
    }
}

/// What to do about a ciphertext that is refused.
pub(crate) fn refused(refusal: CipherRefusal, problem: String) -> Failure {
    let remedy = match refusal {
        CipherRefusal::Malformed => return Failure::usage(problem, "check the file"),
        CipherRefusal::OtherKey => "name the key that it is of",
        CipherRefusal::UnknownVersion => "check that the registry is the newest one: was a backup restored?",
        CipherRefusal::VersionBarred => "nothing decrypts it any more; see keyfleet encryption-key show",
        CipherRefusal::NotAuthentic => "check --external-aad and the file; if both are right, somebody changed it",
    };
    Failure::InTheWay { problem, remedy: remedy.to_owned() }
}

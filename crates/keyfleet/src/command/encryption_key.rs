//! `keyfleet encryption-key`: keys with which the server encrypts for programs.

use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::Subcommand;
use kf_api::encryption_key::{
    DataKeyAnswer, DataKeyRequest, EncryptionKey, EncryptionKeyFilter, KeyVersion, NewEncryptionKey, RaiseMinimum,
    RotateKey,
};
use serde_json::json;

use crate::api::{Context, Paging, list, names_for, segment};
use crate::failure::Failure;
use crate::file;
use crate::output::{Format, Listing, Names, object, raw};
use kf_client::Method;

const COLUMNS: [&str; 6] = ["name", "facility", "newest_version", "minimum_version", "created", "id"];
const VERSION_COLUMNS: [&str; 7] = ["version", "state", "objects", "encryptions", "limit", "created", "deactivated"];

/// What can be done with encryption keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a key for the programs of a facility
    Create {
        /// Unique name: a-z, 0-9, `-`, `.`, `_`
        name: String,
        /// Name or id of the facility
        #[arg(long)]
        facility: String,
    },
    /// List keys
    List {
        /// Only those of this facility (name or id)
        #[arg(long)]
        facility: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a key with its versions
    Show {
        /// Name or id
        key: String,
    },
    /// Make a new version, which encrypts from now on; the one before decrypts on
    Rotate {
        /// Name or id
        key: String,
        /// Only if this is still the newest version: of two who rotate at the same time one is refused
        #[arg(long, value_name = "VERSION")]
        newest: Option<u32>,
        /// Why, for the log; at most 500 characters
        #[arg(long, default_value = "")]
        why: String,
    },
    /// End the decryption of older versions, for good
    Minimum {
        /// Name or id
        key: String,
        /// The oldest version that is still decrypted
        #[arg(value_name = "VERSION")]
        number: u32,
        /// Why, for the log; at most 500 characters
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Have a key of 256 bits made for your own use; the server keeps none
    DataKey {
        /// Name or id of the key under which it is encrypted
        key: String,
        /// What to bind it to; needed again to decrypt it
        #[arg(long, value_name = "TEXT", default_value = "")]
        external_aad: String,
        /// Where to write the 32 octets, which nobody else may then read; the ciphertext goes to standard output
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

fn path_of(key: &str) -> String {
    format!("/v1/encryption-keys/{}", segment(key))
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    let mut api = context.api()?;
    match verb {
        Verb::Create { name, facility } => {
            let made: EncryptionKey = api.post("/v1/encryption-keys", &NewEncryptionKey { name, facility }).await?;
            show(context, &made, &Names::new())
        }
        Verb::List { facility, paging } => {
            let filter = EncryptionKeyFilter { facility, ..EncryptionKeyFilter::default() };
            list::<EncryptionKey>(context, &mut api, "/v1/encryption-keys", filter, &paging, &COLUMNS).await
        }
        Verb::Show { key } => {
            let found: EncryptionKey = api.get(&path_of(&key)).await?;
            let names = names_for(context.format, &mut api, &["facility"]).await;
            show(context, &found, &names)
        }
        Verb::Rotate { key, newest, why } => {
            let request = RotateKey { newest_version: newest, why };
            let rotated: EncryptionKey = api.post(&format!("{}/rotate", path_of(&key)), &request).await?;
            show(context, &rotated, &Names::new())
        }
        Verb::Minimum { key, number: version, why } => {
            let path = format!("{}/minimum-version", path_of(&key));
            let raised: EncryptionKey = api.send(Method::PUT, &path, &RaiseMinimum { version, why }).await?;
            show(context, &raised, &Names::new())
        }
        Verb::DataKey { key, external_aad, out } => {
            file::must_be_free(Some(&out))?;
            let request = DataKeyRequest { count: 1, external_aad: BASE64_STANDARD.encode(external_aad) };
            let answer: DataKeyAnswer = api.post(&format!("{}/data-keys", path_of(&key)), &request).await?;
            let unusable = || Failure::local("the server's answer holds no key", "update keyfleet or the server");
            let made = answer.keys.first().ok_or_else(unusable)?;
            // Exposed to the file of whoever asked for it.
            let octets = BASE64_STANDARD.decode(made.key.expose()).map_err(|_not_base64| unusable())?;
            file::write_private(&out, &octets)?;
            match context.format {
                Format::Table => raw(format!("{}\n", made.ciphertext).as_bytes()),
                format => {
                    let said = json!({"version": answer.version, "ciphertext": made.ciphertext});
                    object(format, &said, &Names::new())
                }
            }
        }
    }
}

fn show(context: &Context, key: &EncryptionKey, names: &Names) -> Result<(), Failure> {
    if context.format != Format::Table {
        return object(context.format, key, names);
    }
    let versions: Vec<KeyVersion> = key.versions.clone();
    object(context.format, &EncryptionKey { versions: Vec::new(), ..key.clone() }, names)?;
    raw(b"\n")?;
    Listing::new(context.format, &VERSION_COLUMNS).rows(&versions, names)
}

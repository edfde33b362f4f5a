//! `keyfleet object`: what programs store with the server, encrypted under an encryption key.

use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::Subcommand;
use kf_api::PageRequest;
use kf_api::object::{ObjectContent, PutObject, StoredObject};
use kf_client::Method;

use crate::api::{Context, Paging, list, segment};
use crate::ask;
use crate::failure::Failure;
use crate::file;
use crate::output::{Format, Names, object, raw, say};

const COLUMNS: [&str; 6] = ["name", "key_version", "generation", "octets", "created", "written"];

/// What can be done with stored objects.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Store a file, new or in place of the object of its name
    Put {
        /// Name or id of the encryption key
        key: String,
        /// Name of the object: 1 to 128 of a-z, A-Z, 0-9 and - . _ : @ + =
        name: String,
        /// At most 65,536 octets; `-` is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Only if this is its generation, 0 for a new one: of two who change it at the same time one is refused
        #[arg(long, value_name = "N")]
        generation: Option<u64>,
    },
    /// Fetch what is in an object
    Get {
        /// Name or id of the encryption key
        key: String,
        /// Name of the object
        name: String,
        /// Where to write it, which nobody else may then read [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List the objects under a key
    List {
        /// Name or id of the encryption key
        key: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show an object without what is in it: its version, size and times
    Show {
        /// Name or id of the encryption key
        key: String,
        /// Name of the object
        name: String,
    },
    /// Delete an object
    Delete {
        /// Name or id of the encryption key
        key: String,
        /// Name of the object
        name: String,
        /// Do not ask: what is deleted does not come back
        #[arg(long)]
        yes: bool,
    },
}

fn path_of(key: &str, name: &str) -> String {
    format!("/v1/encryption-keys/{}/objects/{}", segment(key), segment(name))
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    let mut api = context.api()?;
    match verb {
        Verb::Put { key, name, file, generation } => {
            let plaintext = BASE64_STANDARD.encode(file::read_or_stdin(&file)?);
            let request = PutObject { plaintext, generation };
            let stored: StoredObject = api.send(Method::PUT, &path_of(&key, &name), &request).await?;
            object(context.format, &stored, &Names::new())
        }
        Verb::Get { key, name, out } => {
            file::must_be_free(out.as_deref())?;
            let found: ObjectContent = api.get(&format!("{}/content", path_of(&key, &name))).await?;
            if out.is_none() && context.format != Format::Table {
                return object(context.format, &found, &Names::new());
            }
            let content = BASE64_STANDARD.decode(&found.plaintext).map_err(|_not_base64| {
                Failure::local("the server's answer holds no object", "update keyfleet or the server")
            })?;
            say(&format!("{} octets, generation {}", content.len(), found.object.generation));
            match out {
                Some(out) => file::write_private(&out, &content),
                None => raw(&content),
            }
        }
        Verb::List { key, paging } => {
            let path = format!("/v1/encryption-keys/{}/objects", segment(&key));
            list::<StoredObject>(context, &mut api, &path, PageRequest::default(), &paging, &COLUMNS).await
        }
        Verb::Show { key, name } => {
            let found: StoredObject = api.get(&path_of(&key, &name)).await?;
            object(context.format, &found, &Names::new())
        }
        Verb::Delete { key, name, yes } => {
            ask::consent(yes, &format!("this deletes {name}, and nothing brings it back"))?;
            api.delete(&path_of(&key, &name)).await?;
            say(&format!("{name} is deleted"));
            Ok(())
        }
    }
}

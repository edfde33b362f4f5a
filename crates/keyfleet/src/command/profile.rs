//! `keyfleet profile`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::api::Context;
use crate::failure::Failure;
use crate::file;
use crate::output::{Names, object, say};
use crate::profile::Profile;

/// What can be done with the profile.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write a profile, after the server answered to it
    Create(Create),
    /// Show the profile in use
    Show,
}

/// A profile to be written.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// https://HOST:PORT of the server
    #[arg(long, value_name = "URL")]
    server: String,
    /// The fleet's root certificate, PEM
    #[arg(long, value_name = "FILE", required_unless_present = "root_fingerprint")]
    root: Option<PathBuf>,
    /// SHA-256 of the root certificate, hexadecimal, instead of the file
    #[arg(long, value_name = "SHA256", conflicts_with = "root")]
    root_fingerprint: Option<String>,
    /// File with an API token, mode 0600
    #[arg(long, value_name = "FILE", required_unless_present = "certificate")]
    token_file: Option<PathBuf>,
    /// Operator certificate with its chain, PEM, instead of a token
    #[arg(long, value_name = "FILE", conflicts_with = "token_file", requires = "key")]
    certificate: Option<PathBuf>,
    /// Its private key, PKCS#8 PEM, mode 0600
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Where to write the profile [default: ~/.config/keyfleet/cli.toml]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Write it although the server does not answer
    #[arg(long)]
    unchecked: bool,
}

pub(crate) async fn run(context: &Context, verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(create) => make(context, create).await,
        Verb::Show => {
            let source = context.profile_source()?;
            let profile = source.load()?;
            say(&format!("profile {}", source.path().display()));
            object(context.format, &profile, &Names::new())
        }
    }
}

async fn make(context: &Context, create: &Create) -> Result<(), Failure> {
    let file = match &create.file {
        Some(file) => file.clone(),
        None => context.profile_source()?.path().to_owned(),
    };
    file::must_be_free(Some(&file))?;
    let absolute = |path: &Option<PathBuf>| path.as_deref().map(absolute_path).transpose();
    let profile = Profile {
        server: create.server.clone(),
        root: absolute(&create.root)?,
        root_fingerprint: create.root_fingerprint.clone(),
        token_file: absolute(&create.token_file)?,
        certificate: absolute(&create.certificate)?,
        key: absolute(&create.key)?,
    };
    let client = profile.client(std::time::Duration::from_secs(20))?;
    if !create.unchecked {
        let url = format!("{}/v1/whoami", profile.server.trim_end_matches('/'));
        let who: kf_api::operator::WhoAmI = client.get_json(&url).await?;
        say(&format!("{} takes you for {} ({})", profile.server, who.name, who.role.name()));
    }
    if let Some(directory) = file.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        file::private_directory(directory)?;
    }
    write(&file, &profile)?;
    say(&format!("profile written to {}", file.display()));
    object(context.format, &profile, &Names::new())
}

/// Writes a profile to a new file.
///
/// # Errors
/// [`Failure::File`], also when it exists.
pub(crate) fn write(path: &Path, profile: &Profile) -> Result<(), Failure> {
    let text = toml::to_string(profile).map_err(|error| Failure::Output(std::io::Error::other(error)))?;
    file::write_private(path, text.as_bytes())
}

fn absolute_path(path: &Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(path).map_err(|error| Failure::file("read", path, error))
}

//! Shares come together.

use std::path::{Path, PathBuf};

use clap::Args;
use kf_age::Identity;
use kf_api::escrow::{ShareUse, ShareUseRequest};
use kf_client::Method;
use kf_escrow::{Share, combine};
use kf_key::{ProposalId, SecretBytes, with_wiped_stack};
use zeroize::Zeroizing;

use super::record::Directory;
use crate::api::Context;
use crate::failure::Failure;
use crate::file;

/// What opens a sealed share, at the start of the file.
const SEALED: &[u8] = b"age-encryption.org/";
/// The most octets of a share in text form, with what stands around it on paper.
const MAX_TEXT_OCTETS: usize = 16 * 1024;

/// What reading shares uses of the stack, with room to spare.
const STACK_OCTETS: usize = 128 * 1024;

/// Shares, as files.
#[derive(Debug, Args)]
pub(crate) struct Shares {
    /// A share: the sealed file, or a text file (mode 0600) with its words or its hexadecimal digits
    #[arg(long = "share", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Identity files of the custodians whose sealed shares are given, mode 0600
    #[arg(long = "identity", value_name = "FILE")]
    identities: Vec<PathBuf>,
}

impl Shares {
    /// Opens and reads them; each is named when it is none.
    pub(super) fn read(&self) -> Result<Vec<Share>, Failure> {
        // What opens and reads them leaves identities and shares in frames that are gone.
        with_wiped_stack::<STACK_OCTETS, _>(|| self.opened())
    }

    fn opened(&self) -> Result<Vec<Share>, Failure> {
        let mut identities = Vec::new();
        for path in &self.identities {
            // Exposed to be parsed.
            let identity = Identity::from_file(file::read_secret(path)?.expose()).map_err(|error| {
                Failure::usage(format!("{}: {error}", path.display()), "give an identity file of age")
            })?;
            identities.push(identity);
        }
        let identities: Vec<&Identity> = identities.iter().collect();
        self.files.iter().map(|path| read(path, &identities)).collect()
    }
}

fn read(path: &Path, identities: &[&Identity]) -> Result<Share, Failure> {
    let wrong = |problem: String| {
        Failure::usage(
            format!("{}: {problem}", path.display()),
            "give the share as it was handed out, and its identity",
        )
    };
    let text = if file::begins_with(path, SEALED)? {
        kf_age::open_secret(identities, &file::read(path)?, MAX_TEXT_OCTETS)
            .map_err(|error| wrong(error.to_string()))?
    } else {
        file::read_secret(path)?
    };
    // Exposed to be read as words or digits.
    let text = core::str::from_utf8(text.expose()).map_err(|_detail| wrong("this is no text".to_owned()))?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
    if !line.contains(' ')
        && let Ok(octets) = hex::decode(line)
    {
        return Share::decode(&Zeroizing::new(octets)).map_err(|error| wrong(error.to_string()));
    }
    Share::from_words(line).map_err(|error| wrong(error.to_string()))
}

/// Brings a key back. Each use is in the transcript and, with a server, in its log before the share is used.
pub(super) async fn gather(
    online: Option<&Context>,
    directory: &mut Directory,
    shares: &Shares,
    purpose: ShareUse,
    proposal: Option<ProposalId>,
) -> Result<SecretBytes, Failure> {
    let shares = shares.read()?;
    for share in &shares {
        let person = directory.custodian(share)?.to_owned();
        let number = share.index().to_string();
        directory.transcript.add("use", &[("share", &number), ("custodian", &person), ("purpose", purpose.name())])?;
        if let Some(context) = online {
            let request = ShareUseRequest { index: share.index(), purpose, proposal };
            let path = format!("/v1/escrows/{}/uses", directory.escrow.ceremony);
            context.api()?.send_nothing_back(Method::POST, &path, &request).await?;
        }
    }
    let key = combine(&shares).map_err(|error| {
        Failure::usage(format!("the shares bring nothing back: {error}"), "look at each with `keyfleet escrow verify`")
    });
    if let Err(error) = &key {
        directory.transcript.add("refused", &[("why", &error.to_string())])?;
    }
    key
}

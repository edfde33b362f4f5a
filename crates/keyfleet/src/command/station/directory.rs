//! The directory of a station.
//!
//! ```text
//! name                        the station's name
//! token/                      its keys, sealed under a passphrase, or
//! pkcs11.json                 which token holds them, or
//! tpm.json                    which TPM, and token/ what it alone loads
//! lock                        held by whoever changes what is below, or draws keys
//! batches/BATCH/generation    the generation of the station's keys that it was requested with
//! batches/BATCH/quota         the quota as the server signed it
//! batches/BATCH/server-key    the key under which it was verified
//! batches/BATCH/journal       what was done
//! batches/BATCH/labels/       labels: spool, ready
//! batches/BATCH/ended         that its keys shall be destroyed, and why
//! batches/BATCH/keys-destroyed   that they were, signed by the station's identity key
//! ```
//! Each file is there whole or not at all, and follows what it depends on, so that a start after a power cut finishes what was begun.

mod batch;

pub(super) use batch::{BatchDirectory, BatchState, End};

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kf_batch::P256Key;
use kf_batch::quota::{Quota, QuotaRefusal, StationKnows};
use kf_key::{SecretBytes, UnixMillis};
use kf_station::clock::{Clock as _, SystemClock};
use kf_station::generation;
use kf_station::quota_key::quota_in;
use kf_station::token::{Generation, Pkcs11Token, SoftwareToken, StationKey, StationToken, TokenError};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::file;

/// Under this number the token counts the quotas that it took.
const QUOTA_COUNTER: [u8; 16] = *b"keyfleet quotas\0";

/// Which PKCS#11 token holds the keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pkcs11 {
    module: PathBuf,
    token: String,
}

/// Which TPM holds the keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InTpm {
    address: String,
}

/// A station's directory.
pub(super) struct StationDirectory {
    path: PathBuf,
    name: String,
}

/// The passphrase in a file.
pub(super) fn passphrase(path: &Path) -> Result<SecretBytes, Failure> {
    let secret = file::read_secret(path)?;
    // Exposed to drop the line end that editors leave.
    let text = secret.expose().trim_ascii_end();
    Ok(SecretBytes::fill(text.len(), |out| out.copy_from_slice(text)))
}

/// What the token did not do, and what to do about it.
pub(super) fn of_token(error: TokenError) -> Failure {
    let remedy = match error {
        TokenError::MISSING => {
            "give the station the token that its request was made with; if those keys are lost, `keyfleet station request --fresh` draws others"
        }
        TokenError::FULL => {
            "close batches that are over (`keyfleet station run … --final`, `station cancel`), or remove what others left in the token"
        }
        TokenError::OTHER => {
            "give the station the token that its batches were requested with; if that is lost, cancel them at the server"
        }
        TokenError::NOT_DESTROYED => {
            "look at the token, then start again: nothing is taken for destroyed that is still there"
        }
        _ => "look at the station's token",
    };
    local(&error, remedy)
}

fn local(error: &dyn std::error::Error, remedy: &str) -> Failure {
    Failure::local(crate::failure::chain_of(error), remedy)
}

#[cfg(feature = "tpm")]
fn open_tpm(directory: &Path, address: &str, passphrase: SecretBytes) -> Result<Arc<dyn StationToken>, Failure> {
    match kf_station::token::TpmToken::open(directory, address, passphrase) {
        Ok(token) => Ok(Arc::new(token)),
        Err(error) => Err(local(&error, "look at the TPM, its address, and the passphrase of this very station")),
    }
}

#[cfg(not(feature = "tpm"))]
fn open_tpm(_directory: &Path, _address: &str, _passphrase: SecretBytes) -> Result<Arc<dyn StationToken>, Failure> {
    Err(Failure::usage("this program was built without TPMs", "build it with `--features tpm`"))
}

impl StationDirectory {
    /// Opens a station, or makes the directory of one.
    pub(super) fn create_or_open(path: &Path, name: &str) -> Result<Self, Failure> {
        file::private_directory(path)?;
        let name_file = path.join("name");
        if !name_file.exists() {
            file::write_new(&name_file, name.as_bytes())?;
        }
        let station = Self::open(path)?;
        if station.name == name {
            return Ok(station);
        }
        Err(Failure::usage(
            format!("{} is station `{}`", path.display(), station.name),
            "give that name, or another directory",
        ))
    }

    /// Opens a station.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let name = file::read_text(&path.join("name"))?.trim().to_owned();
        Ok(Self { path: path.to_owned(), name })
    }

    /// The station's token: the PKCS#11 token that was named when the station was set up, `secret` being its PIN, or the one in
    /// files, `secret` being its passphrase.
    pub(super) fn create_or_open_token(&self, secret: SecretBytes) -> Result<Arc<dyn StationToken>, Failure> {
        let named = self.path.join("pkcs11.json");
        if named.exists() {
            let wrong = |error: serde_json::Error| local(&error, "set the station up again");
            let Pkcs11 { module, token } = serde_json::from_slice(&file::read(&named)?).map_err(wrong)?;
            let token = Pkcs11Token::open(module, token, secret, SystemClock.now())
                .map_err(|error| local(&error, "look at the token and at the PIN in the file"))?;
            return Ok(Arc::new(token));
        }
        let directory = self.path.join("token");
        let named = self.path.join("tpm.json");
        if named.exists() {
            let wrong = |error: serde_json::Error| local(&error, "set the station up again");
            let InTpm { address } = serde_json::from_slice(&file::read(&named)?).map_err(wrong)?;
            return open_tpm(&directory, &address, secret);
        }
        let passphrase = &secret;
        let token = if directory.join("token.json").exists() {
            SoftwareToken::open(&directory, passphrase)
        } else {
            SoftwareToken::create(&directory, passphrase)
        };
        match token {
            Ok(token) => Ok(Arc::new(token)),
            Err(error) => Err(local(&error, "give the passphrase of this very station")),
        }
    }

    /// Keeps this station's keys in a PKCS#11 token; once, before it has any.
    pub(super) fn use_pkcs11(&self, module: &Path, token: &str) -> Result<(), Failure> {
        let wanted = Pkcs11 { module: module.to_owned(), token: token.to_owned() };
        self.use_hardware("pkcs11.json", &serde_json::to_vec(&wanted).unwrap_or_default())
    }

    /// Keeps this station's keys in a TPM; once, before it has any.
    pub(super) fn use_tpm(&self, address: &str) -> Result<(), Failure> {
        let wanted = InTpm { address: address.to_owned() };
        self.use_hardware("tpm.json", &serde_json::to_vec(&wanted).unwrap_or_default())
    }

    fn use_hardware(&self, name: &str, octets: &[u8]) -> Result<(), Failure> {
        let named = self.path.join(name);
        if !named.exists() {
            if ["token", "pkcs11.json", "tpm.json"].iter().any(|other| self.path.join(other).exists()) {
                return Err(Failure::usage("this station has its keys elsewhere already", "give it another directory"));
            }
            return file::write_new(&named, octets);
        }
        if file::read(&named)? == octets {
            Ok(())
        } else {
            Err(Failure::usage("this station has another token already", "give it another directory"))
        }
    }

    /// Holds the directory for what is done once at a time. Let go when dropped.
    pub(super) fn lock(&self) -> Result<File, Failure> {
        let path = self.path.join("lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        open.and_then(|file| file.lock().map(|()| file)).map_err(|error| Failure::file("lock", &path, error))
    }

    /// Finishes what a power cut interrupted: what was taken is counted in the token, and of what has ended the keys are destroyed.
    pub(super) fn settle(&self, token: &dyn StationToken) -> Result<(), Failure> {
        for batch in self.batches()?.0 {
            generation::take(token, batch.generation).map_err(of_token)?;
            token.advance(&QUOTA_COUNTER, batch.quota.terms.sequence).map_err(of_token)?;
            if batch.state()? == BatchState::Ending {
                batch.destroy_keys(token)?;
            }
        }
        Ok(())
    }

    /// Ends batches that were closed for good when power went, before their keys were destroyed. One that somebody is at work on is
    /// left to them, and one whose journal cannot be read is nobody's to end.
    pub(super) fn end_closed(&self, token: &dyn StationToken) -> Result<(), Failure> {
        for batch in self.batches()?.0 {
            if batch.state()? != BatchState::Open {
                continue;
            }
            let Ok(_journal) = batch.journal() else { continue };
            if batch.book().is_ok_and(|book| book.is_final()) {
                batch.end(token, End::Closed)?;
            }
        }
        Ok(())
    }

    /// Takes a quota in: verified, newer than any before, and then this station's. It takes the keys of the last request.
    pub(super) fn take(
        &self,
        token: &dyn StationToken,
        file: &[u8],
        pinned: &P256Key,
        now: UnixMillis,
    ) -> Result<BatchDirectory, Failure> {
        let refused = |error| local(&error, "fetch the quota again, and check the server's key");
        let (signed, server_key) = &quota_in(file, pinned).map_err(refused)?;
        let known = Quota::open(signed, server_key).map_err(refused)?;
        let directory = self.path.join("batches").join(known.terms.batch.to_string());
        if directory.join("quota").exists() {
            return BatchDirectory::open(directory);
        }
        let generation = self.check_quota(token, signed, server_key, now)?;
        file::private_directory(&directory)?;
        for (name, content) in [
            ("server-key", server_key.spki().as_slice()),
            ("generation", generation.to_string().as_bytes()),
            // Last: then it is taken, and the counters follow, at the next start if power goes before.
            ("quota", *signed),
        ] {
            let path = directory.join(name);
            if path.exists() {
                // Of an earlier start, when power went before the quota was there.
                fs::remove_file(&path).map_err(|error| Failure::file("replace", &path, error))?;
            }
            file::write_whole(&path, content)?;
        }
        file::sync_directory(&self.path.join("batches"))?;
        generation::take(token, generation).map_err(of_token)?;
        token.advance(&QUOTA_COUNTER, known.terms.sequence).map_err(of_token)?;
        BatchDirectory::open(directory)
    }

    /// Whether a quota is for the last request of this station; the generation of its keys.
    fn check_quota(
        &self,
        token: &dyn StationToken,
        signed: &[u8],
        server_key: &P256Key,
        now: UnixMillis,
    ) -> Result<Generation, Failure> {
        let refused = |refusal: QuotaRefusal| {
            let remedy = match refusal {
                QuotaRefusal::OtherKeys => {
                    "give the quota of the batch that was made with the last request of this station; \
                     `keyfleet station status` lists those that it has"
                }
                _ => "ask for a fresh batch for this station: `keyfleet station request`",
            };
            local(&refusal, remedy)
        };
        let last_sequence = token.counter(&QUOTA_COUNTER).map_err(of_token)?;
        let Some(generation) = generation::waiting(token).map_err(of_token)? else {
            let sequence = Quota::open(signed, server_key).map_err(|error| refused(error.into()))?.terms.sequence;
            let is_old = sequence <= last_sequence;
            let refusal =
                if is_old { QuotaRefusal::RolledBack { last: last_sequence } } else { QuotaRefusal::OtherKeys };
            return Err(refused(refusal));
        };
        let knows = StationKnows {
            server_key,
            station: &self.name,
            transport_key: &token.transport_key(generation).map_err(of_token)?,
            record_key: &token.public_key(StationKey::Record(generation)).map_err(of_token)?,
            last_sequence,
        };
        Quota::verify(signed, &knows, now).map_err(refused)?;
        Ok(generation)
    }

    /// Every batch that was taken, the oldest first, and what is wrong with one that cannot be read: it is in nobody else's way.
    pub(super) fn batches(&self) -> Result<(Vec<BatchDirectory>, Option<Failure>), Failure> {
        let directory = self.path.join("batches");
        if !directory.exists() {
            return Ok((Vec::new(), None));
        }
        let refused = |error| Failure::file("read", &directory, error);
        let mut paths = Vec::new();
        for entry in fs::read_dir(&directory).map_err(refused)? {
            let path = entry.map_err(refused)?.path();
            if path.join("quota").exists() {
                paths.push(path);
            }
        }
        paths.sort();
        let (mut batches, mut damaged) = (Vec::new(), None);
        for path in paths {
            match BatchDirectory::open(path) {
                Ok(batch) => batches.push(batch),
                Err(failure) => damaged = Some(failure),
            }
        }
        Ok((batches, damaged))
    }

    /// One batch, by name or id.
    pub(super) fn batch(&self, name: &str) -> Result<BatchDirectory, Failure> {
        let (batches, damaged) = self.batches()?;
        let is_meant = |batch: &BatchDirectory| batch.terms().name == name || batch.terms().batch.to_string() == name;
        match (batches.into_iter().find(is_meant), damaged) {
            (Some(batch), _) => Ok(batch),
            (None, Some(damaged)) => Err(damaged),
            (None, None) => {
                Err(Failure::usage(format!("no batch `{name}` was begun here"), "see `keyfleet station status`"))
            }
        }
    }
}

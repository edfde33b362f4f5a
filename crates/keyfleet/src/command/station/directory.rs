//! The directory of a station.
//!
//! ```text
//! name                        the station's name
//! token/                      its keys, sealed under a passphrase, or
//! pkcs11.json                 which token holds them, or
//! tpm.json                    which TPM, and token/ what it alone loads
//! batches/BATCH/quota         the quota as the server signed it
//! batches/BATCH/server-key    the key under which it was verified
//! batches/BATCH/journal       what was done
//! batches/BATCH/labels/       labels: spool, ready
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kf_batch::P256Key;
use kf_batch::quota::{Quota, QuotaTerms, StationKnows};
use kf_key::{SecretBytes, UnixMillis};
use kf_station::clock::{Clock as _, SystemClock};
use kf_station::journal::{DirectoryFile, JournalError};
use kf_station::label::LabelDirectory;
use kf_station::ledger::LedgerError;
use kf_station::line::Book;
use kf_station::quota_key::quota_in;
use kf_station::token::{Pkcs11Token, SoftwareToken, StationKey, StationToken};
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

    /// Takes a quota in: verified, newer than any before, and then this station's.
    pub(super) fn take(
        &self,
        token: &dyn StationToken,
        file: &[u8],
        pinned: &P256Key,
        now: UnixMillis,
    ) -> Result<BatchDirectory, Failure> {
        let failed = |error: kf_station::token::TokenError| local(&error, "look at the station's token");
        let (signed, server_key) = &quota_in(file, pinned)
            .map_err(|error| local(&error, "fetch the quota again, and check the server's key"))?;
        let known = Quota::open(signed, server_key)
            .map_err(|error| local(&error, "fetch the quota again, and check the server's key"))?;
        let directory = self.path.join("batches").join(known.terms.batch.to_string());
        if directory.join("quota").exists() {
            token.advance(&QUOTA_COUNTER, known.terms.sequence).map_err(failed)?;
            return BatchDirectory::open(directory);
        }
        let knows = StationKnows {
            server_key,
            station: &self.name,
            transport_key: &token.transport_key().map_err(failed)?,
            record_key: &token.public_key(StationKey::Record).map_err(failed)?,
            last_sequence: token.counter(&QUOTA_COUNTER).map_err(failed)?,
        };
        let quota = Quota::verify(signed, &knows, now)
            .map_err(|error| local(&error, "ask for a fresh batch for this station"))?;
        file::private_directory(&directory)?;
        let server_key_file = directory.join("server-key");
        if !server_key_file.exists() {
            file::write_new(&server_key_file, &server_key.spki())?;
        }
        // Then it is taken; after a power cut before the next line it is counted at the next start.
        file::write_new(&directory.join("quota"), signed)?;
        token.advance(&QUOTA_COUNTER, quota.terms.sequence).map_err(failed)?;
        BatchDirectory::open(directory)
    }

    /// Every batch that was taken.
    pub(super) fn batches(&self) -> Result<Vec<BatchDirectory>, Failure> {
        let directory = self.path.join("batches");
        if !directory.exists() {
            return Ok(Vec::new());
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
        paths.into_iter().map(BatchDirectory::open).collect()
    }

    /// One batch, by name or id.
    pub(super) fn batch(&self, name: &str) -> Result<BatchDirectory, Failure> {
        let found = self
            .batches()?
            .into_iter()
            .find(|batch| batch.quota.terms.name == name || batch.quota.terms.batch.to_string() == name);
        found
            .ok_or_else(|| Failure::usage(format!("no batch `{name}` was begun here"), "see `keyfleet station status`"))
    }
}

/// One batch of a station.
pub(super) struct BatchDirectory {
    path: PathBuf,
    pub(super) signed: Vec<u8>,
    pub(super) quota: Quota,
}

impl BatchDirectory {
    fn open(path: PathBuf) -> Result<Self, Failure> {
        let damaged = |error: &dyn std::error::Error| {
            local(error, "move the directory of this batch away and fetch its quota again")
        };
        let server_key = P256Key::from_spki(&file::read(&path.join("server-key"))?).map_err(|error| damaged(&error))?;
        let signed = file::read(&path.join("quota"))?;
        let quota = Quota::open(&signed, &server_key).map_err(|error| damaged(&error))?;
        Ok(Self { path, signed, quota })
    }

    pub(super) fn journal(&self) -> Result<DirectoryFile, Failure> {
        let path = self.path.join("journal");
        DirectoryFile::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => Failure::InTheWay {
                problem: "another station is at work on this batch".to_owned(),
                remedy: "end it first".to_owned(),
            },
            _ => Failure::file("open", &path, error),
        })
    }

    pub(super) fn journal_to_read(&self) -> Result<DirectoryFile, Failure> {
        let path = self.path.join("journal");
        DirectoryFile::open_to_read(&path).map_err(|error| Failure::file("read", &path, error))
    }

    pub(super) fn labels(&self) -> Result<LabelDirectory, Failure> {
        let path = self.path.join("labels");
        LabelDirectory::open(&path).map_err(|error| Failure::file("open", &path, error))
    }

    /// The terms, and the book as the journal has it now.
    pub(super) fn read(&self) -> Result<(QuotaTerms, Book), Failure> {
        let mut book = Book::new();
        kf_station::journal::read(&mut self.journal_to_read()?, |noted| -> Result<(), LedgerError> {
            Ok(book.apply(&noted.entry)?)
        })
        .map_err(|error: LedgerError| match error {
            LedgerError::Journal(JournalError::Damage(damage)) => local(&damage, "restore the journal from a copy"),
            other => local(&other, "look at the journal's disk"),
        })?;
        Ok((self.quota.terms.clone(), book))
    }
}

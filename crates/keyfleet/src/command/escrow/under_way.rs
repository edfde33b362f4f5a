//! `ceremony.state`: what lets a ceremony that was cut short go on, and is gone when it is finished.
//!
//! It holds the coefficients of the polynomials, sealed under a key that only the key that is being split gives. So the shares that were made
//! before stay good, whoever holds the key can make the others, and whoever has the file and fewer shares than are needed has nothing that they
//! did not have: to open it they need what they want to find. It does not hold the key itself. Of a key that is nowhere else it has the names and
//! digests of the shares, which are all written.

use std::path::Path;

use kf_escrow::CeremonyId;
use kf_key::{SecretArray, SecretBytes};
use serde::{Deserialize, Serialize};

use super::handing::Draft;
use super::split::Plan;
use crate::failure::Failure;
use crate::file;

/// Its name.
pub(super) const STATE: &str = "ceremony.state";
/// Separates this use of the key from every other.
const LABEL: &[u8] = b"keyfleet escrow ceremony.state v1";

/// A ceremony that has begun and not ended.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnderWay {
    v: u8,
    /// The ceremony.
    pub(super) ceremony: String,
    /// SHA-256 of the file that was reviewed.
    pub(super) reviewed_sha256: String,
    /// The coefficients, sealed, hexadecimal; absent where the key is nowhere else.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    sealed: Option<String>,
    /// The shares of a key that is nowhere else.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) drafts: Vec<Draft>,
}

impl UnderWay {
    /// The ceremony that is under way in a directory.
    ///
    /// # Errors
    /// [`Failure::Local`] for a file that is none.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, Failure> {
        let path = directory.join(STATE);
        if !path.exists() {
            return Ok(None);
        }
        match serde_json::from_slice::<Self>(&file::read(&path)?) {
            Ok(found) if found.v == 1 && found.id().is_some() => Ok(Some(found)),
            _ => Err(Failure::local(
                format!("{} cannot be read", path.display()),
                "void the ceremony with --void, and hold it again",
            )),
        }
    }

    /// Begins a ceremony: fresh coefficients, durable before a share is made of them.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn begin(
        directory: &Path,
        plan: &Plan,
        id: CeremonyId,
        secret: &SecretBytes,
    ) -> Result<SecretBytes, Failure> {
        let mut outcome = Ok(());
        let coefficients = SecretBytes::fill(kf_escrow::random_octets(secret.len(), plan.quorum), |octets| {
            outcome = kf_crypto::fill_random(octets);
        });
        let failed = |error: kf_crypto::CryptoError| Failure::local(format!("no randomness: {error}"), "try again");
        outcome.map_err(failed)?;
        let context = context(id, &plan.reviewed_sha256);
        // Exposed to be sealed.
        let sealed = kf_crypto::seal(&key_of(secret), &context, coefficients.expose()).map_err(failed)?;
        let state = Self {
            v: 1,
            ceremony: id.to_string(),
            reviewed_sha256: plan.reviewed_sha256.clone(),
            sealed: Some(hex::encode(sealed)),
            drafts: Vec::new(),
        };
        state.keep(directory)?;
        Ok(coefficients)
    }

    /// From here on the ceremony of a key that is nowhere else goes on: all its shares are written.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn keep_drafts(
        directory: &Path,
        plan: &Plan,
        id: CeremonyId,
        drafts: Vec<Draft>,
    ) -> Result<(), Failure> {
        let reviewed_sha256 = plan.reviewed_sha256.clone();
        Self { v: 1, ceremony: id.to_string(), reviewed_sha256, sealed: None, drafts }.keep(directory)
    }

    fn keep(&self, directory: &Path) -> Result<(), Failure> {
        let text = serde_json::to_vec(self)
            .map_err(|error| Failure::local(format!("the state: {error}"), "please report this"))?;
        file::write_whole(&directory.join(STATE), &text)
    }

    /// The coefficients, for who has the key that is split.
    ///
    /// # Errors
    /// [`Failure::Usage`] when this is another key.
    pub(super) fn open(&self, secret: &SecretBytes) -> Result<SecretBytes, Failure> {
        let other = || {
            Failure::usage(
                format!("ceremony {} is under way here, and is of another key", self.ceremony),
                "give the key that was being split, or void the ceremony with --void",
            )
        };
        let id = self.id().ok_or_else(other)?;
        let sealed = self.sealed.as_deref().ok_or_else(other)?;
        let sealed = hex::decode(sealed).map_err(|_digits| other())?;
        kf_crypto::open(&key_of(secret), &context(id, &self.reviewed_sha256), &sealed).map_err(|_opaque| other())
    }

    /// Its identifier.
    pub(super) fn id(&self) -> Option<CeremonyId> {
        let mut octets = [0; 8];
        hex::decode_to_slice(&self.ceremony, &mut octets).ok()?;
        Some(CeremonyId(octets))
    }
}

/// A key that follows from the one that is split and says nothing of it.
fn key_of(secret: &SecretBytes) -> SecretArray<32> {
    // Exposed to derive a key from it, one way.
    SecretArray::fill(|place: &mut [u8; 32]| *place = kf_crypto::hmac_sha256(secret.expose(), LABEL))
}

fn context(id: CeremonyId, reviewed_sha256: &str) -> Vec<u8> {
    format!("keyfleet escrow {id} {reviewed_sha256}").into_bytes()
}

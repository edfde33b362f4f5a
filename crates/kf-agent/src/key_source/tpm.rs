//! Keys in a TPM 2.0. What is stored is the object that the TPM gave out, sealed once more under a storage key that the
//! TPM releases only after the boot that its policy demands.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kf_client::TlsKey;
use kf_crypto::CryptoError;
use kf_key::{KeyAlgorithm, SecretArray, SecretBytes};
use kf_tpm::policy::{Approval, BootPolicy, PcrSelection, PcrState, PolicyAuthority};
use kf_tpm::{Blob, EndorsementCertificate, Protection, Tpm, TpmError};
use serde::{Deserialize, Serialize};

use super::{Attestation, DeviceKey, HardwareFault, KeyError, KeySource, derived_wrapping_key};
use crate::config::{Key, hex_octets};
use crate::disk::{Disk, replace};
use crate::failure::Failure;
use crate::secret_source;

const IN_TPM: u8 = 3;
/// As a factory station stores it: the object as the TPM gave it out, under no authorisation value and no policy.
const FROM_FACTORY: u8 = 6;
const CONTEXT: &[u8] = b"keyfleet-agent TPM key v1";
/// The file of the sealed storage key.
const STORAGE_KEY: &str = "storage-key";
/// The most octets of the file of approvals.
const MAX_APPROVALS_OCTETS: u64 = 256 * 1024;

/// A boot state as the approvals' file and `keyfleet-agent boot-state` write it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApprovalText {
    /// Registers of the SHA-256 bank.
    pub(crate) pcrs: Vec<u8>,
    /// SHA-256 of their values, hexadecimal.
    pub(crate) digest: String,
    /// ECDSA P-256 with SHA-256 over the approval message, DER in base64.
    pub(crate) signature: String,
}

/// Keys in one TPM.
pub(crate) struct TpmKeys {
    place: Arc<Place>,
    storage: SecretArray<32>,
}

/// The TPM, and under what its objects were made.
pub(crate) struct Place {
    pub(crate) tpm: Tpm,
    pub(crate) protection: Protection,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.tpm).finish()
    }
}

impl Place {
    /// Opens the TPM that the configuration names, with its authorisation value and its policy.
    pub(crate) fn open(key: &Key) -> Result<Self, Failure> {
        let settings = &key.tpm;
        let address = settings.address.parse().map_err(|_refused: TpmError| Failure::Content {
            field: "key.tpm.address",
            expected: "device:/dev/tpmrm0, or swtpm:host=127.0.0.1,port=PORT",
        })?;
        let deadline = Duration::from_secs(settings.deadline_seconds.into());
        let tpm = Tpm::open(address, deadline).map_err(|error| fault(&error))?;
        let policy = policy(key, &tpm)?;
        Ok(Self { protection: Protection { auth: secret_source::unlock_value(key)?, policy }, tpm })
    }
}

fn policy(key: &Key, tpm: &Tpm) -> Result<Option<BootPolicy>, Failure> {
    let settings = &key.tpm;
    if settings.pcrs.is_empty() {
        return Ok(None);
    }
    let selection = PcrSelection::new(&settings.pcrs)
        .map_err(|_invalid| Failure::Content { field: "key.tpm.pcrs", expected: "different registers, 0 to 23" })?;
    let (Some(authority), Some(approvals)) = (&settings.policy_authority_file, &settings.approvals_file) else {
        // The TPM compares with the boot in which the object was made: today's state is only what is put to it.
        return Ok(Some(BootPolicy::Fixed(tpm.boot_state(selection).map_err(|error| fault(&error))?)));
    };
    let field = "key.tpm.policy_authority_file";
    let text = std::fs::read_to_string(authority).map_err(|source| Failure::Source { field, source })?;
    let authority = kf_pki::pem::decode_all("PUBLIC KEY", &text)
        .and_then(|keys| PolicyAuthority::from_spki(keys.first()?).ok())
        .ok_or(Failure::Content { field, expected: "a P-256 public key in PEM" })?;
    Ok(Some(BootPolicy::Authorised { authority, selection, approvals: read_approvals(approvals)? }))
}

fn read_approvals(path: &Path) -> Result<Vec<Approval>, Failure> {
    let field = "key.tpm.approvals_file";
    let failed = |source| Failure::Source { field, source };
    let wrong = || Failure::Content { field, expected: "a JSON array of {\"pcrs\", \"digest\", \"signature\"}" };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_APPROVALS_OCTETS {
        return Err(wrong());
    }
    let text = std::fs::read(path).map_err(failed)?;
    let texts: Vec<ApprovalText> = serde_json::from_slice(&text).map_err(|_syntax| wrong())?;
    let approval = |text: ApprovalText| {
        let selection = PcrSelection::new(&text.pcrs).ok()?;
        let state = PcrState { selection, digest: hex_octets(&text.digest)? };
        Some(Approval { state, signature: BASE64_STANDARD.decode(text.signature).ok()? })
    };
    texts.into_iter().map(approval).collect::<Option<_>>().ok_or_else(wrong)
}

/// The boot state of now as JSON, with what the policy authority is to sign.
pub(crate) fn boot_state(key: &Key) -> Result<serde_json::Value, Failure> {
    let field = "key.tpm.pcrs";
    let selection = PcrSelection::new(&key.tpm.pcrs)
        .map_err(|_invalid| Failure::Content { field, expected: "the registers that count" })?;
    let state = Place::open(key)?.tpm.boot_state(selection).map_err(|error| fault(&error))?;
    Ok(serde_json::json!({
        "pcrs": state.selection.registers(),
        "digest": state.digest.iter().map(|octet| format!("{octet:02x}")).collect::<String>(),
        "approval_message": BASE64_STANDARD.encode(state.approval_message()),
    }))
}

impl fmt::Debug for TpmKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TpmKeys").field(&self.place).finish()
    }
}

impl TpmKeys {
    /// Opens the TPM and has it release the storage key, which it makes on the first start.
    pub(crate) fn open(key: &Key, disk: &mut dyn Disk, state_dir: &Path) -> Result<Self, Failure> {
        let failed = |source| Failure::State { path: state_dir.to_owned(), source };
        let place = Place::open(key)?;
        let storage = match disk.read(STORAGE_KEY).map_err(failed)? {
            Some(stored) => {
                let blob = Blob::from_bytes(&stored).map_err(|error| fault(&error))?;
                let released = place.tpm.unseal(&blob, &place.protection).map_err(|error| fault(&error))?;
                // Exposed to be moved into its type.
                let octets: &[u8; 32] = released.expose().try_into().map_err(|_length| KeyError::Open)?;
                SecretArray::fill(|out| *out = *octets)
            }
            None => {
                let fresh = kf_crypto::random_secret::<32>().map_err(|_opaque| Failure::Random)?;
                // Exposed to be sealed.
                let secret = SecretBytes::fill(32, |out| out.copy_from_slice(fresh.expose()));
                let sealed = place.tpm.seal(&secret, &place.protection).map_err(|error| fault(&error))?;
                replace(disk, STORAGE_KEY, &sealed.to_bytes()).map_err(failed)?;
                fresh
            }
        };
        Ok(Self { place: Arc::new(place), storage })
    }

    fn key(&self, blob: Blob) -> Result<Box<dyn DeviceKey>, KeyError> {
        key_in(Arc::clone(&self.place), blob)
    }
}

fn key_in(place: Arc<Place>, blob: Blob) -> Result<Box<dyn DeviceKey>, KeyError> {
    let spki = blob.spki().map_err(|error| fault(&error))?;
    Ok(Box::new(TpmKey(Arc::new(Held { place, blob, spki }))))
}

impl KeySource for TpmKeys {
    fn generate(&self) -> Result<(Box<dyn DeviceKey>, SecretBytes), KeyError> {
        let blob = self.place.tpm.generate_signature_key(&self.place.protection).map_err(|error| fault(&error))?;
        let sealed = kf_crypto::seal(&self.storage, CONTEXT, &blob.to_bytes()).map_err(|_opaque| KeyError::Generate)?;
        let stored = SecretBytes::from_vec([&[IN_TPM], sealed.as_slice()].concat());
        Ok((self.key(blob)?, stored))
    }

    fn load(&self, stored: &SecretBytes) -> Result<Box<dyn DeviceKey>, KeyError> {
        // Exposed to be opened.
        if let [FROM_FACTORY, blob @ ..] = stored.expose() {
            let blob = Blob::from_bytes(blob).map_err(|error| fault(&error))?;
            let place = Place { tpm: self.place.tpm.clone(), protection: Protection::default() };
            return key_in(Arc::new(place), blob);
        }
        let [IN_TPM, sealed @ ..] = stored.expose() else { return Err(KeyError::Open) };
        let blob = kf_crypto::open(&self.storage, CONTEXT, sealed).map_err(|_opaque| KeyError::Open)?;
        // Exposed to be read: what is inside is still encrypted by the TPM.
        self.key(Blob::from_bytes(blob.expose()).map_err(|error| fault(&error))?)
    }

    fn wrapping_key(&self) -> Result<Option<SecretArray<32>>, KeyError> {
        Ok(Some(derived_wrapping_key(&self.storage)))
    }

    fn is_protected_at_rest(&self) -> bool {
        true
    }
}

pub(crate) fn fault(error: &TpmError) -> KeyError {
    tracing::warn!(%error, "the TPM did not do what was asked");
    KeyError::Hardware(match error {
        TpmError::Unreachable { .. } => HardwareFault::Unreachable,
        TpmError::Vanished { .. } => HardwareFault::Vanished,
        TpmError::Late { .. } | TpmError::Busy => HardwareFault::Late,
        TpmError::LockedOut => HardwareFault::LockedOut,
        TpmError::Authorization => HardwareFault::Authorization,
        TpmError::BootState => HardwareFault::BootState,
        TpmError::Approval => HardwareFault::Approval,
        TpmError::OtherTpm => HardwareFault::OtherDevice,
        TpmError::Damaged(_) => return KeyError::Open,
        _ => HardwareFault::Refused,
    })
}

struct TpmKey(Arc<Held>);

#[derive(Debug)]
struct Held {
    place: Arc<Place>,
    blob: Blob,
    spki: Vec<u8>,
}

impl Held {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.place.tpm.sign(&self.blob, &self.place.protection, message).map_err(|error| fault(&error))
    }
}

impl TlsKey for Held {
    fn algorithm(&self) -> KeyAlgorithm {
        KeyAlgorithm::P256
    }

    fn spki(&self) -> Vec<u8> {
        self.spki.clone()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        Self::sign(self, message).map_err(|_told| CryptoError)
    }
}

impl DeviceKey for TpmKey {
    fn tls_key(&self) -> Arc<dyn TlsKey> {
        self.0.clone()
    }

    fn certification_request(&self) -> Result<Vec<u8>, KeyError> {
        let mut refused = KeyError::Sign;
        let sign = |message: &[u8]| self.0.sign(message).map_err(|error| refused = error).ok();
        let made = kf_pki::request::make_request_with(KeyAlgorithm::P256, &self.0.spki, "", sign);
        made.map_err(|_none| refused)
    }

    fn attestation(&self) -> Result<Option<Attestation>, KeyError> {
        match self.0.place.tpm.endorsement_certificate() {
            Ok(EndorsementCertificate { certificate, .. }) => Ok(Some(Attestation {
                public_area: self.0.blob.public_area().to_vec(),
                endorsement_certificate: certificate,
            })),
            // A TPM that its maker gave none, or an emulator: it proves nothing, and may not have to.
            Err(TpmError::Missing(_)) => Ok(None),
            Err(error) => Err(fault(&error)),
        }
    }

    fn activate(&self, credential: &[u8], encrypted_seed: &[u8]) -> Result<SecretArray<32>, KeyError> {
        let Place { tpm, protection } = self.0.place.as_ref();
        let kind = tpm.endorsement_certificate().map_err(|error| fault(&error))?.kind;
        tpm.activate_credential(kind, &self.0.blob, protection, credential, encrypted_seed)
            .map_err(|error| fault(&error))
    }
}

//! An open connection: the storage primary key, and what one call loads and must flush again.
//!
//! A TPM without a resource manager has three places for objects and three for sessions. The storage key stays in one;
//! whatever else a call loads is flushed when it ends.

use kf_key::SecretBytes;
use tss_esapi::Context;
use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::{CapabilityType, SessionType};
use tss_esapi::handles::{KeyHandle, ObjectHandle, SessionHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{Auth, CapabilityData, Public, SymmetricDefinition};
use tss_esapi::traits::Marshall as _;

use crate::blob::Blob;
use crate::policy::BootPolicy;
use crate::{TpmError, template};

/// The first handle of the range in which a killed program leaves objects behind (TPM 2.0 Part 2 section 7.4).
const FIRST_TRANSIENT: u32 = 0x8000_0000;
const MOST_LEFTOVERS: u32 = 16;

pub(crate) struct Live {
    pub(crate) context: Context,
    storage: Option<Storage>,
    /// Loaded by the call that is running.
    loaded: Vec<ObjectHandle>,
}

#[derive(Clone)]
struct Storage {
    handle: KeyHandle,
    /// SHA-256 of its public area: which TPM and which seed of its owner hierarchy this is.
    fingerprint: [u8; 32],
}

impl Live {
    /// Takes a connection over. Without a resource manager there is one client at a time, and what is loaded was left
    /// behind by one that ended without clearing up.
    pub(crate) fn new(context: Context, clears_leftovers: bool) -> Result<Self, TpmError> {
        let mut this = Self { context, storage: None, loaded: Vec::new() };
        if clears_leftovers {
            this.flush_leftovers()?;
        }
        Ok(this)
    }

    fn flush_leftovers(&mut self) -> Result<(), TpmError> {
        let failed = TpmError::of("TPM2_GetCapability");
        let (found, _more) =
            self.context.get_capability(CapabilityType::Handles, FIRST_TRANSIENT, MOST_LEFTOVERS).map_err(&failed)?;
        let CapabilityData::Handles(handles) = found else { return Err(TpmError::Bug("capability")) };
        for handle in handles.iter() {
            if let TpmHandle::Transient(_) = handle {
                let object = self.context.tr_from_tpm_public(*handle).map_err(TpmError::of("TPM2_ReadPublic"))?;
                self.context.flush_context(object).map_err(TpmError::of("TPM2_FlushContext"))?;
            }
        }
        Ok(())
    }

    /// The storage primary key: derived by the TPM from the seed of its owner hierarchy, the same every time.
    pub(crate) fn storage_key(&mut self) -> Result<KeyHandle, TpmError> {
        Ok(self.storage()?.handle)
    }

    /// SHA-256 of its public area.
    pub(crate) fn storage_fingerprint(&mut self) -> Result<[u8; 32], TpmError> {
        Ok(self.storage()?.fingerprint)
    }

    fn storage(&mut self) -> Result<Storage, TpmError> {
        if let Some(storage) = &self.storage {
            return Ok(storage.clone());
        }
        let public = template::storage_key()?;
        let made = self
            .context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.create_primary(Hierarchy::Owner, public, None, None, None, None)
            })
            .map_err(TpmError::of("TPM2_CreatePrimary"))?;
        let area = made.out_public.marshall().map_err(|_unmarshallable| TpmError::Bug("storage key"))?;
        let storage = Storage { handle: made.key_handle, fingerprint: kf_crypto::sha256(&area) };
        self.storage = Some(storage.clone());
        Ok(storage)
    }

    /// A session whose key is agreed with the storage key, so that secrets and authorisations cross the bus encrypted
    /// (TPM 2.0 Part 1 section 21). Only one session of a command may encrypt.
    pub(crate) fn encrypting_session(&mut self) -> Result<AuthSession, TpmError> {
        let storage = self.storage_key()?;
        let session = self.session(Some(storage), SessionType::Hmac)?;
        let (attributes, mask) =
            SessionAttributesBuilder::new().with_decrypt(true).with_encrypt(true).with_continue_session(true).build();
        self.context
            .tr_sess_set_attributes(session, attributes, mask)
            .map_err(|_attributes| TpmError::Bug("session attributes"))?;
        Ok(session)
    }

    /// A session for commands of which nothing is secret. The authorisation value itself never crosses the bus.
    pub(crate) fn plain_session(&mut self) -> Result<AuthSession, TpmError> {
        let session = self.session(None, SessionType::Hmac)?;
        let (attributes, mask) = SessionAttributesBuilder::new().with_continue_session(true).build();
        self.context
            .tr_sess_set_attributes(session, attributes, mask)
            .map_err(|_attributes| TpmError::Bug("session attributes"))?;
        Ok(session)
    }

    /// A session that gathers a policy.
    pub(crate) fn policy_session(&mut self) -> Result<(AuthSession, PolicySession), TpmError> {
        let session = self.session(None, SessionType::Policy)?;
        let policy = PolicySession::try_from(session).map_err(|_kind| TpmError::Bug("policy session"))?;
        Ok((session, policy))
    }

    fn session(&mut self, salt_key: Option<KeyHandle>, kind: SessionType) -> Result<AuthSession, TpmError> {
        let session = self
            .context
            .execute_without_session(|context| {
                context.start_auth_session(
                    salt_key,
                    None,
                    None,
                    kind,
                    SymmetricDefinition::AES_128_CFB,
                    HashingAlgorithm::Sha256,
                )
            })
            .map_err(TpmError::of("TPM2_StartAuthSession"))?
            .ok_or(TpmError::Bug("no session"))?;
        self.loaded.push(SessionHandle::from(session).into());
        Ok(session)
    }

    /// Makes an object below the storage key. `auth` and `secret` cross the bus encrypted.
    pub(crate) fn create(
        &mut self,
        public: Public,
        auth: Option<&SecretBytes>,
        secret: Option<&SecretBytes>,
    ) -> Result<Blob, TpmError> {
        let storage = self.storage()?;
        let session = self.encrypting_session()?;
        let auth = auth.map(auth_value).transpose()?;
        // Exposed to the command that puts it into the TPM.
        let secret = secret
            .map(|secret| secret.expose().to_vec().try_into().map_err(|_length| TpmError::Bug("secret too long")))
            .transpose()?;
        let made = self
            .context
            .execute_with_session(Some(session), |context| {
                context.create(storage.handle, public, auth, secret, None, None)
            })
            .map_err(TpmError::of("TPM2_Create"))?;
        Blob::new(storage.fingerprint, &made.out_public, &made.out_private)
    }

    /// Loads an object below the storage key.
    pub(crate) fn load(&mut self, blob: &Blob, auth: Option<&SecretBytes>) -> Result<KeyHandle, TpmError> {
        let storage = self.storage()?;
        if storage.fingerprint != *blob.storage_fingerprint() {
            return Err(TpmError::OtherTpm);
        }
        let (public, private) = (blob.public()?, blob.private()?);
        let handle = self
            .context
            .execute_with_session(Some(AuthSession::Password), |context| context.load(storage.handle, private, public))
            .map_err(TpmError::of("TPM2_Load"))?;
        self.loaded.push(handle.into());
        if let Some(auth) = auth {
            self.context
                .tr_set_auth(handle.into(), auth_value(auth)?)
                .map_err(|_refused| TpmError::Bug("authorisation value"))?;
        }
        Ok(handle)
    }

    /// Whatever authorises the use of an object: its value in an encrypting session, or a policy session with an
    /// encrypting one beside it.
    pub(crate) fn authorise(
        &mut self,
        policy: Option<&BootPolicy>,
        has_auth: bool,
    ) -> Result<[Option<AuthSession>; 2], TpmError> {
        let encrypting = self.encrypting_session()?;
        let Some(policy) = policy else { return Ok([Some(encrypting), None]) };
        let (session, policy_session) = self.policy_session()?;
        policy.satisfy(self, policy_session)?;
        if has_auth {
            self.context.policy_auth_value(policy_session).map_err(TpmError::of("TPM2_PolicyAuthValue"))?;
        }
        Ok([Some(session), Some(encrypting)])
    }

    /// Remembers to flush an object that a call loaded in its own way.
    pub(crate) fn flush_later(&mut self, object: ObjectHandle) {
        self.loaded.push(object);
    }

    /// Flushes one object early, to make room for another.
    pub(crate) fn flush(&mut self, object: ObjectHandle) -> Result<(), TpmError> {
        self.loaded.retain(|loaded| *loaded != object);
        self.context.flush_context(object).map_err(TpmError::of("TPM2_FlushContext"))
    }

    /// Flushes what the call loaded.
    pub(crate) fn flush_call(&mut self) -> Result<(), TpmError> {
        self.context.clear_sessions();
        let mut outcome = Ok(());
        while let Some(object) = self.loaded.pop() {
            let flushed = self.context.flush_context(object).map_err(TpmError::of("TPM2_FlushContext"));
            outcome = outcome.and(flushed);
        }
        outcome
    }
}

/// An authorisation value: as long as the name algorithm's digest, whatever the secret's length.
pub(crate) fn auth_value(auth: &SecretBytes) -> Result<Auth, TpmError> {
    // Exposed to be hashed; the software stack wipes its copy on drop.
    let mut octets = kf_crypto::sha256(auth.expose()).to_vec();
    // A TPM drops zeros at the end (TPM 2.0 Part 1 section 19.6.4.3): there are none.
    if let Some(last) = octets.last_mut() {
        *last |= 1;
    }
    Auth::try_from(octets).map_err(|_length| TpmError::Bug("authorisation value"))
}

//! Objects that programs store under an encryption key. The server knows where they are, so it brings them under the newest version
//! by itself: nothing is asked of their owners when a key rotates.
//!
//! The minimum version is for ciphertexts that others keep. A stored object is opened under whatever version it lies, and one
//! version is destroyed only when no object lies under it.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kf_access::{Action, Principal};
use kf_api::encryption_key::EncryptionKey;
use kf_api::object::{MAX_OBJECT_NAME, MAX_OBJECT_OCTETS, ObjectContent, PutObject, StoredObject};
use kf_api::{Page, PageRequest};
use kf_key::{EncryptionKeyId, SecretBytes};
use kf_store::object::{MAX_MOVED_OBJECTS, MovedObject, ObjectCiphertext, ObjectPut};

use super::data::blocks;
use crate::entry::Entry;
use crate::sealed::octets;
use crate::{Fleet, FleetError};

/// Batches of one turn of the background work.
const BATCHES_PER_TURN: u32 = 16;

/// What an object's ciphertext is bound to besides its key and version: another object's does not open in its place.
fn object_aad(key: EncryptionKeyId, version: u32, name: &str) -> Vec<u8> {
    kf_api::ciphertext::ciphertext_aad(key, version, &[b"stored object ", name.as_bytes()].concat())
}

fn check_object_name(name: &str) -> Result<(), FleetError> {
    let fits = |character: char| character.is_ascii_alphanumeric() || "-._:@+=".contains(character);
    if (1..=MAX_OBJECT_NAME).contains(&name.len()) && name.chars().all(fits) && !matches!(name, "." | "..") {
        return Ok(());
    }
    Err(FleetError::invalid("name", "cannot name an object", "use 1 to 128 of a-z, A-Z, 0-9 and - . _ : @ + ="))
}

impl Fleet {
    /// Stores an object, new or in place of the one of its name, under the newest version of a key.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Conflict`] when somebody else changed it, [`FleetError::NotFound`],
    /// [`FleetError::Denied`], [`FleetError::StoreFull`].
    pub async fn object_put(
        &self,
        who: &Principal,
        key: &str,
        name: &str,
        request: PutObject,
    ) -> Result<StoredObject, FleetError> {
        check_object_name(name)?;
        let (key, _permit) = self.encryption_key_for(who, key, Action::ObjectWrite)?;
        let plaintext = SecretBytes::from_vec(octets("plaintext", &request.plaintext, MAX_OBJECT_OCTETS)?);
        let cost = blocks(plaintext.len() + name.len());
        let (version, material) = self.newest(who, &key, Action::ObjectWrite, 1, cost).await?;
        // Exposed to be encrypted.
        let ciphertext = kf_crypto::seal(&material, &object_aad(key.id, version, name), plaintext.expose())?;
        let now = self.now();
        let entry = Entry::done(who, "object.put", now)
            .about(key.id)
            .at_facility(Some(key.facility))
            .with("object", name)
            .with("octets", plaintext.len())
            .with("version", version);
        let put = ObjectPut {
            key: key.id,
            name: name.to_owned(),
            version,
            octets: u64::try_from(plaintext.len()).unwrap_or(u64::MAX),
            ciphertext: ObjectCiphertext(ciphertext),
            seen: request.generation,
            at: now,
        };
        Ok(self.store.put_object(put, entry.build()).await?.value)
    }

    /// What is in an object. Who read is in the log before it leaves.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`], [`FleetError::Signer`].
    pub async fn object_get(&self, who: &Principal, key: &str, name: &str) -> Result<ObjectContent, FleetError> {
        let (key, _permit) = self.encryption_key_for(who, key, Action::ObjectOpen)?;
        let found = self.store.object_content(key.id, name)?;
        let (object, ciphertext) = found.ok_or(FleetError::NotFound("object"))?;
        let plaintext = self.open_object(&key, &object, &ciphertext).await?;
        self.note_uses(who, &key, object.key_version, Action::ObjectOpen, 1).await?;
        // Exposed to whoever may read it.
        Ok(ObjectContent { plaintext: BASE64_STANDARD.encode(plaintext.expose()), object })
    }

    /// An object, without what is in it.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn object_show(&self, who: &Principal, key: &str, name: &str) -> Result<StoredObject, FleetError> {
        let (key, _permit) = self.encryption_key_for(who, key, Action::ObjectRead)?;
        self.store.object(key.id, name)?.ok_or(FleetError::NotFound("object"))
    }

    /// The objects under a key, by name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn object_list(
        &self,
        who: &Principal,
        key: &str,
        page: PageRequest,
    ) -> Result<Page<StoredObject>, FleetError> {
        let (key, _permit) = self.encryption_key_for(who, key, Action::ObjectRead)?;
        Ok(self.store.objects(key.id, &page)?)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn object_delete(&self, who: &Principal, key: &str, name: &str) -> Result<(), FleetError> {
        let (key, _permit) = self.encryption_key_for(who, key, Action::ObjectWrite)?;
        let entry = Entry::done(who, "object.delete", self.now())
            .about(key.id)
            .at_facility(Some(key.facility))
            .with("object", name);
        self.store.delete_object(key.id, name.to_owned(), entry.build()).await?;
        Ok(())
    }

    async fn open_object(
        &self,
        key: &EncryptionKey,
        object: &StoredObject,
        ciphertext: &ObjectCiphertext,
    ) -> Result<SecretBytes, FleetError> {
        let version = object.key_version;
        let known = self.store.encryption_version(key.id, version)?.and_then(|known| known.material);
        let material = known.ok_or_else(|| {
            FleetError::conflict(
                "object",
                format!("lies under version {version}, which is destroyed"),
                "it is lost: this registry was restored from before the destruction",
            )
        })?;
        let material = self.material(key.id, version, &material).await?;
        kf_crypto::open(&material, &object_aad(key.id, version, &object.name), &ciphertext.0)
            .map_err(|_opaque| FleetError::Bug("a stored object does not open"))
    }

    /// The background's share of bringing objects under the newest versions of their keys.
    pub(crate) async fn turn_objects(&self) -> Result<(), FleetError> {
        let mut after = None;
        for _ in 0..BATCHES_PER_TURN {
            let Some(key) = self.store.key_with_old_objects(after)? else { return Ok(()) };
            if self.reprotect_some(key, MAX_MOVED_OBJECTS).await? == 0 {
                // What does not open keeps no other key from its turn.
                after = Some(key);
            }
        }
        self.wake.notify_one();
        Ok(())
    }

    /// Brings at most `limit` objects of a key under its newest version, in one transaction; how many.
    ///
    /// # Errors
    /// [`FleetError::Signer`], [`FleetError::StoreFull`]; nothing is lost, and the next call goes on.
    pub(crate) async fn reprotect_some(&self, id: EncryptionKeyId, limit: u32) -> Result<u64, FleetError> {
        let key = self.encryption_key_again(id)?;
        let old = self.store.old_objects(id, key.newest_version, limit)?;
        let mut opened = Vec::with_capacity(old.len());
        for (object, ciphertext) in old {
            match self.open_object(&key, &object, &ciphertext).await {
                Ok(plaintext) => opened.push((object, plaintext)),
                Err(FleetError::Signer(error)) => return Err(FleetError::Signer(error)),
                Err(error) => {
                    tracing::error!(key = %id, object = object.name, error = %error, "a stored object is not moved")
                }
            }
        }
        if opened.is_empty() {
            return Ok(0);
        }
        let cost = opened.iter().map(|(object, plaintext)| blocks(plaintext.len() + object.name.len())).sum();
        let server = Self::server_principal();
        let count = u64::try_from(opened.len()).unwrap_or(u64::MAX);
        let (version, material) = self.newest(&server, &key, Action::ObjectWrite, count, cost).await?;
        let mut moved = Vec::with_capacity(opened.len());
        for (from, plaintext) in opened {
            // Exposed to be encrypted again.
            let ciphertext = kf_crypto::seal(&material, &object_aad(id, version, &from.name), plaintext.expose())?;
            moved.push(MovedObject { from, version, ciphertext: ObjectCiphertext(ciphertext) });
        }
        let entry = Entry::done(&server, "object.reprotect", self.now())
            .about(id)
            .at_facility(Some(key.facility))
            .with("version", version);
        Ok(self.store.move_objects(moved, entry.build()).await?)
    }
}

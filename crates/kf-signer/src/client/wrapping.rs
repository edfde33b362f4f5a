//! Versions of the wrapping key: known to the client, and given to the signer in each of its lives before anything else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kf_key::{DeviceId, KeyId};

use super::SignerClient;
use super::link::Link;
use crate::protocol::{Fields, MAX_CONTEXT_OCTETS, MAX_REWRAPPED, RequestKind, bug, prefix, too_large};
use crate::{KeyHandle, RewrapItem, SignerError};

/// The sealed forms of versions; `None` for one that was ended.
#[derive(Default)]
pub(super) struct Registered {
    versions: Mutex<BTreeMap<u32, Option<Vec<u8>>>>,
    /// How often they changed.
    changes: AtomicU64,
}

impl SignerClient {
    /// Makes a version of the wrapping key; returns its sealed form, which only this root opens. Nothing is wrapped under it
    /// before [`SignerClient::register_wrapping`]: keep it durably first.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn new_wrapping(&self, version: u32) -> Result<Vec<u8>, SignerError> {
        self.link()?.call(RequestKind::NewWrapping, &[&version.to_be_bytes()]).await
    }

    /// Tells the client of a version. The newest that is registered wraps from now on; all of them open.
    pub fn register_wrapping(&self, version: u32, sealed: Vec<u8>) {
        self.change_wrapping(version, Some(sealed));
    }

    /// Ends a version for the rest of this client's life: nothing under it is opened any more.
    ///
    /// # Errors
    /// [`SignerError`]; the version is ended at the next connection all the same.
    pub async fn end_wrapping(&self, version: u32) -> Result<(), SignerError> {
        self.change_wrapping(version, None);
        self.ready().await.map(drop)
    }

    /// Wraps secrets (at most [`MAX_REWRAPPED`]) under the newest version; `None` for one that does not open. No plaintext
    /// leaves the signer.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn rewrap(&self, secrets: &[RewrapItem]) -> Result<Vec<Option<Vec<u8>>>, SignerError> {
        if secrets.len() > MAX_REWRAPPED {
            return Err(too_large(MAX_REWRAPPED));
        }
        let mut request = Vec::new();
        for RewrapItem { context, wrapped } in secrets {
            if context.len() > MAX_CONTEXT_OCTETS {
                return Err(too_large(MAX_CONTEXT_OCTETS));
            }
            for part in [context, wrapped] {
                request.extend_from_slice(&prefix(part)?);
                request.extend_from_slice(part);
            }
        }
        let body = self.ready().await?.call(RequestKind::Rewrap, &[&request]).await?;
        let mut fields = Fields(&body);
        let mut moved = Vec::with_capacity(secrets.len());
        for _ in secrets {
            let one = fields.prefixed().ok_or_else(|| bug("unreadable answer"))?;
            moved.push((!one.is_empty()).then(|| one.to_vec()));
        }
        fields.end().ok_or_else(|| bug("unreadable answer"))?;
        Ok(moved)
    }

    /// The handle of a key with its private part under the newest version; the same key.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn rewrap_handle(&self, key: KeyId, handle: &KeyHandle) -> Result<KeyHandle, SignerError> {
        let body = self.ready().await?.call(RequestKind::RewrapHandle, &[key.as_bytes(), &handle.to_bytes()]).await?;
        KeyHandle::from_bytes(&body).map_err(|_unreadable| bug("unreadable handle"))
    }

    /// Opens every registered version at the signer's end.
    ///
    /// # Errors
    /// [`SignerError::Wrapped`] for a sealed form of another root.
    pub async fn load_wrapping(&self) -> Result<(), SignerError> {
        self.ready().await.map(drop)
    }

    /// Replaces the handle of a registered key; what else is known of it stays.
    pub fn replace_handle(&self, key: KeyId, handle: KeyHandle) {
        if let Some((known, _)) = self.registered().get_mut(&key) {
            *known = handle;
        }
    }

    /// What the salt of a device is bound to, for [`SignerClient::rewrap`].
    #[must_use]
    pub fn salt_context(device: DeviceId) -> Vec<u8> {
        crate::engine::salt_context(device)
    }

    fn change_wrapping(&self, version: u32, sealed: Option<Vec<u8>>) {
        let registered = &self.shared.wrapping;
        let mut versions = registered.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.insert(version, sealed);
        registered.changes.fetch_add(1, Ordering::Release);
    }

    /// The link, with every registered version of the wrapping key known at its other end.
    pub(super) async fn ready(&self) -> Result<Arc<Link>, SignerError> {
        let link = self.link()?;
        let changes = &self.shared.wrapping.changes;
        if link.wrapping_seen.load(Ordering::Acquire) == changes.load(Ordering::Acquire) {
            return Ok(link);
        }
        // One at a time: the first of many waiting requests does it for all.
        let turn = link.loading.lock().await;
        let (wanted, versions) = {
            let versions = self.shared.wrapping.versions.lock().unwrap_or_else(PoisonError::into_inner);
            (changes.load(Ordering::Acquire), versions.clone())
        };
        if link.wrapping_seen.load(Ordering::Acquire) != wanted {
            for (version, sealed) in versions {
                let version = version.to_be_bytes();
                match sealed {
                    Some(sealed) => link.call(RequestKind::LoadWrapping, &[&version, &sealed]).await?,
                    None => link.call(RequestKind::ForgetWrapping, &[&version]).await?,
                };
            }
            link.wrapping_seen.store(wanted, Ordering::Release);
        }
        drop(turn);
        Ok(link)
    }
}

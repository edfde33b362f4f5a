//! Keys with which the server encrypts for others: made, rotated, retired, destroyed. What they encrypt is kept by whoever asked.
//!
//! A version follows SP 800-57 Part 1 section 7: active while it is the newest; deactivated when the next one takes over,
//! whether somebody wanted that or its encryptions were used up; destroyed once nothing below the minimum version is decrypted.

mod data;
mod material;
mod object;
mod uses;

use kf_access::{Action, Permit, Principal, Target, Visibility, authorize};
use kf_api::encryption_key::{EncryptionKey, NewEncryptionKey, RaiseMinimum, RotateKey};
use kf_api::{Page, PageRequest};
use kf_key::{EncryptionKeyId, KeyState};

use crate::entry::Entry;
use crate::fence::Line;
use crate::naming::{check_name, check_why};
use crate::{Fleet, FleetError};

pub(crate) use material::{Materials, material_context};
pub(crate) use uses::{Meters, Uses};

impl Fleet {
    /// Makes an encryption key for the programs of a facility.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Conflict`] for a name in use, [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn encryption_key_create(
        &self,
        who: &Principal,
        new: NewEncryptionKey,
    ) -> Result<EncryptionKey, FleetError> {
        check_name("name", &new.name)?;
        let facility = self.find_facility(&new.facility, &who.visibility())?;
        authorize(who, Action::EncryptionKeyManage, Target::Facility(facility.id))?;
        let now = self.now();
        let id = EncryptionKeyId::from_parts(now, kf_crypto::random_array()?);
        let material = self.new_material(id, 1).await?;
        let key = EncryptionKey {
            id,
            name: new.name,
            facility: facility.id,
            created: now,
            newest_version: 1,
            minimum_version: 1,
            versions: Vec::new(),
        };
        let entry = Entry::done(who, "encryption-key.create", now)
            .about(id)
            .at_facility(Some(facility.id))
            .with("name", &key.name)
            .with("algorithm", "aes-256-gcm");
        self.store.insert_encryption_key(key, material, entry.build()).await?;
        self.encryption_key_again(id)
    }

    /// The encryption keys that the caller may see.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn encryption_key_list(
        &self,
        who: &Principal,
        facility: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<EncryptionKey>, FleetError> {
        let permit = authorize(who, Action::EncryptionKeyRead, Target::Visible)?;
        let facility = match facility {
            None => None,
            Some(facility) => Some(self.find_facility(facility, permit.visibility())?.id),
        };
        Ok(self.store.encryption_keys(facility, permit.visibility(), &page)?)
    }

    /// An encryption key by name or id.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn encryption_key_show(&self, who: &Principal, key: &str) -> Result<EncryptionKey, FleetError> {
        Ok(self.encryption_key_for(who, key, Action::EncryptionKeyRead)?.0)
    }

    /// Makes a new version; the one before decrypts on.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] when somebody else was faster; [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn encryption_key_rotate(
        &self,
        who: &Principal,
        key: &str,
        request: RotateKey,
    ) -> Result<EncryptionKey, FleetError> {
        check_why(&request.why)?;
        let (found, _permit) = self.encryption_key_for(who, key, Action::EncryptionKeyManage)?;
        if let Some(seen) = request.newest_version.filter(|seen| *seen != found.newest_version) {
            return Err(FleetError::conflict(
                "newest_version",
                format!("the newest version is {}, not {seen}", found.newest_version),
                "somebody rotated it already: look with `keyfleet encryption-key show`, and rotate again if you still want to",
            ));
        }
        self.rotate_version(who, &found, &request.why).await?;
        self.encryption_key_again(found.id)
    }

    /// Makes the next version, whoever may; the index of the log entry.
    pub(crate) async fn rotate_version(
        &self,
        who: &Principal,
        key: &EncryptionKey,
        why: &str,
    ) -> Result<u64, FleetError> {
        // A registry that was restored from before may have a minimum above its newest version.
        let next = key.newest_version.saturating_add(1).max(key.minimum_version);
        let material = self.new_material(key.id, next).await?;
        let now = self.now();
        let entry = Entry::done(who, "encryption-key.rotate", now)
            .about(key.id)
            .at_facility(Some(key.facility))
            .because(why)
            .with("version", next)
            .with("deactivated", key.newest_version);
        let logged =
            self.store.rotate_encryption_key(key.id, (key.newest_version, next), material, now, entry.build()).await?;
        Ok(logged.index)
    }

    /// Ends decryption of older versions; it never begins again.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] for a version below the minimum or above the newest; [`FleetError::NotFound`],
    /// [`FleetError::Denied`].
    pub async fn encryption_key_raise_minimum(
        &self,
        who: &Principal,
        key: &str,
        request: RaiseMinimum,
    ) -> Result<EncryptionKey, FleetError> {
        check_why(&request.why)?;
        let (found, _permit) = self.encryption_key_for(who, key, Action::EncryptionKeyManage)?;
        if request.version <= found.newest_version {
            // Before the registry: one that is restored from before must not decrypt what this one refuses.
            self.fence.add(&[Line::EncryptionMinimum { key: found.id, version: request.version, at: self.now() }])?;
        }
        let entry = Entry::done(who, "encryption-key.raise-minimum", self.now())
            .about(found.id)
            .at_facility(Some(found.facility))
            .because(&request.why)
            .with("from", found.minimum_version)
            .with("to", request.version);
        self.store.raise_minimum_version(found.id, request.version, entry.build()).await?;
        self.encryption_key_again(found.id)
    }

    /// A key of which this version may be destroyed.
    pub(crate) fn destroyable_version(
        &self,
        who: &Principal,
        key: &str,
        version: u32,
    ) -> Result<EncryptionKey, FleetError> {
        let (found, _permit) = self.encryption_key_for(who, key, Action::KeyDestroy)?;
        let known = self.store.encryption_version(found.id, version)?.ok_or(FleetError::NotFound("such version"))?;
        if known.state == KeyState::Destroyed {
            let remedy = "`keyfleet destroy list` shows the receipts";
            return Err(FleetError::conflict("version", "is destroyed already", remedy));
        }
        if version >= found.minimum_version {
            return Err(FleetError::conflict(
                "version",
                format!("version {version} still decrypts"),
                format!(
                    "bring everything under a newer version (keyfleet rewrap), then raise the minimum: \
                     `keyfleet encryption-key minimum {} {}`",
                    found.name,
                    version.saturating_add(1)
                ),
            ));
        }
        self.refuse_objects(&found, version)?;
        Ok(found)
    }

    /// Nothing is destroyed under which something lies.
    pub(crate) fn refuse_objects(&self, key: &EncryptionKey, version: u32) -> Result<(), FleetError> {
        match self.store.objects_under(key.id, version)? {
            0 => Ok(()),
            left => Err(FleetError::conflict(
                "version",
                format!("{left} stored objects lie under version {version}"),
                "the server moves them in the background: `keyfleet encryption-key show` says how many are left",
            )),
        }
    }

    /// A key by name or id, if the caller may do this with it.
    pub(crate) fn encryption_key_for(
        &self,
        who: &Principal,
        reference: &str,
        action: Action,
    ) -> Result<(EncryptionKey, Permit), FleetError> {
        let found = self.find_encryption_key(reference, &who.visibility())?;
        let permit = authorize(who, action, Target::Facility(found.facility))?;
        Ok((found, permit))
    }

    /// An encryption key by name or id.
    pub(crate) fn find_encryption_key(
        &self,
        reference: &str,
        visibility: &Visibility,
    ) -> Result<EncryptionKey, FleetError> {
        let found = match reference.parse::<EncryptionKeyId>() {
            Ok(id) => self.store.encryption_key(id, visibility)?,
            Err(_not_an_id) => self.store.encryption_key_by_name(reference, visibility)?,
        };
        found.ok_or(FleetError::NotFound("encryption key"))
    }

    /// A key that the caller was allowed to see a moment ago.
    pub(crate) fn encryption_key_again(&self, id: EncryptionKeyId) -> Result<EncryptionKey, FleetError> {
        self.store.encryption_key(id, &Visibility::Fleet)?.ok_or(FleetError::NotFound("encryption key"))
    }
}

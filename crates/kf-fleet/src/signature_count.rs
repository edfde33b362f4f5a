//! Who counts what keys sign, and where a policy's limit stops one.

use std::sync::{Arc, Weak};

use kf_access::Visibility;
use kf_key::KeyId;
use kf_rotation::{KeyClass, Scope};
use kf_signer::{SetAside, SignatureUse, SignerError};
use kf_store::key::KeyRecord;

use crate::pinned_key::{class_of, role_of};
use crate::{Fleet, FleetError};

/// Signatures that are set aside at once by keys that sign all day; a start gives up what is left of them.
const MANY: u64 = 1_024;
/// The same for keys that sign now and then.
const FEW: u64 = 16;

impl Fleet {
    /// Has the signer ask this fleet before a key signs.
    pub(crate) fn count_signatures(self: &Arc<Self>) {
        let fleet: Weak<Self> = Arc::downgrade(self);
        self.signer.count_signatures(Arc::new(move |key, wanted| {
            let fleet = fleet.clone();
            Box::pin(async move {
                let fleet = fleet.upgrade().ok_or(SignerError::Unavailable)?;
                fleet.set_signatures_aside(key, wanted).await
            })
        }));
    }

    async fn set_signatures_aside(&self, key: KeyId, wanted: SignatureUse) -> Result<SetAside, SignerError> {
        let failed = |error: FleetError| {
            tracing::error!(%key, error = %error, "signatures were not counted, so none is made");
            SignerError::Unavailable
        };
        let (class, limit) = self.signature_limit(key).map_err(failed)?;
        let block = match class {
            Some(KeyClass::IssuingAuthorityKey | KeyClass::LogKey | KeyClass::DeliveryKey) => MANY,
            _ => FEW,
        };
        let aside = |block, limit| self.store.set_key_uses_aside(key, block, limit);
        let count = aside(block, limit).await.map_err(|error| failed(error.into()))?;
        if count > 0 {
            return Ok(SetAside { count, is_beyond: false });
        }
        if wanted == SignatureUse::Issue {
            return Err(SignerError::UsedUp { key });
        }
        let count = aside(FEW, None).await.map_err(|error| failed(error.into()))?;
        Ok(SetAside { count, is_beyond: true })
    }

    /// The class of a key pair and the uses that the policy allows it. A key that is not in the registry yet, such as that of a CA that is
    /// being made, has no class and no limit.
    fn signature_limit(&self, key: KeyId) -> Result<(Option<KeyClass>, Option<u64>), FleetError> {
        let Some(record) = self.store.key(key)? else { return Ok((None, None)) };
        let Some(class) = self.class_of_pair(&record) else { return Ok((None, None)) };
        let authorities = self.authorities();
        let authority = authorities.by_name(record.purpose.strip_prefix("authority:").unwrap_or_default());
        let facility = match authority.and_then(|known| known.record.facility) {
            Some(facility) => self.store.facility(facility, &Visibility::Fleet)?.map(|facility| facility.name),
            None => None,
        };
        let scope = Scope { facility: facility.as_deref(), product_line: None };
        Ok((Some(class), self.policy.rule(class, scope).uses))
    }

    /// The class of a key pair in the registry; `None` for a purpose that has none.
    pub(crate) fn class_of_pair(&self, key: &KeyRecord) -> Option<KeyClass> {
        use kf_api::authority::AuthorityKind;
        let authorities = self.authorities();
        let authority = key.purpose.strip_prefix("authority:").and_then(|name| authorities.by_name(name));
        match (authority, key.purpose.as_str()) {
            (Some(known), _) if known.record.kind == AuthorityKind::Issuing => Some(KeyClass::IssuingAuthorityKey),
            (Some(_), _) => Some(KeyClass::RootAuthorityKey),
            (None, "log") => Some(KeyClass::LogKey),
            (None, _) => role_of(key).map(class_of),
        }
    }
}

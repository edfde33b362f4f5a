//! Keys of the server itself, of facilities and of batches.

use kf_api::PageRequest;
use kf_api::batch::{Batch, BatchState};
use kf_api::certificate::Certificate;
use kf_api::encryption_key::{EncryptionKey, KeyVersion};
use kf_api::epoch::EpochState;
use kf_api::inventory::KeyPlace;
use kf_backend::BackendKind;
use kf_key::{CertificateProfile, CertificateStatus, FacilityId, KeyId, KeyProtection, KeyState, UnixMillis};
use kf_pki::certificate::PresentedCertificate;
use kf_pki::request::RequestedKey;
use kf_rotation::KeyClass;
use kf_signer::FIRST_VERSION;
use kf_store::certificate::CertificateQuery;
use kf_store::inventory::EpochRow;
use kf_store::key::{KeyMaterial, KeyRecord};
use kf_store::wrapping::WrappingVersion;

use super::row::{Algorithm, Row};
use super::{Asked, Reading, bad_cursor};
use crate::pinned_key::role_of;
use crate::{Fleet, FleetError};

/// The profiles of certificates that name no device.
pub(super) const OCSP: CertificateProfile = CertificateProfile::OcspSigner;
pub(super) const TLS: CertificateProfile = CertificateProfile::TlsServer;
pub(super) const OPERATOR: CertificateProfile = CertificateProfile::Operator;
pub(super) const AUTHORITY: CertificateProfile = CertificateProfile::IssuingCa;

impl Fleet {
    /// The root of the symmetric hierarchy, and what wraps under it. Both are as old as the fleet.
    pub(super) fn root_rows(&self) -> Result<Reading, FleetError> {
        let founded = self.store.keys_after(None, 1)?.first().map(|key| key.created);
        let (place, protection) = root_place(self.signer.capabilities().backend);
        let name = self.config.fleet.clone();
        let root = Row::new("root".into(), name, KeyClass::FleetRootKey, KeyState::Active, Algorithm::Hmac);
        let mut rows = vec![Row { place, protection, created: founded, activated: founded, ..root }];
        for version in self.wrapping_versions()? {
            rows.push(self.wrapping_row(&version)?);
        }
        Ok((rows, None))
    }

    /// A version of the wrapping key: the first is derived from the root, the others lie sealed in a file of their own.
    fn wrapping_row(&self, version: &WrappingVersion) -> Result<Row, FleetError> {
        let WrappingVersion { version: number, state, created, deactivated, .. } = *version;
        let name = format!("wrapping key version {number}");
        let row = Row::new(format!("wrap:{number}"), name, KeyClass::WrappingKey, state, Algorithm::Aes);
        let ended = state == KeyState::Destroyed;
        Ok(Row {
            place: if number == FIRST_VERSION { KeyPlace::Derived } else { KeyPlace::WrappingFile },
            protection: KeyProtection::Wrapped,
            created: Some(created),
            activated: Some(created),
            succeeded: deactivated.is_some(),
            protects: Some(if ended { 0 } else { self.store.wrapped_under(number)?.total() }),
            ..row
        })
    }

    /// Key pairs of the registry: CAs, log, delivery, orders, quotas.
    pub(super) fn key_rows(&self, asked: &Asked, cursor: &str) -> Result<Reading, FleetError> {
        let after = match cursor {
            "" => None,
            text => Some(text.parse::<KeyId>().map_err(|_not_an_id| bad_cursor())?),
        };
        let keys = self.store.keys_after(after, asked.rows)?;
        let next = next_cursor(&keys, asked, |key| key.id.to_string());
        let mut rows = Vec::new();
        for key in keys {
            rows.extend(self.key_row(key)?);
        }
        Ok((rows, next))
    }

    fn key_row(&self, key: KeyRecord) -> Result<Option<Row>, FleetError> {
        let authorities = self.authorities();
        let authority = key.purpose.strip_prefix("authority:").and_then(|name| authorities.by_name(name));
        // Of a purpose that has no class: left out rather than put into a wrong one.
        let Some(class) = self.class_of_pair(&key) else { return Ok(None) };
        let (place, protection) = match key.material {
            KeyMaterial::Wrapped(_) => (KeyPlace::Registry, KeyProtection::Wrapped),
            KeyMaterial::Token(_) => root_place(self.signer.capabilities().backend),
            KeyMaterial::Destroyed => (KeyPlace::Registry, KeyProtection::Unknown),
        };
        let pinned = self.pinned_keys();
        let role = role_of(&key);
        let newer = |role| pinned.newest(role).is_some_and(|newest| key.id < newest.id);
        let is_succeeded = role.is_some_and(newer) || class == KeyClass::LogKey && key.id < self.log.key();
        let protects = match role.filter(|_| is_succeeded && key.state == KeyState::Active) {
            Some(role) => Some(self.store.behind_pinned_key(key.id, role)?),
            None => None,
        };
        let row = Row::new(key.id.to_string(), key.purpose, class, key.state, Algorithm::Pair(key.algorithm));
        Ok(Some(Row {
            place,
            protection,
            created: Some(key.created),
            activated: key.activated,
            succeeded: is_succeeded,
            uses: Some(self.store.key_uses(key.id)?),
            protects,
            expires: authority.map(|known| known.record.not_after),
            facility: authority.and_then(|known| known.record.facility),
            spki_sha256: Some(hex::encode(kf_crypto::sha256(&key.spki))),
            ..row
        }))
    }

    /// Keys that are known by their certificates and belong to no device.
    pub(super) fn own_rows(
        &self,
        profile: CertificateProfile,
        asked: &Asked,
        cursor: &str,
    ) -> Result<Reading, FleetError> {
        let page = PageRequest { after: (!cursor.is_empty()).then(|| cursor.to_owned()), limit: Some(asked.rows) };
        let query = CertificateQuery { profile: Some(profile), page, ..CertificateQuery::default() };
        let page = self.store.certificates(&query, &asked.visibility)?;
        let authorities = self.authorities();
        let is_listed = |certificate: &Certificate| {
            // A CA of ours is in the section of key pairs already; what is left is at a station.
            profile == AUTHORITY && authorities.all().any(|known| known.record.subject == certificate.subject)
        };
        let mut rows = Vec::new();
        for certificate in page.items.into_iter().filter(|certificate| !is_listed(certificate)) {
            rows.push(self.own_row(&certificate)?);
        }
        Ok((rows, page.next))
    }

    fn own_row(&self, certificate: &Certificate) -> Result<Row, FleetError> {
        let (class, place, protection) = match certificate.profile {
            CertificateProfile::OcspSigner => {
                (KeyClass::OcspResponderKey, KeyPlace::ServerMemory, KeyProtection::Plain)
            }
            CertificateProfile::TlsServer => (KeyClass::TlsServerKey, KeyPlace::ServerMemory, KeyProtection::Plain),
            CertificateProfile::IssuingCa => (KeyClass::IssuingAuthorityKey, KeyPlace::Station, KeyProtection::Token),
            _ => (KeyClass::OperatorKey, KeyPlace::Operator, KeyProtection::Unknown),
        };
        let in_memory = place == KeyPlace::ServerMemory;
        let mut state = certificate_state(certificate, self.now());
        // Such a key was never stored: those of an earlier process are gone.
        if in_memory && certificate.serial.issued() < self.opened {
            state = KeyState::Destroyed;
        }
        let algorithm = self.algorithm_of(certificate)?;
        let row =
            Row::new(format!("cert:{}", certificate.serial), certificate.subject.clone(), class, state, algorithm);
        Ok(Row { place, protection, ..with_certificate(row, certificate) })
    }

    /// The keys of facilities, one per epoch.
    pub(super) fn facility_rows(&self, asked: &Asked, cursor: &str) -> Result<Reading, FleetError> {
        let after = match cursor.split_once('/') {
            None if cursor.is_empty() => None,
            None => return Err(bad_cursor()),
            Some((id, epoch)) => {
                let id = id.parse::<FacilityId>().map_err(|_not_an_id| bad_cursor())?;
                Some((id, epoch.parse::<u32>().map_err(|_not_a_number| bad_cursor())?))
            }
        };
        let epochs = self.store.epochs_after(asked.facility, &asked.visibility, after, asked.rows)?;
        let next = next_cursor(&epochs, asked, |row| format!("{}/{}", row.facility, row.epoch));
        Ok((epochs.into_iter().map(epoch_row).collect(), next))
    }

    /// The keys of batches, which a station holds.
    pub(super) fn batch_rows(&self, asked: &Asked, cursor: &str) -> Result<Reading, FleetError> {
        let page = PageRequest { after: (!cursor.is_empty()).then(|| cursor.to_owned()), limit: Some(asked.rows) };
        let page = self.store.batches(None, &asked.visibility, &page)?;
        let now = self.now();
        let of_facility = page.items.into_iter().filter(|batch| asked.facility.is_none_or(|id| id == batch.facility));
        Ok((of_facility.map(|batch| batch_row(batch, now)).collect(), page.next))
    }

    /// The versions of encryption keys, key by key: a page holds whole keys.
    pub(super) fn encryption_rows(&self, asked: &Asked, cursor: &str) -> Result<Reading, FleetError> {
        let page = PageRequest { after: (!cursor.is_empty()).then(|| cursor.to_owned()), limit: Some(asked.rows) };
        let page = self.store.encryption_keys(asked.facility, &asked.visibility, &page)?;
        let rows = page.items.iter().flat_map(|key| key.versions.iter().map(|version| encryption_row(key, version)));
        Ok((rows.collect(), page.next))
    }

    /// The algorithm of the key in a certificate.
    pub(super) fn algorithm_of(&self, certificate: &Certificate) -> Result<Algorithm, FleetError> {
        let stored = self.store.certificate(certificate.serial, &kf_access::Visibility::Fleet)?;
        let key = stored
            .and_then(|stored| PresentedCertificate::from_der(&stored.der))
            .and_then(|presented| RequestedKey::from_spki(&presented.spki).ok());
        Ok(key.map_or(Algorithm::Foreign, |key| Algorithm::Pair(key.algorithm)))
    }
}

/// Where to go on behind a reading that may have been cut.
fn next_cursor<T>(rows: &[T], asked: &Asked, cursor: impl Fn(&T) -> String) -> Option<String> {
    let full = u32::try_from(rows.len()).is_ok_and(|count| count >= asked.rows);
    rows.last().filter(|_| full).map(cursor)
}

const fn root_place(backend: BackendKind) -> (KeyPlace, KeyProtection) {
    match backend {
        BackendKind::SealedFile => (KeyPlace::RootFile, KeyProtection::Wrapped),
        BackendKind::Pkcs11 => (KeyPlace::Hardware, KeyProtection::Token),
        BackendKind::Tpm => (KeyPlace::Hardware, KeyProtection::Tpm),
        BackendKind::SecureElement => (KeyPlace::Hardware, KeyProtection::SecureElement),
    }
}

/// The state of a key pair, as its certificate tells it. What the server sees is the public half: after its end it is
/// deactivated. Whether the private half was destroyed is for its owner to say.
pub(super) fn certificate_state(certificate: &Certificate, now: UnixMillis) -> KeyState {
    use kf_key::RevocationReason::{AaCompromise, CaCompromise, KeyCompromise};
    match (certificate.status, certificate.reason) {
        (CertificateStatus::Revoked, Some(KeyCompromise | CaCompromise | AaCompromise)) => KeyState::Compromised,
        (CertificateStatus::Revoked, _) => KeyState::Deactivated,
        _ if now > certificate.not_after => KeyState::Deactivated,
        (CertificateStatus::Held, _) => KeyState::Suspended,
        (CertificateStatus::Good, _) => KeyState::Active,
    }
}

/// What a certificate says of its key.
pub(super) fn with_certificate(row: Row, certificate: &Certificate) -> Row {
    Row {
        created: Some(certificate.serial.issued()),
        activated: Some(certificate.serial.issued()),
        expires: Some(certificate.not_after),
        facility: certificate.facility,
        device: certificate.device,
        certificate: Some(certificate.serial),
        spki_sha256: Some(certificate.spki_sha256.clone()),
        ..row
    }
}

/// A retired epoch is deactivated and not destroyed: the server derives nothing under it any more, and the root could.
fn epoch_row(epoch: EpochRow) -> Row {
    let EpochRow { facility, epoch: number, state, created, succeeded } = epoch;
    let state = match state {
        EpochState::Pending | EpochState::Current => KeyState::Active,
        EpochState::Retired => KeyState::Deactivated,
    };
    let name = format!("epoch {number}");
    let row = Row::new(format!("{facility}/{number}"), name, KeyClass::FacilityKey, state, Algorithm::Hmac);
    Row { created: Some(created), activated: Some(created), succeeded, facility: Some(facility), ..row }
}

fn batch_row(batch: Batch, now: UnixMillis) -> Row {
    let state = match batch.state {
        BatchState::Compromised => KeyState::Compromised,
        BatchState::Cancelled => KeyState::Deactivated,
        BatchState::Open if now > batch.expires => KeyState::Deactivated,
        BatchState::Open => KeyState::Active,
    };
    let row = Row::new(batch.id.to_string(), batch.name, KeyClass::BatchKey, state, Algorithm::Hmac);
    Row {
        place: KeyPlace::Station,
        protection: KeyProtection::Token,
        created: Some(batch.issued),
        activated: Some(batch.issued),
        expires: Some(batch.expires),
        facility: Some(batch.facility),
        product_line: Some(batch.product_line),
        ..row
    }
}

fn encryption_row(key: &EncryptionKey, version: &KeyVersion) -> Row {
    let KeyVersion { version: number, state, created, deactivated, encryptions, objects, .. } = version;
    let name = format!("{} version {number}", key.name);
    let row = Row::new(format!("{}/{number}", key.id), name, KeyClass::DataEncryptionKey, *state, Algorithm::Aes);
    Row {
        place: KeyPlace::Registry,
        protection: KeyProtection::Wrapped,
        created: Some(*created),
        activated: Some(*created),
        succeeded: deactivated.is_some(),
        uses: Some(*encryptions),
        protects: Some(*objects),
        facility: Some(key.facility),
        ..row
    }
}

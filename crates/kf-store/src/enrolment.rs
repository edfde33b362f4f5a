//! Bootstrap: enrolment codes, vouchers, and enrolments that wait for a person.

use kf_access::Visibility;
use kf_api::enrolment::{Code, Enrolment, EnrolmentState};
use kf_api::{Page, PageRequest};
use kf_key::{CodeId, DeviceId, EnrolmentId, UnixMillis};

use crate::{Audit, Logged, Store, StoreError};

/// A code as the store keeps it: hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeRecord {
    /// The code without its secret.
    pub code: Code,
    /// Hash of the secret; how it is made is the caller's business.
    pub hash: [u8; 32],
    /// SHA-256 of the SubjectPublicKeyInfo it was used with.
    pub used_with: Option<[u8; 32]>,
}

/// Failed attempts to use a code of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailedAttempts {
    /// How many since the last success.
    pub count: u32,
    /// When the last one was.
    pub last: Option<UnixMillis>,
}

impl Store {
    /// Adds an enrolment code.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the device; [`StoreError::Conflict`] on `id` or `code`.
    pub async fn insert_code(&self, code: CodeRecord, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        let _ = (code, audit.into());
        todo!()
    }

    /// The codes of a device, newest first, at most 100, used, withdrawn and expired ones included.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn codes_of_device(&self, device: DeviceId) -> Result<Vec<CodeRecord>, StoreError> {
        let _ = device;
        todo!()
    }

    /// A code by id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn code(&self, id: CodeId) -> Result<Option<CodeRecord>, StoreError> {
        let _ = id;
        todo!()
    }

    /// Withdraws a code that was not used yet.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it is used or withdrawn.
    pub async fn withdraw_code(&self, id: CodeId, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        let _ = (id, audit.into());
        todo!()
    }

    /// Counts a failed attempt and says how many there are now. Durable, so that a restart does not forget; not logged.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn count_failed_attempt(&self, device: DeviceId, at: UnixMillis) -> Result<FailedAttempts, StoreError> {
        let _ = (device, at);
        todo!()
    }

    /// Failed attempts on a device's codes; an issuance on a code sets them back to zero.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn failed_attempts(&self, device: DeviceId) -> Result<FailedAttempts, StoreError> {
        let _ = device;
        todo!()
    }

    /// Whether a voucher was used.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn voucher_used(&self, id: &str) -> Result<bool, StoreError> {
        let _ = id;
        todo!()
    }

    /// Notes that a device with this key waits for a person, or finds what was noted before: the same device with the
    /// same key is one enrolment, and asking again changes nothing and logs nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the device; [`StoreError::Invalid`] when more than 16 enrolments of it wait.
    pub async fn request_enrolment(
        &self,
        enrolment: Enrolment,
        audit: impl Into<Audit>,
    ) -> Result<Enrolment, StoreError> {
        let _ = (enrolment, audit.into());
        todo!()
    }

    /// The enrolment of a device with this key.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn enrolment_of(&self, device: DeviceId, spki_sha256: &[u8; 32]) -> Result<Option<Enrolment>, StoreError> {
        let _ = (device, spki_sha256);
        todo!()
    }

    /// An enrolment by id; `None` also when its device lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn enrolment(&self, id: EnrolmentId, visibility: &Visibility) -> Result<Option<Enrolment>, StoreError> {
        let _ = (id, visibility);
        todo!()
    }

    /// Enrolments in this state, oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn enrolments(
        &self,
        state: EnrolmentState,
        visibility: &Visibility,
        page: &PageRequest,
    ) -> Result<Page<Enrolment>, StoreError> {
        let _ = (state, visibility, page);
        todo!()
    }

    /// A person's decision on a waiting enrolment: `Approved` or `Refused`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] (also outside `visibility`); [`StoreError::IllegalState`] when it does not wait.
    pub async fn decide_enrolment(
        &self,
        id: EnrolmentId,
        to: EnrolmentState,
        visibility: Visibility,
        audit: impl Into<Audit>,
    ) -> Result<Logged<Enrolment>, StoreError> {
        let _ = (id, to, visibility, audit.into());
        todo!()
    }
}

//! One-time enrolment codes, and enrolments that wait for a person.

use kf_access::Principal;
use kf_api::enrolment::{Code, CodeRequest, Enrolment, EnrolmentDecision, NewCode};
use kf_api::{Page, PageRequest};
use kf_key::{CodeId, EnrolmentId};

use crate::{Fleet, FleetError};

impl Fleet {
    /// Makes a one-time enrolment code for a registered device. Earlier unused codes of the device are withdrawn.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`] when the device may not enrol.
    pub async fn code_create(&self, who: &Principal, request: CodeRequest) -> Result<NewCode, FleetError> {
        let _ = (who, request);
        todo!()
    }

    /// The codes of a device, newest first.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn code_list(&self, who: &Principal, device: &str) -> Result<Vec<Code>, FleetError> {
        let _ = (who, device);
        todo!()
    }

    /// Withdraws a code.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn code_withdraw(&self, who: &Principal, code: CodeId) -> Result<(), FleetError> {
        let _ = (who, code);
        todo!()
    }

    /// Enrolments that wait for a person.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn enrolment_list(&self, who: &Principal, page: PageRequest) -> Result<Page<Enrolment>, FleetError> {
        let _ = (who, page);
        todo!()
    }

    /// Grants or refuses a waiting enrolment.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`] when it was decided before.
    pub async fn enrolment_decide(
        &self,
        who: &Principal,
        enrolment: EnrolmentId,
        decision: EnrolmentDecision,
    ) -> Result<Enrolment, FleetError> {
        let _ = (who, enrolment, decision);
        todo!()
    }
}

//! What the store says, as errors of the use cases.

use kf_store::StoreError;

use crate::FleetError;

impl From<StoreError> for FleetError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what } => Self::NotFound(what),
            StoreError::Conflict { field } => {
                Self::conflict(field, "it is taken", "choose another one, or look at what holds it")
            }
            StoreError::KeyInUse { .. } => crate::issuance::key_of_another(),
            StoreError::IllegalState { .. } => {
                Self::conflict("state", error.to_string(), "look at its present state, then decide again")
            }
            StoreError::IllegalKeyTransition(_) | StoreError::IllegalDeviceTransition(_) => {
                Self::conflict("state", error.to_string(), "look at its present state, then decide again")
            }
            StoreError::Invalid { field, problem } => Self::invalid(field, problem, "correct the value"),
            StoreError::Stopped { why } => Self::IssuanceStopped(why),
            StoreError::Full => Self::StoreFull,
            StoreError::Fenced { why } => Self::Fenced(why),
            StoreError::Busy => Self::TooMany { retry_after_seconds: 1 },
            other => Self::Store(other),
        }
    }
}

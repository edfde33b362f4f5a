//! What a refusal of the store means to a caller.

use kf_store::StoreError;

use crate::FleetError;

impl From<StoreError> for FleetError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what } => Self::NotFound(what),
            StoreError::Conflict { field } => taken(field),
            StoreError::KeyInUse { .. } => crate::issuance::key_of_another(),
            StoreError::IllegalState { what, found, expected } => Self::conflict(
                what,
                format!("is {found}, not {expected}"),
                "look at it again: it changed in between, or was never so",
            ),
            StoreError::IllegalKeyTransition(transition) => {
                Self::conflict("key", transition.to_string(), "see SP 800-57 for the steps of a key's life")
            }
            StoreError::IllegalDeviceTransition(transition) => {
                Self::conflict("device", transition.to_string(), "look at the device's state first")
            }
            StoreError::Invalid { field, problem } => Self::invalid(field, problem, "keep to the documented limits"),
            StoreError::Stopped { why } => Self::IssuanceStopped(why),
            StoreError::Full => Self::StoreFull,
            StoreError::Fenced { why } => Self::Fenced(why),
            StoreError::Busy => Self::TooMany { retry_after_seconds: 1 },
            other => Self::Store(other),
        }
    }
}

fn taken(field: &'static str) -> FleetError {
    let remedy = match field {
        "name" => "choose another name",
        "voucher" => "make a new voucher: each one is used once",
        _ => "try again: a fresh one is drawn each time",
    };
    FleetError::conflict(field, "is in use already", remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_use_does_not_say_whose_it_is() {
        let error = FleetError::from(StoreError::KeyInUse { holder: "dev_of_somebody_else".into() });
        assert!(!format!("{error:?}").contains("somebody"));
        assert!(matches!(error, FleetError::Conflict { .. }));
    }

    #[test]
    fn what_the_operator_must_mend_keeps_its_own_kind() {
        assert!(matches!(FleetError::from(StoreError::Full), FleetError::StoreFull));
        let stopped = FleetError::from(StoreError::Stopped { why: "drill".into() });
        assert!(matches!(stopped, FleetError::IssuanceStopped(why) if why == "drill"));
        let fenced = FleetError::from(StoreError::Fenced { why: "older".into() });
        assert!(matches!(fenced, FleetError::Fenced(why) if why == "older"));
        assert!(matches!(FleetError::from(StoreError::Busy), FleetError::TooMany { retry_after_seconds: 1 }));
        assert!(matches!(FleetError::from(StoreError::Closed), FleetError::Store(StoreError::Closed)));
    }
}

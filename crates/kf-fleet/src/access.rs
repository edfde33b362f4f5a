//! Why somebody may do something, or not.

use kf_access::{Action, Principal, Target, authorize, explain};
use kf_api::access::{AccessExplained, AccessQuestion};
use kf_api::operator::{Credential, Role};
use kf_key::OperatorId;

use crate::naming::shortened;
use crate::{Fleet, FleetError};

impl Fleet {
    /// Explains whether an operator may do something. Everybody may ask about themselves; about others, who may see operators.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] for an action that there is not, [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn access_explain(
        &self,
        who: &Principal,
        question: AccessQuestion,
    ) -> Result<AccessExplained, FleetError> {
        let own = who.id.parse::<OperatorId>().ok();
        let about_oneself = question.who == who.name || question.who == who.id;
        if !about_oneself || own.is_none() {
            authorize(who, Action::OperatorRead, Target::Fleet)?;
        }
        let operator = self.find_operator(&question.who)?;
        let action = Action::named(&question.action).ok_or_else(|| {
            FleetError::invalid(
                "action",
                format!("`{}` is no action", shortened(&question.action)),
                "name one as refusals do, for example certificate.revoke; `keyfleet access list` has all of them",
            )
        })?;
        let facility = match &question.facility {
            Some(facility) => Some(self.find_facility(facility, &who.visibility())?),
            None => None,
        };
        let target = facility.as_ref().map_or(Target::Fleet, |facility| Target::Facility(facility.id));
        let facilities = operator.facilities.iter().copied();
        let id = operator.id.to_string();
        let principal = Principal::new(id, operator.name.clone(), operator.role, facilities, Credential::Token);
        let explained = explain(&principal, action, target);
        let mut because = explained.because;
        if !operator.enabled {
            because.insert(0, "the operator is disabled, and signs in to nothing".to_owned());
        }
        let mut scope = Vec::with_capacity(operator.facilities.len());
        for id in &operator.facilities {
            scope.extend(self.store.facility(*id, &kf_access::Visibility::Fleet)?.map(|facility| facility.name));
        }
        Ok(AccessExplained {
            operator: operator.id,
            name: operator.name,
            role: operator.role,
            scope,
            action: action.name().to_owned(),
            facility: facility.map(|facility| facility.name),
            allowed: explained.allowed && operator.enabled,
            because,
            roles: Role::ALL.into_iter().filter(|role| action.allowed_to(*role)).collect(),
            second_person: action.second_person().to_owned(),
            break_glass: self.break_glasses_for(action, target)?,
        })
    }
}

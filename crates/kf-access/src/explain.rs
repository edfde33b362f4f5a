//! Why somebody may do something, or not: the same decision as [`authorize`], taken apart.

use kf_api::operator::{Credential, Role};

use crate::{Action, Principal, Scope, Target, authorize};

/// A decision with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What [`authorize`] says.
    pub allowed: bool,
    /// Why, each a sentence; never empty.
    pub because: Vec<String>,
}

/// Explains what [`authorize`] decides. It decides nothing itself.
#[must_use]
pub fn explain(principal: &Principal, action: Action, target: Target) -> Explanation {
    let allowed = authorize(principal, action, target).is_ok();
    let role = principal.role.name();
    let mut because = Vec::new();
    if action.allowed_to(principal.role) {
        because.push(format!("the role {role} may {}", action.name()));
    } else {
        because.push(format!("the role {role} may not {}, wherever it is", action.name()));
    }
    because.push(match (&principal.scope, target) {
        (Scope::Fleet, _) => "the scope of this role is the whole fleet".to_owned(),
        (Scope::Facilities(_), Target::Fleet) if action.is_shared_reading() => {
            "every facility shares what is read here".to_owned()
        }
        (Scope::Facilities(facilities), Target::Fleet) => {
            format!("the scope is {} facilities, and this concerns the fleet as a whole", facilities.len())
        }
        (Scope::Facilities(facilities), Target::Facility(facility)) if facilities.contains(&facility) => {
            "the facility is in scope".to_owned()
        }
        (Scope::Facilities(_), Target::Facility(_)) => {
            "the facility is not in scope: nothing there is found, let alone changed".to_owned()
        }
        (Scope::Facilities(_), Target::Visible) => "a listing shows what is in scope".to_owned(),
    });
    if principal.credential == Credential::BreakGlass && !action.in_break_glass() {
        because.push(
            "behind broken glass one may not do this, whatever the role: only stop, and run an incident".to_owned(),
        );
    }
    if principal.role == Role::Device || matches!(principal.credential, Credential::Code | Credential::Voucher) {
        because.push("this credential enrols a device and operates nothing".to_owned());
    }
    Explanation { allowed, because }
}

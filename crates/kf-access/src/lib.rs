//! Who may do what to which scope, and what needs two people. A closed core: roles, actions and the table between them
//! are code, so that no configuration can make a super admin. Everything not in the table is denied.
//!
//! The permission is a value: [`Permit`] has no constructor but [`authorize`], and services demand one.
//!
//! ```compile_fail,E0423
//! let forged = kf_access::Permit(());
//! ```
#![forbid(unsafe_code)]

mod action;
mod dual_control;
mod explain;
mod principal;

pub use action::Action;
pub use dual_control::{Control, DualControl, Stake};
pub use explain::{Explanation, explain};
pub use principal::{Principal, Scope, Visibility};

use kf_api::operator::{Credential, Role};
use kf_key::FacilityId;

/// What an act is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The fleet as a whole, or something that belongs to no facility.
    Fleet,
    /// Something that belongs to this facility.
    Facility(FacilityId),
    /// Whatever the caller can see: for listings, which [`Permit::visibility`] then limits.
    Visible,
}

/// An act is not allowed. Deliberately says nothing about what exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("role {role} may not {action} here")]
pub struct Denied {
    /// The caller's role.
    pub role: &'static str,
    /// What they wanted.
    pub action: &'static str,
    /// Whether the caller may know that the target exists: false turns the answer into "not found".
    pub may_know: bool,
}

/// The proof that somebody was allowed to do something. Made by [`authorize`] only; not Clone, so it is spent once.
#[derive(Debug)]
pub struct Permit {
    action: Action,
    target: Target,
    visibility: Visibility,
}

impl Permit {
    /// The action that was allowed.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.action
    }

    /// The target that was allowed.
    #[must_use]
    pub const fn target(&self) -> Target {
        self.target
    }

    /// What the holder may see; queries take it as an argument and filter by it.
    #[must_use]
    pub const fn visibility(&self) -> &Visibility {
        &self.visibility
    }
}

/// Decides whether `principal` may do `action` to `target`.
///
/// # Errors
/// [`Denied`] for everything the table does not allow, and for every target outside the principal's scope.
pub fn authorize(principal: &Principal, action: Action, target: Target) -> Result<Permit, Denied> {
    let denied = |may_know| Denied { role: principal.role.name(), action: action.name(), may_know };
    let visibility = principal.visibility();
    let in_scope = match target {
        Target::Fleet => principal.scope == Scope::Fleet || action.is_shared_reading(),
        Target::Facility(facility) => visibility.sees(facility),
        Target::Visible => true,
    };
    if !in_scope {
        return Err(denied(matches!(target, Target::Fleet)));
    }
    let credential_fits = match (principal.role, principal.credential) {
        (Role::Device, _) | (_, Credential::Code | Credential::Voucher) => false,
        (_, Credential::Certificate | Credential::Token | Credential::Server) => true,
        (_, Credential::BreakGlass) => action.in_break_glass(),
    };
    if credential_fits && action.allowed_to(principal.role) {
        Ok(Permit { action, target, visibility })
    } else {
        Err(denied(true))
    }
}

#[cfg(test)]
mod tests;

//! Log entries of the use cases.

use kf_access::Principal;
use kf_api::operator::Credential;
use kf_key::{FacilityId, UnixMillis};
use kf_log::{Actor, AuditEntry, Phase};

/// An entry under construction: who, what, when; then `about`, `at_facility`, `because`, `with`.
#[derive(Clone, Debug)]
pub(crate) struct Entry(AuditEntry);

/// Name of a credential in the log.
pub(crate) const fn credential_name(credential: Credential) -> &'static str {
    match credential {
        Credential::Certificate => "certificate",
        Credential::Token => "token",
        Credential::BreakGlass => "break-glass",
        Credential::Code => "code",
        Credential::Voucher => "voucher",
        Credential::Server => "server",
    }
}

impl Entry {
    /// An act complete in itself.
    pub(crate) fn done(who: &Principal, act: &str, at: UnixMillis) -> Self {
        Self(AuditEntry {
            v: 1,
            at,
            who: Actor {
                id: who.id.clone(),
                name: who.name.clone(),
                role: who.role.name().into(),
                by: credential_name(who.credential).into(),
                token: who.token,
            },
            act: act.into(),
            phase: Phase::Done,
            facility: None,
            subjects: who.break_glass.iter().map(ToString::to_string).collect(),
            why: String::new(),
            detail: who.break_glass.iter().map(|id| ("break_glass".to_owned(), id.to_string())).collect(),
        })
    }

    /// The same entry as intent or outcome of an act outside the database.
    pub(crate) fn phase(mut self, phase: Phase) -> Self {
        self.0.phase = phase;
        self
    }

    /// What it is about; at most eight subjects are kept.
    pub(crate) fn about(mut self, subject: impl ToString) -> Self {
        if self.0.subjects.len() < 8 {
            self.0.subjects.push(subject.to_string());
        }
        self
    }

    /// The facility it concerns.
    pub(crate) fn at_facility(mut self, facility: Option<FacilityId>) -> Self {
        self.0.facility = facility;
        self
    }

    /// Why, in the actor's words.
    pub(crate) fn because(mut self, why: &str) -> Self {
        self.0.why = why.into();
        self
    }

    /// A further fact. Never a secret.
    pub(crate) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.0.detail.insert(key.into(), value.to_string());
        self
    }

    /// The entry.
    pub(crate) fn build(self) -> AuditEntry {
        self.0
    }
}

//! What to do next, from what is stored, what has happened and what time it is. Pure: no socket, file, clock or
//! randomness; [`decide`] says the step, whoever carries it out tells [`State::observe`] how it went.

use kf_key::UnixMillis;

use super::schedule::wait_after_failure;

/// How often a new certificate may be refused in its proof before it is given up.
const MAX_PROOF_REFUSALS: u32 = 3;
/// How long to leave it after somebody was asked to act.
const ATTENTION_PAUSE_MILLIS: u64 = UnixMillis::HOUR;

/// How the device authenticates an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Credential {
    /// The certificate in use, even when it has expired: the server's policy knows a grace window.
    Certificate,
    /// The one-time enrolment code.
    Code,
    /// The identity from the factory.
    IDevId,
}

impl Credential {
    /// As named in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Code => "code",
            Self::IDevId => "idevid",
        }
    }
}

/// The times of the certificate in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: UnixMillis,
    /// Last moment.
    pub not_after: UnixMillis,
    /// When to renew: [`renew_at`](super::schedule::renew_at).
    pub renew_at: UnixMillis,
}

/// What the slot that is not in use holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spare {
    /// Nothing of use.
    Empty,
    /// A key and a request for it.
    Requested,
    /// A certificate that nobody has accepted yet.
    Issued(Validity),
    /// A certificate that the server has accepted.
    Proven(Validity),
}

/// Which credentials the server has refused since somebody last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    certificate: bool,
    code: bool,
    idevid: bool,
}

/// Everything that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The certificate in use.
    pub in_use: Option<Validity>,
    /// The other slot.
    pub spare: Spare,
    /// Whether an enrolment code is configured.
    pub has_code: bool,
    /// Whether an IDevID is configured.
    pub has_idevid: bool,
    /// Whether the hook has not run since the certificate changed.
    pub hook_due: bool,
    /// Credentials refused.
    pub refused: Refused,
    /// Failures in a row.
    pub failures: u32,
    /// Refused proofs in a row.
    pub proof_refusals: u32,
    /// No attempt before this moment.
    pub rest_until: UnixMillis,
}

/// Why somebody has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// No certificate, and nothing to get one with.
    NoBootstrap,
    /// Everything the device can show has been refused.
    AllRefused,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until then.
    Wait {
        /// When to ask again.
        until: UnixMillis,
    },
    /// Run the hook and export the chain.
    RunHook,
    /// Make a key and a request, and store them in the spare slot.
    MakeRequest,
    /// Send the stored request, authenticated by this.
    Enrol(Credential),
    /// Connect with the new certificate.
    Prove,
    /// Put the new certificate into use.
    Adopt,
    /// Ask for help.
    AskForAttention(Attention),
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The hook ended, one way or the other.
    HookRan,
    /// Key and request are stored.
    RequestMade,
    /// The certificate is stored.
    Issued(Validity),
    /// The request waits for a person; the server's Retry-After.
    Pending {
        /// Milliseconds.
        retry_after: u64,
    },
    /// The server refused this credential.
    Refused(Credential),
    /// The server refused the request itself; it has been discarded.
    RequestRefused,
    /// The new certificate was accepted.
    Proved,
    /// The new certificate was refused.
    ProofRefused,
    /// The new certificate has been given up and the slot emptied.
    Discarded,
    /// The new certificate is in use.
    Adopted,
    /// Somebody was told.
    AttentionAsked,
    /// Network, server or disk: it may work next time.
    Failed {
        /// The server's Retry-After in milliseconds, or 0.
        retry_after: u64,
    },
}

impl State {
    /// The state right after a start.
    #[must_use]
    pub const fn new(in_use: Option<Validity>, spare: Spare, has_code: bool, has_idevid: bool, hook_due: bool) -> Self {
        let refused = Refused { certificate: false, code: false, idevid: false };
        Self {
            in_use,
            spare,
            has_code,
            has_idevid,
            hook_due,
            refused,
            failures: 0,
            proof_refusals: 0,
            rest_until: UnixMillis(0),
        }
    }

    /// Whether a valid certificate is in use.
    #[must_use]
    pub fn is_valid(&self, now: UnixMillis) -> bool {
        self.in_use.is_some_and(|validity| now <= validity.not_after)
    }

    /// Whether a new certificate that keeps being refused is to be given up.
    #[must_use]
    pub const fn gives_up_proof(&self) -> bool {
        self.proof_refusals >= MAX_PROOF_REFUSALS
    }

    /// The next credential to show: the certificate first, then what an operator handed over, then the factory's.
    fn credential(&self) -> Result<Credential, Attention> {
        let candidates = [
            (Credential::Certificate, self.in_use.is_some(), self.refused.certificate),
            (Credential::Code, self.has_code, self.refused.code),
            (Credential::IDevId, self.has_idevid, self.refused.idevid),
        ];
        if candidates.iter().all(|(_, available, _)| !available) {
            return Err(Attention::NoBootstrap);
        }
        let usable = candidates.into_iter().find(|(_, available, refused)| *available && !refused);
        usable.map(|(credential, ..)| credential).ok_or(Attention::AllRefused)
    }

    /// Takes an outcome into account. `random` spreads the waits.
    pub fn observe(&mut self, outcome: Outcome, now: UnixMillis, random: u64) {
        match outcome {
            Outcome::HookRan => self.hook_due = false,
            Outcome::RequestMade => self.spare = Spare::Requested,
            Outcome::Issued(validity) => {
                self.spare = Spare::Issued(validity);
                self.settle();
            }
            Outcome::Pending { retry_after } => {
                // A wait that was asked for is no failure.
                self.failures = 0;
                self.rest_until = now.plus(wait_after_failure(1, random, retry_after));
            }
            Outcome::Refused(credential) => match credential {
                Credential::Certificate => self.refused.certificate = true,
                Credential::Code => self.refused.code = true,
                Credential::IDevId => self.refused.idevid = true,
            },
            Outcome::RequestRefused | Outcome::Discarded => {
                self.spare = Spare::Empty;
                self.proof_refusals = 0;
                self.rest(now, random, 0);
            }
            Outcome::Proved => {
                if let Spare::Issued(validity) = self.spare {
                    self.spare = Spare::Proven(validity);
                }
            }
            Outcome::ProofRefused => {
                self.proof_refusals = self.proof_refusals.saturating_add(1);
                self.rest(now, random, 0);
            }
            Outcome::Adopted => {
                if let Spare::Proven(validity) = self.spare {
                    self.in_use = Some(validity);
                }
                self.spare = Spare::Empty;
                self.hook_due = true;
                self.settle();
            }
            Outcome::AttentionAsked => {
                // What was refused may have been allowed in the meantime: try everything once more after the pause.
                self.refused = Refused::default();
                self.rest_until = now.plus(ATTENTION_PAUSE_MILLIS + random % (ATTENTION_PAUSE_MILLIS / 4));
            }
            Outcome::Failed { retry_after } => self.rest(now, random, retry_after),
        }
    }

    fn settle(&mut self) {
        self.failures = 0;
        self.proof_refusals = 0;
        self.refused = Refused::default();
        self.rest_until = UnixMillis(0);
    }

    fn rest(&mut self, now: UnixMillis, random: u64, asked_millis: u64) {
        self.failures = self.failures.saturating_add(1);
        self.rest_until = now.plus(wait_after_failure(self.failures, random, asked_millis));
    }
}

/// The next step.
#[must_use]
pub fn decide(state: &State, now: UnixMillis) -> Step {
    if state.hook_due {
        return Step::RunHook;
    }
    if state.spare == Spare::Empty
        && let Some(in_use) = state.in_use
        && now < in_use.renew_at
    {
        return Step::Wait { until: in_use.renew_at };
    }
    if now < state.rest_until {
        return Step::Wait { until: state.rest_until };
    }
    match state.spare {
        Spare::Proven(_) => Step::Adopt,
        Spare::Issued(_) => Step::Prove,
        // Without a credential a key would be made for nothing.
        Spare::Empty | Spare::Requested => match state.credential() {
            Err(attention) => Step::AskForAttention(attention),
            Ok(_) if state.spare == Spare::Empty => Step::MakeRequest,
            Ok(credential) => Step::Enrol(credential),
        },
    }
}

#[cfg(test)]
mod tests;

//! What can go wrong at the edge, which exit code it means, and what to do next.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use kf_client::ClientError;

/// Exit codes, stable: scripts rely on them.
pub(crate) mod exit {
    /// It failed.
    pub(crate) const FAILED: u8 = 1;
    /// The command line, or a field of the request, is wrong.
    pub(crate) const USAGE: u8 = 2;
    /// There is no such thing, or the caller may not know of it.
    pub(crate) const NOT_FOUND: u8 = 3;
    /// Not authenticated, or not allowed.
    pub(crate) const DENIED: u8 = 4;
    /// It contradicts the state of the fleet.
    pub(crate) const CONFLICT: u8 = 5;
    /// Not wholly done: some items failed, or it waits for a second person.
    pub(crate) const PARTIAL: u8 = 6;
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line is wrong or incomplete.
    #[error("{problem}")]
    Usage {
        /// What is wrong.
        problem: String,
        /// What to write instead.
        remedy: String,
    },
    /// Something that exists must not be overwritten, or is in the way.
    #[error("{problem}")]
    InTheWay {
        /// What.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// Something on this machine is not as it must be.
    #[error("{problem}")]
    Local {
        /// What.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// A file could not be used.
    #[error("cannot {action} {path}")]
    File {
        /// `read`, `write` and the like.
        action: &'static str,
        /// Which.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// Output could not be written.
    #[error("the output cannot be written")]
    Output(#[source] io::Error),
    /// The call to the server failed.
    #[error("{}", told(.0))]
    Client(#[source] ClientFailure),
    /// The fleet's use cases refused, in this process.
    #[error(transparent)]
    Fleet(#[from] kf_fleet::FleetError),
    /// The signer.
    #[error(transparent)]
    Signer(#[from] kf_signer::SignerError),
    /// Not wholly done.
    #[error("{problem}")]
    Partial {
        /// What is missing.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// The log does not verify.
    #[error("the log does not verify: {problem}")]
    LogFault {
        /// Where and what.
        problem: String,
    },
    /// Everything was said already; only the exit code is left.
    #[error("exit code {0}")]
    Silent(u8),
}

/// A client error whose own text is printed by [`Failure`], so that a chain does not say it twice.
#[derive(Debug)]
pub(crate) struct ClientFailure(ClientError);

impl std::fmt::Display for ClientFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&told(self))
    }
}

impl Error for ClientFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(ClientFailure(error))
    }
}

impl Failure {
    /// Whether nobody answered at all, or hung up before there was an answer: a server that starts, or stops, looks so.
    pub(crate) fn is_unreachable(&self) -> bool {
        match self {
            Self::Client(ClientFailure(ClientError::Unreachable { .. } | ClientError::Exchange { .. })) => true,
            Self::Client(ClientFailure(ClientError::Tls { source, .. })) => {
                matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
            }
            _ => false,
        }
    }
}

fn told(failure: &ClientFailure) -> String {
    match &failure.0 {
        ClientError::Problem(problem) => match &problem.field {
            Some(field) if !problem.title.contains(field.as_str()) => format!("{} ({field})", problem.title),
            _ => problem.title.clone(),
        },
        other => other.to_string(),
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain_of(error: &dyn Error) -> String {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a string cannot fail.
        let _written = write!(chain, ": {cause}");
        source = cause.source();
    }
    chain
}

impl Failure {
    /// A refusal of the command line.
    pub(crate) fn usage(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Usage { problem: problem.into(), remedy: remedy.into() }
    }

    /// Something on this machine is not as it must be.
    pub(crate) fn local(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Local { problem: problem.into(), remedy: remedy.into() }
    }

    /// A file that could not be used.
    pub(crate) fn file(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        Self::File { action, path: path.display().to_string(), source }
    }

    /// Whether the same call may succeed later without anybody changing anything here.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Client(ClientFailure(error)) => error.status().is_none_or(|status| status >= 500 || status == 429),
            _ => false,
        }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage { .. } => exit::USAGE,
            Self::InTheWay { .. } => exit::CONFLICT,
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => exit::NOT_FOUND,
            Self::File { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => exit::CONFLICT,
            Self::Local { .. } | Self::File { .. } | Self::Output(_) | Self::Signer(_) | Self::LogFault { .. } => {
                exit::FAILED
            }
            Self::Client(ClientFailure(error)) => error.status().map_or(exit::FAILED, code_of_status),
            Self::Fleet(error) => code_of_fleet(error),
            Self::Partial { .. } => exit::PARTIAL,
            Self::Silent(code) => *code,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Usage { remedy, .. }
            | Self::InTheWay { remedy, .. }
            | Self::Local { remedy, .. }
            | Self::Partial { remedy, .. } => Some(remedy.clone()),
            Self::File { source, .. } => remedy_of_file(source.kind()).map(str::to_owned),
            Self::Client(ClientFailure(error)) => remedy_of_client(error),
            Self::Fleet(error) => remedy_of_fleet(error),
            Self::LogFault { .. } => {
                Some("keep this copy of the log as evidence and compare the checkpoint with the witness's".to_owned())
            }
            Self::Signer(kf_signer::SignerError::Start(_)) => Some(
                "give the passphrase or PIN of this very root; `keyfleet doctor --data DIR` looks at its files"
                    .to_owned(),
            ),
            Self::Signer(_) => Some("see the lines above, and `keyfleet doctor --data DIR`".to_owned()),
            Self::Output(_) | Self::Silent(_) => None,
        }
    }

    /// Prints the chain once and what to do next, and gives the exit code. A reader that went away (`| head`) is no
    /// failure.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Self::Silent(code) => ExitCode::from(*code),
            _ => {
                crate::output::say(&self.text());
                ExitCode::from(self.code())
            }
        }
    }

    /// The chain and the remedy as text, one line each.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {self}");
        let mut last = self.to_string();
        // The immediate source of a client failure has the same text.
        let mut source = self.source();
        while let Some(cause) = source {
            let said = cause.to_string();
            if said != last {
                // Writing to a String does not fail.
                let _ok = write!(text, "\n  because: {said}");
                last = said;
            }
            source = cause.source();
        }
        if let Some(remedy) = self.remedy() {
            let _ok = write!(text, "\n  try: {remedy}");
        }
        text
    }
}

const fn code_of_status(status: u16) -> u8 {
    match status {
        400 => exit::USAGE,
        401 | 403 => exit::DENIED,
        404 => exit::NOT_FOUND,
        409 => exit::CONFLICT,
        _ => exit::FAILED,
    }
}

fn code_of_fleet(error: &kf_fleet::FleetError) -> u8 {
    use kf_fleet::FleetError::{Conflict, Denied, Invalid, NotFound, Unauthenticated};
    match error {
        Invalid { .. } => exit::USAGE,
        Unauthenticated | Denied(_) => exit::DENIED,
        NotFound(_) => exit::NOT_FOUND,
        Conflict { .. } => exit::CONFLICT,
        _ => exit::FAILED,
    }
}

fn remedy_of_fleet(error: &kf_fleet::FleetError) -> Option<String> {
    match error {
        kf_fleet::FleetError::Invalid { remedy, .. } | kf_fleet::FleetError::Conflict { remedy, .. } => {
            Some(remedy.clone())
        }
        _ => None,
    }
}

const fn remedy_of_file(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::NotFound => Some("check the path"),
        io::ErrorKind::PermissionDenied => Some("run as the user that owns it, or change its permissions"),
        io::ErrorKind::AlreadyExists => Some("choose another name; nothing is overwritten"),
        io::ErrorKind::StorageFull => Some("make room on that file system"),
        _ => None,
    }
}

fn remedy_of_client(error: &ClientError) -> Option<String> {
    let text = match error {
        ClientError::Problem(problem) => return problem.remedy.clone().or_else(|| generic_remedy(problem.status)),
        ClientError::Status { status, .. } => return generic_remedy(*status),
        ClientError::Unreachable { .. } => {
            "start it with `keyfleet serve --data DIR`, or correct `server` in the profile"
        }
        ClientError::Tls { .. } => {
            "check that `root` in the profile is this fleet's root and that the address is one of the server's names"
        }
        ClientError::Refused(_) => "check that `certificate` in the profile is current and was issued by this fleet",
        ClientError::Deadline { .. } => "try again, or allow more time with --timeout SECONDS",
        ClientError::SecretOverPlainHttp => "write `server = \"https://...\"` in the profile",
        _ => return None,
    };
    Some(text.to_owned())
}

fn generic_remedy(status: u16) -> Option<String> {
    let text = match status {
        401 => "check the token or certificate of the profile with `keyfleet whoami`; an owner can make a new token",
        403 => "ask somebody whose role and scope allow it; `keyfleet whoami` shows yours",
        404 => "check the spelling; what lies outside your scope is not shown",
        429 => "wait a little and try again",
        503 => "see `keyfleet status` and `keyfleet doctor`",
        _ => return None,
    };
    Some(text.to_owned())
}

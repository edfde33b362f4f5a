//! `keyfleet revoke`, and what every revocation prints.

use clap::{ArgGroup, Args};
use kf_api::revocation::{RevocationTarget, RevokeOutcome, RevokeRequest};
use kf_key::{ProposalId, RevocationReason, SerialNumber};

use crate::api::{Api, Context};
use crate::ask;
use crate::failure::Failure;
use crate::output::{Names, object};

/// What to revoke, and why.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("target").required(true))]
pub(crate) struct Revoke {
    /// Every LDevID of this device (name or id)
    #[arg(long, group = "target")]
    device: Option<String>,
    /// Every LDevID of every device of this batch
    #[arg(long, group = "target")]
    batch: Option<String>,
    /// Every LDevID of every device of this facility (name or id)
    #[arg(long, group = "target")]
    facility: Option<String>,
    /// Everything this CA issued (name or id), and, for good, the CA itself
    #[arg(long, group = "target")]
    authority: Option<String>,
    /// One certificate, by its serial number
    #[arg(long, group = "target")]
    serial: Option<SerialNumber>,
    /// RFC 5280: keyCompromise, superseded, cessationOfOperation, privilegeWithdrawn, affiliationChanged, unspecified,
    /// cACompromise, aACompromise; certificateHold holds and removeFromCRL releases
    #[arg(long)]
    reason: RevocationReason,
    #[command(flatten)]
    manner: Manner,
    /// The name of the batch, facility or CA once more: what is permanent for many is not done by a slip
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
}

/// How to revoke.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Manner {
    /// Why, for the log; at most 500 characters
    #[arg(long, default_value = "")]
    pub(crate) why: String,
    /// Cut the sessions at the brokers and see them gone before answering
    #[arg(long)]
    pub(crate) verify: bool,
    /// Say what would be revoked, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

pub(crate) async fn run(context: &Context, revoke: Revoke) -> Result<(), Failure> {
    let Revoke { device, batch, facility, authority, serial, reason, manner, confirm } = revoke;
    let many = |kind: &str, name: &str| {
        if manner.dry_run || !reason.is_permanent() {
            return Ok(());
        }
        ask::name(confirm.as_deref(), name, &format!("this revokes for good everything of {kind} {name}"))
    };
    let target = if let Some(device) = device {
        RevocationTarget::Device(device)
    } else if let Some(batch) = batch {
        many("batch", &batch)?;
        RevocationTarget::Batch(batch)
    } else if let Some(facility) = facility {
        many("facility", &facility)?;
        RevocationTarget::Facility(facility)
    } else if let Some(authority) = authority {
        many("authority", &authority)?;
        RevocationTarget::Authority(authority)
    } else if let Some(serial) = serial {
        RevocationTarget::Certificate(serial)
    } else {
        return Err(Failure::usage(
            "nothing to revoke is named",
            "give one of --device, --batch, --facility, --authority, --serial",
        ));
    };
    let outcome = send(&mut context.api()?, target, reason, &manner).await?;
    object(context.format, &outcome, &Names::new())?;
    judge(&outcome, manner.dry_run)
}

/// Sends one revocation.
pub(crate) async fn send(
    api: &mut Api,
    target: RevocationTarget,
    reason: RevocationReason,
    manner: &Manner,
) -> Result<RevokeOutcome, Failure> {
    let Manner { why, verify, dry_run } = manner.clone();
    api.post("/v1/revocations", &RevokeRequest { target, reason, why, verify, dry_run }).await
}

/// An act that waits for a second person.
pub(crate) fn waiting(proposal: &ProposalId) -> Failure {
    Failure::Partial {
        problem: format!("not done yet: it waits as {proposal}"),
        remedy: format!(
            "another operator runs `keyfleet proposal approve {proposal}`; in single-control mode it is carried out \
             after its delay unless cancelled"
        ),
    }
}

/// Whether all that was asked for is done.
///
/// # Errors
/// [`Failure::Partial`] when it waits for a second person or a broker still lets the device be.
pub(crate) fn judge(outcome: &RevokeOutcome, dry_run: bool) -> Result<(), Failure> {
    if dry_run {
        return Ok(());
    }
    if let Some(proposal) = &outcome.proposal {
        return Err(waiting(proposal));
    }
    if !outcome.done {
        return Err(Failure::Partial {
            problem: "the server did not carry it out".to_owned(),
            remedy: "see `keyfleet status`".to_owned(),
        });
    }
    match outcome.brokers.iter().find(|broker| !broker.verified) {
        Some(broker) => Err(Failure::Partial {
            problem: format!(
                "revoked, but {} did not confirm that the device is gone: {}",
                broker.broker,
                broker.failure.as_deref().unwrap_or("no reason given")
            ),
            remedy: "put the broker right and run the same command again".to_owned(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use kf_key::{ProposalId, UnixMillis};

    use super::*;

    fn outcome() -> RevokeOutcome {
        RevokeOutcome {
            done: true,
            proposal: None,
            certificates: 1,
            devices: 1,
            log_index: Some(3),
            brokers: Vec::new(),
        }
    }

    #[test]
    fn what_waits_or_is_not_verified_is_not_reported_as_done() {
        assert!(judge(&outcome(), false).is_ok());
        let waits =
            RevokeOutcome { done: false, proposal: Some(ProposalId::from_parts(UnixMillis(1), [0; 10])), ..outcome() };
        assert_eq!(judge(&waits, false).map_err(|failure| failure.code()), Err(6));
        let broker = kf_api::revocation::BrokerReport {
            broker: "mosquitto".to_owned(),
            crl_published: true,
            reloaded: true,
            session_cut: true,
            verified: false,
            failure: None,
        };
        let unverified = RevokeOutcome { brokers: vec![broker], ..outcome() };
        assert_eq!(judge(&unverified, false).map_err(|failure| failure.code()), Err(6));
        assert!(judge(&RevokeOutcome { done: false, ..outcome() }, true).is_ok());
    }
}

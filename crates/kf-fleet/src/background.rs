//! What happens without being asked: CRLs, checkpoints, delayed proposals, brokers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kf_key::{CertificateProfile, CertificateStatus, DeviceId, IntentId, UnixMillis};
use kf_log::Phase;
use kf_store::intent::Intent;
use kf_store::revocation::StatusChange;

use crate::entry::Entry;
use crate::revocation::MAX_CUTS;
use crate::{Fleet, FleetError};

/// How often the background work looks around when nothing wakes it.
const TURN: Duration = Duration::from_secs(1);
/// How long a wake-up waits for others to join it; far below the second that a CRL may take.
const GATHER: Duration = Duration::from_millis(100);
/// The most status changes that wait for the brokers; beyond it the CRL alone keeps the devices out.
const MAX_WAITING: usize = 100_000;
/// Name of the act in the log.
const ENFORCE: &str = "broker.enforce";

/// How long to wait before a broker that did not confirm is told again: doubling from this.
const FIRST_REST: u64 = 30 * UnixMillis::SECOND;
/// How often a broker that does not confirm is told: for about a day.
const MAX_ATTEMPTS: u32 = 12;

/// Status changes that the brokers have not been told of, or have not confirmed.
#[derive(Default)]
pub(crate) struct BrokerQueue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    fresh: VecDeque<StatusChange>,
    unconfirmed: VecDeque<Unconfirmed>,
}

struct Unconfirmed {
    due: UnixMillis,
    attempts: u32,
    changes: Vec<StatusChange>,
}

impl BrokerQueue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, changes: &[StatusChange]) {
        let mut waiting = self.waiting();
        let room = MAX_WAITING.saturating_sub(waiting.fresh.len());
        if changes.len() > room {
            tracing::warn!(left_out = changes.len() - room, "too many sessions to cut one by one");
        }
        waiting.fresh.extend(changes.iter().take(room).copied());
    }

    /// Whether every broker was told of everything, and confirmed it.
    pub(crate) fn is_settled(&self) -> bool {
        let waiting = self.waiting();
        waiting.fresh.is_empty() && waiting.unconfirmed.is_empty()
    }

    /// Keeps changes that were told `attempts` times without being confirmed.
    fn keep(&self, changes: &[StatusChange], attempts: u32, now: UnixMillis) {
        let mut waiting = self.waiting();
        if attempts >= MAX_ATTEMPTS || waiting.unconfirmed.len() >= MAX_WAITING / MAX_CUTS {
            tracing::error!(changes = changes.len(), "a broker never confirmed that these devices are gone");
            return;
        }
        let due = now.plus(FIRST_REST << attempts.min(MAX_ATTEMPTS));
        waiting.unconfirmed.push_back(Unconfirmed { due, attempts, changes: changes.to_vec() });
    }

    /// Changes that are due, and how often they were told already.
    fn take(&self, now: UnixMillis) -> (Vec<StatusChange>, u32) {
        let mut waiting = self.waiting();
        let most = MAX_CUTS.min(waiting.fresh.len());
        if most > 0 {
            return (waiting.fresh.drain(..most).collect(), 0);
        }
        let due = waiting.unconfirmed.iter().position(|unconfirmed| now >= unconfirmed.due);
        match due.and_then(|index| waiting.unconfirmed.remove(index)) {
            Some(Unconfirmed { attempts, changes, .. }) => (changes, attempts),
            None => (Vec::new(), 0),
        }
    }
}

impl Fleet {
    /// Runs until `stop` changes: rebuilds CRL shards that a revocation touched (within a second) and those at half
    /// life, publishes checkpoints and tiles, carries out delayed proposals that nobody cancelled, lapses the others,
    /// tells brokers.
    pub async fn run(self: Arc<Self>, mut stop: tokio::sync::watch::Receiver<bool>) {
        let mut turn = tokio::time::interval(TURN);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turn.tick() => {}
                () = self.wake.notified() => tokio::time::sleep(GATHER).await,
                _ = stop.changed() => break,
            }
            self.turn().await;
        }
        self.publish_log().await;
    }

    /// One turn of the background work.
    pub async fn turn(&self) {
        self.sign_due_crls().await;
        self.store.write_sightings();
        if let Err(error) = self.turn_proposals().await {
            tracing::error!(error = %error, "proposals were not looked at");
        }
        if let Err(error) = self.turn_break_glass().await {
            tracing::error!(error = %error, "the end of a break-glass session was not recorded");
        }
        if let Err(error) = self.turn_sealed_uses().await {
            tracing::error!(error = %error, "uses of keys were not logged");
        }
        if let Err(error) = self.turn_uses().await {
            tracing::error!(error = %error, "uses of encryption keys were not counted in the log");
        }
        if let Err(error) = self.turn_sessions().await {
            tracing::error!(error = %error, "the end of sessions was not logged");
        }
        if let Err(error) = self.finish_destructions().await {
            tracing::error!(error = %error, "an approved destruction was not finished");
        }
        if let Err(error) = self.finish_backup_retirements().await {
            tracing::error!(error = %error, "an approved retirement of a backup was not finished");
        }
        if let Err(error) = self.finish_ownerships().await {
            tracing::error!(error = %error, "devices that leave are not through with it");
        }
        self.turn_brokers().await;
        if let Err(error) = self.turn_orders().await {
            tracing::error!(error = %error, "orders were not given to the brokers");
        }
        if let Err(error) = self.turn_rotation().await {
            tracing::error!(error = %error, "keys were not rotated by policy");
        }
        if let Err(error) = self.turn_log_key().await {
            tracing::error!(error = %error, "the succession of the log's key did not go on");
        }
        if let Err(error) = self.turn_objects().await {
            tracing::error!(error = %error, "stored objects did not go on to the newest version of their key");
        }
        if let Err(error) = self.turn_wrapping().await {
            tracing::error!(error = %error, "rows did not go on to the newest version of the wrapping key");
        }
        if let Err(error) = self.turn_campaigns().await {
            tracing::error!(error = %error, "campaigns did not go on");
        }
        if let Err(error) = self.turn_successions().await {
            tracing::error!(error = %error, "a CA whose certificates have expired was not closed");
        }
        self.publish_log().await;
        self.keep_fence();
    }

    pub(crate) async fn turn_brokers(&self) {
        if self.attached_brokers().is_empty() {
            return;
        }
        if let Err(error) = self.finish_open_intents().await {
            tracing::error!(error = %error, "acts at brokers were not reconciled");
        }
        loop {
            let (changes, attempts) = self.broker_queue.take(self.now());
            if changes.is_empty() {
                break;
            }
            if let Err(error) = self.enforce_at_brokers(&changes, attempts).await {
                tracing::error!(error = %error, "brokers were not told");
                // Cutting a session twice does no harm, leaving it up does.
                self.broker_queue.push(&changes);
                return;
            }
        }
        self.refresh_brokers().await;
    }

    /// Tells the brokers, with intent and outcome in the log, because a broker is outside the registry. `attempts` is how
    /// often they were told of these changes before; what they do not confirm is told again later.
    pub(crate) async fn enforce_at_brokers(
        &self,
        changes: &[StatusChange],
        attempts: u32,
    ) -> Result<Vec<kf_api::revocation::BrokerReport>, FleetError> {
        if self.attached_brokers().is_empty() {
            return Ok(Vec::new());
        }
        let devices: std::collections::BTreeSet<DeviceId> = changes.iter().filter_map(|change| change.device).collect();
        let id = IntentId::from_parts(self.now(), kf_crypto::random_array()?);
        let listed: Vec<String> = devices.iter().take(MAX_CUTS).map(ToString::to_string).collect();
        let detail = serde_json::json!({ "devices": listed });
        let entry = |phase| {
            let entry = Entry::done(&Self::server_principal(), ENFORCE, self.now()).phase(phase).about(id);
            entry.with("devices", devices.len())
        };
        let intent = Intent { id, act: ENFORCE.to_owned(), detail, at: self.now() };
        self.store.record_intent(intent, entry(Phase::Intent).build()).await?;
        let reports = self.tell_brokers(changes).await;
        let verified = reports.iter().filter(|report| report.verified).count();
        if verified < reports.len() {
            self.broker_queue.keep(changes, attempts.saturating_add(1), self.now());
        }
        let outcome = format!("{verified} of {} brokers verified", reports.len());
        let entry = entry(Phase::Outcome).with("outcome", &outcome);
        self.store.record_outcome(id, outcome, entry.build()).await?;
        Ok(reports)
    }

    /// Does again what a crash may have left half done: cutting a session twice does no harm.
    async fn finish_open_intents(&self) -> Result<(), FleetError> {
        for intent in self.store.open_intents()? {
            if intent.act != ENFORCE {
                continue;
            }
            let devices = intent.detail.get("devices").and_then(|devices| devices.as_array());
            let devices = devices.into_iter().flatten().filter_map(|id| id.as_str()?.parse::<DeviceId>().ok());
            let changes = self.changes_of(devices)?;
            let reports = self.tell_brokers(&changes).await;
            let verified = reports.iter().filter(|report| report.verified).count();
            let outcome = format!("done again after a restart: {verified} of {} brokers verified", reports.len());
            let entry = Entry::done(&Self::server_principal(), ENFORCE, self.now())
                .phase(Phase::Outcome)
                .about(intent.id)
                .with("outcome", &outcome);
            self.store.record_outcome(intent.id, outcome, entry.build()).await?;
        }
        Ok(())
    }

    fn changes_of(&self, devices: impl Iterator<Item = DeviceId>) -> Result<Vec<StatusChange>, FleetError> {
        let mut changes = Vec::new();
        for device in devices.take(256) {
            let certificates = self.store.certificates_of_device(device, &kf_access::Visibility::Fleet)?;
            for certificate in certificates.into_iter().filter(|c| c.profile == CertificateProfile::LDevId) {
                let revoked = match certificate.status {
                    CertificateStatus::Good => None,
                    CertificateStatus::Held | CertificateStatus::Revoked => certificate.revoked.zip(certificate.reason),
                };
                changes.push(StatusChange {
                    serial: certificate.serial,
                    authority: certificate.authority,
                    shard: 0,
                    revoked,
                    not_after: certificate.not_after,
                    device: Some(device),
                });
            }
        }
        Ok(changes)
    }
}

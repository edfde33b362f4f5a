//! What happens without being asked: CRLs, checkpoints, delayed proposals, brokers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kf_key::{CertificateProfile, CertificateStatus, DeviceId, IntentId};
use kf_log::Phase;
use kf_store::intent::Intent;
use kf_store::revocation::StatusChange;

use crate::entry::Entry;
use crate::{Fleet, FleetError};

/// How often the background work looks around when nothing wakes it.
const TURN: Duration = Duration::from_secs(1);
/// How long a wake-up waits for others to join it; far below the second that a CRL may take.
const GATHER: Duration = Duration::from_millis(100);
/// The most status changes that wait for the brokers; beyond it the CRL alone keeps the devices out.
const MAX_WAITING: usize = 100_000;
/// Name of the act in the log.
const ENFORCE: &str = "broker.enforce";

/// Status changes that the brokers have not been told of.
#[derive(Default)]
pub(crate) struct BrokerQueue(Mutex<VecDeque<StatusChange>>);

impl BrokerQueue {
    pub(crate) fn push(&self, changes: &[StatusChange]) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_WAITING.saturating_sub(queue.len());
        if changes.len() > room {
            tracing::warn!(left_out = changes.len() - room, "too many sessions to cut one by one");
        }
        queue.extend(changes.iter().take(room).copied());
    }

    fn take(&self, most: usize) -> Vec<StatusChange> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let most = most.min(queue.len());
        queue.drain(..most).collect()
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
        if let Err(error) = self.turn_proposals().await {
            tracing::error!(error = %error, "proposals were not looked at");
        }
        self.turn_brokers().await;
        self.publish_log().await;
    }

    async fn turn_brokers(&self) {
        if self.attached_brokers().is_empty() {
            return;
        }
        if let Err(error) = self.finish_open_intents().await {
            tracing::error!(error = %error, "acts at brokers were not reconciled");
        }
        loop {
            let changes = self.broker_queue.take(1_000);
            if changes.is_empty() {
                return;
            }
            if let Err(error) = self.enforce_at_brokers(&changes).await {
                tracing::error!(error = %error, "brokers were not told");
                return;
            }
        }
    }

    /// Tells the brokers, with intent and outcome in the log, because a broker is outside the registry.
    pub(crate) async fn enforce_at_brokers(
        &self,
        changes: &[StatusChange],
    ) -> Result<Vec<kf_api::revocation::BrokerReport>, FleetError> {
        if self.attached_brokers().is_empty() {
            return Ok(Vec::new());
        }
        let devices: std::collections::BTreeSet<DeviceId> = changes.iter().filter_map(|change| change.device).collect();
        let id = IntentId::from_parts(self.now(), kf_crypto::random_array()?);
        let listed: Vec<String> = devices.iter().take(256).map(ToString::to_string).collect();
        let detail = serde_json::json!({ "devices": listed });
        let entry = |phase| {
            let entry = Entry::done(&Self::server_principal(), ENFORCE, self.now()).phase(phase).about(id);
            entry.with("devices", devices.len())
        };
        let intent = Intent { id, act: ENFORCE.to_owned(), detail, at: self.now() };
        self.store.record_intent(intent, entry(Phase::Intent).build()).await?;
        let reports = self.tell_brokers(changes).await;
        let verified = reports.iter().filter(|report| report.verified).count();
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

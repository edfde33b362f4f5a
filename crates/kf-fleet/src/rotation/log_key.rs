//! Succession of the log's key: the new one is announced in the log by an entry under the old one's signature, then both sign, then
//! the old one is destroyed.
//!
//! The steps follow from what the registry holds, so that a start after a crash goes on where it was: a key that is newer than the one
//! in use is one that was begun.

use kf_access::{Action, Principal, Target, authorize};
use kf_api::PageRequest;
use kf_api::rotation::{RotationOperation, RotationOutcome, RotationStep};
use kf_key::{KeyAlgorithm, KeyId, KeyState, UnixMillis};
use kf_log::succession::{ANNOUNCE, Link, SUCCESSOR};
use kf_rotation::sweep::{KeyFacts, Operation, Successor, sweep};
use kf_rotation::{KeyClass, Scope};
use kf_signer::KeyPurpose;
use kf_store::key::{KeyChange, KeyRecord};

use super::Run;
use crate::authority::key_record;
use crate::entry::Entry;
use crate::fence::Line;
use crate::log_publisher::{LOG_KEY_FACT, LOG_LINKS_FACT, LOG_PURPOSE, verifier_of};
use crate::{Fleet, FleetError};

/// How long both keys sign: whoever looks once a week still finds a signature that they know.
const BOTH_SIGN: u64 = 14 * UnixMillis::DAY;

impl Fleet {
    /// Looks at the key in use. `wanted`: its successor is made although it is not due.
    pub(super) async fn rotate_log_key(&self, run: &mut Run<'_>, wanted: bool) -> Result<(), FleetError> {
        let Some(key) = self.store.key(self.log.key())? else { return Err(FleetError::Bug("no log key")) };
        let rule = self.policy.rule(KeyClass::LogKey, Scope::default());
        let facts = KeyFacts {
            class: KeyClass::LogKey,
            state: key.state,
            activated: key.activated,
            uses: self.store.key_uses(key.id)?,
            octets: 0,
            events: &[],
            successor: Successor::None,
            protected: 1,
        };
        let due = sweep(&facts, &rule, self.now()).into_iter().find_map(|operation| match operation {
            Operation::MakeSuccessor(reason) => Some(reason.to_string()),
            _ => None,
        });
        let Some(because) = due.or_else(|| wanted.then(|| "asked for".to_owned())) else { return Ok(()) };
        let step = RotationStep {
            key: key.id.to_string(),
            name: "log".to_owned(),
            class: KeyClass::LogKey.name().to_owned(),
            facility: None,
            operation: RotationOperation::MakeSuccessor,
            because,
            remaining: None,
            outcome: RotationOutcome::Planned,
            problem: String::new(),
            proposal: None,
            log_index: None,
        };
        let Some((step, why)) = run.begin(step) else { return Ok(()) };
        let outcome = self.succeed_log_key(run.who, key.id, &why).await;
        run.made(step, outcome)
    }

    /// Makes the successor of the log's key behind the one that the caller has seen; the index of its announcement.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] when there is a newer one by now; [`FleetError::Signer`], [`FleetError::Local`].
    pub(crate) async fn succeed_log_key(&self, who: &Principal, seen: KeyId, why: &str) -> Result<u64, FleetError> {
        if *who != Self::server_principal() {
            authorize(who, Action::ServerKeyManage, Target::Fleet)?;
        }
        let _turn = self.log_succession.lock().await;
        let current = self.log.key();
        if current != seen {
            return Err(FleetError::conflict(
                "key",
                format!("the log's key is {current} by now"),
                "somebody made the successor already: look with `keyfleet inventory --class log-key`",
            ));
        }
        self.announce_log_key(who, current, why).await
    }

    /// Makes the successor of the key in use, unless that was begun before; whoever calls it has the turn.
    async fn announce_log_key(&self, who: &Principal, current: KeyId, why: &str) -> Result<u64, FleetError> {
        if self.begun_log_key(current)?.is_none() {
            // Keys are told apart by their time: this one is the newer one whatever the clock says.
            let before = self.store.key(current)?.ok_or(FleetError::Bug("no log key"))?;
            let now = self.now().max(before.created.plus(1));
            let id = KeyId::from_parts(now, kf_crypto::random_array()?);
            let key = self.signer.generate_key(id, KeyPurpose::LogCheckpoint, KeyAlgorithm::Ed25519).await?;
            let verifier = verifier_of(self.log.origin(), &key.spki)?;
            let made = Entry::done(who, "key.create", now).about(id).because(why);
            let announced = Entry::done(who, ANNOUNCE, now)
                .about(id)
                .about(current)
                .because(why)
                .with(SUCCESSOR, &verifier)
                .with("predecessor", self.log.verifier());
            let entries = vec![announced.build(), made.build()];
            self.store.insert_key(key_record(&key, LOG_PURPOSE.to_owned(), now), entries).await?;
        }
        let begun = self.begun_log_key(current)?.ok_or(FleetError::Bug("a log key that was just made"))?;
        self.finish_log_key(&begun).await
    }

    /// A key that is newer than the one in use.
    fn begun_log_key(&self, current: KeyId) -> Result<Option<KeyRecord>, FleetError> {
        let newest = self.store.keys(LOG_PURPOSE)?.into_iter().find(|key| key.purpose == LOG_PURPOSE);
        Ok(newest.filter(|key| key.id > current && key.state == KeyState::Active))
    }

    /// From the announcement on: the old key signs a checkpoint over it, the link is kept, both sign.
    async fn finish_log_key(&self, begun: &KeyRecord) -> Result<u64, FleetError> {
        let index = self.announcement_of(begun.id)?;
        let mut links = self.log.links(&self.store)?;
        if links.iter().all(|link| link.index != index) {
            self.log.publish(&self.store, &self.signer).await?;
            let checkpoint = self.store.checkpoint()?.filter(|checkpoint| checkpoint.size > index);
            let checkpoint = checkpoint.ok_or(FleetError::Bug("an announcement without a checkpoint"))?.note;
            links.push(Link { index, checkpoint });
            let text = serde_json::to_string(&links).map_err(|_bug| FleetError::Bug("links"))?;
            let entry =
                Entry::done(&Self::server_principal(), "log.link", self.now()).about(begun.id).with("index", index);
            self.store.set_fact(LOG_LINKS_FACT, text, entry.build()).await?;
        }
        // Before anything is signed with the new key, whoever finds it there can learn why.
        self.log.write_links(&self.store)?;
        let entry = Entry::done(&Self::server_principal(), "log.key", self.now()).about(begun.id);
        self.store.set_fact(LOG_KEY_FACT, begun.id.to_string(), entry.build()).await?;
        self.log.reload(&self.store, &self.signer)?;
        self.log.publish(&self.store, &self.signer).await?;
        self.write_verifier_key()?;
        Ok(index)
    }

    fn announcement_of(&self, key: KeyId) -> Result<u64, FleetError> {
        let page = PageRequest { after: None, limit: Some(1_000) };
        let entries = self.store.log_list(Some(&key.to_string()), &kf_access::Visibility::Fleet, &page)?;
        let found = entries.items.into_iter().find(|record| {
            record.entry.get("act").and_then(|act| act.as_str()) == Some(ANNOUNCE)
                && record.entry.get("subjects").and_then(|list| list.get(0)).and_then(|id| id.as_str())
                    == Some(&key.to_string())
        });
        Ok(found.ok_or(FleetError::Bug("a log key that was never announced"))?.index)
    }

    /// Finishes what was begun, and destroys a key once both have signed for long enough.
    pub(crate) async fn turn_log_key(&self) -> Result<(), FleetError> {
        let _turn = self.log_succession.lock().await;
        let current = self.log.key();
        if let Some(begun) = self.begun_log_key(current)? {
            self.finish_log_key(&begun).await?;
            return Ok(());
        }
        let lost = self.log.lost_keys();
        if !lost.is_empty() && self.store.restored()?.is_none() && self.store.health().fenced.is_none() {
            let why = format!(
                "made after the backup that this registry is from, and lost with its host: {}",
                lost.join(", ")
            );
            self.announce_log_key(&Self::server_principal(), current, &why).await?;
        }
        self.retire_log_keys().await
    }

    /// Destroys keys that have a successor: once both have signed for long enough, and at once what the witness knows to be destroyed.
    async fn retire_log_keys(&self) -> Result<(), FleetError> {
        let Some(since) = self.store.key(self.log.key())?.and_then(|key| key.activated) else { return Ok(()) };
        let now = self.now();
        let is_over = now >= since && now.since(since) >= BOTH_SIGN;
        for old in self.log.retiring().into_iter().filter(|old| is_over || self.log.was_destroyed(*old)) {
            let record = self.store.key(old)?.ok_or(FleetError::Bug("no log key"))?;
            let change = KeyChange { id: old, seen: record.state, to: KeyState::Destroyed, at: now };
            let entry = Entry::done(&Self::server_principal(), "log.retire", now)
                .about(old)
                .because("its successor has signed for fourteen days");
            self.fence.add(&[Line::LogKey { key: old, at: now }])?;
            // The registry first: what it says is destroyed is not signed with, whatever the token still holds.
            self.store.change_key(change, entry.build()).await?;
            self.log.reload(&self.store, &self.signer)?;
            if let Err(error) = self.signer.destroy_key(old).await {
                tracing::warn!(key = %old, error = %error, "an old log key was not destroyed in the signer");
            }
        }
        Ok(())
    }
}

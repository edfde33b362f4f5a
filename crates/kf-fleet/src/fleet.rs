//! The fleet: what all use cases share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kf_access::{DualControl, Principal};
use kf_broker::BrokerConnector;
use kf_key::{AuthorityId, UnixMillis};
use kf_rotation::Policy;
use kf_signer::SignerClient;
use kf_store::{Options, Store};
use tokio::sync::{Notify, watch};

use crate::authority::Authorities;
use crate::authority::succession::Closings;
use crate::background::BrokerQueue;
use crate::broker::BrokerMemory;
use crate::campaign::{Observed, Proofs, Told};
use crate::crl::Board;
use crate::encryption_key::{Materials, Meters, Uses};
use crate::endorsement::Waiting;
use crate::enrolment::Attempts;
use crate::fence::FenceKeeper;
use crate::log_publisher::LogPublisher;
use crate::ocsp::{AnswerCache, Responders};
use crate::order::OrderAttempts;
use crate::pinned_key::{ChallengedBy, PinnedKeys};
use crate::product_line::Lines;
use crate::recovery::recover;
use crate::rotation::RotationTurn;
use crate::sealed::Openers;
use crate::session::Sessions;
use crate::wrapping::{WrappingBook, WrappingSweep};
use crate::{Clock, DataDir, FleetConfig, FleetError};

/// One fleet, opened. Shared by all surfaces behind an `Arc`.
pub struct Fleet {
    pub(crate) dir: DataDir,
    pub(crate) config: FleetConfig,
    pub(crate) policy: Policy,
    /// When this process opened the fleet: keys in memory are no older.
    pub(crate) opened: UnixMillis,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) signer: SignerClient,
    pub(crate) store: Store,
    pub(crate) authorities: RwLock<Arc<Authorities>>,
    /// How often the CAs changed since this process opened the fleet.
    pub(crate) authorities_changed: watch::Sender<u64>,
    pub(crate) closings: Closings,
    pub(crate) boards: RwLock<BTreeMap<AuthorityId, Arc<Mutex<Board>>>>,
    pub(crate) answers: AnswerCache,
    pub(crate) responders: Responders,
    pub(crate) attempts: Attempts,
    pub(crate) challenges: Waiting,
    pub(crate) openers: Openers,
    pub(crate) materials: Materials,
    pub(crate) meters: Meters,
    pub(crate) uses: Uses,
    pub(crate) sessions: Sessions,
    pub(crate) order_attempts: OrderAttempts,
    /// Held while a backup is made.
    pub(crate) backup_turn: tokio::sync::Mutex<()>,
    /// Held while a destruction is carried out.
    pub(crate) destruction_turn: tokio::sync::Mutex<()>,
    /// Held while what was approved for devices that leave is carried out; before `destruction_turn`.
    pub(crate) ownership_turn: tokio::sync::Mutex<()>,
    pub(crate) rotation_turn: RotationTurn,
    pub(crate) observed: Observed,
    pub(crate) pinned: RwLock<Arc<PinnedKeys>>,
    /// Held while a key that somebody pins is succeeded.
    pub(crate) pinned_turn: tokio::sync::Mutex<()>,
    pub(crate) challenged_by: ChallengedBy,
    pub(crate) proofs: Proofs,
    pub(crate) told: Told,
    pub(crate) lines: Lines,
    pub(crate) log: LogPublisher,
    /// Held while the log's key is succeeded.
    pub(crate) log_succession: tokio::sync::Mutex<()>,
    pub(crate) fence: FenceKeeper,
    pub(crate) wrapping: WrappingBook,
    pub(crate) wrapping_sweep: WrappingSweep,
    pub(crate) brokers: RwLock<Vec<Arc<dyn BrokerConnector>>>,
    pub(crate) broker_queue: BrokerQueue,
    pub(crate) broker_memory: BrokerMemory,
    /// Wakes the background work when a CRL shard or the log has something to publish.
    pub(crate) wake: Notify,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fleet({})", self.config.fleet)
    }
}

impl Fleet {
    /// Opens a fleet: compares the registry with the witness, reconciles acts without outcome, loads CAs and revoked
    /// certificates, signs what CRLs are due.
    ///
    /// A fleet whose registry is older than the witness says opens fenced: status and revocation work, issuance does
    /// not, and [`Fleet::status`] says why.
    ///
    /// # Errors
    /// [`FleetError::Local`], [`FleetError::Store`], [`FleetError::Signer`].
    pub async fn open(
        dir: DataDir,
        config: FleetConfig,
        signer: SignerClient,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, FleetError> {
        let store = Store::open(&dir.database(), Options::default())?;
        Self::open_with_store(dir, config, signer, clock, store).await
    }

    /// As [`Fleet::open`], with a store that the caller opened: for tests and benchmarks.
    ///
    /// # Errors
    /// As [`Fleet::open`].
    pub async fn open_with_store(
        dir: DataDir,
        config: FleetConfig,
        signer: SignerClient,
        clock: Arc<dyn Clock>,
        store: Store,
    ) -> Result<Arc<Self>, FleetError> {
        let policy = dir.rotation_policy(&config)?;
        let wrapping = WrappingBook::open(&dir, &config)?;
        wrapping.load(&signer).await?;
        let log = LogPublisher::open(&dir, &config, &store, &signer)?;
        let fence = FenceKeeper::new(config.witness_dir.clone());
        recover(&dir, &store, &signer, &log, &fence, clock.now()).await?;
        let behind = fence.compare(&store).await?;
        if let Some(why) = log.compare_with_witness(&store)?.or(behind) {
            tracing::error!(why, "the registry is older than its witness: fenced");
            store.fence(why);
        }
        let authorities = Authorities::load(&store, &signer, &config.listen.public_http)?;
        let pinned = PinnedKeys::open(&store, &signer)?;
        let fleet = Arc::new(Self {
            dir,
            config,
            policy,
            opened: clock.now(),
            clock,
            signer,
            store,
            authorities: RwLock::new(Arc::new(authorities)),
            authorities_changed: watch::Sender::new(0),
            closings: Closings::default(),
            boards: RwLock::default(),
            answers: AnswerCache::default(),
            responders: Responders::default(),
            attempts: Attempts::default(),
            challenges: Waiting::default(),
            openers: Openers::default(),
            materials: Materials::default(),
            meters: Meters::default(),
            uses: Uses::default(),
            sessions: Sessions::default(),
            order_attempts: OrderAttempts::default(),
            backup_turn: tokio::sync::Mutex::default(),
            destruction_turn: tokio::sync::Mutex::default(),
            ownership_turn: tokio::sync::Mutex::default(),
            rotation_turn: RotationTurn::default(),
            observed: Observed::default(),
            pinned: RwLock::new(Arc::new(pinned)),
            pinned_turn: tokio::sync::Mutex::default(),
            challenged_by: ChallengedBy::default(),
            proofs: Proofs::default(),
            told: Told::default(),
            lines: Lines::default(),
            log,
            log_succession: tokio::sync::Mutex::default(),
            fence,
            wrapping,
            wrapping_sweep: WrappingSweep::default(),
            brokers: RwLock::default(),
            broker_queue: BrokerQueue::default(),
            broker_memory: BrokerMemory::default(),
            wake: Notify::new(),
        });
        fleet.count_signatures();
        fleet.take_up().await?;
        Ok(fleet)
    }

    /// What a start does before anything is served: finishes what was begun, and destroys again what the witness knows to be.
    async fn take_up(&self) -> Result<(), FleetError> {
        self.reconcile().await?;
        self.reconcile_wrapping().await?;
        self.store.assume_told(self.now()).await?;
        self.load_boards()?;
        self.keep_destroyed().await?;
        self.raise_unreviewed()?;
        if let Err(error) = self.finish_ownerships().await {
            // A registry that is fenced or full takes this up again with its turns; it still revokes and answers.
            tracing::error!(error = %error, "devices that leave are not through with it");
        }
        self.reconcile_backups().await?;
        self.write_public_files()?;
        self.sign_due_crls().await;
        Ok(())
    }

    /// Adds a broker to keep revoked devices out of.
    pub fn attach_broker(&self, broker: Arc<dyn BrokerConnector>) {
        self.brokers.write().unwrap_or_else(PoisonError::into_inner).push(broker);
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &FleetConfig {
        &self.config
    }

    /// The clock, for surfaces.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Writes what waits and ends the writer. Later writes fail.
    pub async fn close(&self) {
        if let Err(error) = self.end_uses().await {
            tracing::error!(error = %error, "uses of encryption keys were not counted in the log");
        }
        if let Err(error) = self.write_all_told().await {
            tracing::error!(error = %error, "which devices were told to renew was not written down");
        }
        self.publish_log().await;
        self.keep_fence();
        self.store.close().await;
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    pub(crate) fn authorities(&self) -> Arc<Authorities> {
        Arc::clone(&self.authorities.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn attached_brokers(&self) -> Vec<Arc<dyn BrokerConnector>> {
        self.brokers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) const fn dual_control(&self) -> DualControl {
        DualControl {
            devices_above: self.config.dual_control_above,
            single_control: self.config.single_control,
            delay: UnixMillis::DAY,
            proposal_lifetime: 7 * UnixMillis::DAY,
        }
    }

    pub(crate) fn server_principal() -> Principal {
        Principal::server()
    }
}

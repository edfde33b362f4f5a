//! The fleet: what all use cases share.

use std::sync::Arc;

use kf_broker::BrokerConnector;
use kf_signer::SignerClient;

use crate::{Clock, DataDir, FleetConfig, FleetError};

/// One fleet, opened. Shared by all surfaces behind an `Arc`.
pub struct Fleet {
    pub(crate) config: FleetConfig,
    pub(crate) dir: DataDir,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) signer: SignerClient,
    pub(crate) brokers: Vec<Arc<dyn BrokerConnector>>,
}

impl Fleet {
    /// Opens a fleet: compares the registry with the witness, reconciles acts without outcome, loads CAs and revoked
    /// certificates, signs OCSP signers and CRLs.
    ///
    /// # Errors
    /// [`FleetError::Local`], [`FleetError::Store`], [`FleetError::Signer`], [`FleetError::Fenced`] never: a fenced
    /// fleet opens, serves status and revocation, and says so.
    pub async fn open(
        dir: DataDir,
        config: FleetConfig,
        signer: SignerClient,
        brokers: Vec<Arc<dyn BrokerConnector>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, FleetError> {
        let _ = (dir, config, signer, brokers, clock);
        todo!()
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
}

//! The state of the server, and the issuance switch.

use kf_access::Principal;
use kf_api::status::{FleetStatus, Issuance, IssuanceSwitch};

use crate::{Fleet, FleetError};

impl Fleet {
    /// The state of the server at a glance.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn status(&self, who: &Principal) -> Result<FleetStatus, FleetError> {
        let _ = who;
        todo!()
    }

    /// Whether certificates are being issued. Public, for readiness.
    #[must_use]
    pub fn issuance(&self) -> Issuance {
        todo!()
    }

    /// Stops or starts issuance, effective when this returns.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] without a reason to stop, [`FleetError::Denied`].
    pub async fn issuance_switch(&self, who: &Principal, switch: IssuanceSwitch) -> Result<Issuance, FleetError> {
        let _ = (who, switch);
        todo!()
    }

    /// What keeps the server from serving: empty when ready (signer answers, store writes, CRLs fresh).
    pub async fn not_ready(&self) -> Vec<String> {
        todo!()
    }

    /// Gauges in Prometheus' sense: name, labels, value. Never one per device.
    pub async fn gauges(&self) -> Vec<(&'static str, Vec<(&'static str, String)>, f64)> {
        todo!()
    }
}

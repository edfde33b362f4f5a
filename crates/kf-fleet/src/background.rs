//! What happens without being asked: CRLs, checkpoints, OCSP signers, delayed proposals, brokers.

use std::sync::Arc;

use crate::Fleet;

impl Fleet {
    /// Runs until `stop` changes: rebuilds CRL shards that a revocation touched (within a second) and those at half
    /// life, publishes checkpoints and tiles, renews OCSP signers, carries out delayed proposals that nobody cancelled,
    /// lapses the others, tells brokers.
    pub async fn run(self: Arc<Self>, stop: tokio::sync::watch::Receiver<bool>) {
        let _ = stop;
        todo!()
    }
}

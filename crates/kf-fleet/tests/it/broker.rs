//! What a broker is told, and when.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kf_api::revocation::{RevocationTarget, RevokeOutcome, RevokeRequest};
use kf_broker::{BrokerConnector, BrokerError, Cut, PublishedCrl, TlsIdentity};
use kf_key::{RevocationReason, UnixMillis};

use crate::scratch::{Scratch, fresh_csr};

/// A connector that writes down what it is asked.
#[derive(Default)]
struct Recorder {
    acts: Mutex<Vec<String>>,
    is_down: Mutex<bool>,
    identity_due: Mutex<bool>,
}

impl Recorder {
    fn act(&self, act: String) -> Result<(), BrokerError> {
        if *self.is_down.lock().unwrap() {
            return Err(BrokerError::Timeout { step: "test" });
        }
        self.acts.lock().unwrap().push(act);
        Ok(())
    }

    /// What it was asked since the last look.
    fn acts(&self) -> Vec<String> {
        std::mem::take(&mut *self.acts.lock().unwrap())
    }
}

#[async_trait]
impl BrokerConnector for Recorder {
    fn name(&self) -> &str {
        "recorder"
    }

    async fn publish_crls(&self, crls: &[PublishedCrl]) -> Result<(), BrokerError> {
        assert!(crls.len() >= 2 && crls.iter().all(|crl| crl.pem.starts_with("-----BEGIN X509 CRL-----")));
        self.act("publish".to_owned())
    }

    async fn reload(&self) -> Result<(), BrokerError> {
        self.act("reload".to_owned())
    }

    async fn admit(&self, device_name: &str) -> Result<(), BrokerError> {
        self.act(format!("admit {device_name}"))
    }

    async fn cut(&self, device_name: &str) -> Result<Cut, BrokerError> {
        self.act(format!("cut {device_name}")).map(|()| Cut::Closed)
    }

    async fn verify_gone(&self, device_name: &str, _deadline: Duration) -> Result<bool, BrokerError> {
        self.act(format!("verify {device_name}")).map(|()| true)
    }

    async fn readmit(&self, device_name: &str) -> Result<(), BrokerError> {
        self.act(format!("readmit {device_name}"))
    }

    fn identity_due(&self, _now: UnixMillis) -> Option<String> {
        self.identity_due.lock().unwrap().then(|| "connector".to_owned())
    }

    async fn renew_identity(&self, identity: TlsIdentity) -> Result<(), BrokerError> {
        assert!(!identity.chain.is_empty());
        *self.identity_due.lock().unwrap() = false;
        self.act("renew".to_owned())
    }
}

async fn attached() -> (Scratch, Arc<Recorder>) {
    let scratch = Scratch::new().await;
    let recorder = Arc::new(Recorder::default());
    scratch.fleet.attach_broker(recorder.clone());
    scratch.fleet.turn().await;
    assert_eq!(recorder.acts(), ["publish", "reload"], "a broker is brought up to date when it is attached");
    (scratch, recorder)
}

async fn revoke(scratch: &Scratch, target: RevocationTarget, verify: bool) -> RevokeOutcome {
    let reason = RevocationReason::KeyCompromise;
    let request = RevokeRequest { target, reason, why: "test".into(), verify, dry_run: false };
    scratch.fleet.revoke(&scratch.owner, request).await.unwrap()
}

#[tokio::test]
async fn a_broker_gets_new_crls_before_the_old_ones_expire_and_not_at_every_turn() {
    let (scratch, recorder) = attached().await;
    for _ in 0..3 {
        scratch.fleet.turn().await;
    }
    assert_eq!(recorder.acts(), Vec::<String>::new());
    scratch.pass(13 * UnixMillis::HOUR);
    scratch.fleet.turn().await;
    assert_eq!(recorder.acts(), ["publish", "reload"]);
}

#[tokio::test]
async fn a_revoked_device_is_cut_after_the_crl_was_read() {
    let (scratch, recorder) = attached().await;
    scratch.device("thermo-1").await;
    scratch.enrol("thermo-1").await;
    assert!(recorder.acts().contains(&"admit thermo-1".to_owned()));
    let outcome = revoke(&scratch, RevocationTarget::Device("thermo-1".into()), true).await;
    assert!(outcome.brokers[0].verified, "{outcome:?}");
    assert_eq!(recorder.acts(), ["publish", "reload", "cut thermo-1", "verify thermo-1"]);
}

#[tokio::test]
async fn a_device_that_keeps_a_good_certificate_loses_its_sessions_and_may_come_back() {
    let (scratch, recorder) = attached().await;
    scratch.device("thermo-1").await;
    let old = scratch.enrol("thermo-1").await;
    scratch.renew(&old, &fresh_csr()).await.unwrap();
    recorder.acts();
    revoke(&scratch, RevocationTarget::Certificate(old.serial), true).await;
    assert_eq!(recorder.acts(), ["publish", "reload", "cut thermo-1", "readmit thermo-1"]);
}

#[tokio::test]
async fn a_broker_that_was_down_is_told_again() {
    let (scratch, recorder) = attached().await;
    scratch.device("thermo-1").await;
    scratch.enrol("thermo-1").await;
    recorder.acts();
    *recorder.is_down.lock().unwrap() = true;
    let outcome = revoke(&scratch, RevocationTarget::Device("thermo-1".into()), true).await;
    assert!(!outcome.brokers[0].verified);
    scratch.fleet.turn().await;
    *recorder.is_down.lock().unwrap() = false;
    scratch.fleet.turn().await;
    assert_eq!(recorder.acts(), Vec::<String>::new(), "it is left in peace for a while");
    scratch.pass(UnixMillis::HOUR);
    scratch.fleet.turn().await;
    let acts = recorder.acts();
    assert_eq!(acts[..4], ["publish", "reload", "cut thermo-1", "verify thermo-1"]);
    scratch.pass(UnixMillis::HOUR);
    scratch.fleet.turn().await;
    assert!(!recorder.acts().contains(&"cut thermo-1".to_owned()), "what was confirmed is not told again");
}

#[tokio::test]
async fn a_connector_s_own_certificate_is_renewed() {
    let (scratch, recorder) = attached().await;
    *recorder.identity_due.lock().unwrap() = true;
    scratch.fleet.turn().await;
    assert_eq!(recorder.acts(), ["renew"]);
    scratch.fleet.turn().await;
    assert_eq!(recorder.acts(), Vec::<String>::new());
}

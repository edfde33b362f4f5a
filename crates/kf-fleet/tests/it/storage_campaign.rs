//! New storage keys as a campaign: devices are told when they ask for news, sign what they have done, and nothing else counts.

use kf_api::campaign::{CampaignAct, CampaignKind, CampaignPlan, NewCampaign};
use kf_exchange::storage::{KeyErasure, StorageReport};
use kf_fleet::{FleetError, Knows, TlsClient};
use kf_key::{CampaignState, DeviceId, KeyAlgorithm};

use crate::campaign::{act, asked, new, plan, status, turns};
use crate::exchange::{Chip, is_refused};
use crate::scratch::{HERE, Identity, Scratch, csr, issued, serial_of};

struct Kept {
    device: DeviceId,
    identity: Identity,
}

async fn fleet_of(scratch: &Scratch, count: usize) -> Vec<Kept> {
    let mut fleet = Vec::new();
    for number in 0..count {
        let name = format!("thermo-{number}");
        let device = scratch.device(&name).await.id;
        fleet.push(Kept { device, identity: scratch.enrol(&name).await });
    }
    fleet
}

async fn begun(scratch: &Scratch, canary: u32) {
    let plan = CampaignPlan { canary, min_done_percent: 0, ..plan() };
    let new = NewCampaign { plan, ..new(CampaignKind::Storage) };
    scratch.fleet.campaign_create(&scratch.owner, new).await.unwrap();
    assert!(act(scratch, CampaignAct::Start).await.unwrap().done);
    turns(scratch, 8).await;
}

impl Kept {
    /// Asks for news; what asks for a new storage key.
    async fn poll(&self, scratch: &Scratch, is_aware: bool) -> Option<[u8; 16]> {
        let certificate = scratch.client(&self.identity);
        let client = TlsClient::with_certificate(&certificate, HERE);
        let knows = Knows { storage: is_aware, ..Knows::default() };
        let request = scratch.fleet.device_news(client, knows).await.unwrap().storage?;
        Some(hex::decode(request).unwrap().try_into().unwrap())
    }

    fn report(&self, scratch: &Scratch, request: [u8; 16]) -> StorageReport {
        let (erasure, at) = (KeyErasure::ReadBack, scratch.clock_now());
        StorageReport { device: self.device, request, version: 2, records: 3, erasure, at }
    }

    async fn answer(&self, scratch: &Scratch, request: [u8; 16]) -> Result<(), FleetError> {
        let message = self.report(scratch, request).sign(&Chip(&self.identity.key)).unwrap();
        scratch.fleet.device_storage_moved(message.as_bytes()).await
    }
}

#[tokio::test]
async fn a_device_is_done_when_it_has_signed_and_an_older_program_is_waited_for_and_shown() {
    let mut scratch = Scratch::new().await;
    let fleet = fleet_of(&scratch, 4).await;
    let lost = fleet[0].poll(&scratch, true).await;
    assert!(lost.is_none(), "nobody asks");
    begun(&scratch, 3).await;
    let campaign = status(&scratch).await.campaign.id;
    let (mut told, mut later) = (Vec::new(), Vec::new());
    // One of those that are asked has an older program.
    let old = asked(&scratch).await[0];
    for one in &fleet {
        match one.poll(&scratch, one.device != old).await {
            Some(request) => told.push((one, request)),
            None => later.push(one),
        }
    }
    assert_eq!((told.len(), later.len()), (2, 2));
    assert!(told.iter().all(|(_, request)| request == campaign.as_bytes()));
    let found = status(&scratch).await.progress;
    assert_eq!((found.offered, found.too_old, found.waiting), (3, 1, 1), "{found:?}");
    // The statement counts once, whoever restarts, and that of a device whose turn has not come does not count.
    scratch = scratch.reopen().await;
    for (one, request) in &told {
        one.answer(&scratch, *request).await.unwrap();
        let size = scratch.fleet.status(&scratch.owner).await.unwrap().log_size;
        one.answer(&scratch, *request).await.unwrap();
        assert_eq!(scratch.fleet.status(&scratch.owner).await.unwrap().log_size, size, "the same once more");
        assert_eq!(one.poll(&scratch, true).await, None, "it is not asked again");
    }
    let request = *campaign.as_bytes();
    let mut early = 0;
    for one in &later {
        early += usize::from(matches!(one.answer(&scratch, request).await, Err(FleetError::NotFound("campaign"))));
    }
    assert_eq!(early, 1, "of two, one was asked");
    // The older program is brought up to date, and the fourth has its turn.
    for _ in 0..20 {
        turns(&scratch, 2).await;
        for one in &later {
            if let Some(request) = one.poll(&scratch, true).await {
                one.answer(&scratch, request).await.unwrap();
            }
        }
    }
    let end = status(&scratch).await;
    assert_eq!((end.campaign.state, end.progress.done, end.progress.too_old), (CampaignState::Completed, 4, 0));
    let history = scratch.fleet.device_show(&scratch.owner, "thermo-0").await.unwrap().events;
    let entry = history.iter().find(|event| event.entry["act"] == "storage.move").unwrap().entry.to_string();
    assert!(entry.contains("erased-and-read-back") && entry.contains(r#""records":"3""#), "{entry}");
}

#[tokio::test]
async fn what_another_key_signed_or_no_campaign_asked_for_counts_for_nothing() {
    let scratch = Scratch::new().await;
    let fleet = fleet_of(&scratch, 2).await;
    begun(&scratch, 2).await;
    let request = fleet[0].poll(&scratch, true).await.unwrap();
    let forged = fleet[0].report(&scratch, request).sign(&Chip(&fleet[1].identity.key)).unwrap();
    assert!(is_refused(scratch.fleet.device_storage_moved(forged.as_bytes()).await));
    let stranger = StorageReport { device: DeviceId::from_bytes([3; 16]), ..fleet[0].report(&scratch, request) };
    let stranger = stranger.sign(&Chip(&fleet[0].identity.key)).unwrap();
    assert!(is_refused(scratch.fleet.device_storage_moved(stranger.as_bytes()).await));
    let other = fleet[0].answer(&scratch, [1; 16]).await;
    assert!(matches!(other, Err(FleetError::NotFound("campaign"))), "{other:?}");
    assert!(scratch.fleet.device_storage_moved(b"nothing").await.is_err());
    turns(&scratch, 2).await;
    assert_eq!(status(&scratch).await.progress.done, 0);
    // Paused it still tells; given up it does not, and what a device had done counts all the same.
    act(&scratch, CampaignAct::Pause).await.unwrap();
    assert!(fleet[1].poll(&scratch, true).await.is_some());
    fleet[0].answer(&scratch, request).await.unwrap();
    act(&scratch, CampaignAct::RollBack).await.unwrap();
    assert!(fleet[1].poll(&scratch, true).await.is_none());
    turns(&scratch, 4).await;
    let found = status(&scratch).await.progress;
    assert_eq!((found.done, found.offered, found.taken_back), (1, 1, 0), "the other was told: {found:?}");
}

#[tokio::test]
async fn a_device_whose_identity_signs_no_statements_is_skipped() {
    let scratch = Scratch::with(|config| config.single_control = true).await;
    let policy = kf_api::product_line::EnrolmentPolicy {
        allowed_algorithms: vec![KeyAlgorithm::P256, KeyAlgorithm::P384],
        ..Default::default()
    };
    scratch.fleet.product_line_set_policy(&scratch.owner, "thermo", policy).await.unwrap();
    scratch.device("thermo-0").await;
    let identity = scratch.enrol("thermo-0").await;
    let key = kf_crypto::PrivateKey::generate(KeyAlgorithm::P384).unwrap();
    scratch.pass(crate::campaign::SECOND);
    let chain = issued(scratch.renew(&identity, &csr(&key)).await.unwrap());
    assert_ne!(serial_of(&chain), identity.serial);
    begun(&scratch, 1).await;
    let found = status(&scratch).await;
    assert_eq!((found.campaign.state, found.progress.skipped), (CampaignState::Completed, 1));
}

//! Keys with which the server encrypts for others: who may, how long a version goes on, and what is left of it.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kf_api::PageRequest;
use kf_api::audit::AuditFilter;
use kf_api::ciphertext::{Ciphertext, ciphertext_aad};
use kf_api::destruction::{DestructionRequest, DestructionResult, DestructionTarget};
use kf_api::encryption_key::{
    CipherItem, CipherRefusal, CipherRequest, DataKeyRequest, DecryptOutcome, ENCRYPTIONS_PER_VERSION, EncryptRequest,
    EncryptionKey, NewEncryptionKey, PlainItem, RaiseMinimum, RewrapOutcome, RotateKey,
};
use kf_api::operator::Role;
use kf_api::rotation::{RotateRequest, RotationOperation, RotationOutcome};
use kf_fleet::{FleetError, Principal};
use kf_key::{KeyState, UnixMillis};
use kf_store::encryption_key::{Reservation, Reserved};
use kf_testkit::Python;
use serde_json::{Value, json};

use crate::destruction::{approve, receipts};
use crate::rollback::copy;
use crate::scratch::{START, Scratch, field_of};
use crate::sealed::entry;

async fn with_key() -> (Scratch, EncryptionKey, Principal) {
    let scratch = Scratch::new().await;
    let new = NewEncryptionKey { name: "patients".into(), facility: "plant-a".into() };
    let key = scratch.fleet.encryption_key_create(&scratch.owner, new).await.unwrap();
    let clinic = scratch.operator("clinic", Role::Application, &["plant-a"]).await;
    (scratch, key, clinic)
}

fn plain(text: &str, aad: &str) -> EncryptRequest {
    let (plaintext, external_aad) = (BASE64_STANDARD.encode(text), BASE64_STANDARD.encode(aad));
    EncryptRequest { items: vec![PlainItem { plaintext, external_aad }] }
}

fn cipher(text: &str, aad: &str) -> CipherRequest {
    CipherRequest { items: vec![CipherItem { ciphertext: text.into(), external_aad: BASE64_STANDARD.encode(aad) }] }
}

async fn encrypt(scratch: &Scratch, who: &Principal, text: &str, aad: &str) -> String {
    scratch.fleet.data_encrypt(who, "patients", plain(text, aad)).await.unwrap().ciphertexts.remove(0)
}

/// The plaintext and its version, or why not.
async fn decrypt(
    scratch: &Scratch,
    who: &Principal,
    ciphertext: &str,
    aad: &str,
) -> Result<(String, u32), CipherRefusal> {
    let mut answer = scratch.fleet.data_decrypt(who, "patients", cipher(ciphertext, aad)).await.unwrap();
    match answer.items.remove(0) {
        DecryptOutcome::Decrypted { plaintext, version } => {
            Ok((String::from_utf8(BASE64_STANDARD.decode(plaintext).unwrap()).unwrap(), version))
        }
        DecryptOutcome::Refused { refusal, .. } => Err(refusal),
    }
}

async fn rotate(scratch: &Scratch, newest_version: Option<u32>) -> Result<EncryptionKey, FleetError> {
    let request = RotateKey { newest_version, why: "test".into() };
    scratch.fleet.encryption_key_rotate(&scratch.owner, "patients", request).await
}

fn of_version(version: u32) -> DestructionRequest {
    DestructionRequest {
        target: DestructionTarget::EncryptionVersion { key: "patients".into(), version },
        why: "rotated".into(),
        station_records_erased: false,
        dry_run: false,
    }
}

async fn raise_minimum(scratch: &Scratch, version: u32) -> Result<EncryptionKey, FleetError> {
    let request = RaiseMinimum { version, why: String::new() };
    scratch.fleet.encryption_key_raise_minimum(&scratch.owner, "patients", request).await
}

async fn logged(scratch: &Scratch, act: &str) -> Vec<Value> {
    let filter = AuditFilter { limit: Some(1_000), ..AuditFilter::default() };
    let page = scratch.fleet.audit_list(&scratch.owner, filter).await.unwrap();
    page.items.into_iter().map(|record| record.entry).filter(|entry| entry["act"] == act).collect()
}

#[tokio::test]
async fn what_is_encrypted_opens_with_what_it_is_bound_to_and_with_nothing_else() {
    let (scratch, _, clinic) = with_key().await;
    let ciphertext = encrypt(&scratch, &clinic, "blood type 0", "patient 7").await;
    assert_eq!(decrypt(&scratch, &clinic, &ciphertext, "patient 7").await, Ok(("blood type 0".into(), 1)));
    assert_eq!(decrypt(&scratch, &clinic, &ciphertext, "patient 8").await, Err(CipherRefusal::NotAuthentic));
    let mut parsed: Ciphertext = ciphertext.parse().unwrap();
    *parsed.iv_and_body.last_mut().unwrap() ^= 1;
    assert_eq!(decrypt(&scratch, &clinic, &parsed.to_string(), "patient 7").await, Err(CipherRefusal::NotAuthentic));
    parsed.version = 9;
    assert_eq!(decrypt(&scratch, &clinic, &parsed.to_string(), "patient 7").await, Err(CipherRefusal::UnknownVersion));
    assert_eq!(decrypt(&scratch, &clinic, "kfc1.AAAA", "").await, Err(CipherRefusal::Malformed));
    let twice = encrypt(&scratch, &clinic, "blood type 0", "patient 7").await;
    assert_ne!(twice, ciphertext, "equal plaintexts must not look equal");
}

#[tokio::test]
async fn a_rotation_moves_data_to_the_next_version_and_only_then_may_the_old_one_be_destroyed() {
    let (scratch, key, clinic) = with_key().await;
    let old = encrypt(&scratch, &clinic, "x", "").await;
    let rotated = rotate(&scratch, Some(1)).await.unwrap();
    let states: Vec<_> = rotated.versions.iter().map(|version| (version.version, version.state)).collect();
    assert_eq!(states, [(2, KeyState::Active), (1, KeyState::Deactivated)]);
    assert_eq!(decrypt(&scratch, &clinic, &old, "").await, Ok(("x".into(), 1)));
    assert_eq!(encrypt(&scratch, &clinic, "y", "").await.parse::<Ciphertext>().unwrap().version, 2);

    let destroy = |version| scratch.fleet.destroy(&scratch.owner, of_version(version));
    let refused = destroy(1).await.unwrap_err();
    assert_eq!(field_of(&refused), "version", "{refused:?}");

    let moved = scratch.fleet.data_rewrap(&scratch.owner, "patients", cipher(&old, "")).await.unwrap();
    let RewrapOutcome::Newest { ciphertext, from_version: 1, changed: true } = &moved.items[0] else {
        panic!("{moved:?}")
    };
    assert_eq!(decrypt(&scratch, &clinic, ciphertext, "").await, Ok(("x".into(), 2)));
    let again = scratch.fleet.data_rewrap(&scratch.owner, "patients", cipher(ciphertext, "")).await.unwrap();
    assert!(
        matches!(&again.items[0], RewrapOutcome::Newest { ciphertext: same, changed: false, .. } if same == ciphertext)
    );

    assert!(raise_minimum(&scratch, 3).await.is_err(), "above the newest");
    raise_minimum(&scratch, 2).await.unwrap();
    assert!(raise_minimum(&scratch, 1).await.is_err(), "never down again");
    assert_eq!(decrypt(&scratch, &clinic, &old, "").await, Err(CipherRefusal::VersionBarred));

    let proposal = destroy(1).await.unwrap().proposal.unwrap();
    let second = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    assert!(approve(&scratch, &scratch.owner, proposal).await.is_err(), "nobody approves an own proposal");
    approve(&scratch, &second, proposal).await.unwrap();
    let [receipt] = receipts(&scratch).await.try_into().unwrap();
    assert_eq!(
        (receipt.result, receipt.target),
        (DestructionResult::Destroyed, format!("encryption-version {} 1", key.id))
    );
    let scan = receipt.verification.unwrap();
    assert!(scan.fragments_before.unwrap() > 0 && scan.fragments_after == 0, "{scan:?}");
    let shown = scratch.fleet.encryption_key_show(&scratch.owner, "patients").await.unwrap();
    let destroyed = &shown.versions[1];
    assert_eq!((destroyed.state, destroyed.destroyed), (KeyState::Destroyed, Some(START)));
    assert!(destroy(1).await.is_err(), "nothing is destroyed twice");
    let (scratch, material) =
        scratch.edited(async |store, _| store.encryption_version(shown.id, 1).unwrap().unwrap().material).await;
    assert_eq!(material, None);
    assert_eq!(decrypt(&scratch, &clinic, ciphertext, "").await, Ok(("x".into(), 2)), "and a restart changes nothing");
}

#[tokio::test]
async fn a_registry_of_before_decrypts_nothing_that_was_barred_and_reuses_no_version() {
    let (scratch, _, clinic) = with_key().await;
    let old = encrypt(&scratch, &clinic, "x", "").await;
    scratch.fleet.close().await;
    let (data, before) = (scratch.dir.path().join("data"), scratch.dir.path().join("before"));
    copy(&data, &before);
    let scratch = scratch.reopen().await;
    rotate(&scratch, Some(1)).await.unwrap();
    let newer = encrypt(&scratch, &clinic, "y", "").await;
    raise_minimum(&scratch, 2).await.unwrap();
    let proposal = scratch.fleet.destroy(&scratch.owner, of_version(1)).await.unwrap().proposal.unwrap();
    let second = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    approve(&scratch, &second, proposal).await.unwrap();
    scratch.fleet.close().await;
    std::fs::remove_dir_all(&data).unwrap();
    copy(&before, &data);
    let scratch = scratch.reopen().await;
    let shown = scratch.fleet.encryption_key_show(&scratch.owner, "patients").await.unwrap();
    assert_eq!((shown.newest_version, shown.minimum_version, shown.versions[0].state), (1, 2, KeyState::Destroyed));
    assert_eq!(decrypt(&scratch, &clinic, &old, "").await, Err(CipherRefusal::VersionBarred));
    assert_eq!(decrypt(&scratch, &clinic, &newer, "").await, Err(CipherRefusal::UnknownVersion));
    let refused = scratch.fleet.data_encrypt(&clinic, "patients", plain("z", "")).await.unwrap_err();
    assert!(matches!(refused, FleetError::Fenced(_) | FleetError::Conflict { .. }), "{refused:?}");
}

#[tokio::test]
async fn of_two_who_rotate_at_the_same_time_one_is_refused() {
    let (scratch, _, _) = with_key().await;
    let (one, other) = tokio::join!(rotate(&scratch, Some(1)), rotate(&scratch, Some(1)));
    assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1, "{one:?} {other:?}");
    let refused = rotate(&scratch, Some(1)).await.unwrap_err();
    assert_eq!(field_of(&refused), "newest_version");
    assert_eq!(scratch.fleet.encryption_key_show(&scratch.owner, "patients").await.unwrap().newest_version, 2);
}

#[tokio::test]
async fn a_version_whose_encryptions_are_used_up_gives_way_to_the_next_by_itself() {
    let (scratch, key, clinic) = with_key().await;
    let old = encrypt(&scratch, &clinic, "x", "").await;
    let (scratch, reserved) = scratch
        .edited(async |store, _| {
            let left = ENCRYPTIONS_PER_VERSION - 4_096;
            let reservation =
                Reservation { key: key.id, version: 1, encryptions: left, blocks: 0, max_blocks: u64::MAX >> 1 };
            let fits = store.reserve_encryptions(reservation, entry()).await.unwrap();
            let more = store.reserve_encryptions(Reservation { encryptions: 1, ..reservation }, entry()).await.unwrap();
            (fits, more)
        })
        .await;
    assert_eq!(reserved, (Reserved::Done, Reserved::UsedUp), "exactly what a version bears is set aside");
    let next = encrypt(&scratch, &clinic, "y", "").await;
    assert_eq!(next.parse::<Ciphertext>().unwrap().version, 2);
    assert_eq!(decrypt(&scratch, &clinic, &old, "").await, Ok(("x".into(), 1)));
    let entries = logged(&scratch, "encryption-key.rotate").await;
    assert_eq!((entries.len(), &entries[0]["who"]["id"]), (1, &json!("server")));
    assert_eq!(entries[0]["why"], "its encryptions are used up");
}

#[tokio::test]
async fn a_program_of_one_facility_reaches_no_key_of_another_and_manages_none() {
    let (scratch, _, clinic) = with_key().await;
    let ciphertext = encrypt(&scratch, &clinic, "x", "").await;
    let other = scratch.operator("bakery", Role::Application, &["plant-b"]).await;
    let auditor = scratch.operator("ada", Role::Auditor, &[]).await;
    for who in [&other, &auditor, &scratch.owner] {
        let refused = scratch.fleet.data_decrypt(who, "patients", cipher(&ciphertext, "")).await.unwrap_err();
        let is_blind = matches!(refused, FleetError::NotFound(_));
        assert_eq!(is_blind, who.name == "bakery", "{refused:?}");
        assert!(is_blind || matches!(refused, FleetError::Denied(_)), "{refused:?}");
    }
    let new = NewEncryptionKey { name: "mine".into(), facility: "plant-a".into() };
    assert!(matches!(scratch.fleet.encryption_key_create(&clinic, new).await, Err(FleetError::Denied(_))));
    let seen = scratch.fleet.encryption_key_list(&other, None, PageRequest::default()).await.unwrap();
    assert!(seen.items.is_empty());
    assert_eq!(scratch.fleet.encryption_key_list(&auditor, None, PageRequest::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn who_used_a_key_is_in_the_log_before_the_answer_and_how_often_after_an_hour() {
    let (scratch, key, clinic) = with_key().await;
    let ciphertext = encrypt(&scratch, &clinic, "x", "").await;
    for _ in 0..3 {
        decrypt(&scratch, &clinic, &ciphertext, "").await.unwrap();
    }
    let first = logged(&scratch, "data.decrypt").await;
    assert_eq!(first.len(), 1);
    assert_eq!((&first[0]["who"]["name"], &first[0]["detail"]["first"]), (&json!("clinic"), &json!("1")));
    assert_eq!(first[0]["subjects"], json!([key.id.to_string()]));
    scratch.fleet.turn().await;
    assert_eq!(logged(&scratch, "data.decrypt").await.len(), 1, "the hour is not over");
    scratch.pass(UnixMillis::HOUR);
    scratch.fleet.turn().await;
    let uses = logged(&scratch, "data.decrypt").await;
    let counted: Vec<_> = uses.iter().filter_map(|entry| entry["detail"].get("uses")).collect();
    assert_eq!(counted, ["3"]);
}

#[tokio::test]
async fn bad_items_are_named_by_their_place() {
    let (scratch, _, clinic) = with_key().await;
    let mut request = plain("x", "");
    request.items.push(PlainItem { plaintext: "%".into(), external_aad: String::new() });
    let refused = scratch.fleet.data_encrypt(&clinic, "patients", request).await.unwrap_err();
    assert_eq!(field_of(&refused), "items[1].plaintext");
    let large = plain(&"x".repeat(65_537), "");
    let refused = scratch.fleet.data_encrypt(&clinic, "patients", large).await.unwrap_err();
    assert_eq!(field_of(&refused), "items[0].plaintext");
    let none = scratch.fleet.data_encrypt(&clinic, "patients", EncryptRequest { items: Vec::new() }).await;
    assert_eq!(field_of(&none.unwrap_err()), "items");
    let many = DataKeyRequest { count: 65, external_aad: String::new() };
    assert_eq!(field_of(&scratch.fleet.data_keys(&clinic, "patients", many).await.unwrap_err()), "count");
}

#[tokio::test]
async fn pycose_opens_a_ciphertext_with_the_material_of_its_version_and_gets_a_data_key() {
    let (scratch, key, clinic) = with_key().await;
    let request = DataKeyRequest { count: 1, external_aad: BASE64_STANDARD.encode("disk 1") };
    let made = scratch.fleet.data_keys(&clinic, "patients", request).await.unwrap().keys.remove(0);
    let (_scratch, material) = scratch
        .edited(async |store, signer| {
            let wrapped = store.encryption_version(key.id, 1).unwrap().unwrap().material.unwrap();
            let context = [&b"encryption key"[..], key.id.as_bytes(), &1_u32.to_be_bytes()].concat();
            signer.unwrap(&context, &wrapped.0).await.unwrap()
        })
        .await;
    let parsed: Ciphertext = made.ciphertext.parse().unwrap();
    let script = "import sys\n\
        from pycose.messages import CoseMessage\n\
        from pycose.keys import SymmetricKey\n\
        message = CoseMessage.decode(bytes.fromhex(sys.argv[1]))\n\
        message.key = SymmetricKey(k=bytes.fromhex(sys.argv[2]))\n\
        message.external_aad = b'disk 1'\n\
        print(type(message).__name__, message.decrypt().hex())\n";
    // Exposed to the second implementation: a test's key.
    let arguments = ["-c", script, &hex(&parsed.to_cose()), &hex(material.expose())];
    let opened = Python::with_module("pycose").tool().run(&arguments).expect_success().stdout_text();
    let data_key = BASE64_STANDARD.decode(made.key.expose()).unwrap();
    assert_eq!(opened.trim(), format!("Enc0Message {}", hex(&data_key)));
    assert_eq!(ciphertext_aad(key.id, 1, b"disk 1").first(), Some(&0x83));
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[tokio::test]
async fn a_version_that_is_due_by_the_policy_is_followed_by_the_next_in_a_run() {
    let (scratch, _, clinic) = with_key().await;
    let old = encrypt(&scratch, &clinic, "x", "").await;
    scratch.pass(3 * 365 * UnixMillis::DAY);
    let run = async |dry_run| {
        let request = RotateRequest { dry_run, ..RotateRequest::default() };
        let report = scratch.fleet.rotate(&scratch.owner, request).await.unwrap();
        let steps = report.items.into_iter().filter(|step| step.class == "data-encryption-key");
        steps.map(|step| (step.operation, step.outcome)).collect::<Vec<_>>()
    };
    let make = RotationOperation::MakeSuccessor;
    assert_eq!(run(true).await, [(make, RotationOutcome::Planned)]);
    assert_eq!(scratch.fleet.encryption_key_show(&scratch.owner, "patients").await.unwrap().newest_version, 1);
    assert_eq!(run(false).await, [(make, RotationOutcome::Done)]);
    assert_eq!(run(false).await, [], "what is done is not done again");
    assert_eq!(encrypt(&scratch, &clinic, "y", "").await.parse::<Ciphertext>().unwrap().version, 2);
    assert_eq!(decrypt(&scratch, &clinic, &old, "").await, Ok(("x".into(), 1)));
    let listed = crate::inventory::all(&scratch, &scratch.owner, Default::default()).await;
    let versions = listed.iter().filter(|key| key.class == "data-encryption-key");
    let mut versions: Vec<_> = versions.map(|key| (key.name.as_str(), key.uses)).collect();
    versions.sort_unstable();
    assert_eq!(versions, [("patients version 1", Some(4_096)), ("patients version 2", Some(4_096))]);
}

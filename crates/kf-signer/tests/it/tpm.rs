//! The signer over a TPM.

use kf_key::KeyAlgorithm;
use kf_signer::{BackendKind, SignerClient, SignerCommand, SignerConfig, SignerError, TpmConfig};
use kf_testkit::{SoftwareTpm, TempDir, scratch};

use crate::authority::{Hierarchy, assert_signed_by, device};
use crate::process::{command, secret_file};

fn tpm_command(tpm: &SoftwareTpm, directory: &TempDir, pin: &str, create_root: bool) -> SignerCommand {
    let config = SignerConfig {
        backend: BackendKind::Tpm,
        unlock: secret_file(directory.path(), pin),
        tpm: Some(TpmConfig { address: tpm.address(), directory: directory.path().join("tpm") }),
        ..SignerConfig::default()
    };
    command(config, create_root)
}

#[tokio::test]
async fn the_same_requests_run_over_a_tpm_and_survive_its_absence() {
    let (mut tpm, directory) = (SoftwareTpm::new(), scratch());
    let signer = SignerClient::spawn(tpm_command(&tpm, &directory, "13572468", true)).await.unwrap();
    assert!(signer.capabilities().needs_preimage_record);
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    assert!(made.issuing_key.handle.is_hardware());
    let sign = async |serial| {
        let checked = device(&made.issuing, &made.root_key.spki, serial);
        let tbs = checked.tbs().to_vec();
        let issued = signer.sign_certificate(made.issuing_key.key, checked).await?;
        assert_signed_by(&made.issuing, &tbs, &issued.der);
        Ok::<_, SignerError>(())
    };
    sign(3).await.unwrap();
    tpm.kill();
    assert!(matches!(sign(4).await, Err(SignerError::Backend(_))));
    tpm.restart();
    sign(5).await.unwrap();
    signer.shutdown().await;

    let again = SignerClient::spawn(tpm_command(&tpm, &directory, "13572468", true)).await.unwrap_err();
    assert!(matches!(&again, SignerError::Start(reason) if reason.contains("never overwritten")), "{again}");
    let signer = SignerClient::spawn(tpm_command(&tpm, &directory, "13572468", false)).await.unwrap();
    made.register(&signer);
    let checked = device(&made.issuing, &made.root_key.spki, 6);
    signer.sign_certificate(made.issuing_key.key, checked).await.unwrap();
}

#[tokio::test]
async fn a_key_in_a_tpm_is_destroyed_with_its_file_and_asked_for_again_it_is_gone() {
    let (tpm, directory) = (SoftwareTpm::new(), scratch());
    let signer = SignerClient::spawn(tpm_command(&tpm, &directory, "13572468", true)).await.unwrap();
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    let (key, handle) = (made.issuing_key.key, made.issuing_key.handle.clone());
    let files = || std::fs::read_dir(directory.path().join("tpm")).unwrap().count();
    let before = files();
    signer.load_anew(key, &handle).await.unwrap();
    let sign = async || {
        let checked = device(&made.issuing, &made.root_key.spki, 3);
        signer.sign_certificate(key, checked).await
    };
    sign().await.unwrap();
    signer.destroy_key(key).await.unwrap();
    assert!(sign().await.is_err(), "it signs no more");
    assert_eq!(files(), before - 1);
    let gone = signer.load_anew(key, &handle).await.unwrap_err();
    assert!(gone.to_string().contains("holds no key labelled"), "{gone}");
    // Whoever did not hear of it asks again.
    made.register(&signer);
    signer.destroy_key(key).await.unwrap();
    let root = signer.load_anew(made.root_key.key, &made.root_key.handle).await;
    assert_eq!(root, Ok(()), "its neighbour is there");
}

#[tokio::test]
async fn a_wrong_pin_of_the_tpm_is_reported_without_the_pin() {
    let (tpm, directory) = (SoftwareTpm::new(), scratch());
    SignerClient::spawn(tpm_command(&tpm, &directory, "13572468", true)).await.unwrap().shutdown().await;
    let refused = SignerClient::spawn(tpm_command(&tpm, &directory, "90909090", false)).await.unwrap_err();
    assert!(matches!(&refused, SignerError::Start(reason) if reason.contains("login was refused")), "{refused}");
    assert!(!format!("{refused:?}").contains("90909090"));
}

//! The signer over a token, in a process of its own because a PKCS#11 module reads the environment.

use kf_key::KeyAlgorithm;
use kf_signer::{BackendKind, Pkcs11Config, SecretSource, SignerClient, SignerCommand, SignerConfig, SignerError};
use kf_testkit::SoftHsm;

use crate::authority::{Hierarchy, assert_signed_by, device};
use crate::process::{command, secret_file};

fn token_command(token: &SoftHsm, pin: &str, create_root: bool) -> SignerCommand {
    let config = SignerConfig {
        backend: BackendKind::Pkcs11,
        unlock: secret_file(token.token_directory().parent().unwrap(), pin),
        pkcs11: Some(Pkcs11Config {
            module: SoftHsm::module().to_owned(),
            token: SoftHsm::LABEL.to_owned(),
            root_label: "fleet root".to_owned(),
        }),
        ..SignerConfig::default()
    };
    let environment = vec![(SoftHsm::VARIABLE.to_owned(), token.configuration().to_str().unwrap().to_owned())];
    SignerCommand { environment, ..command(config, create_root) }
}

#[tokio::test]
async fn the_same_requests_run_over_a_token_and_survive_its_absence() {
    let token = SoftHsm::new();
    let signer = SignerClient::spawn(token_command(&token, SoftHsm::PIN, true)).await.unwrap();
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
    let aside = token.token_directory().with_extension("aside");
    std::fs::rename(token.token_directory(), &aside).unwrap();
    std::fs::create_dir(token.token_directory()).unwrap();
    assert!(matches!(sign(4).await, Err(SignerError::Backend(_))));
    std::fs::remove_dir(token.token_directory()).unwrap();
    std::fs::rename(&aside, token.token_directory()).unwrap();
    // The signer spares a token that just failed for a second; until then it says so at once.
    let returned = async {
        while signer.health().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), returned).await.unwrap();
    sign(5).await.unwrap();
    signer.shutdown().await;

    let again = SignerClient::spawn(token_command(&token, SoftHsm::PIN, true)).await.unwrap_err();
    assert!(matches!(&again, SignerError::Start(reason) if reason.contains("never overwritten")), "{again}");
    let signer = SignerClient::spawn(token_command(&token, SoftHsm::PIN, false)).await.unwrap();
    made.register(&signer);
    let checked = device(&made.issuing, &made.root_key.spki, 6);
    signer.sign_certificate(made.issuing_key.key, checked).await.unwrap();
}

#[tokio::test]
async fn a_wrong_pin_is_reported_without_the_pin() {
    let token = SoftHsm::new();
    let refused = SignerClient::spawn(token_command(&token, "90909090", true)).await.unwrap_err();
    assert!(matches!(&refused, SignerError::Start(reason) if reason.contains("login was refused")), "{refused}");
    assert!(!format!("{refused:?}").contains("90909090"));
}

#[tokio::test]
async fn a_module_without_a_path_and_a_missing_table_are_refused_before_a_pin_is_read() {
    let token = SoftHsm::new();
    for (module, reason) in [(Some("libsofthsm2.so"), "absolute path"), (None, "[signer.pkcs11]")] {
        let mut command = token_command(&token, SoftHsm::PIN, false);
        command.config.unlock = SecretSource::File("/nonexistent".into());
        command.config.pkcs11 = module.map(|module| Pkcs11Config {
            module: module.into(),
            token: SoftHsm::LABEL.to_owned(),
            root_label: "fleet root".to_owned(),
        });
        let refused = SignerClient::spawn(command).await.unwrap_err();
        assert!(matches!(&refused, SignerError::Start(text) if text.contains(reason)), "{refused}");
    }
}

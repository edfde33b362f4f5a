use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kf_key::{KeyAlgorithm, SecretBytes};
use kf_signer::{SealedFileConfig, SecretSource, SignerClient, SignerCommand, SignerConfig, SignerError};
use kf_testkit::TempDir;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::authority::{Hierarchy, device, key_id};

const PASSPHRASE: &str = "correct horse battery";

pub(crate) fn command(config: SignerConfig, create_root: bool) -> SignerCommand {
    SignerCommand {
        program: PathBuf::from(env!("CARGO_BIN_EXE_keyfleet-signer")),
        arguments: Vec::new(),
        environment: Vec::new(),
        config,
        throwaway_passphrase: None,
        create_root,
    }
}

pub(crate) fn secret_file(directory: &Path, content: &str) -> SecretSource {
    let path = directory.join("secret");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    SecretSource::File(path)
}

fn sealed(directory: &Path, passphrase: &str) -> SignerConfig {
    let sealed_file = SealedFileConfig { path: directory.join("root.seal") };
    SignerConfig { unlock: secret_file(directory, passphrase), sealed_file, ..SignerConfig::default() }
}

async fn started() -> (TempDir, SignerClient) {
    let directory = kf_testkit::scratch();
    let signer = SignerClient::spawn(command(sealed(directory.path(), PASSPHRASE), true)).await.unwrap();
    (directory, signer)
}

fn pid(signer: &SignerClient) -> Pid {
    Pid::from_raw(signer.process_id().unwrap().try_into().unwrap()).unwrap()
}

/// Polls until the outcome is one that `is_done` accepts; the client answers at once while the signer is down.
async fn eventually<T>(mut call: impl AsyncFnMut() -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = call().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), search).await.expect("within a minute")
}

#[tokio::test]
async fn a_root_is_created_once_and_opened_again() {
    let (directory, signer) = started().await;
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    signer.shutdown().await;
    let again = SignerClient::spawn(command(sealed(directory.path(), PASSPHRASE), true)).await.unwrap_err();
    assert!(matches!(&again, SignerError::Start(reason) if reason.contains("never overwritten")), "{again}");
    let signer = SignerClient::spawn(command(sealed(directory.path(), PASSPHRASE), false)).await.unwrap();
    made.register(&signer);
    let spki = made.root_key.spki.clone();
    signer.sign_certificate(made.issuing_key.key, device(&made.issuing, &spki, 3)).await.unwrap();
    assert!(signer.capabilities().description.ends_with("root.seal"));
    assert!(!signer.capabilities().needs_preimage_record);
}

#[tokio::test]
async fn a_wrong_passphrase_and_an_altered_file_look_the_same() {
    let (directory, signer) = started().await;
    signer.shutdown().await;
    let open = || SignerClient::spawn(command(sealed(directory.path(), "wrong horse battery"), false));
    let wrong = open().await.unwrap_err();
    let path = directory.path().join("root.seal");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"passes\": 3", "\"passes\": 4")).unwrap();
    let altered = SignerClient::spawn(command(sealed(directory.path(), PASSPHRASE), false)).await.unwrap_err();
    assert_eq!(wrong, altered);
    assert!(!format!("{wrong:?} {wrong}").contains("horse"));
}

#[tokio::test]
async fn a_killed_signer_is_restarted_and_knows_its_keys() {
    let (_directory, signer) = started().await;
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    let first = pid(&signer);
    kill_process(first, Signal::KILL).unwrap();
    eventually(async || (signer.health().await == Err(SignerError::Unavailable)).then_some(())).await;
    let health = eventually(async || signer.health().await.ok()).await;
    assert_eq!((health.restarts, health.keys_loaded), (1, 0));
    assert_ne!(pid(&signer), first);
    let checked = device(&made.issuing, &made.root_key.spki, 3);
    signer.sign_certificate(made.issuing_key.key, checked).await.unwrap();
    assert_eq!(signer.health().await.unwrap().signatures, [(made.issuing_key.key, 1)]);
}

#[tokio::test]
async fn a_signer_whose_passphrase_cannot_be_read_again_stays_down() {
    let directory = kf_testkit::scratch();
    let config = sealed(directory.path(), PASSPHRASE);
    let SecretSource::File(path) = &config.unlock else { panic!("a file") };
    let file = fs::File::open(path).unwrap();
    let number = u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&file)).unwrap();
    let config = SignerConfig { unlock: SecretSource::Descriptor(number), ..config };
    let signer = SignerClient::spawn(command(config, true)).await.unwrap();
    kill_process(pid(&signer), Signal::KILL).unwrap();
    eventually(async || (signer.health().await == Err(SignerError::Unavailable)).then_some(())).await;
    // Returns once the watch has given up, without a restart.
    signer.shutdown().await;
    assert_eq!(signer.health().await, Err(SignerError::Unavailable));
}

#[tokio::test]
async fn a_throwaway_passphrase_travels_through_a_pipe() {
    let directory = kf_testkit::scratch();
    let throwaway = || Some(SecretBytes::from_vec(b"made up for a demonstration".to_vec()));
    let config = SignerConfig { unlock: SecretSource::Prompt, ..sealed(directory.path(), "unused") };
    let first = SignerCommand { throwaway_passphrase: throwaway(), ..command(config.clone(), true) };
    assert!(!format!("{first:?}").contains("demonstration"));
    SignerClient::spawn(first).await.unwrap().shutdown().await;
    let second = SignerCommand { throwaway_passphrase: throwaway(), ..command(config, false) };
    assert!(SignerClient::spawn(second).await.unwrap().health().await.is_ok());
}

#[tokio::test]
async fn interrupt_and_termination_do_not_end_the_signer_but_the_end_of_the_client_does() {
    let (_directory, signer) = started().await;
    let pid = pid(&signer);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        kill_process(pid, signal).unwrap();
    }
    let key = signer.generate_key(key_id(5), kf_signer::KeyPurpose::RootCa, KeyAlgorithm::P256).await;
    assert!(key.is_ok());
    drop(signer);
    eventually(async || test_kill_process(pid).is_err().then_some(())).await;
}

#[tokio::test]
async fn a_signer_that_hangs_is_killed_when_the_server_shuts_down() {
    let (_directory, signer) = started().await;
    let pid = pid(&signer);
    kill_process(pid, Signal::STOP).unwrap();
    signer.shutdown().await;
    assert!(test_kill_process(pid).is_err(), "its process was killed and collected");
}

#[tokio::test]
async fn the_process_cannot_be_dumped_and_its_command_line_and_environment_hold_no_secret() {
    let (_directory, signer) = started().await;
    let pid = pid(&signer).as_raw_nonzero();
    let read =
        |name: &str| fs::read(format!("/proc/{pid}/{name}")).map(|text| String::from_utf8_lossy(&text).into_owned());
    let limits = read("limits").unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    // A process that cannot be dumped belongs to root, whoever started it (proc(5)).
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}/mem")).unwrap());
    assert_eq!(owner, 0);
    for name in ["cmdline", "environ"] {
        // Unreadable is as good; root can read it.
        assert!(!read(name).unwrap_or_default().contains(PASSPHRASE), "{name}");
    }
}

#[tokio::test]
async fn a_program_that_is_no_signer_and_a_missing_one_are_reported() {
    let directory = kf_testkit::scratch();
    for program in ["/bin/true", "/nonexistent"] {
        let command =
            SignerCommand { program: PathBuf::from(program), ..command(sealed(directory.path(), PASSPHRASE), true) };
        let refused = SignerClient::spawn(command).await.unwrap_err();
        assert!(matches!(refused, SignerError::Start(_)), "{refused:?}");
    }
}

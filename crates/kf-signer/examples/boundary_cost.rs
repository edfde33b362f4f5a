//! What the process boundary costs: processor time of a bare signature beside that of a certificate signed by the
//! signer's process, with 64 requests in flight. `cargo run --release -p kf-signer --example boundary_cost`
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, dead_code)]

#[path = "../tests/it/authority.rs"]
mod authority;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authority::{Hierarchy, backend, device, key_id};
use kf_backend::KeyBackend;
use kf_key::{KeyAlgorithm, SecretBytes};
use kf_signer::{SealedFileConfig, SignerClient, SignerCommand, SignerConfig};

const SIGNATURES: u32 = 20_000;
const IN_FLIGHT: usize = 64;
const SUBCOMMAND: &str = "signer";
/// Ticks of /proc/PID/stat in a second (USER_HZ, fixed by the kernel's interface).
const TICKS_PER_SECOND: u32 = 100;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(SUBCOMMAND) {
        return kf_signer::run_signer();
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(measure());
    ExitCode::SUCCESS
}

async fn measure() {
    let directory = tempfile::tempdir().unwrap();
    let config = SignerConfig {
        sealed_file: SealedFileConfig { path: directory.path().join("root.seal") },
        ..SignerConfig::default()
    };
    let command = SignerCommand {
        throwaway_passphrase: Some(SecretBytes::from_vec(b"made up for a measurement".to_vec())),
        create_root: true,
        ..SignerCommand::of_this_program(SUBCOMMAND, config)
    };
    let signer = SignerClient::spawn(command).await.unwrap();
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    let spki = made.root_key.spki.clone();
    let software = backend(1);
    let pair = software.generate_key_pair(key_id(1), KeyAlgorithm::P256).unwrap();
    let bare = software.open_key(key_id(1), &pair.handle).unwrap();

    for round in 1..=3 {
        let tbs = device(&made.issuing, &spki, 1).tbs().to_vec();
        let (start, before) = (Instant::now(), processor_time("self"));
        for _ in 0..SIGNATURES {
            bare.sign(&tbs).unwrap();
        }
        report(round, "bare signature", processor_time("self") - before, start.elapsed());

        let (start, before) = (Instant::now(), processor_time("self"));
        for _ in 0..SIGNATURES {
            kf_pki::certificate::recheck_tbs_certificate(&tbs, &made.issuing.name, false).unwrap();
        }
        report(round, "the signer's own check", processor_time("self") - before, start.elapsed());
        let checked: Vec<_> = (0..SIGNATURES).map(|n| device(&made.issuing, &spki, n.to_be_bytes()[3])).collect();
        let child = signer.process_id().unwrap().to_string();
        let (start, ours, theirs) = (Instant::now(), processor_time("self"), processor_time(&child));
        let gate = Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT));
        let tasks: Vec<_> = checked
            .into_iter()
            .map(|checked| {
                let (signer, key, gate) = (signer.clone(), made.issuing_key.key, Arc::clone(&gate));
                tokio::spawn(async move {
                    let _turn = gate.acquire().await.unwrap();
                    signer.sign_certificate(key, checked).await.unwrap()
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let elapsed = start.elapsed();
        report(round, "server's side", processor_time("self") - ours, elapsed);
        report(round, "signer's side", processor_time(&child) - theirs, elapsed);
    }
}

fn report(round: u32, what: &str, processor: Duration, wall: Duration) {
    println!("round {round}: {what}: processor {:?}, wall {:?} each", processor / SIGNATURES, wall / SIGNATURES);
}

/// User and system time of a process (proc(5): fields 14 and 15, counted behind the command's parenthesis).
fn processor_time(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u32 = fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap();
    Duration::from_secs(1) * ticks / TICKS_PER_SECOND
}

//! What the process boundary costs, as a figure to be read, not as a limit on a shared machine: the assertion is only
//! that requests in flight share the boundary.

use std::time::Instant;

use kf_backend::KeyBackend;
use kf_key::KeyAlgorithm;

use crate::authority::{Hierarchy, backend, device, in_process, key_id};

const ROUNDS: u8 = 250;
const IN_FLIGHT: u8 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cost_of_the_boundary_is_printed() {
    let software = backend(1);
    let pair = software.generate_key_pair(key_id(1), KeyAlgorithm::P256).unwrap();
    let bare = software.open_key(key_id(1), &pair.handle).unwrap();
    let signer = in_process();
    let made = Hierarchy::make(&signer, KeyAlgorithm::P256).await;
    let checked: Vec<_> = (0..ROUNDS).map(|serial| device(&made.issuing, &pair.spki, serial)).collect();

    let start = Instant::now();
    for tbs in &checked {
        bare.sign(tbs.tbs()).unwrap();
    }
    let bare = start.elapsed() / u32::from(ROUNDS);

    let start = Instant::now();
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(usize::from(IN_FLIGHT)));
    let tasks: Vec<_> = checked
        .into_iter()
        .map(|checked| {
            let (signer, key, gate) = (signer.clone(), made.issuing_key.key, gate.clone());
            tokio::spawn(async move {
                let _turn = gate.acquire().await.unwrap();
                signer.sign_certificate(key, checked).await.unwrap()
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let through = start.elapsed() / u32::from(ROUNDS);
    println!("bare sign {bare:?}; through the signer with {IN_FLIGHT} in flight, wall {through:?}");
    assert_eq!(signer.health().await.unwrap().signatures[1].1, u64::from(ROUNDS));
}

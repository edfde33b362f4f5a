//! Figures, printed and not asserted: run with `--nocapture`.

use std::time::Instant;

use kf_access::Visibility;
use kf_key::{CertificateStatus, DeviceState, RevocationReason};
use kf_store::Options;
use kf_store::certificate::CertificateQuery;
use kf_store::device::DeviceQuery;
use kf_store::revocation::{Profiles, Revocation, Selection};

use crate::fixture::{
    NOW, authority_id, certificate, device, device_id, done, entry, facility_id, issuance, open, populate, serial,
};

/// CPU time of the writer thread so far, microseconds.
fn writer_cpu() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    for task in tasks.flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.trim() == "store-writer" {
            let schedule = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let nanoseconds = schedule.split(' ').next().and_then(|text| text.parse::<u64>().ok());
            return nanoseconds.unwrap_or(0) / 1_000;
        }
    }
    0
}

fn devices_of_this_run() -> u64 {
    // Set it to 200000 for figures worth reading; the test command only checks that the path works.
    std::env::var("KF_STORE_SPEED_DEVICES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_of_a_large_registry_are_printed() {
    let count = devices_of_this_run();
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Options { group: 64, ..Options::default() });
    populate(&store).await;
    let (start, cpu) = (Instant::now(), writer_cpu());
    let mut number = 0;
    while number < count {
        let chunk = 1_000.min(count - number);
        let rows = (number + 1..=number + chunk)
            .map(|number| {
                let device = device(number);
                let subjects = [device.id.to_string()];
                (device, entry("device.register", Some(2 - number % 2), &subjects))
            })
            .collect();
        store.register_devices(rows).await.unwrap();
        number += chunk;
    }
    let per =
        |micros: u64, count: u64| f64::from(u32::try_from(micros).unwrap()) / f64::from(u32::try_from(count).unwrap());
    let report = |what: &str, start: Instant, cpu: u64, count: u64| {
        let wall = u64::try_from(start.elapsed().as_micros()).unwrap();
        println!(
            "{what}: {count} in {:.2} s, wall {:.1} us each, writer CPU {:.1} us each",
            start.elapsed().as_secs_f64(),
            per(wall, count),
            per(writer_cpu().saturating_sub(cpu), count)
        );
    };
    report("register, 1,000 per act", start, cpu, count);

    let (start, cpu) = (Instant::now(), writer_cpu());
    let tasks: Vec<_> = (0..128)
        .map(|worker| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in (1..=count).filter(|number| number % 128 == worker) {
                    let device = device(number);
                    let subjects = [device.id.to_string(), format!("cert:{}", serial(number))];
                    let wanted = issuance(certificate(number, Some(&device)), DeviceState::Registered);
                    let entry = entry("certificate.issue", Some(2 - number % 2), &subjects);
                    store.record_issuance(wanted, entry).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    report("durable issuance, groups of 64", start, cpu, count);

    let start = Instant::now();
    for number in 1..=count {
        store.status(authority_id(1), serial(number)).unwrap();
    }
    report("status lookup", start, writer_cpu(), count);
    let start = Instant::now();
    for number in 1..=count {
        store.device(device_id(number), &Visibility::Fleet).unwrap().unwrap();
    }
    report("device lookup", start, writer_cpu(), count);
    let start = Instant::now();
    for number in 0..20 {
        let after = Some(device_id(count / 20 * number).to_string());
        let page = kf_api::PageRequest { after, limit: Some(100) };
        let query = DeviceQuery { facility: Some(facility_id(1)), page, ..DeviceQuery::default() };
        store.devices(&query, &Visibility::Fleet).unwrap();
    }
    report("page of 100 devices of a facility", start, writer_cpu(), 20);

    let start = Instant::now();
    for _ in 0..20 {
        let rare = DeviceQuery { state: Some(DeviceState::Quarantined), ..DeviceQuery::default() };
        store.devices(&rare, &Visibility::Fleet).unwrap();
        let prefix = DeviceQuery { name_prefix: Some("device-".into()), ..DeviceQuery::default() };
        store.devices(&prefix, &crate::fixture::only(2)).unwrap();
        let held = CertificateQuery { status: Some(CertificateStatus::Held), ..CertificateQuery::default() };
        store.certificates(&held, &Visibility::Fleet).unwrap();
    }
    report("three pages of rare things", start, writer_cpu(), 20);
    let (start, cpu) = (Instant::now(), writer_cpu());
    for number in 1..=100 {
        let selection = Selection::Device(device_id(number * 2));
        let hold = RevocationReason::CertificateHold;
        let revocation = Revocation { selection, profiles: Profiles::LDevIdOnly, reason: hold, at: NOW };
        store.revoke(revocation, Visibility::Fleet, done()).await.unwrap();
    }
    report("revocation of one device, one by one", start, cpu, 100);

    let (start, cpu) = (Instant::now(), writer_cpu());
    let selection = Selection::Facility(facility_id(1));
    let reason = RevocationReason::KeyCompromise;
    let revocation = Revocation { selection, profiles: Profiles::LDevIdOnly, reason, at: NOW };
    let revoked = store.revoke(revocation, Visibility::Fleet, done()).await.unwrap().value;
    report("mass revocation", start, cpu, revoked.certificates);
    let start = Instant::now();
    let mut entries = 0;
    store.for_each_revoked(authority_id(1), &mut |_entry| entries += 1).unwrap();
    report("read for a CRL", start, writer_cpu(), entries);
    let octets = std::fs::metadata(directory.path().join("registry.db")).unwrap().len();
    println!("{} octets per device with one certificate and two log entries", octets / count);
    drop(store);
    let start = Instant::now();
    let store = open(&directory, Options::default());
    println!("reopened with {} log entries in {:?}", store.tree().size, start.elapsed());
}

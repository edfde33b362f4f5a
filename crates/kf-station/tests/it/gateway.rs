//! Gateways whose key is born in their TPM 2.0.

use std::time::Duration;

use kf_api::batch::Outcome;
use kf_batch::record::KeyOrigin;
use kf_testkit::SoftwareTpm;
use kf_tpm::{Blob, Protection, Tpm};

use crate::held::{Devices, HeldKey, recipe};
use crate::stage::{Disk, Stage};

struct InTpm {
    tpm: Tpm,
    key: Blob,
}

impl HeldKey for InTpm {
    fn spki(&self) -> Vec<u8> {
        self.key.spki().unwrap()
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.tpm.sign(&self.key, &Protection::default(), message).ok()
    }
}

#[test]
fn a_gateway_makes_its_key_in_its_tpm_proves_it_and_is_given_its_certificate() {
    let software = SoftwareTpm::new();
    let tpm = Tpm::open(software.address().parse().unwrap(), Duration::from_secs(30)).unwrap();
    let stage = Stage::new(&recipe("tpm"), 2);
    let (devices, written) = Devices::new(2, move |_number| {
        let key = tpm.generate_signature_key(&Protection::default()).unwrap();
        Box::new(InTpm { tpm: tpm.clone(), key })
    });
    let (station, _) = stage.open(Disk::default()).unwrap();
    station.run(vec![Box::new(devices)], &());
    assert_eq!(station.counts().good, 2, "{:?}", station.counts());
    for record in stage.records(&mut station.into_file()) {
        let key = record.key.unwrap();
        assert_eq!((record.outcome, key.origin), (Outcome::Passed, KeyOrigin::SecureElement));
    }
    for (_, segments) in written.lock().unwrap().iter() {
        let names: Vec<&str> = segments.iter().map(|segment| segment.name.as_str()).collect();
        assert_eq!(names, ["anchor.pem", "idevid.pem"], "certificates, and no key");
    }
}

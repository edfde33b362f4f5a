//! The identity key: made in the station, or in the device, whose random source is then asked about.

use kf_crypto::PrivateKey;
use kf_key::SecretArray;
use kf_pki::request::{CertificationRequest, RequestedKey};

use super::{Attempt, PROVISIONED, of_fixture};
use crate::draft::Origin;
use crate::fixture::{DeviceNoise, ElementOrder, NOISE_OCTETS, NoiseVerdict, judge};
use crate::journal::JournalFile;
use crate::line::FailReason;
use crate::noise::Noise;
use crate::recipe::{KeyOrigin, Protection};

/// The source of a device that shows nothing of it.
const NOT_TESTABLE: &str = "device, not testable";
/// As long as a record takes.
const MAX_SOURCE_OCTETS: usize = 32;
impl<F: JournalFile> Attempt<'_, F> {
    pub(super) fn make_key(&mut self) -> Result<(), FailReason> {
        let identity = self.station.recipe.identity;
        let requested = match identity.origin {
            KeyOrigin::Station => {
                let key = self.key_from_token()?;
                let requested = RequestedKey::from_spki(&key.spki()).map_err(|_request| FailReason::Bug)?;
                self.held.key = Some(key);
                self.held.draft.source = self.station.noise.source().to_owned();
                self.held.draft.samples = 32;
                requested
            }
            KeyOrigin::Device => {
                let request = if self.station.recipe.secure_element.is_some() {
                    self.personalize()?
                } else {
                    self.fixture.make_key(identity.algorithm, identity.slot).map_err(of_fixture)?
                };
                let request = CertificationRequest::from_der(&request).map_err(|_request| FailReason::Request)?;
                if request.key.algorithm != identity.algorithm {
                    return Err(FailReason::Request);
                }
                let in_element = identity.protection == Protection::Hardware;
                self.held.draft.origin = if in_element { Origin::Element } else { Origin::Device };
                request.key
            }
        };
        kf_pki::weak_key::check_key(&requested, |_spki_sha256| false).map_err(|_weak| FailReason::Request)?;
        self.held.draft.spki_sha256 = Some(hex::encode(requested.spki_sha256));
        self.held.draft.spki = Some(hex::encode(&requested.spki));
        self.held.requested = Some(requested);
        if identity.origin == KeyOrigin::Device { self.check_noise() } else { Ok(()) }
    }

    /// What the device's own random source is worth, for the record; a broken one ends the attempt, and bars the key.
    fn check_noise(&mut self) -> Result<(), FailReason> {
        let NoiseVerdict { source, samples, failures } = match self.fixture.noise().map_err(of_fixture)? {
            DeviceNoise::Evidence(evidence) => judge(&evidence),
            DeviceNoise::Samples { source, octets } => {
                let is_named = (1..=MAX_SOURCE_OCTETS).contains(&source.len()) && source.is_ascii();
                if octets.len() < NOISE_OCTETS || !is_named {
                    return Err(FailReason::Fixture);
                }
                let samples = u64::try_from(octets.len()).unwrap_or(u64::MAX);
                // Exposed to the health tests.
                NoiseVerdict { source, samples, failures: Noise::test(octets.expose())? }
            }
            DeviceNoise::NotTestable => NoiseVerdict { source: NOT_TESTABLE.to_owned(), samples: 0, failures: 0 },
        };
        let draft = &mut self.held.draft;
        (draft.source, draft.samples, draft.failures) = (source, samples, failures);
        if failures > 0 { Err(FailReason::DeviceNoise) } else { Ok(()) }
    }

    /// The chip gets its keys and is locked before it makes its own. The device key is among them, so that what is written
    /// afterwards is no secret, and can be written again after a power cut.
    fn personalize(&mut self) -> Result<Vec<u8>, FailReason> {
        let (device, _) = self.device(self.unit()?)?;
        let serial_number = self.held.element.clone().ok_or(FailReason::WrongChip)?;
        let transport = self.station.batch_key.element_transport(serial_number.as_bytes(), PROVISIONED);
        let transport = transport.map_err(|_too_long| FailReason::Bug)?;
        let root = if self.station.recipe.injects_device_key {
            self.derive_device_key(device)?;
            let key = self.held.device_key.as_ref().ok_or(FailReason::Bug)?;
            // Exposed to be put into the chip.
            SecretArray::fill(|out: &mut [u8; 32]| *out = *key.expose())
        } else {
            self.station.noise.secret()?
        };
        self.fixture.personalize(&ElementOrder { serial_number, transport, root }).map_err(of_fixture)
    }

    fn key_from_token(&self) -> Result<PrivateKey, FailReason> {
        // A scalar outside [1, n-1] comes once in 2^32 draws; three in a row are no accident.
        for _ in 0..3 {
            let scalar = self.station.noise.secret::<32>()?;
            if let Ok(key) = PrivateKey::p256_from_scalar(&scalar) {
                return Ok(key);
            }
        }
        Err(FailReason::Noise)
    }
}

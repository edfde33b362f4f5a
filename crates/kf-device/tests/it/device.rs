//! Firmware: what a device does with the SDK, written so that it goes on from whatever a power cut has left.

use core::convert::Infallible;

use kf_derive::{FusedKey, SoftwareKey};
use kf_device::certificate::Anchor;
use kf_device::derivation::HeldKey;
use kf_device::enrolment::machine::{Credential, Outcome, Step};
use kf_device::enrolment::{
    Answer, Authorities, Enrolment, MAX_AUTHORIZATION_OCTETS, Operation, REQUEST_OCTETS, Service as EstService,
    basic_authorization, body, certification_request, issued, outcome_of, validity_of,
};
use kf_device::entropy::{Alphabet, Assessment, EntropyError, Healthy, Noise, NoiseState, Profile, Source, SourceId};
use kf_device::exchange::{begin, keep};
use kf_device::identity::{Candidate, Certified, InUse, SoftwareIdentity};
use kf_device::order::{Accepted, wipe_report};
use kf_device::sealed;
use kf_device::storage::simulated::{SimulatedError, SimulatedFlash};
use kf_device::storage::{Checksum, Erasure, Geometry, Medium, Store};
use kf_device::trust::Anchors;
use kf_entropy::Cutoffs;
use kf_exchange::order::OrderOutcome;
use kf_exchange::{IdentityKey as _, Purpose};
use kf_key::SecretArray;
use kf_seal::{SealAlgorithm, Service};

use crate::server::{CODE, DEVICE, NOW, Received, Server};

pub(crate) const OCTETS: usize = 16 * 1_024;
pub(crate) type Chip = SimulatedFlash<OCTETS>;
pub(crate) type Wrap = FusedKey<SoftwareKey>;

/// The power is gone, or something else the test did not expect; the test tells them apart by the chip.
#[derive(Debug)]
pub(crate) struct Stopped(#[allow(dead_code, reason = "shown when a test fails")] pub(crate) String);

fn stop(error: impl core::fmt::Debug) -> Stopped {
    Stopped(format!("{error:?}"))
}

pub(crate) type Step_<T> = Result<T, Stopped>;

pub(crate) fn chip(word: u32, medium: Medium) -> Chip {
    SimulatedFlash::new(Geometry { word, sector: 4_096, sectors: 4 }, medium)
}

/// The key that the chip holds.
pub(crate) fn wrap() -> Wrap {
    FusedKey::new(SoftwareKey::new(SecretArray::fill(|key| key.fill(0xee))))
}

pub(crate) struct TestNoise(pub(crate) u64);

impl Noise for TestNoise {
    type Error = Infallible;

    fn sample(&mut self) -> Result<u8, Infallible> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok((z ^ (z >> 31)).to_be_bytes()[0])
    }
}

const CUTOFFS: Cutoffs = match Cutoffs::new(Assessment { alphabet: Alphabet::Octet, millibits: 6_000, alpha: 30 }) {
    Ok(cutoffs) => cutoffs,
    Err(_) => panic!("the assessment is out of range"),
};

/// Noise that has passed its start-up test.
pub(crate) fn source(seed: u64) -> Step_<Source<TestNoise, Healthy>> {
    let profile = Profile { source: SourceId(*b"test-noise-v1..."), state: NoiseState::PhysicalOn, cutoffs: CUTOFFS };
    Source::new(TestNoise(seed), profile).start_up().map_err(|failed| stop(failed.error))
}

/// One power-on.
pub(crate) struct Device<'a> {
    pub(crate) store: Store<&'a mut Chip>,
    pub(crate) source: Source<TestNoise, Healthy>,
    pub(crate) wrap: Wrap,
    anchor: Anchor,
}

impl<'a> Device<'a> {
    pub(crate) fn start(chip: &'a mut Chip, server: &Server, seed: u64) -> Step_<Self> {
        let source = source(seed)?;
        let mut store = Store::open(chip, Checksum).map_err(stop)?;
        let source = source.compare_with_last_start(&mut store).map_err(stop)?;
        Ok(Self { store, source, wrap: wrap(), anchor: server.anchor() })
    }

    pub(crate) fn identity(&mut self) -> Step_<Option<InUse<SoftwareIdentity>>> {
        InUse::<SoftwareIdentity>::load(&mut self.store, &self.wrap, DEVICE).map_err(stop)
    }

    /// Follows the machine until it wants to wait.
    pub(crate) fn enrol(&mut self, server: &mut Server, rotate: bool) -> Step_<()> {
        let mut octets = [0; 2_048];
        let mut enrolment = Enrolment::load(&mut self.store, true, false, &mut octets).map_err(stop)?;
        if rotate {
            enrolment.renew_now();
        }
        for _ in 0..20 {
            let outcome = match enrolment.next(NOW) {
                Step::Wait { .. } => return Ok(()),
                Step::RunHook => Outcome::HookRan,
                Step::MakeRequest => self.make_request()?,
                Step::Enrol(credential) => self.ask(credential, server)?,
                Step::Prove => self.prove(server)?,
                Step::Adopt => self.adopt()?,
                Step::AskForAttention(attention) => return Err(stop(attention)),
            };
            enrolment.observe(outcome, NOW, 0);
        }
        Err(stop("it never comes to rest"))
    }

    fn make_request(&mut self) -> Step_<Outcome> {
        let (seed, nonce) = (self.source.seed().map_err(stop)?, self.source.nonce().map_err(stop)?);
        let candidate = Candidate::<SoftwareIdentity>::generate(&mut self.store, &self.wrap, DEVICE, seed, nonce);
        assert!(candidate.map_err(stop)?.key().is_for_production());
        Ok(Outcome::RequestMade)
    }

    fn ask(&mut self, credential: Credential, server: &mut Server) -> Step_<Outcome> {
        let candidate = Candidate::<SoftwareIdentity>::load(&mut self.store, &self.wrap, DEVICE).map_err(stop)?;
        let candidate = candidate.ok_or_else(|| stop("no candidate"))?;
        let mut request = [0; REQUEST_OCTETS];
        let request = certification_request(candidate.key(), &mut request).map_err(stop)?;
        let mut text = [0; 2 * REQUEST_OCTETS];
        let text = body(request, &mut text).map_err(stop)?;
        let in_use = self.identity()?.map(|identity| identity.public_key());

        let (_, mut ca_certificates) = send(server, Operation::CaCerts, None, None, &[]);
        let answer = Answer { status: 200, retry_after_seconds: None, body: &mut ca_certificates };
        let anchors = Anchors::load(&mut self.store, self.anchor).map_err(stop)?;
        let mut authorities = Authorities::read(answer, anchors).map_err(stop)?;
        authorities.take_up(&mut self.store, Some(NOW)).map_err(stop)?;

        let mut authorization = [0; MAX_AUTHORIZATION_OCTETS];
        let (authorization, client_key) = match credential {
            Credential::Code => (Some(basic_authorization("pump-7", CODE, &mut authorization).map_err(stop)?), None),
            Credential::Certificate => (None, in_use),
            Credential::IDevId => return Err(stop("there is none")),
        };
        let (status, mut answer) = send(server, Operation::of(credential), authorization, client_key, text);
        if let Some(outcome) = outcome_of(credential, status, None) {
            return Ok(outcome);
        }
        let answer = Answer { status, retry_after_seconds: None, body: &mut answer };
        let certificate = issued(answer, &candidate.public_key(), &authorities).map_err(stop)?;
        candidate.certify(&mut self.store, certificate.as_der()).map_err(|refused| stop(refused.error))?;
        Ok(Outcome::Issued(validity_of(&certificate)))
    }

    fn certified(&mut self) -> Step_<Certified<SoftwareIdentity>> {
        let certified = Certified::<SoftwareIdentity>::load(&mut self.store, &self.wrap, DEVICE).map_err(stop)?;
        certified.ok_or_else(|| stop("no certificate"))
    }

    fn prove(&mut self, server: &mut Server) -> Step_<Outcome> {
        let key = self.certified()?.public_key();
        let (status, _) = send(server, Operation::CaCerts, None, Some(key), &[]);
        Ok(if status == 200 { Outcome::Proved } else { Outcome::ProofRefused })
    }

    fn adopt(&mut self) -> Step_<Outcome> {
        let (_, erasure) = self.certified()?.adopt(&mut self.store).map_err(stop)?;
        assert_eq!(erasure, Erasure::Erased { read_back: true });
        Ok(Outcome::Adopted)
    }

    pub(crate) fn held(&mut self) -> Step_<Option<HeldKey>> {
        HeldKey::load(&mut self.store, &self.wrap, DEVICE).map_err(stop)
    }

    /// Fetches the newest device key.
    pub(crate) fn fetch_key(&mut self, server: &mut Server) -> Step_<HeldKey> {
        let identity = self.identity()?.ok_or_else(|| stop("no identity"))?;
        let held = self.held()?.map(|held| held.place());
        let (state, hello) = begin(Purpose::Delivery, &server.delivery_pin(), &mut self.source).map_err(stop)?;
        let challenge = server.exchange(hello.as_bytes());
        let pins = [server.delivery_pin()];
        let (state, proof) = state.prove(&challenge, &pins, DEVICE, identity.key()).map_err(stop)?;
        let delivered = state.open(&server.exchange(proof.as_bytes()), held.as_ref()).map_err(stop)?;
        let nonce = self.source.nonce().map_err(stop)?;
        let (kept, acknowledgement) = keep(delivered, DEVICE, &mut self.store, &self.wrap, nonce).map_err(stop)?;
        let done = server.exchange(acknowledgement.as_bytes());
        let (held, erasure) = kept.finish(&done, &mut self.store, &self.wrap).map_err(stop)?;
        assert_eq!(erasure, Erasure::Erased { read_back: true });
        Ok(held)
    }

    /// Seals a payload; every call is a boot of its own.
    pub(crate) fn seal(&mut self, plaintext: &[u8]) -> Step_<Vec<u8>> {
        let held = self.held()?.ok_or_else(|| stop("no device key"))?;
        let service = Service::new("telemetry").map_err(stop)?;
        let mut sealer = sealed::sealer(&held, service, SealAlgorithm::Aes128Ccm, &mut self.store, &mut self.source)
            .map_err(stop)?;
        let mut out = [0; 512];
        sealer.seal(plaintext, b"topic", &mut out).map(<[u8]>::to_vec).map_err(stop)
    }

    /// Obeys an order and reports. An order that was obeyed before does nothing.
    pub(crate) fn obey(&mut self, order: &[u8], server: &mut Server) -> Step_<()> {
        let key = server.order_key();
        let identity = self.identity()?.ok_or_else(|| stop("no identity"))?;
        match key.accept(order, NOW, &mut self.store).map_err(stop)? {
            Accepted::Rotate(order) => {
                self.enrol(server, true)?;
                self.fetch_key(server)?;
                let identity = self.identity()?.ok_or_else(|| stop("no identity"))?;
                let report = order.report(OrderOutcome::Done, NOW, identity.key()).map_err(stop)?;
                server.report(report.as_bytes());
            }
            Accepted::Wipe(order) => {
                let (report, erasure) = order.carry_out(NOW, identity.key(), &mut self.store).map_err(stop)?;
                assert_eq!(erasure, Erasure::Erased { read_back: true });
                server.report(report.as_bytes());
            }
            Accepted::FactoryReset(order) => {
                let (report, _) = order.carry_out(NOW, identity.key(), &mut self.store).map_err(stop)?;
                server.report(report.as_bytes());
            }
        }
        Ok(())
    }

    /// The report of a wipe, if there was one.
    pub(crate) fn wiped(&mut self) -> Step_<Option<Vec<u8>>> {
        let mut octets = [0; kf_exchange::MAX_MESSAGE_OCTETS];
        Ok(wipe_report(&mut self.store, &mut octets).map_err(stop)?.map(<[u8]>::to_vec))
    }
}

fn send(
    server: &mut Server,
    operation: Operation,
    authorization: Option<&str>,
    client_key: Option<kf_exchange::PublicKey>,
    body: &[u8],
) -> (u16, Vec<u8>) {
    let path = EstService::new(Some("pumps")).unwrap().path(operation);
    server.est(&Received {
        method: operation.method().as_str(),
        path: path.as_str(),
        content_type: operation.content_type(),
        authorization,
        client_key,
        body,
    })
}

/// Formats the memory of a device, in the factory: as often as it takes.
pub(crate) fn format(chip: &mut Chip) -> Result<(), kf_device::storage::StorageError<SimulatedError>> {
    Store::format(chip, Checksum).map(|_| ())
}

#[test]
fn noise_that_is_not_declared_physical_gives_no_identity() {
    let profile = Profile { source: SourceId([0; 16]), state: NoiseState::PseudoRandomOnly, cutoffs: CUTOFFS };
    let mut source = Source::new(TestNoise(1), profile).start_up().unwrap();
    let refused = source.seed().map(|_| ());
    assert_eq!(refused, Err(EntropyError::NotPhysical(NoiseState::PseudoRandomOnly)));
    let mut chip = chip(8, Medium::Raw);
    format(&mut chip).unwrap();
    let mut store = Store::open(&mut chip, Checksum).unwrap();
    let (seed, nonce) = (source.trial_seed().unwrap(), source.nonce().unwrap());
    let trial = Candidate::<SoftwareIdentity>::generate(&mut store, &wrap(), DEVICE, seed, nonce).unwrap();
    assert!(!trial.key().is_for_production(), "a trial key says what it is");
    begin(Purpose::Session, &trial.public_key(), &mut source).unwrap();
    assert_eq!(trial.key().public_key(), trial.public_key());
}

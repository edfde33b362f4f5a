//! The device's state, and what it does with the keys that it holds.

use core::cell::RefCell;

use board::line::Line;
use kf_device::KeyError;
use kf_device::derivation::{HeldKey, Injected};
use kf_device::destruction::{Target, destroy as destroy_target};
use kf_device::entropy::{Alphabet, Assessment, Healthy, NoiseState, Profile, Source, SourceId};
use kf_device::identity::{InUse, Slot, SoftwareIdentity};
use kf_device::sealed::kf_seal::{SealAlgorithm, Sealer, Service};
use kf_device::sealed::{Payload, open as open_payload, sealer};
use kf_device::storage::{Checksum, Erasure, StorageError, Store};
use kf_device::trust::Anchors;
use kf_entropy::{Cutoffs, Evidence};
use kf_exchange::KeyPlace;
use kf_key::{FacilityId, UnixMillis};

use crate::fields::Fields;
use crate::fuses::Fuses;
use crate::peripherals::{LineFlash, LineNoise};
use crate::text::{OrText, Text};

/// Half of what the source gives at best: a cautious assessment, checked by the compiler.
const CUTOFFS: Cutoffs = match Cutoffs::new(Assessment { alphabet: Alphabet::Octet, millibits: 4_000, alpha: 30 }) {
    Ok(cutoffs) => cutoffs,
    Err(_) => panic!("the assessment is out of range"),
};
const SOURCE: SourceId = SourceId(*b"emulated noise 1");

/// A device that has started: its noise is healthy and its store is whole.
pub(crate) struct Device<'l> {
    pub(crate) line: &'l RefCell<Line>,
    pub(crate) fuses: Fuses,
    pub(crate) store: Store<LineFlash<'l>, Checksum>,
    pub(crate) source: Source<LineNoise<'l>, Healthy>,
    /// The roots that are believed: the one in the fuses, until another takes over from it.
    pub(crate) anchors: Anchors,
    /// Of this boot, one service at a time.
    sealer: Option<(KeyPlace, Service, Sealer)>,
}

impl<'l> Device<'l> {
    /// Opens the store, formats one that is blank, and tests the noise.
    pub(crate) fn start(line: &'l RefCell<Line>, fuses: Fuses) -> Result<(Self, [u8; Evidence::OCTETS]), Text> {
        let mut store = match Store::open(LineFlash::new(line), Checksum) {
            Err(StorageError::Unformatted) => Store::format(LineFlash::new(line), Checksum),
            opened => opened,
        }
        .or_text("storage")?;
        let profile = Profile { source: SOURCE, state: fuses.noise, cutoffs: CUTOFFS };
        let source = Source::new(LineNoise::new(line), profile)
            .start_up()
            .map_err(|failed| Text::because("start-up test", &failed.error))?
            .compare_with_last_start(&mut store)
            .or_text("comparison with the last start")?;
        let evidence = source.evidence().to_bytes();
        let anchors = Anchors::load(&mut store, fuses.anchor).or_text("roots")?;
        Ok((Self { line, fuses, store, source, anchors, sealer: None }, evidence))
    }

    /// Ends what this boot seals with.
    pub(crate) fn forget(&mut self) {
        self.sealer = None;
    }

    pub(crate) fn held(&mut self) -> Result<Option<HeldKey>, Text> {
        HeldKey::load(&mut self.store, &self.fuses.chip, self.fuses.device).or_text("device key")
    }

    pub(crate) fn identity(&mut self) -> Result<Option<InUse<SoftwareIdentity>>, Text> {
        match InUse::load(&mut self.store, &self.fuses.chip, self.fuses.device) {
            // The pointer outlives a key that was destroyed.
            Err(KeyError::Missing) => Ok(None),
            loaded => loaded.or_text("identity"),
        }
    }
}

/// Facility 16, facility epoch, device epoch, key 32: the first device key, from the factory.
pub(crate) fn inject(
    device: &mut Device<'_>,
    _now: UnixMillis,
    fields: &mut Fields<'_>,
    _result: &mut [u8],
) -> Result<usize, Text> {
    let place = KeyPlace {
        facility: FacilityId::from_bytes(fields.array()?),
        facility_epoch: fields.number()?,
        device_epoch: fields.number()?,
    };
    let nonce = device.source.nonce().or_text("nonce")?;
    let injected = Injected { device: device.fuses.device, place, key: &fields.key()? };
    HeldKey::inject(&mut device.store, &device.fuses.chip, injected, nonce).or_text("device key")?;
    Ok(0)
}

/// Service, plaintext: gives the envelope.
pub(crate) fn seal(
    device: &mut Device<'_>,
    _now: UnixMillis,
    fields: &mut Fields<'_>,
    result: &mut [u8],
) -> Result<usize, Text> {
    let service = Service::new(fields.text()?).or_text("service")?;
    let held = device.held()?.ok_or(Text::of("there is no device key"))?;
    let is_current = |(place, of, _): &(KeyPlace, Service, Sealer)| *place == held.place() && *of == service;
    let mut current = match device.sealer.take().filter(is_current) {
        Some(current) => current,
        None => {
            let made = sealer(&held, service, SealAlgorithm::Aes128Ccm, &mut device.store, &mut device.source);
            (held.place(), service, made.or_text("sealer")?)
        }
    };
    let length = current.2.seal(fields.next()?, b"", result).or_text("seal")?.len();
    device.sealer = Some(current);
    Ok(length)
}

/// Service, envelope of the server: gives the plaintext.
pub(crate) fn open(
    device: &mut Device<'_>,
    _now: UnixMillis,
    fields: &mut Fields<'_>,
    result: &mut [u8],
) -> Result<usize, Text> {
    let service = Service::new(fields.text()?).or_text("service")?;
    let held = device.held()?.ok_or(Text::of("there is no device key"))?;
    let payload = Payload { envelope: fields.next()?, external_aad: b"" };
    Ok(open_payload(&held, service, payload, &mut device.store, result).or_text("open")?.len())
}

/// Destroys every key: the device keys, the ratchet, both identities, the storage key. Gives one octet, 1 for erased and read back.
pub(crate) fn destroy(
    device: &mut Device<'_>,
    _now: UnixMillis,
    _fields: &mut Fields<'_>,
    result: &mut [u8],
) -> Result<usize, Text> {
    device.forget();
    let identities = [Target::Identity(Slot::A), Target::Identity(Slot::B)];
    let targets = [Target::DeviceKeys, Target::Ratchet, Target::StorageKey].into_iter().chain(identities);
    let mut all_read_back = true;
    for target in targets {
        let erasure = destroy_target(&mut device.store, target).or_text("destruction")?;
        all_read_back &= erasure == Erasure::Erased { read_back: true };
    }
    write(&[&[u8::from(all_read_back)]], result)
}

/// Gives the noise state, the place of the device key (24 octets of zeroes when there is none), and the certificate in use.
pub(crate) fn show(
    device: &mut Device<'_>,
    _now: UnixMillis,
    _fields: &mut Fields<'_>,
    result: &mut [u8],
) -> Result<usize, Text> {
    let place = device.held()?.map_or([0; 24], |held| octets_of(&held.place()));
    let noise = u8::from(device.fuses.noise == NoiseState::PhysicalOn);
    let (front, rest) = result.split_first_chunk_mut::<25>().ok_or(Text::of("the buffer is too small"))?;
    front.iter_mut().zip([noise].into_iter().chain(place)).for_each(|(octet, value)| *octet = value);
    let certificate = match device.identity()? {
        None => 0,
        Some(identity) => identity.certificate(&mut device.store, rest).or_text("certificate")?.len(),
    };
    Ok(25 + certificate)
}

/// Facility 16, facility epoch 4, device epoch 4.
pub(crate) fn octets_of(place: &KeyPlace) -> [u8; 24] {
    let mut octets = [0; 24];
    let parts = place.facility.as_bytes().iter().copied();
    let parts = parts.chain(place.facility_epoch.to_be_bytes()).chain(place.device_epoch.to_be_bytes());
    octets.iter_mut().zip(parts).for_each(|(octet, value)| *octet = value);
    octets
}

/// Copies parts into the front of `result`.
pub(crate) fn write(parts: &[&[u8]], result: &mut [u8]) -> Result<usize, Text> {
    let mut length = 0;
    for part in parts {
        let end = length + part.len();
        let place = result.get_mut(length..end).ok_or(Text::of("the buffer is too small"))?;
        place.copy_from_slice(part);
        length = end;
    }
    Ok(length)
}

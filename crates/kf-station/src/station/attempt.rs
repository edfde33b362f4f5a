//! One attempt at one device: carries out what the [`Line`] asks for and tells it what came of it.

mod fuses;
mod key;

use std::sync::PoisonError;

use kf_crypto::PrivateKey;
use kf_enrol::code::EnrolmentCode;
use kf_flash::fuse::KeyPurpose;
use kf_flash::scan::{FindingKind, NamedSecret};
use kf_key::{CertificateProfile, DeviceId, SecretArray, SecretBytes, SerialNumber, UnixMillis};
use kf_pki::certificate::{IssuanceRequest, Subject, check_issuance};
use kf_pki::request::RequestedKey;

use super::Station;
use super::event::{Event, Watch};
use crate::draft::{Draft, Ending, Origin};
use crate::fixture::{Destruction, Fixture, FixtureError, Reading, Verdict};
use crate::image::{self, Image};
use crate::journal::JournalFile;
use crate::label::Label;
use crate::line::{Act, Entry, FailReason, HardwareId, Line, Outcome, Stage, Standing, Unit};
use crate::recipe::Protection;
use crate::target::{Material, TargetError};
use crate::token::StationKey;

/// The epoch of a key that a batch key was the parent of: the one before any that the operating facility gives.
const PROVISIONED: u32 = 0;
/// What a device signs to prove its key, before the challenge.
const PROOF_LABEL: &[u8] = b"keyfleet station proof v1\0";

/// What is in memory of one attempt and nowhere else.
#[derive(Debug, Default)]
struct Held {
    hardware: Option<HardwareId>,
    /// Serial number of the secure element.
    element: Option<String>,
    unit: Option<u32>,
    key: Option<PrivateKey>,
    requested: Option<RequestedKey>,
    device_key: Option<SecretArray<32>>,
    /// What opens the image, where a fuse will hold it.
    fused_key: Option<SecretArray<32>>,
    /// The key of flash encryption.
    flash_key: Option<SecretArray<32>>,
    draft: Draft,
    image: Option<Image>,
    started: UnixMillis,
    is_scrap: bool,
    /// What the device said of its serial port when it came.
    is_port_closed: bool,
    /// An earlier life of the station was writing this device when power went.
    is_resumed: bool,
}

pub(super) struct Attempt<'a, F> {
    station: &'a Station<F>,
    name: &'a str,
    fixture: &'a mut dyn Fixture,
    watch: &'a dyn Watch,
    held: Held,
}

const fn of_fixture(error: FixtureError) -> FailReason {
    match error {
        FixtureError::Hang => FailReason::Hang,
        FixtureError::Failed | FixtureError::Unsupported => FailReason::Fixture,
        FixtureError::Spent => FailReason::Spent,
        FixtureError::DiskFull => FailReason::DiskFull,
        FixtureError::Gone => FailReason::FixtureGone,
    }
}

const fn of_target(error: TargetError) -> FailReason {
    match error {
        TargetError::DoesNotFit(_) | TargetError::Certificate => FailReason::DoesNotFit,
        TargetError::FileSystem => FailReason::Image,
        TargetError::DiskFull => FailReason::DiskFull,
        TargetError::Key | TargetError::Crypto | TargetError::Unsupported(_) => FailReason::Bug,
    }
}

/// The scalar in the PKCS#8 of a P-256 key: an octet string of 32 octets behind the version of ECPrivateKey (RFC 5915 section 3),
/// wherever a public key beside it or none puts that.
fn p256_scalar(pkcs8: &[u8]) -> Option<&[u8]> {
    const BEFORE: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];
    let place = pkcs8.windows(BEFORE.len()).position(|window| window == BEFORE)?;
    pkcs8.get(place + BEFORE.len()..)?.get(..32)
}

/// The first octets of a key's hash, as the journal keeps them.
fn short(spki_sha256: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *spki_sha256;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl<'a, F: JournalFile> Attempt<'a, F> {
    pub(super) fn new(
        station: &'a Station<F>,
        name: &'a str,
        fixture: &'a mut dyn Fixture,
        watch: &'a dyn Watch,
    ) -> Self {
        Self { station, name, fixture, watch, held: Held::default() }
    }

    /// `None` when there was no device.
    pub(super) fn run(mut self) -> Option<(Verdict, Option<FailReason>)> {
        self.watch.tell(&Event::new(self.name, Stage::Waiting));
        let reading = match self.fixture.read() {
            Ok(None) => return None,
            Ok(Some(reading)) => Ok(reading),
            Err(error) => Err(of_fixture(error)),
        };
        self.held.started = self.station.clock.now();
        let (mut line, mut act) = Line::start();
        let mut reading = Some(reading);
        loop {
            let outcome = match &act {
                Act::ShowPass => return Some((Verdict::Pass, None)),
                Act::ShowFail(reason) => {
                    return Some((Verdict::Fail(reason.next(self.held.is_scrap)), Some(*reason)));
                }
                Act::Read => match reading.take() {
                    Some(Ok(reading)) => self.identify(reading),
                    Some(Err(reason)) => Err(reason),
                    None => Err(FailReason::Bug),
                },
                other => self.carry_out(other),
            };
            let outcome = outcome.unwrap_or_else(|reason| Outcome::Failed(self.cause(reason)));
            self.note_refusal(&line, &outcome);
            act = line.next(outcome);
            self.tell(&line, &act);
        }
    }

    /// What was cut in the middle of its writing is not whole: that is no fault of the board.
    const fn cause(&self, reason: FailReason) -> FailReason {
        match reason {
            FailReason::ReadBack | FailReason::Proof if self.held.is_resumed => FailReason::PowerCut,
            other => other,
        }
    }

    /// A device that was turned away before it had a number is noted; it changes nothing else, so nobody waits for the disk.
    fn note_refusal(&self, line: &Line, outcome: &Outcome) {
        if let (Outcome::Failed(reason), None, Stage::Reading | Stage::Keying) = (outcome, self.held.unit, line.stage())
        {
            let at = self.station.now().unwrap_or(self.held.started);
            let entry = Entry::Refused { hardware: self.held.hardware.clone(), reason: *reason, at };
            // The reason stands on the screen already; a journal that cannot be written stops the next device.
            let _noted = self.station.ledger.note(&entry, &[]);
        }
    }

    fn tell(&self, line: &Line, act: &Act) {
        let mut event = Event::new(self.name, line.stage());
        event.mac = self.held.hardware.as_ref().map(|hardware| hardware.mac().to_owned());
        event.device = self.held.unit.and_then(|unit| self.device(unit).ok()).map(|(_, name)| name);
        if let Act::ShowFail(reason) = act {
            event.reason = Some(*reason);
            event.next = Some(reason.next(self.held.is_scrap).words());
        }
        if matches!(act, Act::ShowFail(_) | Act::ShowPass) {
            event.took_millis = Some(self.station.clock.now().since(self.held.started));
        }
        self.watch.tell(&event);
    }

    fn carry_out(&mut self, act: &Act) -> Result<Outcome, FailReason> {
        match act {
            Act::Begin(hardware) => return self.begin(hardware),
            Act::Count(unit) => self.station.ledger.count(*unit)?,
            Act::MakeKey => self.make_key()?,
            Act::Certify => self.certify()?,
            Act::Write => self.write()?,
            Act::WriteAgain => self.write_again()?,
            Act::ReadBack => self.read_back()?,
            Act::Burn => self.burn()?,
            Act::Challenge => self.challenge()?,
            Act::Close => self.close()?,
            Act::Finish => self.finish()?,
            Act::Scrap(reason) => self.scrap(*reason)?,
            Act::Read | Act::ShowPass | Act::ShowFail(_) => return Err(FailReason::Bug),
        }
        Ok(Outcome::Done)
    }

    fn identify(&mut self, reading: Reading) -> Result<Outcome, FailReason> {
        let hardware = HardwareId::new(&reading.mac, &reading.board).ok_or(FailReason::Unreadable)?;
        self.held.hardware = Some(hardware.clone());
        self.held.element = reading.element;
        self.held.is_port_closed = reading.chip_state.download_mode_locked;
        if self.station.recipe.secure_element.is_some() && self.held.element.is_none() {
            return Err(FailReason::WrongChip);
        }
        let expected = self.station.recipe.chip.map(|chip| chip.name());
        if expected.is_some() && reading.chip.as_deref() != expected {
            return Err(FailReason::WrongChip);
        }
        Ok(Outcome::Identified(hardware))
    }

    fn begin(&mut self, hardware: &HardwareId) -> Result<Outcome, FailReason> {
        let at = self.station.now()?;
        self.station.terms.check_time(at).map_err(|_refusal| FailReason::Expired)?;
        let (unit, standing) = self.station.ledger.begin(hardware, at)?;
        self.held.unit = Some(unit);
        if let Some((Unit::Writing { .. } | Unit::Closing, _, document)) = self.station.ledger.unit(unit) {
            self.held.draft = Draft::from_document(&document).ok_or(FailReason::Bug)?;
            self.held.is_resumed = true;
        }
        self.held.draft.fixture = self.name.to_owned();
        let standing = match standing {
            Standing::ReadBack if self.station.recipe.is_rewritable() => Standing::WriteAgain,
            other => other,
        };
        Ok(Outcome::Numbered { unit, standing })
    }

    fn unit(&self) -> Result<u32, FailReason> {
        self.held.unit.ok_or(FailReason::Bug)
    }

    fn device(&self, unit: u32) -> Result<(DeviceId, String), FailReason> {
        let device = self.station.terms.devices.device(unit).ok_or(FailReason::Bug)?;
        let name = self.station.terms.devices.name(device).ok_or(FailReason::Bug)?;
        Ok((device, name))
    }

    fn certify(&mut self) -> Result<(), FailReason> {
        let unit = self.unit()?;
        let requested = self.held.requested.clone().ok_or(FailReason::Bug)?;
        let key = short(&requested.spki_sha256);
        if self.station.ledger.knows_key(key) {
            // Not this device's: its record must not bar the key of the one that had it first.
            self.held.draft = Draft { fixture: self.name.to_owned(), ..Draft::default() };
            return Err(FailReason::DuplicateKey);
        }
        let at = self.station.now()?;
        let serial = SerialNumber::from_parts(at, self.station.noise.public()?);
        let (device, name) = self.device(unit)?;
        let terms = &self.station.terms;
        let request = IssuanceRequest {
            profile: CertificateProfile::IDevId,
            subject: Subject::Device {
                organization: terms.organization.clone(),
                device,
                name,
                product_line: terms.product_line_name.clone(),
            },
            key: requested,
            serial,
            not_before: at,
            not_after: None,
        };
        let checked = check_issuance(&self.station.issuer, request).map_err(|_refusal| FailReason::Bug)?;
        // Durable before the signature: whoever counts certificates counts this one, whatever happens next.
        let entry = Entry::Certifying { unit, key, at };
        self.station.ledger.note(&entry, &self.held.draft.to_document())?;
        let key = StationKey::Authority(self.station.generation);
        let signature = self.station.token.sign(key, checked.tbs()).map_err(|_token_error| FailReason::Token)?;
        let issued = checked.complete(&signature).map_err(|_refusal| FailReason::Bug)?;
        self.held.draft.certificate = Some(hex::encode(&issued.der));
        Ok(())
    }

    fn derive_device_key(&mut self, device: DeviceId) -> Result<(), FailReason> {
        let salt = self.station.noise.secret::<16>()?;
        // Exposed to the derivation.
        let key =
            self.station.batch_key.device(device, salt.expose(), PROVISIONED).map_err(|_derive| FailReason::Bug)?;
        let mut sealer = self.station.salts.lock().unwrap_or_else(PoisonError::into_inner);
        let sealed = sealer.seal(device, &salt).map_err(|_opaque| FailReason::Token)?;
        drop(sealer);
        let secret = key.into_secret();
        // Exposed to a hash of one purpose, which says nothing about the key.
        let print = kf_crypto::hmac_sha256(secret.expose(), b"keyfleet station device key fingerprint v1");
        self.held.draft.salt = Some(hex::encode(sealed.to_octets()));
        self.held.draft.device_key = Some(hex::encode(print));
        self.held.device_key = Some(secret);
        Ok(())
    }

    fn write(&mut self) -> Result<(), FailReason> {
        let unit = self.unit()?;
        let (device, name) = self.device(unit)?;
        if self.station.recipe.injects_device_key && self.station.recipe.secure_element.is_none() {
            self.derive_device_key(device)?;
        }
        let burns = |purpose| self.station.recipe.fuses.iter().any(|fuse| fuse.purpose.of_chip() == purpose);
        let (takes_unlock, takes_flash_key) = (burns(KeyPurpose::HmacUp), burns(KeyPurpose::XtsAes128Key));
        if takes_flash_key {
            self.held.flash_key = Some(self.station.noise.secret()?);
        }
        let mut image = self.image(device, &name)?;
        if takes_unlock {
            self.held.fused_key = image.unlock.take();
        }
        self.make_label(&name)?;
        let at = self.station.now()?;
        let sha256 = hex::encode(image::sha256_of(&image.segments));
        let entry = Entry::Writing { unit, image: sha256, burns: false, at };
        self.station.ledger.note(&entry, &self.held.draft.to_document())?;
        self.fixture.write(&image).map_err(of_fixture)?;
        self.held.image = Some(image);
        Ok(())
    }

    /// Writes what an earlier life of the station may not have finished. The journal has everything that it was made of.
    fn write_again(&mut self) -> Result<(), FailReason> {
        let unit = self.unit()?;
        let (device, name) = self.device(unit)?;
        let (stands, ..) = self.station.ledger.unit(unit).ok_or(FailReason::Bug)?;
        let image = self.image(device, &name)?;
        let sha256 = hex::encode(image::sha256_of(&image.segments));
        if !matches!(stands, Unit::Writing { image, .. } if image == sha256) {
            return Err(FailReason::Bug);
        }
        self.fixture.write(&image).map_err(of_fixture)
    }

    /// What the device is to hold.
    fn image(&self, device: DeviceId, name: &str) -> Result<Image, FailReason> {
        let certificate = self.held.draft.certificate.as_ref().and_then(|der| hex::decode(der).ok());
        let terms = &self.station.terms;
        let chain = [certificate.ok_or(FailReason::Bug)?, terms.authority_certificate.clone()];
        let server = format!("https://{}", terms.server);
        let random = self.station.noise.secret::<32>()?;
        let material = Material {
            device,
            name,
            product_line: &terms.product_line_name,
            server: &server,
            anchor: &terms.anchor,
            chain: &chain,
            key: self.held.key.as_ref(),
            device_key: self.held.device_key.as_ref(),
            random: &random,
            flash_key: self.held.flash_key.as_ref(),
        };
        self.station.target.image(&material).map_err(of_target)
    }

    /// The label lies on the disk before the device is written: its code is nowhere else.
    fn make_label(&mut self, name: &str) -> Result<(), FailReason> {
        let Some(plan) = &self.station.recipe.label else { return Ok(()) };
        let code = EnrolmentCode::from_random(&self.station.noise.secret::<13>()?);
        let spki_sha256 = self.held.requested.as_ref().map(|requested| requested.spki_sha256);
        let root = kf_crypto::sha256(&self.station.terms.anchor);
        let label =
            Label::new(&self.station.recipe.sku, name, &plan.server, &code, &root, &spki_sha256.unwrap_or_default());
        let failed = |error: std::io::Error| {
            if crate::disk::is_full(&error) { FailReason::DiskFull } else { FailReason::Label }
        };
        self.station.labels.spool(&label).map_err(failed)?;
        self.held.draft.code = Some(hex::encode(code.hash()));
        Ok(())
    }

    fn read_back(&mut self) -> Result<(), FailReason> {
        let unit = self.unit()?;
        let (stands, ..) = self.station.ledger.unit(unit).ok_or(FailReason::Bug)?;
        let Unit::Writing { image, .. } = stands else { return Err(FailReason::Bug) };
        let (segments, chip_state) = self.fixture.read_back().map_err(of_fixture)?;
        if hex::encode(image::sha256_of(&segments)) != image {
            return Err(FailReason::ReadBack);
        }
        if self.station.recipe.identity.protection != Protection::Plain && self.shows_secret(&segments)? {
            return Err(FailReason::KeyInClear);
        }
        if self.station.recipe.burns_fuses() {
            return Ok(());
        }
        fuses::check_fuses(&self.station.recipe.demanded(), &chip_state)
    }

    /// Whether a secret of this device, or any private key, lies in clear in what was read back.
    fn shows_secret(&self, segments: &[image::Segment]) -> Result<bool, FailReason> {
        let named = |name: &str, octets: &[u8]| NamedSecret {
            name: name.to_owned(),
            octets: SecretBytes::fill(octets.len(), |out| out.copy_from_slice(octets)),
        };
        let mut secrets = Vec::new();
        let unlock = self.held.image.as_ref().and_then(|image| image.unlock.as_ref());
        let (fused, flash) = (self.held.fused_key.as_ref(), self.held.flash_key.as_ref());
        let device = self.held.device_key.as_ref();
        for (name, secret) in [("unlock", unlock), ("fuse", fused), ("flash key", flash), ("device key", device)] {
            // Exposed to look for them where they must not be.
            secrets.extend(secret.map(|secret| named(name, secret.expose())));
        }
        if let Some(key) = &self.held.key {
            let pkcs8 = key.to_pkcs8().map_err(|_opaque| FailReason::Bug)?;
            // Exposed to look for the key where it must not be.
            secrets.push(named("identity key", p256_scalar(pkcs8.expose()).ok_or(FailReason::Bug)?));
        }
        let findings = image::findings(segments, secrets).map_err(|_list| FailReason::Bug)?;
        // The chip encrypts the keys partition when its firmware turns flash encryption on; where the station does, it is encrypted already.
        let recipe = &self.station.recipe;
        let has_keys_partition = recipe.identity.protection == Protection::NvsKeys && !recipe.locks.flash_encryption;
        Ok(findings.iter().any(|finding| !(has_keys_partition && finding.kind == FindingKind::NvsKeys)))
    }

    fn challenge(&mut self) -> Result<(), FailReason> {
        let (device, _) = self.device(self.unit()?)?;
        let nonce: [u8; 32] = self.station.noise.public()?;
        let message = [PROOF_LABEL, device.as_bytes(), &nonce].concat();
        let signature = self.fixture.prove(&message).map_err(of_fixture)?;
        let spki = self.held.draft.spki.as_ref().and_then(|spki| hex::decode(spki).ok()).ok_or(FailReason::Bug)?;
        let (algorithm, key) = kf_crypto::public_key_of_spki(&spki).map_err(|_spki| FailReason::Bug)?;
        kf_crypto::verify(algorithm, key, &message, &signature).map_err(|kf_crypto::CryptoError| FailReason::Proof)
    }

    fn finish(&mut self) -> Result<(), FailReason> {
        let unit = self.unit()?;
        let (device, name) = self.device(unit)?;
        let hardware = self.held.hardware.clone().ok_or(FailReason::Bug)?;
        let at = self.station.now()?;
        let record = self.held.draft.record(&self.station.common, device, &hardware, &Ending::Passed, at);
        self.station.ledger.close_unit(&Entry::Finished { unit, at }, record)?;
        self.station.ledger.release(unit);
        if self.station.recipe.label.is_some() {
            // A label that does not print is printed again from the spool.
            let _printed = self.station.labels.release(&name);
        }
        Ok(())
    }

    fn scrap(&mut self, reason: FailReason) -> Result<(), FailReason> {
        let unit = self.unit()?;
        // What unlocks the image goes with the attempt.
        self.held.image = None;
        self.held.key = None;
        (self.held.fused_key, self.held.flash_key, self.held.device_key) = (None, None, None);
        let mut draft = std::mem::take(&mut self.held.draft);
        draft.destruction = match &draft.spki {
            Some(_) => Some(self.destroy(unit, draft.origin)),
            None => None,
        };
        self.held.is_scrap = self.station.spoil(unit, reason, draft)?;
        Ok(())
    }

    /// The keys of a device that did not pass are to be gone before its record says so; where they cannot be, it says that.
    fn destroy(&mut self, unit: u32, origin: Origin) -> Destruction {
        let stands = self.station.ledger.unit(unit).map(|(stands, ..)| stands);
        let is_written = matches!(stands, Some(Unit::Writing { .. } | Unit::Closing));
        if origin == Origin::Station && !is_written {
            return Destruction::verified("in memory only: wiped, written nowhere");
        }
        self.fixture
            .destroy()
            .unwrap_or_else(|error| Destruction::unverified(format!("not destroyed, barred: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use kf_key::KeyAlgorithm;

    use super::*;

    #[test]
    fn the_scalar_of_a_key_is_found_whether_its_public_half_stands_beside_it_or_not() {
        let scalar = SecretArray::fill(|out: &mut [u8; 32]| out.fill(0x5a));
        let injected = PrivateKey::p256_from_scalar(&scalar).unwrap().to_pkcs8().unwrap();
        assert_eq!(p256_scalar(injected.expose()), Some([0x5a; 32].as_slice()));
        let generated = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
        let pkcs8 = generated.to_pkcs8().unwrap();
        let found = SecretArray::fill(|out: &mut [u8; 32]| out.copy_from_slice(p256_scalar(pkcs8.expose()).unwrap()));
        assert_eq!(PrivateKey::p256_from_scalar(&found).unwrap().spki(), generated.spki());
        assert_eq!(p256_scalar(&[0x30; 138]), None);
    }
}

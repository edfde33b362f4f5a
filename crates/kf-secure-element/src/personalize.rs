//! From a blank chip to a finished device's, in steps of which each is decided from what the chip says.
//!
//! ```text
//! write configuration -> LOCK CONFIGURATION -> write transport key -> LOCK DATA -> inject root key (encrypted)
//!   -> generate identity -> (certificate is issued) -> write certificate -> LOCK identity, certificate, perhaps root
//! ```
//! Capitals cannot be undone. After a power cut at any command the same recipe goes on where the chip is: nothing about
//! progress is kept outside of it. What is proven before the end: the chip holds the transport key (it took an encrypted
//! write), the root key (its HMAC is the expected one), the identity key (its public half), the certificate (read back).

use core::fmt;

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;
use kf_derive::{KeyedHmac, SoftwareKey};
use kf_exchange::PublicKey;
use kf_key::SecretArray;

use crate::certificate::{CertificateError, PLAIN_OCTETS, Stored, parts};
use crate::config::{ConfigZone, Slot};
use crate::element::Element;
use crate::error::Error;
use crate::layout::{self, Layout, Unsound};
use crate::lock::{ConfigLock, DataLock, SlotLock};
use crate::memory::{MAX_DATA_OCTETS, TransportKey};

/// The most steps of one run: each of [`Step`] once, and each once more after an answer that was lost.
const MAX_STEPS: usize = 32;
/// The most slots that are locked: identity, those of the certificate, root.
const MAX_LOCKS: usize = 7;
/// What the root key answers to show that it is the one.
const CHECK: &[u8] = b"keyfleet secure element root check";

/// A step of personalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The layout, word by word.
    WriteConfig,
    /// The configuration for good.
    LockConfig,
    /// The key under which others are written, in the clear: on the line only.
    WriteTransportKey,
    /// The end of writing in the clear, for good.
    LockData,
    /// The root key, encrypted.
    InjectRootKey,
    /// The identity key pair, in the chip.
    GenerateIdentity,
    /// The certificate.
    WriteCertificate,
    /// One slot for good.
    LockSlot(Slot),
}

impl Step {
    /// Whether nothing undoes it.
    #[must_use]
    pub const fn is_irreversible(self) -> bool {
        matches!(self, Self::LockConfig | Self::LockData | Self::LockSlot(_))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteConfig => f.write_str("write the configuration"),
            Self::LockConfig => f.write_str("lock the configuration"),
            Self::WriteTransportKey => f.write_str("write the transport key"),
            Self::LockData => f.write_str("lock the data zone"),
            Self::InjectRootKey => f.write_str("inject the root key"),
            Self::GenerateIdentity => f.write_str("generate the identity key"),
            Self::WriteCertificate => f.write_str("write the certificate"),
            Self::LockSlot(slot) => write!(f, "lock {slot}"),
        }
    }
}

/// What every chip of a recipe becomes. Keys must be the same again after a restart: derive them from the batch key and the
/// chip's serial number.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// The configuration.
    pub layout: &'a Layout,
    /// The transport key of this chip, in [`layout::TRANSPORT`].
    pub transport: &'a TransportKey,
    /// The root key of this chip.
    pub root: &'a SecretArray<32>,
    /// Whether the root key is locked: then it is a fused key, which only wraps.
    pub is_root_fused: bool,
    /// Whether the slots of the certificate are locked.
    pub is_certificate_fixed: bool,
}

/// Why personalization stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PersonalizeError {
    /// The recipe: nothing was sent.
    Layout(Unsound),
    /// The recipe names another slot than the layout's for the transport key. Nothing was sent.
    TransportSlot(Slot),
    /// The certificate.
    Certificate(CertificateError),
    /// The chip. Run again; what [`Error::OtherLayout`], [`Error::ReadBack`] or [`Error::Locked`] is said of is scrap.
    Element(Error),
}

impl From<Error> for PersonalizeError {
    fn from(error: Error) -> Self {
        Self::Element(error)
    }
}

impl fmt::Display for PersonalizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout(_) => f.write_str("the layout of the recipe is unsound"),
            Self::TransportSlot(slot) => write!(f, "the transport key belongs into {}, not {slot}", layout::TRANSPORT),
            Self::Certificate(_) => f.write_str("the certificate cannot be stored"),
            Self::Element(_) => f.write_str("the secure element was not personalized"),
        }
    }
}

impl core::error::Error for PersonalizeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Layout(unsound) => Some(unsound),
            Self::TransportSlot(_) => None,
            Self::Certificate(error) => Some(error),
            Self::Element(error) => Some(error),
        }
    }
}

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The identity key is there: issue a certificate over it and run again with it.
    NeedsCertificate(PublicKey),
    /// Nothing is left to do.
    Finished(PublicKey),
}

/// The steps that a recipe takes on a chip with this configuration, for a plan that is shown before anything is done. Those
/// that may be left out because they were done before are among them: only the chip knows.
pub fn plan<'a>(recipe: &'a Recipe<'_>, zone: &'a ConfigZone, certificate: Slot) -> impl Iterator<Item = Step> + 'a {
    let (is_config_locked, is_data_locked) = (zone.is_config_locked(), zone.is_data_locked());
    let steps = [
        (Step::WriteConfig, !is_config_locked && !recipe.layout.is_of(zone)),
        (Step::LockConfig, !is_config_locked),
        (Step::WriteTransportKey, !is_data_locked),
        (Step::LockData, !is_data_locked),
        (Step::InjectRootKey, !zone.is_slot_locked(layout::ROOT)),
        (Step::GenerateIdentity, !zone.is_slot_locked(layout::IDENTITY)),
        (Step::WriteCertificate, !zone.is_slot_locked(certificate)),
    ];
    let locks = locks(recipe, certificate, &[]).filter(|slot| !zone.is_slot_locked(*slot)).map(Step::LockSlot);
    steps.into_iter().filter_map(|(step, is_due)| is_due.then_some(step)).chain(locks)
}

/// The identity, the slots that the octets of the certificate reach into, the root.
fn locks(recipe: &Recipe<'_>, certificate: Slot, octets: &[u8]) -> impl Iterator<Item = Slot> + use<> {
    let is_certificate_fixed = recipe.is_certificate_fixed;
    let reached = parts(certificate, octets).count().max(1);
    let slots = core::iter::once(certificate).chain(layout::CERTIFICATE_REST).take(reached);
    core::iter::once(layout::IDENTITY)
        .chain(slots.filter(move |_slot| is_certificate_fixed))
        .chain(recipe.is_root_fused.then_some(layout::ROOT))
}

/// Takes a chip as far as it goes: to the identity key without a certificate, to the end with one.
///
/// `typed` is the serial number of the chip, given by whoever approves that it is locked. `number` is 20 octets of
/// randomness.
///
/// # Errors
/// [`PersonalizeError`]. Run again after whatever can be remedied: nothing is done twice that must be done once.
pub fn personalize<I: I2c, D: DelayNs>(
    element: &mut Element<I, D>,
    recipe: &Recipe<'_>,
    certificate: Option<Stored<'_>>,
    typed: &str,
    number: &[u8; 20],
) -> Result<Progress, PersonalizeError> {
    recipe.layout.check().map_err(PersonalizeError::Layout)?;
    if recipe.transport.slot() != layout::TRANSPORT {
        return Err(PersonalizeError::TransportSlot(recipe.transport.slot()));
    }
    let mut octets = [0; PLAIN_OCTETS];
    let certificate = match &certificate {
        Some(stored) => Some((stored.slot(), stored.encode(&mut octets).map_err(PersonalizeError::Certificate)?)),
        None => None,
    };
    let mut wanted = [layout::IDENTITY; MAX_LOCKS];
    let slots = certificate.map(|(slot, octets)| locks(recipe, slot, octets)).into_iter().flatten();
    wanted.iter_mut().zip(slots).for_each(|(place, slot)| *place = slot);
    let keys = Some(Keys { recipe, number, has_transport_key: false });
    run(Run { element, layout: recipe.layout, keys, certificate, locks: &wanted, typed })
}

/// Takes a chip that has its keys to the end: certificate, then locks. Needs no secret, so that whoever saw the keys go in
/// can be gone.
///
/// `typed` as for [`personalize`].
///
/// # Errors
/// [`PersonalizeError`]; [`Error::OtherLayout`] and [`Error::Execution`] for a chip that has no keys yet. Run again after
/// whatever can be remedied.
pub fn complete<I: I2c, D: DelayNs>(
    element: &mut Element<I, D>,
    layout: &Layout,
    certificate: Stored<'_>,
    locks: &[Slot],
    typed: &str,
) -> Result<PublicKey, PersonalizeError> {
    let mut octets = [0; PLAIN_OCTETS];
    let encoded = certificate.encode(&mut octets).map_err(PersonalizeError::Certificate)?;
    let certificate = Some((certificate.slot(), encoded));
    match run(Run { element, layout, keys: None, certificate, locks, typed })? {
        Progress::Finished(key) => Ok(key),
        Progress::NeedsCertificate(_) => Err(Error::ReadBack.into()),
    }
}

fn run<I: I2c, D: DelayNs>(mut run: Run<'_, I, D>) -> Result<Progress, PersonalizeError> {
    for _ in 0..MAX_STEPS {
        match run.next_step()? {
            Next::Step(step) => run.perform(step)?,
            Next::Halt(progress) => return Ok(progress),
        }
    }
    Err(Error::ReadBack.into())
}

enum Next {
    Step(Step),
    Halt(Progress),
}

struct Run<'a, I, D> {
    element: &'a mut Element<I, D>,
    layout: &'a Layout,
    /// `None`: they are in the chip already.
    keys: Option<Keys<'a>>,
    certificate: Option<(Slot, &'a [u8])>,
    locks: &'a [Slot],
    typed: &'a str,
}

/// What is put into the chip.
struct Keys<'a> {
    recipe: &'a Recipe<'a>,
    number: &'a [u8; 20],
    /// Written since this run began. The chip does not say before its data zone is locked, so a new run writes it again.
    has_transport_key: bool,
}

impl<I: I2c, D: DelayNs> Run<'_, I, D> {
    /// What the chip needs next, by what it says.
    fn next_step(&mut self) -> Result<Next, Error> {
        let zone = *self.element.refresh()?;
        if self.keys.is_some() && !zone.is_config_locked() {
            let is_written = self.layout.is_of(&zone);
            return Ok(Next::Step(if is_written { Step::LockConfig } else { Step::WriteConfig }));
        }
        if !zone.is_config_locked() || !self.layout.is_of(&zone) {
            return Err(Error::OtherLayout);
        }
        if let Some(keys) = &self.keys {
            if !zone.is_data_locked() {
                let step = if keys.has_transport_key { Step::LockData } else { Step::WriteTransportKey };
                return Ok(Next::Step(step));
            }
            if !holds_root_key(self.element, keys.recipe.root)? {
                return self.unlocked(layout::ROOT, Step::InjectRootKey);
            }
        }
        let public_key = match self.element.public_key(layout::IDENTITY) {
            Ok(public_key) => public_key,
            Err(Error::Execution(_) | Error::EccFault) if self.keys.is_some() => {
                return self.unlocked(layout::IDENTITY, Step::GenerateIdentity);
            }
            Err(error) => return Err(error),
        };
        let Some((slot, octets)) = self.certificate else {
            return Ok(Next::Halt(Progress::NeedsCertificate(public_key)));
        };
        for (slot, part) in parts(slot, octets) {
            if !self.holds(slot, part)? {
                return self.unlocked(slot, Step::WriteCertificate);
            }
        }
        let lock = self.locks.iter().find(|slot| !zone.is_slot_locked(**slot));
        Ok(lock.map_or(Next::Halt(Progress::Finished(public_key)), |slot| Next::Step(Step::LockSlot(*slot))))
    }

    /// A step that fills a slot, unless the slot was locked without what should be in it.
    fn unlocked(&self, slot: Slot, step: Step) -> Result<Next, Error> {
        if self.element.config().is_slot_locked(slot) { Err(Error::Locked(Some(slot))) } else { Ok(Next::Step(step)) }
    }

    fn holds(&mut self, slot: Slot, part: &[u8]) -> Result<bool, Error> {
        let mut found = [0; MAX_DATA_OCTETS];
        let found = found.get_mut(..part.len()).ok_or(Error::ReadBack)?;
        self.element.read(slot, 0, found)?;
        Ok(found == part)
    }

    fn perform(&mut self, step: Step) -> Result<(), Error> {
        let Self { element, layout: wanted, keys, certificate, typed, .. } = self;
        match (step, keys) {
            (Step::WriteConfig, _) => element.write_config(wanted),
            (Step::LockConfig, _) => ConfigLock::order(element, wanted, typed)?.execute(element),
            (Step::WriteTransportKey, Some(keys)) => {
                let transport = keys.recipe.transport;
                element.inject(transport.slot(), transport.key())?;
                keys.has_transport_key = true;
                Ok(())
            }
            (Step::LockData, _) => DataLock::order(element, typed)?.execute(element),
            (Step::InjectRootKey, Some(keys)) => {
                let Recipe { root, transport, .. } = keys.recipe;
                element.write_encrypted(layout::ROOT, root, transport, keys.number)?;
                if holds_root_key(element, root)? { Ok(()) } else { Err(Error::ReadBack) }
            }
            (Step::GenerateIdentity, _) => element.generate_key(layout::IDENTITY).map(drop),
            (Step::WriteCertificate, _) => {
                let (slot, octets) = certificate.ok_or(Error::ReadBack)?;
                parts(slot, octets).try_for_each(|(slot, part)| element.write(slot, 0, part))
            }
            (Step::LockSlot(slot), _) => SlotLock::order(element, slot, typed)?.execute(element),
            // Only ever asked for where there are keys to put in.
            (Step::WriteTransportKey | Step::InjectRootKey, None) => Err(Error::ReadBack),
        }
    }
}

fn holds_root_key<I: I2c, D: DelayNs>(element: &mut Element<I, D>, root: &SecretArray<32>) -> Result<bool, Error> {
    // Exposed to its own copy, for the answer that the chip must give.
    let expected = SoftwareKey::new(SecretArray::fill(|key| key.copy_from_slice(root.expose())));
    let expected = SecretArray::try_fill(|tag| expected.hmac_sha256(CHECK, tag));
    let found = element.hmac(layout::ROOT, CHECK)?;
    Ok(expected.is_ok_and(|expected| expected.equals(&found)))
}

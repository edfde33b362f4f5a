//! Whose key is in which slot, written in slots of the chip itself, so that a restart, another program and a power cut find
//! it there.
//!
//! A label is no authority: whoever reaches the bus can write it. It says where to look; that the key there is the right one
//! is shown by its public half.

use std::string::ToString;
use std::vec::Vec;

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;
use kf_exchange::PublicKey;
use kf_key::KeyId;

use crate::config::Slot;
use crate::element::Element;
use crate::error::Error;
use crate::policy::Use;
use crate::wire::crc16;

/// Magic and version, key identifier 16, fingerprint 8, checksum 2, zeroes.
const LABEL_OCTETS: usize = 32;
const MAGIC: [u8; 2] = [b'K', 1];
const FINGERPRINT_OCTETS: usize = 8;

/// What a label says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) key: KeyId,
    fingerprint: [u8; FINGERPRINT_OCTETS],
}

impl Label {
    pub(crate) fn new(key: KeyId, public_key: &PublicKey) -> Self {
        let mut fingerprint = [0; FINGERPRINT_OCTETS];
        fingerprint.iter_mut().zip(public_key.spki_sha256()).for_each(|(place, octet)| *place = octet);
        Self { key, fingerprint }
    }

    pub(crate) fn is_of(&self, public_key: &PublicKey) -> bool {
        public_key.spki_sha256().starts_with(&self.fingerprint)
    }

    fn encode(&self) -> [u8; LABEL_OCTETS] {
        let body: Vec<u8> = [&MAGIC, self.key.as_bytes().as_slice(), &self.fingerprint].concat();
        let mut octets = [0; LABEL_OCTETS];
        let parts = body.iter().copied().chain(crc16(&body).to_le_bytes());
        octets.iter_mut().zip(parts).for_each(|(place, octet)| *place = octet);
        octets
    }

    fn decode(octets: &[u8; LABEL_OCTETS]) -> Option<Self> {
        let (magic, rest) = octets.split_first_chunk::<2>()?;
        let (key, rest) = rest.split_first_chunk::<16>()?;
        let (fingerprint, _) = rest.split_first_chunk::<FINGERPRINT_OCTETS>()?;
        let label = Self { key: KeyId::from_bytes(*key), fingerprint: *fingerprint };
        (*magic == MAGIC && label.encode() == *octets).then_some(label)
    }
}

/// A slot for a key and the slot of its label.
pub(crate) type Place = (Slot, Slot);

pub(crate) fn read<I: I2c, D: DelayNs>(element: &mut Element<I, D>, place: Place) -> Result<Option<Label>, Error> {
    let mut octets = [0; LABEL_OCTETS];
    element.read(place.1, 0, &mut octets)?;
    Ok(Label::decode(&octets))
}

pub(crate) fn write<I: I2c, D: DelayNs>(
    element: &mut Element<I, D>,
    place: Place,
    label: Option<&Label>,
) -> Result<(), Error> {
    let octets = label.map_or([0; LABEL_OCTETS], Label::encode);
    element.write(place.1, 0, &octets)
}

/// Where the key of this identifier is, if a label says so and the key there is the labelled one.
pub(crate) fn find<I: I2c, D: DelayNs>(
    element: &mut Element<I, D>,
    places: &[Place],
    key: KeyId,
) -> Result<Option<(Place, PublicKey)>, Error> {
    for place in places {
        if let Some(label) = read(element, *place)?.filter(|label| label.key == key)
            && let Some(public_key) = public_key(element, place.0)?.filter(|found| label.is_of(found))
        {
            return Ok(Some((*place, public_key)));
        }
    }
    Ok(None)
}

/// Where a label names this key, be the key there or not.
pub(crate) fn labelled<I: I2c, D: DelayNs>(
    element: &mut Element<I, D>,
    places: &[Place],
    key: KeyId,
) -> Result<Option<Place>, Error> {
    for place in places {
        if read(element, *place)?.is_some_and(|label| label.key == key) {
            return Ok(Some(*place));
        }
    }
    Ok(None)
}

/// A place whose key nobody owns: without a label, or with one that is not its key's because power failed in between.
pub(crate) fn free<I: I2c, D: DelayNs>(element: &mut Element<I, D>, places: &[Place]) -> Result<Option<Place>, Error> {
    for place in places {
        if element.permits(place.0, Use::Generate).is_err() {
            continue;
        }
        let Some(label) = read(element, *place)? else { return Ok(Some(*place)) };
        if !public_key(element, place.0)?.is_some_and(|found| label.is_of(&found)) {
            return Ok(Some(*place));
        }
    }
    Ok(None)
}

/// The public half of the key in a slot; `None` when there is none.
fn public_key<I: I2c, D: DelayNs>(element: &mut Element<I, D>, slot: Slot) -> Result<Option<PublicKey>, Error> {
    match element.public_key(slot) {
        Ok(found) => Ok(Some(found)),
        Err(Error::Execution(_) | Error::EccFault) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn text(key: KeyId) -> std::string::String {
    key.to_string()
}

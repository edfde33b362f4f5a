//! What the factory burnt into the chip: the device's names, the chip's own key, and whom it trusts.

use kf_derive::{FusedKey, SoftwareKey};
use kf_device::certificate::Anchor;
use kf_entropy::NoiseState;
use kf_exchange::PublicKey;
use kf_key::DeviceId;

use crate::fields::Fields;
use crate::text::{OrText, Text};

/// The most octets of the device's name and of the EST label.
const NAME_OCTETS: usize = 48;

/// The one-time programmable memory.
pub(crate) struct Fuses {
    pub(crate) device: DeviceId,
    name: ([u8; NAME_OCTETS], usize),
    label: ([u8; NAME_OCTETS], usize),
    /// Wraps the keys in the flash memory, and cannot be replaced.
    pub(crate) chip: FusedKey<SoftwareKey>,
    pub(crate) anchor: Anchor,
    /// What the board's designer knows about the noise source.
    pub(crate) noise: NoiseState,
    pub(crate) delivery: Option<PublicKey>,
    pub(crate) orders: Option<PublicKey>,
}

impl Fuses {
    pub(crate) fn read(frame: &[u8]) -> Result<Self, Text> {
        let mut fields = Fields::new(frame);
        Ok(Self {
            device: DeviceId::from_bytes(fields.array()?),
            name: name(fields.next()?)?,
            label: name(fields.next()?)?,
            chip: FusedKey::new(SoftwareKey::new(fields.key()?)),
            anchor: Anchor(fields.array()?),
            noise: match fields.octet()? {
                1 => NoiseState::PhysicalOn,
                2 => NoiseState::PseudoRandomOnly,
                _ => NoiseState::Unknown,
            },
            delivery: pin(fields.optional()?)?,
            orders: pin(fields.optional()?)?,
        })
    }

    pub(crate) fn name(&self) -> &str {
        text(&self.name)
    }

    pub(crate) fn label(&self) -> &str {
        text(&self.label)
    }
}

fn name(field: &[u8]) -> Result<([u8; NAME_OCTETS], usize), Text> {
    let mut octets = [0; NAME_OCTETS];
    let place = octets.get_mut(..field.len()).ok_or(Text::of("a name is too long"))?;
    place.copy_from_slice(field);
    Ok((octets, field.len()))
}

fn text((octets, length): &([u8; NAME_OCTETS], usize)) -> &str {
    octets.get(..*length).and_then(|octets| core::str::from_utf8(octets).ok()).unwrap_or_default()
}

fn pin(spki: Option<[u8; 91]>) -> Result<Option<PublicKey>, Text> {
    spki.map(|spki| PublicKey::from_spki(&spki)).transpose().or_text("a pinned key")
}

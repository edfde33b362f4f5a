//! The devices of a batch: identifiers in runs, names by counting.

use kf_key::{DeviceId, UnixMillis};

use crate::codec::{Input, Out, Written, is_text, list};
use crate::frame::FormatError;

/// The most devices of a batch.
pub const MAX_DEVICES: u32 = 250_000;
/// The most runs of a list. A batch made at once has one.
pub const MAX_RUNS: usize = 4_096;
const MAX_PREFIX_OCTETS: usize = 48;
const MAX_DIGITS: u8 = 12;
/// The octets of an identifier that count within a run.
const COUNTER_OCTETS: usize = 4;

/// Identifiers that follow each other: the first twelve octets are the same, the last four count up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first one.
    pub first: DeviceId,
    /// How many; at least one.
    pub count: u32,
}

impl Run {
    fn counter(id: DeviceId) -> u32 {
        let [.., a, b, c, d] = *id.as_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    fn with_counter(self, counter: u32) -> DeviceId {
        let mut octets = *self.first.as_bytes();
        if let Some(tail) = octets.last_chunk_mut::<COUNTER_OCTETS>() {
            *tail = counter.to_be_bytes();
        }
        DeviceId::from_bytes(octets)
    }

    /// The last one; `None` when the run is empty or would leave the four octets.
    fn last(self) -> Option<DeviceId> {
        let last = Self::counter(self.first).checked_add(self.count.checked_sub(1)?)?;
        Some(self.with_counter(last))
    }
}

/// How devices are named: a prefix and a number that counts up, with leading zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// 1 to 48 characters of the alphabet of device names.
    pub prefix: String,
    /// Digits of the number, 1 to 12.
    pub digits: u8,
    /// The number of the first device.
    pub first: u64,
}

impl Naming {
    /// The name of the device at a position, counted from 0.
    #[must_use]
    pub fn name(&self, position: u32) -> String {
        let number = self.first.saturating_add(u64::from(position));
        format!("{}{number:0digits$}", self.prefix, digits = usize::from(self.digits))
    }

    /// The position of a name; `None` for one that is none of these, whatever its position would be.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<u32> {
        let digits = name.strip_prefix(self.prefix.as_str())?;
        let is_number = digits.len() == usize::from(self.digits) && digits.bytes().all(|octet| octet.is_ascii_digit());
        let number: u64 = digits.parse().ok().filter(|_| is_number)?;
        u32::try_from(number.checked_sub(self.first)?).ok()
    }

    /// Whether `count` names fit.
    fn holds(&self, count: u32) -> bool {
        let alphabet = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b':');
        let well_formed = is_text(&self.prefix, MAX_PREFIX_OCTETS)
            && self.prefix.bytes().all(alphabet)
            && self.prefix.bytes().next().is_some_and(|octet| octet.is_ascii_alphanumeric())
            && (1..=MAX_DIGITS).contains(&self.digits);
        let last = self.first.checked_add(u64::from(count.saturating_sub(1)));
        well_formed && last.zip(10u64.checked_pow(u32::from(self.digits))).is_some_and(|(last, end)| last < end)
    }
}

/// The devices of a batch, in the order in which they are to be made. 100,000 of them take some 30 octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceList {
    runs: Vec<Run>,
    naming: Naming,
    count: u32,
}

impl DeviceList {
    /// A list of these runs, which ascend and do not overlap.
    ///
    /// # Errors
    /// [`FormatError::Field`] when they do not, when there are none or more than [`MAX_DEVICES`] or [`MAX_RUNS`], or when
    /// the naming has no name for each.
    pub fn new(runs: Vec<Run>, naming: Naming) -> Result<Self, FormatError> {
        let refused = FormatError::Field("devices");
        if runs.is_empty() || runs.len() > MAX_RUNS {
            return Err(refused);
        }
        let mut count = 0u32;
        let mut before: Option<DeviceId> = None;
        for run in &runs {
            let last = run.last().ok_or(refused)?;
            if before.is_some_and(|before| before >= run.first) {
                return Err(refused);
            }
            before = Some(last);
            count = count.checked_add(run.count).filter(|count| *count <= MAX_DEVICES).ok_or(refused)?;
        }
        if naming.holds(count) { Ok(Self { runs, naming, count }) } else { Err(FormatError::Field("device names")) }
    }

    /// A fresh list of one run: time-ordered identifiers (RFC 9562 section 6.2, a counter in the last octets behind the random
    /// ones).
    ///
    /// # Errors
    /// As [`DeviceList::new`].
    pub fn fresh(now: UnixMillis, random: [u8; 10], count: u32, naming: Naming) -> Result<Self, FormatError> {
        let run = Run { first: DeviceId::from_parts(now, random), count };
        Self::new(vec![Run { first: run.with_counter(0), count }], naming)
    }

    /// How many devices.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// How they are named.
    #[must_use]
    pub const fn naming(&self) -> &Naming {
        &self.naming
    }

    /// The runs.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Where in the list a device stands, counted from 0; `None` when it does not.
    #[must_use]
    pub fn position(&self, device: DeviceId) -> Option<u32> {
        let mut before = 0u32;
        for run in &self.runs {
            if device < run.first {
                return None;
            }
            if run.last().is_some_and(|last| device <= last) {
                let offset = Run::counter(device).checked_sub(Run::counter(run.first))?;
                // Between first and last lie identifiers of this run only: they share the twelve octets.
                return before.checked_add(offset);
            }
            before = before.checked_add(run.count)?;
        }
        None
    }

    /// The device at a position.
    #[must_use]
    pub fn device(&self, position: u32) -> Option<DeviceId> {
        let mut rest = position;
        for run in &self.runs {
            if rest < run.count {
                return Some(run.with_counter(Run::counter(run.first).checked_add(rest)?));
            }
            rest -= run.count;
        }
        None
    }

    /// The name of a device of the list.
    #[must_use]
    pub fn name(&self, device: DeviceId) -> Option<String> {
        self.position(device).map(|position| self.naming.name(position))
    }

    /// The device of a name.
    #[must_use]
    pub fn device_named(&self, name: &str) -> Option<DeviceId> {
        self.naming.position(name).and_then(|position| self.device(position))
    }

    /// Every device with its name, in order.
    pub fn iter(&self) -> impl Iterator<Item = (DeviceId, String)> + '_ {
        (0..self.count).filter_map(|position| Some((self.device(position)?, self.naming.name(position))))
    }

    pub(crate) fn write(&self, out: &mut Out) -> Written {
        out.array(4)?;
        list(out, &self.runs, |run, out| out.array(2)?.bytes(run.first.as_bytes())?.u32(run.count)?.ok())?;
        out.str(&self.naming.prefix)?.u8(self.naming.digits)?.u64(self.naming.first)?.ok()
    }

    pub(crate) fn read(input: &mut Input<'_>) -> Result<Self, FormatError> {
        input.array(4)?;
        let runs = input.list("devices", MAX_RUNS, |input| {
            input.array(2)?;
            Ok(Run { first: DeviceId::from_bytes(input.octets()?), count: input.u32()? })
        })?;
        let naming =
            Naming { prefix: input.text("device names", MAX_PREFIX_OCTETS)?, digits: input.u8()?, first: input.u64()? };
        Self::new(runs, naming)
    }
}

#[cfg(test)]
mod tests;

//! The key identifier: which key of the hierarchy a payload is sealed under.

use core::fmt;

use kf_derive::Sender;
use kf_key::DeviceId;

use crate::cbor::Writer;

/// A key of the static tree.
const VERSION: u8 = 1;
/// A key of a mixed session, which stands behind the epochs.
const VERSION_SESSION: u8 = 2;

const FIXED_OCTETS: usize = 26;
const SESSION_OCTETS: usize = 16;

/// The most octets of a service's label.
const SERVICE_MAX_OCTETS: usize = 16;

/// The most octets of an encoded key identifier.
pub const KEY_ID_MAX_OCTETS: usize = FIXED_OCTETS + SESSION_OCTETS + SERVICE_MAX_OCTETS;

/// Why a text is no service label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceError;

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a service has 1 to {SERVICE_MAX_OCTETS} characters of a-z, 0-9 and the hyphen")
    }
}

impl core::error::Error for ServiceError {}

/// What a payload is for: 1 to 16 characters of `a-z`, `0-9` and `-`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    octets: [u8; SERVICE_MAX_OCTETS],
    length: usize,
}

impl Service {
    /// The service of a label.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn new(label: &str) -> Result<Self, ServiceError> {
        Self::from_bytes(label.as_bytes())
    }

    fn from_bytes(label: &[u8]) -> Result<Self, ServiceError> {
        let allowed = |octet: &u8| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if label.is_empty() || !label.iter().all(allowed) {
            return Err(ServiceError);
        }
        let mut service = Self { octets: [0; SERVICE_MAX_OCTETS], length: label.len() };
        service.octets.get_mut(..label.len()).ok_or(ServiceError)?.copy_from_slice(label);
        Ok(service)
    }

    /// The label as octets, which is the context of the application key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }

    /// The label.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Names an application key and a direction: the `kid` of an envelope. Public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId {
    /// Whose key.
    pub device: DeviceId,
    /// The epoch of the key of the device's facility.
    pub facility_epoch: u32,
    /// The epoch of the device's key.
    pub device_epoch: u32,
    /// The mixed session whose key it is, which lies under the device key of these epochs; `None` for the static tree.
    pub session: Option<[u8; SESSION_OCTETS]>,
    /// Who seals.
    pub sender: Sender,
    /// What for.
    pub service: Service,
}

/// The first respect in which a payload is not the one that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is a field of KeyId")]
pub enum Mismatch {
    Device,
    FacilityEpoch { found: u32, expected: u32 },
    DeviceEpoch { found: u32, expected: u32 },
    Session,
    Sender,
    Service,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => f.write_str("the payload belongs to another device"),
            Self::FacilityEpoch { found, expected } => {
                write!(f, "the payload is of facility epoch {found}; the key is of {expected}")
            }
            Self::DeviceEpoch { found, expected } => {
                write!(f, "the payload is of device epoch {found}; the key is of {expected}")
            }
            Self::Session => f.write_str("the payload was sealed in another session"),
            Self::Sender => f.write_str("the payload was sealed in the other direction"),
            Self::Service => f.write_str("the payload was sealed for another service"),
        }
    }
}

impl core::error::Error for Mismatch {}

impl KeyId {
    /// The value of `kid`.
    pub(crate) fn write(&self, out: &mut Writer<'_>) -> Option<()> {
        let session = self.session.as_ref().map_or(&[][..], |session| session);
        out.bytes_head(FIXED_OCTETS + session.len() + self.service.length)?;
        out.raw(&[if session.is_empty() { VERSION } else { VERSION_SESSION }])?;
        out.raw(self.device.as_bytes())?;
        out.raw(&self.facility_epoch.to_be_bytes())?;
        out.raw(&self.device_epoch.to_be_bytes())?;
        out.raw(session)?;
        out.raw(&[self.sender.code()])?;
        out.raw(self.service.as_bytes())
    }

    /// Writes the octets of `kid` to `out` and says how many they are. Two identifiers share them only if they are equal,
    /// so they are a key of a table.
    pub fn encode(&self, out: &mut [u8; KEY_ID_MAX_OCTETS]) -> usize {
        let mut with_head = [0; KEY_ID_MAX_OCTETS + 2];
        let mut writer = Writer::new(&mut with_head);
        // The buffer has room for the longest service.
        let _room = self.write(&mut writer);
        let octets = writer.written().get(2..).unwrap_or_default();
        out.iter_mut().zip(octets).for_each(|(place, octet)| *place = *octet);
        octets.len()
    }

    /// Reads the octets of `kid`. `None`: another version, length, sender or alphabet.
    #[must_use]
    pub fn from_bytes(kid: &[u8]) -> Option<Self> {
        let (version, rest) = kid.split_first()?;
        let (device, rest) = rest.split_first_chunk()?;
        let (facility_epoch, rest) = rest.split_first_chunk()?;
        let (device_epoch, rest) = rest.split_first_chunk()?;
        let (session, rest) = match *version {
            VERSION => (None, rest),
            VERSION_SESSION => rest.split_first_chunk().map(|(session, rest)| (Some(*session), rest))?,
            _ => return None,
        };
        let (sender, service) = rest.split_first()?;
        Some(Self {
            device: DeviceId::from_bytes(*device),
            facility_epoch: u32::from_be_bytes(*facility_epoch),
            device_epoch: u32::from_be_bytes(*device_epoch),
            session,
            sender: Sender::from_code(*sender)?,
            service: Service::from_bytes(service).ok()?,
        })
    }

    /// Whether `self`, found in an envelope, is `expected`.
    ///
    /// # Errors
    /// The first respect in which it is not.
    pub fn require(&self, expected: &Self) -> Result<(), Mismatch> {
        let Self { device, facility_epoch, device_epoch, session, sender, service } = *self;
        if device != expected.device {
            return Err(Mismatch::Device);
        }
        if sender != expected.sender {
            return Err(Mismatch::Sender);
        }
        if service != expected.service {
            return Err(Mismatch::Service);
        }
        if facility_epoch != expected.facility_epoch {
            return Err(Mismatch::FacilityEpoch { found: facility_epoch, expected: expected.facility_epoch });
        }
        if device_epoch != expected.device_epoch {
            return Err(Mismatch::DeviceEpoch { found: device_epoch, expected: expected.device_epoch });
        }
        if session != expected.session {
            return Err(Mismatch::Session);
        }
        Ok(())
    }
}

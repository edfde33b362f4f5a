//! The six messages.

use kf_key::DeviceId;
use minicbor::Decoder;

use crate::codec::{Message, Out, Read, Written, array, decode, items};
use crate::place::KeyPlace;
use crate::refusal::Refusal;

const VERSION: u8 = 1;
/// P-256, SHA-256, AES-128-GCM.
const SUITE: u8 = 1;

/// What an exchange is for. Chosen by the device, bound by both signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Delivery of the device key: the first one, a new epoch, or a new facility.
    Delivery,
    /// A session whose keys cannot be recomputed from the root, under the device key that the device holds.
    Session,
}

impl Purpose {
    const fn code(self) -> u8 {
        match self {
            Self::Delivery => 1,
            Self::Session => 2,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Delivery),
            2 => Some(Self::Session),
            _ => None,
        }
    }
}

/// Kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opens the exchange.
    Hello,
    /// The server's answer to it.
    Challenge,
    /// The device proves who it is.
    Proof,
    /// The server delivers.
    Delivery,
    /// The device holds what was delivered.
    Acknowledgement,
    /// The server knows it.
    Done,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Hello, Self::Challenge, Self::Proof, Self::Delivery, Self::Acknowledgement, Self::Done];

    const fn code(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Challenge => 2,
            Self::Proof => 3,
            Self::Delivery => 4,
            Self::Acknowledgement => 5,
            Self::Done => 6,
        }
    }

    /// The number of items. A hello has one more when it names a key.
    const fn items(self) -> u64 {
        match self {
            Self::Hello => 6,
            Self::Challenge | Self::Proof => 7,
            Self::Delivery | Self::Done => 4,
            Self::Acknowledgement => 8,
        }
    }
}

/// Which message this claims to be, so that a server knows whom to give it to. Nothing is checked but the head.
///
/// # Errors
/// [`Refusal::TooLong`], [`Refusal::Malformed`], [`Refusal::Version`].
pub fn peek(message: &[u8]) -> Result<Kind, Refusal> {
    if message.len() > crate::MAX_MESSAGE_OCTETS {
        return Err(Refusal::TooLong);
    }
    head(&mut Decoder::new(message))
}

fn head(input: &mut Decoder<'_>) -> Result<Kind, Refusal> {
    let items = items(input)?;
    let malformed = |_error: minicbor::decode::Error| Refusal::Malformed;
    if input.u8().map_err(malformed)? != VERSION {
        return Err(Refusal::Version);
    }
    let code = input.u8().map_err(malformed)?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.code() == code).ok_or(Refusal::Malformed)?;
    let is_naming = kind == Kind::Hello && items == kind.items() + 1;
    if items == kind.items() || is_naming { Ok(kind) } else { Err(Refusal::Malformed) }
}

/// The delivery key by which a hello asks to be answered: the first 16 octets of its SHA-256 (SubjectPublicKeyInfo). `None`
/// from a device that knows one key only and does not say which.
///
/// # Errors
/// Those of reading.
pub fn named_key(hello: &[u8]) -> Result<Option<[u8; KEY_NAME_OCTETS]>, Refusal> {
    Hello::decode(hello).map(|said| said.knows)
}

/// The session that a challenge opens. Nothing is proved.
///
/// # Errors
/// Those of reading.
pub fn challenged_session(challenge: &[u8]) -> Result<[u8; 16], Refusal> {
    Challenge::decode(challenge).map(|said| said.session)
}

/// Octets of the name of a key in messages.
pub(crate) const KEY_NAME_OCTETS: usize = 16;

/// A message that can be written and read.
pub(crate) trait Part: Sized {
    const KIND: Kind;

    fn write_body(&self, out: &mut Out<'_>) -> Written;

    fn read_body(input: &mut Decoder<'_>) -> Read<Self>;

    /// What is wrong although it decodes.
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }

    fn items(&self) -> u64 {
        Self::KIND.items()
    }

    fn write(&self, out: &mut Out<'_>) -> Written {
        out.array(self.items())?.u8(VERSION)?.u8(Self::KIND.code())?;
        self.write_body(out)
    }

    fn encode(&self) -> Result<Message, Refusal> {
        Message::encode(|out| self.write(out))
    }

    fn decode(octets: &[u8]) -> Result<Self, Refusal> {
        let part = decode(
            octets,
            |input| {
                if head(input)? != Self::KIND {
                    return Err(Refusal::OutOfOrder);
                }
                Self::read_body(input).map_err(|_reason| Refusal::Malformed)
            },
            Self::write,
        )?;
        part.check()?;
        Ok(part)
    }
}

/// The first message.
#[derive(Clone)]
pub(crate) struct Hello {
    suite: u8,
    purpose: u8,
    nonce: [u8; 16],
    pub(crate) ephemeral: [u8; 65],
    knows: Option<[u8; KEY_NAME_OCTETS]>,
}

impl Hello {
    pub(crate) const fn new(
        purpose: Purpose,
        nonce: [u8; 16],
        ephemeral: [u8; 65],
        knows: Option<[u8; KEY_NAME_OCTETS]>,
    ) -> Self {
        Self { suite: SUITE, purpose: purpose.code(), nonce, ephemeral, knows }
    }

    pub(crate) fn purpose(&self) -> Result<Purpose, Refusal> {
        Purpose::from_code(self.purpose).ok_or(Refusal::Purpose)
    }
}

impl Part for Hello {
    const KIND: Kind = Kind::Hello;

    fn items(&self) -> u64 {
        Self::KIND.items() + u64::from(self.knows.is_some())
    }

    fn write_body(&self, out: &mut Out<'_>) -> Written {
        out.u8(self.suite)?.u8(self.purpose)?.bytes(&self.nonce)?.bytes(&self.ephemeral)?;
        match &self.knows {
            Some(key) => out.bytes(key)?.ok(),
            None => Ok(()),
        }
    }

    fn read_body(input: &mut Decoder<'_>) -> Read<Self> {
        let (suite, purpose, nonce, ephemeral) = (input.u8()?, input.u8()?, array(input)?, array(input)?);
        let is_over = input.position() >= input.input().len();
        let knows = if is_over { None } else { Some(array(input)?) };
        Ok(Self { suite, purpose, nonce, ephemeral, knows })
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.suite == SUITE { self.purpose().map(|_known| ()) } else { Err(Refusal::Version) }
    }
}

/// The second message. Signed are the octets in front of the signature, which have one length.
#[derive(Clone)]
pub(crate) struct Challenge {
    pub(crate) session: [u8; 16],
    pub(crate) ephemeral: [u8; 65],
    /// SHA-256 of the SubjectPublicKeyInfo, the first 16 octets.
    pub(crate) server: [u8; 16],
    pub(crate) signature: [u8; 64],
    pub(crate) mac: [u8; 32],
}

impl Challenge {
    /// What is signed.
    pub(crate) fn signed(&self) -> Result<Message, Refusal> {
        Message::encode(|out| {
            out.array(Kind::Challenge.items())?.u8(VERSION)?.u8(Kind::Challenge.code())?;
            out.bytes(&self.session)?.bytes(&self.ephemeral)?.bytes(&self.server)?.ok()
        })
    }
}

impl Part for Challenge {
    const KIND: Kind = Kind::Challenge;

    fn write_body(&self, out: &mut Out<'_>) -> Written {
        out.bytes(&self.session)?.bytes(&self.ephemeral)?.bytes(&self.server)?;
        out.bytes(&self.signature)?.bytes(&self.mac)?.ok()
    }

    fn read_body(input: &mut Decoder<'_>) -> Read<Self> {
        Ok(Self {
            session: array(input)?,
            ephemeral: array(input)?,
            server: array(input)?,
            signature: array(input)?,
            mac: array(input)?,
        })
    }
}

/// The third message.
#[derive(Clone)]
pub(crate) struct Proof {
    pub(crate) session: [u8; 16],
    pub(crate) device: DeviceId,
    pub(crate) key: [u8; 32],
    pub(crate) signature: [u8; 64],
    pub(crate) mac: [u8; 32],
}

impl Proof {
    /// What is signed.
    pub(crate) fn signed(&self) -> Result<Message, Refusal> {
        Message::encode(|out| {
            out.array(Kind::Proof.items())?.u8(VERSION)?.u8(Kind::Proof.code())?;
            out.bytes(&self.session)?.bytes(self.device.as_bytes())?.bytes(&self.key)?.ok()
        })
    }
}

impl Part for Proof {
    const KIND: Kind = Kind::Proof;

    fn write_body(&self, out: &mut Out<'_>) -> Written {
        out.bytes(&self.session)?.bytes(self.device.as_bytes())?.bytes(&self.key)?;
        out.bytes(&self.signature)?.bytes(&self.mac)?.ok()
    }

    fn read_body(input: &mut Decoder<'_>) -> Read<Self> {
        Ok(Self {
            session: array(input)?,
            device: DeviceId::from_bytes(array(input)?),
            key: array(input)?,
            signature: array(input)?,
            mac: array(input)?,
        })
    }
}

/// The most octets of what is sealed: place and key.
pub(crate) const MAX_SEALED_OCTETS: usize = 1 + 17 + 5 + 5 + 34;

/// The fourth message.
#[derive(Clone)]
pub(crate) struct DeliveryMessage {
    pub(crate) session: [u8; 16],
    sealed: [u8; MAX_SEALED_OCTETS + 16],
    length: usize,
}

impl DeliveryMessage {
    pub(crate) fn new(session: [u8; 16], ciphertext: &[u8], tag: &[u8]) -> Self {
        let mut sealed = [0; MAX_SEALED_OCTETS + 16];
        for (octet, value) in sealed.iter_mut().zip(ciphertext.iter().chain(tag)) {
            *octet = *value;
        }
        Self { session, sealed, length: ciphertext.len() + tag.len() }
    }

    /// Ciphertext and tag.
    pub(crate) fn sealed(&self) -> &[u8] {
        self.sealed.get(..self.length).unwrap_or_default()
    }
}

impl Part for DeliveryMessage {
    const KIND: Kind = Kind::Delivery;

    fn write_body(&self, out: &mut Out<'_>) -> Written {
        out.bytes(&self.session)?.bytes(self.sealed())?.ok()
    }

    fn read_body(input: &mut Decoder<'_>) -> Read<Self> {
        let session = array(input)?;
        let at = input.position();
        let sealed = input.bytes()?;
        if sealed.len() > MAX_SEALED_OCTETS + 16 {
            return Err(minicbor::decode::Error::message("length").at(at));
        }
        Ok(Self::new(session, sealed, &[]))
    }
}

/// The fifth message.
#[derive(Clone, Debug)]
pub(crate) struct AcknowledgementMessage {
    pub(crate) session: [u8; 16],
    pub(crate) device: DeviceId,
    pub(crate) place: KeyPlace,
    pub(crate) mac: [u8; 32],
}

impl Part for AcknowledgementMessage {
    const KIND: Kind = Kind::Acknowledgement;

    fn write_body(&self, out: &mut Out<'_>) -> Written {
        out.bytes(&self.session)?.bytes(self.device.as_bytes())?;
        self.place.write(out)?;
        out.bytes(&self.mac)?.ok()
    }

    fn read_body(input: &mut Decoder<'_>) -> Read<Self> {
        Ok(Self {
            session: array(input)?,
            device: DeviceId::from_bytes(array(input)?),
            place: KeyPlace::read(input)?,
            mac: array(input)?,
        })
    }
}

/// The sixth message.
#[derive(Clone)]
pub(crate) struct DoneMessage {
    pub(crate) session: [u8; 16],
    pub(crate) mac: [u8; 32],
}

impl Part for DoneMessage {
    const KIND: Kind = Kind::Done;

    fn write_body(&self, out: &mut Out<'_>) -> Written {
        out.bytes(&self.session)?.bytes(&self.mac)?.ok()
    }

    fn read_body(input: &mut Decoder<'_>) -> Read<Self> {
        Ok(Self { session: array(input)?, mac: array(input)? })
    }
}

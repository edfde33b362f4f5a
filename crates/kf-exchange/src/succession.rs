//! How a key of the server that devices or stations pin is succeeded: the key before signs the one after.
//!
//! ```text
//! succession = COSE_Sign1(key before, [1, role, version, key after, made])      external data "keyfleet succession v1"
//! ```
//!
//! A holder of any earlier key follows the links, at most [`MAX_LINKS`] of them, to the newest one. Links prove
//! themselves, so it does not matter who hands them out; a link of another role, or one that leads back, counts for nothing.
//! What this cannot do: once a key before is known to a thief *and* its link was not taken up, the thief can make another
//! one. So a key that may be known is replaced where it is pinned, by hand.

use kf_key::UnixMillis;
use minicbor::Decoder;

use crate::codec::{MAX_MESSAGE_OCTETS, Message, Out, Written, array, decode, items};
use crate::cose::Signed;
use crate::identity::{IdentityKey, PublicKey};
use crate::order::signed_with;
use crate::refusal::{ExchangeError, Refusal};

pub use kf_key::KeyRole;

const SUCCESSION: &[u8] = b"keyfleet succession v1";
const VERSION: u8 = 1;
/// The most links that are followed at a time, and that a sequence has of one role.
pub const MAX_LINKS: usize = 16;

/// A key that succeeds another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Succession {
    /// What both are for.
    pub role: KeyRole,
    /// The number of the key after: the first key of a role is 1 and has no link.
    pub version: u32,
    /// The key after.
    pub key: PublicKey,
    /// When it was made, by the server's clock.
    pub made: UnixMillis,
}

fn malformed(_reason: minicbor::decode::Error) -> Refusal {
    Refusal::Malformed
}

impl Succession {
    fn write(&self, out: &mut Out<'_>) -> Written {
        out.array(5)?.u8(VERSION)?.u8(self.role.code())?.u32(self.version)?;
        out.bytes(&self.key.to_sec1())?.u64(self.made.0)?.ok()
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, Refusal> {
        let items = items(input)?;
        if input.u8().map_err(malformed)? != VERSION {
            return Err(Refusal::Version);
        }
        if items != 5 {
            return Err(Refusal::Malformed);
        }
        Ok(Self {
            role: KeyRole::from_code(input.u8().map_err(malformed)?).ok_or(Refusal::Purpose)?,
            version: input.u32().map_err(malformed)?,
            key: PublicKey::from_sec1(&array(input).map_err(malformed)?)?,
            made: UnixMillis(input.u64().map_err(malformed)?),
        })
    }

    /// Signs it with the key before.
    ///
    /// # Errors
    /// [`ExchangeError::Holder`] of the key before.
    pub fn sign<K: IdentityKey>(&self, before: &K) -> Result<Message, ExchangeError<K::Error>> {
        let payload = Message::encode(|out| self.write(out))?;
        signed_with(SUCCESSION, &payload, before)
    }

    /// The key that succeeds `before`, if `before` signed it.
    ///
    /// # Errors
    /// [`Refusal::UnpinnedServer`] for a link of another key; [`Refusal::Unauthentic`]; [`Refusal::Purpose`] for another
    /// role; those of reading.
    pub fn verify(message: &[u8], before: &PublicKey, role: KeyRole) -> Result<Self, Refusal> {
        let signed = Signed::read(message)?;
        if !signed.is_by(before) {
            return Err(Refusal::UnpinnedServer);
        }
        let said = decode(signed.verify(SUCCESSION, before)?, Self::read, Self::write)?;
        if said.role == role { Ok(said) } else { Err(Refusal::Purpose) }
    }
}

/// The links in a CBOR sequence (RFC 8742), one after the other; it ends where it cannot be read.
#[derive(Clone, Debug)]
pub struct Links<'a>(&'a [u8]);

impl<'a> Links<'a> {
    /// Over a sequence.
    #[must_use]
    pub const fn new(sequence: &'a [u8]) -> Self {
        Self(sequence)
    }
}

impl<'a> Iterator for Links<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let mut decoder = Decoder::new(self.0);
        let rest = core::mem::take(&mut self.0);
        // A link is a tag, an array of four and what is in it: anything else ends the sequence.
        decoder.tag().ok()?;
        (decoder.array().ok()?? == 4).then_some(())?;
        decoder.bytes().ok()?;
        (decoder.map().ok()?? == 0).then_some(())?;
        decoder.bytes().ok()?;
        decoder.bytes().ok()?;
        let (link, rest) = rest.split_at_checked(decoder.position())?;
        (link.len() <= MAX_MESSAGE_OCTETS).then_some(())?;
        self.0 = rest;
        Some(link)
    }
}

/// The newest key of a role that `held` leads to, over at most [`MAX_LINKS`] links; `None` when nothing leads on from it.
///
/// The links may stand in any order and hold others; versions only ever go up, so that no links make a circle.
#[must_use]
pub fn follow(sequence: &[u8], role: KeyRole, held: &PublicKey) -> Option<Succession> {
    let mut newest: Option<Succession> = None;
    for _ in 0..MAX_LINKS {
        let (before, version) = newest.map_or((*held, 1), |last| (last.key, last.version));
        // More of other roles may stand in between; what is beyond is not looked at.
        let links = Links::new(sequence).take(MAX_LINKS.saturating_mul(KeyRole::ALL.len()));
        let mut next = links.filter_map(|link| Succession::verify(link, &before, role).ok());
        let next = next.find(|next| next.version > version);
        match next {
            Some(next) => newest = Some(next),
            None => break,
        }
    }
    newest
}

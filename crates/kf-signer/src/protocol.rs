//! What the frames mean. Every request is typed; there is none that signs octets as they come.

use kf_key::KeyId;

use crate::frame::{MAX_BODY_OCTETS, MAX_CRL_OCTETS, Rules};
use crate::{SignerError, SignerRefusal};

/// The most octets of a secret to be wrapped.
pub(crate) const MAX_SECRET_OCTETS: usize = 64 * 1024;
/// The most octets of a wrapping context.
pub(crate) const MAX_CONTEXT_OCTETS: usize = 1024;
/// The most salts that are opened at once.
pub(crate) const MAX_SALTS: usize = 1_024;
/// The most secrets that are wrapped anew at once.
pub const MAX_REWRAPPED: usize = 1_024;
/// The most octets of an error's text.
const MAX_TEXT_OCTETS: usize = 512;

macro_rules! request_kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)+) => {
        /// Kinds of requests; zero is reserved.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum RequestKind { $($(#[$doc])* $name,)+ }

        impl RequestKind {
            pub(crate) const fn code(self) -> u8 {
                match self { $(Self::$name => $code,)+ }
            }

            pub(crate) const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

request_kinds! {
    /// JSON: configuration. The first request and never again.
    Hello = 1,
    /// key 16, purpose 1, algorithm 1.
    Generate = 2,
    /// key 16, handle (prefixed), issuer Name (rest).
    Load = 3,
    /// key 16, TBSCertificate.
    SignRoot = 4,
    /// key 16, TBSCertificate.
    SignCertificate = 5,
    /// key 16, TBSCertList.
    SignCrl = 6,
    /// key 16, size 8, root 32, origin.
    SignCheckpoint = 7,
    /// context (prefixed), secret.
    Wrap = 8,
    /// context (prefixed), wrapped.
    Unwrap = 9,
    /// key 16.
    Destroy = 10,
    /// Nothing.
    Health = 11,
    /// device 16.
    NewSalt = 12,
    /// facility 16, facility epoch 4, device 16, device epoch 4, service (prefixed), wrapped salt.
    DeriveSealing = 13,
    /// key 16, hello.
    Challenge = 14,
    /// place 40, spki (prefixed), wrapped salt (prefixed), proof.
    Deliver = 15,
    /// place 40, wrapped salt (prefixed), acknowledgement.
    Acknowledge = 16,
    /// key 16, act 1, device 16, counter 8, expires 8.
    SignOrder = 17,
    /// key 16, terms of a quota.
    SignQuota = 18,
    /// facility 16, facility epoch 4, batch 16, then device 16 and sealed salt, again and again.
    OpenSalts = 19,
    /// place 40, spki (prefixed), wrapped salt (prefixed), proof.
    OpenSession = 20,
    /// place 40, acknowledgement.
    AcknowledgeSession = 21,
    /// session 16, device 16, service.
    DeriveSession = 22,
    /// session 16.
    EndSession = 23,
    /// key before 16, key after 16, version 4, made 8.
    SignSuccession = 24,
    /// version 4.
    NewWrapping = 32,
    /// version 4, what [`Self::NewWrapping`] gave.
    LoadWrapping = 33,
    /// version 4.
    ForgetWrapping = 34,
    /// Context and wrapped (both prefixed), again and again.
    Rewrap = 35,
    /// key 16, handle.
    RewrapHandle = 36,
}

impl RequestKind {
    /// Whether the answer holds a secret, so that its copies are wiped.
    pub(crate) const fn yields_secret(self) -> bool {
        matches!(self, Self::Unwrap | Self::DeriveSealing | Self::DeriveSession)
    }
}

/// Kinds of answers.
pub(crate) const DONE: u8 = 0x80;
pub(crate) const FAILED: u8 = 0x81;
/// As [`DONE`], with a secret in it.
pub(crate) const DONE_SECRET: u8 = 0x82;

/// What the signer reads.
pub(crate) const REQUESTS: Rules = Rules {
    limit: |kind| match RequestKind::from_code(kind)? {
        RequestKind::SignCrl => Some(MAX_CRL_OCTETS),
        _ => Some(MAX_BODY_OCTETS),
    },
    is_secret: |kind| kind == RequestKind::Wrap.code(),
};

/// What the client reads.
pub(crate) const ANSWERS: Rules = Rules {
    limit: |kind| matches!(kind, DONE | FAILED | DONE_SECRET).then_some(MAX_BODY_OCTETS),
    is_secret: |kind| kind == DONE_SECRET,
};

/// Reads a body field by field.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    pub(crate) fn octet(&mut self) -> Option<u8> {
        self.array().map(|[octet]| octet)
    }

    pub(crate) fn key(&mut self) -> Option<KeyId> {
        self.array().map(KeyId::from_bytes)
    }

    /// Octets behind their length of two octets.
    pub(crate) fn prefixed(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        let (octets, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(octets)
    }

    pub(crate) const fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Succeeds when nothing is left.
    pub(crate) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// The length in front of [`Fields::prefixed`].
pub(crate) fn prefix(octets: &[u8]) -> Result<[u8; 2], SignerError> {
    let length = u16::try_from(octets.len()).map_err(|_too_long| too_large(usize::from(u16::MAX)))?;
    Ok(length.to_be_bytes())
}

pub(crate) const fn too_large(limit: usize) -> SignerError {
    SignerError::Refused(SignerRefusal::TooLarge { limit })
}

pub(crate) fn bug(what: &str) -> SignerError {
    SignerError::Bug(what.to_owned())
}

/// The body of a [`FAILED`] answer.
pub(crate) fn encode_error(error: &SignerError) -> Vec<u8> {
    let text = |code: u8, text: &str| {
        let cut = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= MAX_TEXT_OCTETS).last().unwrap_or(0);
        let text = if text.len() > MAX_TEXT_OCTETS { text.get(..cut).unwrap_or_default() } else { text };
        [&[code], text.as_bytes()].concat()
    };
    match error {
        SignerError::Refused(SignerRefusal::UnknownKey(key)) => [&[1], key.as_bytes().as_slice()].concat(),
        SignerError::Refused(SignerRefusal::Purpose) => vec![2],
        SignerError::Refused(SignerRefusal::Algorithm) => vec![3],
        SignerError::Refused(SignerRefusal::Content(reason)) => text(4, reason),
        SignerError::Refused(SignerRefusal::Checkpoint { last }) => [&[5], last.to_be_bytes().as_slice()].concat(),
        SignerError::Refused(SignerRefusal::TooLarge { limit }) => {
            let limit = u64::try_from(*limit).unwrap_or(u64::MAX);
            [&[6], limit.to_be_bytes().as_slice()].concat()
        }
        SignerError::Rate { key, per_minute } => [&[7], key.as_bytes().as_slice(), &per_minute.to_be_bytes()].concat(),
        SignerError::Backend(reason) => text(8, reason),
        SignerError::Wrapped => vec![9],
        SignerError::Start(reason) => text(10, reason),
        SignerError::Bug(what) => text(11, what),
        SignerError::Unavailable => vec![12],
        SignerError::Refused(SignerRefusal::Exchange(reason)) => text(13, reason),
        SignerError::UsedUp { key } => [&[14], key.as_bytes().as_slice()].concat(),
    }
}

/// Reads what [`encode_error`] wrote.
pub(crate) fn decode_error(body: &[u8]) -> SignerError {
    decode_known_error(body).unwrap_or_else(|| bug("unreadable error"))
}

fn decode_known_error(body: &[u8]) -> Option<SignerError> {
    let mut fields = Fields(body);
    let code = fields.octet()?;
    let text = |fields: Fields<'_>| String::from_utf8_lossy(fields.rest()).into_owned();
    let refusal = match code {
        1 => SignerRefusal::UnknownKey(fields.key()?),
        2 => SignerRefusal::Purpose,
        3 => SignerRefusal::Algorithm,
        4 => SignerRefusal::Content(text(fields)),
        5 => SignerRefusal::Checkpoint { last: u64::from_be_bytes(fields.array()?) },
        6 => SignerRefusal::TooLarge { limit: usize::try_from(u64::from_be_bytes(fields.array()?)).ok()? },
        7 => {
            let key = fields.key()?;
            return Some(SignerError::Rate { key, per_minute: u32::from_be_bytes(fields.array()?) });
        }
        8 => return Some(SignerError::Backend(text(fields))),
        9 => return Some(SignerError::Wrapped),
        10 => return Some(SignerError::Start(text(fields))),
        11 => return Some(SignerError::Bug(text(fields))),
        12 => return Some(SignerError::Unavailable),
        13 => SignerRefusal::Exchange(text(fields)),
        14 => return Some(SignerError::UsedUp { key: fields.key()? }),
        _ => return None,
    };
    Some(SignerError::Refused(refusal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_socket() {
        let key = KeyId::from_bytes([7; 16]);
        let refusals = [
            SignerRefusal::UnknownKey(key),
            SignerRefusal::Purpose,
            SignerRefusal::Algorithm,
            SignerRefusal::Content("reason".to_owned()),
            SignerRefusal::Checkpoint { last: 9 },
            SignerRefusal::TooLarge { limit: 10 },
            SignerRefusal::Exchange("not authentic".to_owned()),
        ];
        let others = [
            SignerError::Rate { key, per_minute: 5 },
            SignerError::UsedUp { key },
            SignerError::Backend("token".to_owned()),
            SignerError::Wrapped,
            SignerError::Start("no root".to_owned()),
            SignerError::Bug("what".to_owned()),
            SignerError::Unavailable,
        ];
        for error in refusals.map(SignerError::Refused).into_iter().chain(others) {
            assert_eq!(decode_error(&encode_error(&error)), error);
        }
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let error = SignerError::Backend("ü".repeat(400));
        assert_eq!(decode_error(&encode_error(&error)), SignerError::Backend("ü".repeat(256)));
    }

    #[test]
    fn an_unreadable_error_is_a_bug() {
        for body in [b"".as_slice(), &[0], &[1, 2], &[99]] {
            assert!(matches!(decode_error(body), SignerError::Bug(_)));
        }
    }

    #[test]
    fn request_kinds_are_distinct_and_survive_their_code() {
        for code in 0..=255 {
            if let Some(kind) = RequestKind::from_code(code) {
                assert_eq!(kind.code(), code);
                assert!((ANSWERS.limit)(code).is_none());
            }
        }
        assert!(RequestKind::from_code(0).is_none());
    }
}

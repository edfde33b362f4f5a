//! A key in shares, of which any `threshold` bring it back and fewer say nothing.
//!
//! Shamir's scheme over GF(2^8), octet by octet: Shamir, "How to share a secret", CACM 22(11), 1979. What is shared is the
//! key followed by 16 octets of a digest over the key and the ceremony, so that a combination with a wrong share is
//! noticed, and so that the check value itself is a secret of the same kind: fewer shares than the threshold hold no
//! information about either, whatever computer looks at them.
//!
//! For data and storage keys, and for the root that they lie below; never for a signature or identity key, of which nobody
//! must have a second copy (SP 800-57 Part 1 section 5.3.5 and appendix B.3).
//!
//! The format of a share is frozen, because it outlives programs and libraries; a test holds it against octets that were written
//! down, and combines shares made by another implementation (vsss-rs) and the reverse. Randomness is an argument.
//!
//! ```compile_fail,E0599
//! # fn take(share: kf_escrow::Share) {
//! let copy = share.clone();
//! # }
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod ceremony;
mod combine;
mod gf256;
mod share;
mod split;
mod words;

pub use ceremony::{Class, ClassError, CustodianError, check_custodians};
pub use combine::{CombineError, combine};
pub use share::{CeremonyId, MAX_SHARE_OCTETS, Share, ShareError};
pub use split::{
    MAX_SECRET_OCTETS, MAX_SHARES, MIN_SECRET_OCTETS, Quorum, QuorumError, SplitError, random_octets, split,
};
pub use words::WordError;

#[cfg(test)]
mod tests;

//! Types that hold secret bytes.
//!
//! With the feature `alloc` they are boxed, so that moving one leaves no copy behind; without an allocator
//! [`SecretArray`] lies where its owner lies, and code that moves one leaves the old place to the stack's next user.
//! They are wiped when dropped; and they implement none of Clone, Copy, PartialEq, Display, serde. Debug shows the name. The only way to the bytes is [`SecretArray::expose`]
//! or [`SecretBytes::expose`], which can be found with one `grep`.
//!
//! ```compile_fail,E0599
//! let secret = kf_key::SecretArray::<32>::fill(|bytes| bytes.fill(1));
//! let copy = secret.clone();
//! ```
//! ```compile_fail,E0369
//! let a = kf_key::SecretArray::<32>::fill(|bytes| bytes.fill(1));
//! let b = kf_key::SecretArray::<32>::fill(|bytes| bytes.fill(1));
//! let equal = a == b;
//! ```
//! ```compile_fail,E0277
//! let secret = kf_key::SecretBytes::from_vec(vec![1]);
//! println!("{secret}");
//! ```

#[cfg(feature = "alloc")]
use alloc::boxed::Box;
#[cfg(feature = "alloc")]
use alloc::vec::Vec;
use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// `N` secret octets.
#[cfg(feature = "alloc")]
pub struct SecretArray<const N: usize>(Box<[u8; N]>);

/// `N` secret octets.
#[cfg(not(feature = "alloc"))]
pub struct SecretArray<const N: usize>([u8; N]);

impl<const N: usize> SecretArray<N> {
    #[cfg(feature = "alloc")]
    fn zeroes() -> Self {
        Self(Box::new([0; N]))
    }

    #[cfg(not(feature = "alloc"))]
    const fn zeroes() -> Self {
        Self([0; N])
    }

    /// A secret filled in place, so that no copy of it is left on the caller's stack.
    pub fn fill(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self::zeroes();
        fill(&mut secret.0);
        secret
    }

    /// As [`SecretArray::fill`], for a source that can fail; what was written before the failure is wiped.
    ///
    /// # Errors
    /// Whatever `fill` returns.
    pub fn try_fill<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self::zeroes();
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// The octets. Every call is an exposure: give the reason beside it.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Compares in constant time.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl<const N: usize> Drop for SecretArray<N> {
    fn drop(&mut self) {
        // As a slice, which the crate wipes at once; an array it wipes octet by octet.
        self.0.as_mut_slice().zeroize();
    }
}

impl<const N: usize> fmt::Debug for SecretArray<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretArray<{N}>")
    }
}

#[cfg(feature = "alloc")]
/// Secret octets of a length known at run time only; never grows, because growing leaves a copy behind.
pub struct SecretBytes(Box<[u8]>);

#[cfg(feature = "alloc")]
impl SecretBytes {
    /// Takes over `bytes`. A vector with spare capacity is copied once and then wiped.
    #[must_use]
    pub fn from_vec(mut bytes: Vec<u8>) -> Self {
        if bytes.capacity() == bytes.len() {
            return Self(bytes.into_boxed_slice());
        }
        let exact = Box::from(bytes.as_slice());
        // What the vector held before it was cut may lie behind its end.
        bytes.resize(bytes.capacity(), 0);
        bytes.as_mut_slice().zeroize();
        Self(exact)
    }

    /// `length` secret octets filled in place.
    pub fn fill(length: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        let mut secret = Self(alloc::vec![0; length].into_boxed_slice());
        fill(&mut secret.0);
        secret
    }

    /// The octets. Every call is an exposure: give the reason beside it.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Number of octets, which is not secret.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no octets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in constant time; the lengths are not secret.
    #[must_use]
    pub fn equals(&self, other: &[u8]) -> bool {
        self.0.as_ref().ct_eq(other).into()
    }
}

#[cfg(feature = "alloc")]
impl Drop for SecretBytes {
    fn drop(&mut self) {
        // As a slice, which the crate wipes at once; a box it wipes octet by octet.
        self.0.as_mut().zeroize();
    }
}

#[cfg(feature = "alloc")]
impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} octets)", self.0.len())
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn debug_shows_the_name_and_never_the_octets() {
        assert_eq!(format!("{:?}", SecretArray::<4>::fill(|b| b.fill(0x41))), "SecretArray<4>");
        assert_eq!(format!("{:?}", SecretBytes::from_vec(alloc::vec![0x41; 3])), "SecretBytes(3 octets)");
    }

    #[test]
    fn equality_compares_octets() {
        let a = SecretArray::<4>::fill(|b| b.fill(1));
        let b = SecretArray::<4>::fill(|b| b.fill(1));
        let c = SecretArray::<4>::fill(|b| b.fill(2));
        assert!(a.equals(&b));
        assert!(!a.equals(&c));
        assert!(SecretBytes::from_vec(alloc::vec![1, 2]).equals(&[1, 2]));
        assert!(!SecretBytes::from_vec(alloc::vec![1, 2]).equals(&[1, 2, 3]));
    }
}

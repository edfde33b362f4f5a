//! Two slots and a pointer: an identity is replaced in steps, each of which leaves the old one or the new one usable.
//!
//! ```text
//! current            "a" or "b": the slot in use
//! a/key  b/key       the private key as its source stores it
//! a/request          a PKCS#10 request for that key: the slot is being filled
//! a/chain            the certificate chain, PEM
//! ```
//! A slot in use has a key and a chain. The other slot counts only while it has a request: with a key it can be sent
//! again, with a chain it waits for its proof. Order of writing: key, request, chain, `current`. Order of clearing the
//! other way round: request first, so that what is left is known to be left over.

use std::io;

use kf_key::SecretBytes;

use crate::disk::{Disk, replace};

/// Names of the slots.
pub const SLOTS: [&str; 2] = ["a", "b"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    A,
    B,
}

impl Slot {
    const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn file(self, name: &str) -> String {
        format!("{}/{name}", self.name())
    }
}

/// A key and its chain, as stored.
#[derive(Debug)]
pub struct StoredIdentity {
    /// The key, as its source stores it.
    pub key: SecretBytes,
    /// The chain, PEM, leaf first.
    pub chain: Vec<u8>,
}

/// What the slot that is not in use holds.
#[derive(Debug)]
pub enum StoredSpare {
    /// Nothing that counts.
    Empty,
    /// A key and a request.
    Requested {
        /// The key.
        key: SecretBytes,
        /// PKCS#10, DER.
        request: Vec<u8>,
    },
    /// A key and a certificate that has not been proven.
    Issued(StoredIdentity),
}

/// What both slots hold.
#[derive(Debug)]
pub struct Contents {
    /// The identity in use.
    pub in_use: Option<StoredIdentity>,
    /// The other slot.
    pub spare: StoredSpare,
}

/// The two slots on a disk.
#[derive(Debug)]
pub struct Slots<D> {
    disk: D,
}

impl<D: Disk> Slots<D> {
    /// Slots on this disk.
    pub const fn new(disk: D) -> Self {
        Self { disk }
    }

    /// The disk, for notes beside the slots.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
    }

    fn in_use(&self) -> io::Result<Option<Slot>> {
        let pointer = self.disk.read("current")?;
        Ok(match pointer.as_deref().map(<[u8]>::trim_ascii) {
            Some(b"a") => Some(Slot::A),
            Some(b"b") => Some(Slot::B),
            _ => None,
        })
    }

    fn spare(&self) -> io::Result<Slot> {
        Ok(self.in_use()?.map_or(Slot::A, Slot::other))
    }

    fn secret(&self, slot: Slot) -> io::Result<Option<SecretBytes>> {
        Ok(self.disk.read(&slot.file("key"))?.map(SecretBytes::from_vec))
    }

    /// Reads both slots and changes nothing. A slot in use that lacks a part counts as none: there is nothing to be
    /// done with half an identity but to enrol again.
    ///
    /// # Errors
    /// Of the disk.
    pub fn read(&self) -> io::Result<Contents> {
        let in_use = match self.in_use()? {
            None => None,
            Some(slot) => match (self.secret(slot)?, self.disk.read(&slot.file("chain"))?) {
                (Some(key), Some(chain)) => Some(StoredIdentity { key, chain }),
                _ => None,
            },
        };
        let slot = self.spare()?;
        let request = self.disk.read(&slot.file("request"))?;
        let spare = match (request, self.secret(slot)?, self.disk.read(&slot.file("chain"))?) {
            (Some(_), Some(key), Some(chain)) => StoredSpare::Issued(StoredIdentity { key, chain }),
            (Some(request), Some(key), None) => StoredSpare::Requested { key, request },
            _ => StoredSpare::Empty,
        };
        Ok(Contents { in_use, spare })
    }

    /// Finishes what a power cut interrupted, then reads.
    ///
    /// # Errors
    /// Of the disk.
    pub fn recover(&mut self) -> io::Result<Contents> {
        if self.in_use()?.is_some() {
            self.finish_adoption()?;
        }
        let contents = self.read()?;
        if matches!(contents.spare, StoredSpare::Empty) {
            let spare = self.spare()?;
            self.clear(spare)?;
        }
        Ok(contents)
    }

    /// Fills the spare slot with a key and a request.
    ///
    /// # Errors
    /// Of the disk; the slot in use is untouched.
    pub fn begin(&mut self, key: &SecretBytes, request: &[u8]) -> io::Result<()> {
        let slot = self.spare()?;
        self.clear(slot)?;
        // Exposed to the disk, in the form that its source gave it.
        replace(&mut self.disk, &slot.file("key"), key.expose())?;
        replace(&mut self.disk, &slot.file("request"), request)
    }

    /// Adds the certificate chain to the spare slot.
    ///
    /// # Errors
    /// Of the disk; the slot in use is untouched.
    pub fn store_chain(&mut self, chain: &[u8]) -> io::Result<()> {
        let slot = self.spare()?;
        replace(&mut self.disk, &slot.file("chain"), chain)
    }

    /// Puts the spare slot into use and clears the other.
    ///
    /// # Errors
    /// Of the disk. Afterwards either slot may be the one in use: [`Slots::recover`] tells.
    pub fn adopt(&mut self) -> io::Result<()> {
        let slot = self.spare()?;
        replace(&mut self.disk, "current", format!("{}\n", slot.name()).as_bytes())?;
        self.finish_adoption()
    }

    /// Empties the spare slot.
    ///
    /// # Errors
    /// Of the disk; the slot in use is untouched.
    pub fn discard(&mut self) -> io::Result<()> {
        let slot = self.spare()?;
        self.clear(slot)
    }

    /// The slot in use is no longer being filled: without its request it cannot be taken for a candidate once it is
    /// the spare one. Durable before anything else happens to the other slot.
    fn finish_adoption(&mut self) -> io::Result<()> {
        let Some(slot) = self.in_use()? else { return Ok(()) };
        let request = slot.file("request");
        if self.disk.read(&request)?.is_none() {
            return Ok(());
        }
        self.disk.remove(&request)?;
        self.disk.sync_directory(slot.name())?;
        self.clear(slot.other())
    }

    fn clear(&mut self, slot: Slot) -> io::Result<()> {
        for name in ["request", "chain", "key"] {
            let path = slot.file(name);
            for path in [format!("{path}.new"), path] {
                if self.disk.read(&path)?.is_some() {
                    self.disk.remove(&path)?;
                    // One name at a time: a request must not outlive the removal of its key.
                    self.disk.sync_directory(slot.name())?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

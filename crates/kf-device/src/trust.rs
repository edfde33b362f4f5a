//! Roots that succeed one another, as a device sees it: a new root is believed because one that is held vouches for it, never for
//! being offered (RFC 7030 section 4.1.3, RFC 9810 section 4.4).
//!
//! ```text
//! cacerts -> take_up      roots that a held one has signed a link certificate for are held from now on, durably
//!         -> without      held ones that are offered no more; connect by the rest, and only then adopt it
//! ```
//! The device keeps fingerprints, at most [`MAX_ANCHORS`]; certificates come with every offer. Only roots of P-256 are read.

use kf_key::UnixMillis;

use crate::certificate::{Anchor, Certificate, CertificateError, CertsOnly};
use crate::record::ANCHORS;
use crate::storage::{Flash, Integrity, StorageError, Store};

/// The most roots that are held at a time.
pub const MAX_ANCHORS: usize = 4;

const OCTETS: usize = 32;

/// Roots that a device believes; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchors {
    first: Anchor,
    others: [Option<Anchor>; MAX_ANCHORS - 1],
}

impl From<Anchor> for Anchors {
    fn from(first: Anchor) -> Self {
        Self { first, others: [None; MAX_ANCHORS - 1] }
    }
}

impl Anchors {
    /// What the store holds; the root that was pinned in the factory when it holds none.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`]: a damaged record is never taken for none.
    pub fn load<F: Flash, I: Integrity>(
        store: &mut Store<F, I>,
        factory: Anchor,
    ) -> Result<Self, StorageError<F::Error>> {
        let mut octets = [0; OCTETS * MAX_ANCHORS];
        let Some(length) = store.read(ANCHORS, &mut octets)? else { return Ok(factory.into()) };
        let (held, rest) = octets.get(..length).unwrap_or_default().as_chunks::<OCTETS>();
        match (Self::of(held.iter().copied().map(Anchor)), rest) {
            (Some(held), []) => Ok(held),
            _ => Err(StorageError::Corrupt),
        }
    }

    /// `None` without any. More than there is room for are left out.
    fn of(mut anchors: impl Iterator<Item = Anchor>) -> Option<Self> {
        let mut held = Self::from(anchors.next()?);
        held.others.iter_mut().zip(anchors).for_each(|(place, anchor)| *place = Some(anchor));
        Some(held)
    }

    /// Each of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Anchor> + Clone + '_ {
        core::iter::once(self.first).chain(self.others.iter().copied().flatten())
    }

    /// Whether one of them has this fingerprint.
    #[must_use]
    pub fn has(&self, fingerprint: [u8; 32]) -> bool {
        self.iter().any(|anchor| anchor.0 == fingerprint)
    }

    /// As [`Anchor::require`], by any of them.
    ///
    /// # Errors
    /// [`CertificateError::NotAnchored`].
    pub fn require<'a>(
        &self,
        leaf: &Certificate<'a>,
        authorities: impl Iterator<Item = Certificate<'a>> + Clone,
    ) -> Result<(), CertificateError> {
        let is_anchored = self.iter().any(|anchor| anchor.require(leaf, authorities.clone()).is_ok());
        if is_anchored { Ok(()) } else { Err(CertificateError::NotAnchored) }
    }

    /// Holds the roots among `offered` that one of those held before vouches for; how many are new. They are durable when this
    /// returns. `now` is for the validity of root and link; a device without a clock gives `None`.
    ///
    /// # Errors
    /// [`StorageError`], with everything as it was.
    pub fn take_up<F: Flash, I: Integrity>(
        &mut self,
        store: &mut Store<F, I>,
        offered: &CertsOnly<'_>,
        now: Option<UnixMillis>,
    ) -> Result<usize, StorageError<F::Error>> {
        let held = *self;
        let is_current =
            |one: &Certificate<'_>| now.is_none_or(|now| one.not_before() <= now && now <= one.not_after());
        let is_vouched = |root: &Certificate<'_>| {
            let links = offered.clone().filter(|link| link.is_for_same(root) && is_current(link));
            let anchors = || offered.clone().filter(|old| held.has(old.fingerprint()));
            links.into_iter().any(|link| anchors().any(|old| link.is_signed_by(&old)))
        };
        let new = offered.clone().filter(|root| root.is_signed_by(root) && is_current(root));
        let new = new.filter(|root| !held.has(root.fingerprint()) && is_vouched(root));
        let mut next = held;
        let mut free = next.others.iter_mut().filter(|place| place.is_none());
        let mut added = 0_usize;
        for root in new {
            let Some(place) = free.next() else { break };
            *place = Some(Anchor(root.fingerprint()));
            added = added.saturating_add(1);
        }
        if added > 0 {
            next.store(store)?;
            *self = next;
        }
        Ok(added)
    }

    /// What remains when a server that was verified by one of them offers `offered`: roots that it hands out no more are retired.
    /// `None` when nothing changes, or nothing would remain.
    #[must_use]
    pub fn without_retired(&self, offered: &CertsOnly<'_>) -> Option<Remaining> {
        let is_offered = |anchor: &Anchor| offered.clone().any(|root| root.fingerprint() == anchor.0);
        let remaining = Self::of(self.iter().filter(is_offered))?;
        (remaining != *self).then_some(Remaining(remaining))
    }

    fn store<F: Flash, I: Integrity>(&self, store: &mut Store<F, I>) -> Result<(), StorageError<F::Error>> {
        let mut octets = [0; OCTETS * MAX_ANCHORS];
        let (places, _) = octets.as_chunks_mut::<OCTETS>();
        places.iter_mut().zip(self.iter()).for_each(|(place, anchor)| *place = anchor.0);
        let length = self.iter().count().saturating_mul(OCTETS);
        store.put(ANCHORS, octets.get(..length).unwrap_or_default())
    }
}

/// Fewer roots than are held: to be tried before the others are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Remaining(Anchors);

impl Remaining {
    /// The roots to connect by.
    #[must_use]
    pub const fn anchors(&self) -> &Anchors {
        &self.0
    }

    /// The server was found by these alone: the others are forgotten.
    ///
    /// # Errors
    /// [`StorageError`], with everything as it was.
    pub fn adopt<F: Flash, I: Integrity>(
        self,
        anchors: &mut Anchors,
        store: &mut Store<F, I>,
    ) -> Result<(), StorageError<F::Error>> {
        self.0.store(store)?;
        *anchors = self.0;
        Ok(())
    }
}

//! The device key and the tree below it.
//!
//! The device key lies in the store, wrapped under a key of the chip ([`WrapKey`]). A new epoch arrives by an
//! [`exchange`](crate::exchange) into a second record; [`HeldKey::adopt`] makes it the one in use and erases the old.

use kf_derive::{ApplicationKey, DeriveError, DeviceKey, SoftwareKey};
use kf_exchange::KeyPlace;
use kf_key::{DeviceId, FacilityId, SecretArray};
use kf_seal::Service;

use crate::entropy::Nonce;
use crate::error::KeyError;
use crate::record;
use crate::storage::{Change, Erasure, Flash, Integrity, RecordId, StorageError, Store};
use crate::wrap::{WRAPPED_OCTETS, What, WrapKey, Wrapped};

const VERSION: u8 = 1;
/// Version, facility, facility epoch, device epoch, wrapped key.
const RECORD_OCTETS: usize = 1 + 16 + 4 + 4 + WRAPPED_OCTETS;

/// A device key in memory, and where in the hierarchy it lies.
#[derive(Debug)]
pub struct HeldKey {
    device: DeviceId,
    place: KeyPlace,
    key: DeviceKey,
}

type Outcome<T, F, W> = Result<T, KeyError<<F as Flash>::Error, <W as WrapKey>::Error>>;

impl HeldKey {
    /// The device key in use; `None` when this device has none yet.
    ///
    /// # Errors
    /// [`KeyError`]: corrupt storage or a key that does not unwrap give no key.
    pub fn load<F: Flash, I: Integrity, W: WrapKey>(
        store: &mut Store<F, I>,
        wrap: &W,
        device: DeviceId,
    ) -> Outcome<Option<Self>, F, W> {
        load(store, wrap, device, record::DEVICE_KEY)
    }

    /// The device key that has arrived and is not in use yet: to be acknowledged again after a power cut.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_next<F: Flash, I: Integrity, W: WrapKey>(
        store: &mut Store<F, I>,
        wrap: &W,
        device: DeviceId,
    ) -> Outcome<Option<Self>, F, W> {
        load(store, wrap, device, record::NEXT_DEVICE_KEY)
    }

    /// Stores the first device key, injected in the factory, and reads it back.
    ///
    /// # Errors
    /// [`KeyError::Occupied`] when there is one already: a new epoch comes by an exchange.
    pub fn inject<F: Flash, I: Integrity, W: WrapKey>(
        store: &mut Store<F, I>,
        wrap: &W,
        injected: Injected<'_>,
        nonce: Nonce,
    ) -> Outcome<Self, F, W> {
        let Injected { device, place, key } = injected;
        if Self::load(store, wrap, device)?.is_some() {
            return Err(KeyError::Occupied);
        }
        put(store, wrap, (device, place, record::DEVICE_KEY), key, nonce)
    }

    /// Makes the key that has arrived the one in use, in one step, and then erases what was there before.
    ///
    /// # Errors
    /// [`KeyError::Missing`] when none has arrived.
    pub fn adopt<F: Flash, I: Integrity, W: WrapKey>(
        store: &mut Store<F, I>,
        wrap: &W,
        device: DeviceId,
    ) -> Outcome<(Self, Erasure), F, W> {
        let next = Self::load_next(store, wrap, device)?.ok_or(KeyError::Missing)?;
        let octets = store.read_array::<RECORD_OCTETS>(record::NEXT_DEVICE_KEY)?.ok_or(KeyError::Missing)?;
        store.update(&[Change::Put(record::DEVICE_KEY, &octets), Change::Remove(record::NEXT_DEVICE_KEY)])?;
        // The old key is gone from the journal's cells when this returns.
        let erasure = store.destroy(&[record::NEXT_DEVICE_KEY])?;
        Ok((next, erasure))
    }

    /// Whose key it is.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.device
    }

    /// Where in the hierarchy it lies.
    #[must_use]
    pub const fn place(&self) -> KeyPlace {
        self.place
    }

    /// The key, to derive sessions, services and storage keys from.
    #[must_use]
    pub const fn key(&self) -> &DeviceKey {
        &self.key
    }

    /// The application key of a service for sealed payloads.
    ///
    /// # Errors
    /// [`DeriveError::Context`], which cannot occur: a service has at most 16 octets.
    pub fn application(&self, service: &Service) -> Result<ApplicationKey, DeriveError<core::convert::Infallible>> {
        self.key.session(kf_seal::SESSION, 0)?.application(service.as_bytes(), 0)
    }

    /// The key itself, to begin a ratchet.
    #[must_use]
    pub fn into_key(self) -> DeviceKey {
        self.key
    }
}

/// A device key as the factory injects it.
#[derive(Debug)]
pub struct Injected<'a> {
    /// Whose.
    pub device: DeviceId,
    /// Where it lies.
    pub place: KeyPlace,
    /// The key.
    pub key: &'a SecretArray<32>,
}

/// Stores the key that an exchange has delivered beside the one in use, and reads it back: after that it may be
/// acknowledged.
pub(crate) fn store_next<F: Flash, I: Integrity, W: WrapKey>(
    store: &mut Store<F, I>,
    wrap: &W,
    injected: Injected<'_>,
    nonce: Nonce,
) -> Outcome<HeldKey, F, W> {
    let Injected { device, place, key } = injected;
    put(store, wrap, (device, place, record::NEXT_DEVICE_KEY), key, nonce)
}

fn put<F: Flash, I: Integrity, W: WrapKey>(
    store: &mut Store<F, I>,
    wrap: &W,
    (device, place, id): (DeviceId, KeyPlace, RecordId),
    key: &SecretArray<32>,
    nonce: Nonce,
) -> Outcome<HeldKey, F, W> {
    let context = Wrapped { device, what: What::DeviceKey, number: place.device_epoch };
    let wrapped = wrap.wrap(context, nonce, key)?;
    let mut octets = [0; RECORD_OCTETS];
    let parts = [VERSION]
        .into_iter()
        .chain(*place.facility.as_bytes())
        .chain(place.facility_epoch.to_be_bytes())
        .chain(place.device_epoch.to_be_bytes())
        .chain(wrapped);
    octets.iter_mut().zip(parts).for_each(|(place, octet)| *place = octet);
    store.put(id, &octets)?;
    load(store, wrap, device, id)?.ok_or(KeyError::Missing)
}

fn load<F: Flash, I: Integrity, W: WrapKey>(
    store: &mut Store<F, I>,
    wrap: &W,
    device: DeviceId,
    id: RecordId,
) -> Outcome<Option<HeldKey>, F, W> {
    let Some(octets) = store.read_array::<RECORD_OCTETS>(id)? else { return Ok(None) };
    let parsed = parse(&octets).ok_or(KeyError::Storage(StorageError::Corrupt))?;
    let (place, wrapped) = parsed;
    let context = Wrapped { device, what: What::DeviceKey, number: place.device_epoch };
    let key = DeviceKey::from_keyed_hmac(SoftwareKey::new(wrap.unwrap(context, wrapped)?));
    Ok(Some(HeldKey { device, place, key }))
}

fn parse(octets: &[u8; RECORD_OCTETS]) -> Option<(KeyPlace, &[u8; WRAPPED_OCTETS])> {
    let (version, rest) = octets.split_first()?;
    let (facility, rest) = rest.split_first_chunk()?;
    let (facility_epoch, rest) = rest.split_first_chunk()?;
    let (device_epoch, rest) = rest.split_first_chunk()?;
    (*version == VERSION).then_some(())?;
    let place = KeyPlace {
        facility: FacilityId::from_bytes(*facility),
        facility_epoch: u32::from_be_bytes(*facility_epoch),
        device_epoch: u32::from_be_bytes(*device_epoch),
    };
    Some((place, rest.try_into().ok()?))
}

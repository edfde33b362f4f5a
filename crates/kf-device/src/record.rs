//! Which record holds what. Ids are never reused for something else: devices in the field keep them.

use crate::storage::RecordId;

/// Digest of the samples of the last start-up test.
pub(crate) const START_UP_DIGEST: RecordId = RecordId(0x0001);
/// Counter of starts, below which payloads are sealed.
pub(crate) const BOOTS: RecordId = RecordId(0x0002);
/// Highest counter of an order that was obeyed.
pub(crate) const ORDERS: RecordId = RecordId(0x0003);
/// The device was wiped by order.
pub(crate) const WIPED: RecordId = RecordId(0x0004);
/// What was opened of the server's payloads.
pub(crate) const OPENED: RecordId = RecordId(0x0005);
/// Owners that the device was reset by: digest of the order key and the highest counter of each.
pub(crate) const PARTED: RecordId = RecordId(0x0006);
/// The report of a factory reset that no server is known to have.
pub(crate) const RESET: RecordId = RecordId(0x0007);
/// The device key in use, wrapped.
pub(crate) const DEVICE_KEY: RecordId = RecordId(0x0010);
/// A device key that arrived and is not acknowledged yet, wrapped.
pub(crate) const NEXT_DEVICE_KEY: RecordId = RecordId(0x0011);
/// The ratchet, wrapped.
pub(crate) const RATCHET: RecordId = RecordId(0x0012);
/// The storage key in use, with its version, wrapped.
pub(crate) const STORAGE_KEY: RecordId = RecordId(0x0030);
/// The storage key that is being left, wrapped.
pub(crate) const STORAGE_KEY_LEFT: RecordId = RecordId(0x0031);
/// The last migration from one storage key to the next: under way, or what came of it.
pub(crate) const STORAGE_MIGRATED: RecordId = RecordId(0x0032);
/// An NVS partition lies under the storage key, or is on its way there.
pub(crate) const NVS_KEPT: RecordId = RecordId(0x0033);
/// Namespace and key of an NVS value that a power cut may have left twice.
#[cfg(feature = "nvs")]
pub(crate) const NVS_UNSETTLED: RecordId = RecordId(0x0034);
/// Fingerprints of the roots that are believed, when they are others than the factory's.
pub(crate) const ANCHORS: RecordId = RecordId(0x0040);
/// The delivery key that succeeded the one in the firmware, and the order key.
pub(crate) const DELIVERY_PIN: RecordId = RecordId(0x0041);
pub(crate) const ORDER_PIN: RecordId = RecordId(0x0042);
/// Which identity slot is in use.
pub(crate) const IDENTITY_IN_USE: RecordId = RecordId(0x0020);
/// Identity keys of the two slots, wrapped.
pub(crate) const IDENTITY_KEYS: [RecordId; 2] = [RecordId(0x0021), RecordId(0x0022)];
/// Certificates of the two slots.
pub(crate) const CERTIFICATES: [RecordId; 2] = [RecordId(0x0023), RecordId(0x0024)];

//! NVS: the key-value partition of ESP-IDF (`nvs_flash`), format version 2.
//!
//! ```text
//! partition = pages of 4096 octets
//! page      = header 32 | states 32 (2 bits × 126 used) | 126 entries × 32
//! header    = state u32 | sequence u32 | version u8 (fe) | 19 × ff | CRC-32 of octets 4..28
//! entry     = namespace u8 | type u8 | span u8 | chunk u8 | CRC-32 of the other 28 | key 16 | data 8
//! ```
//!
//! Numbers are little endian. Text and blobs lie in the `span - 1` slots after their entry, padded with ff; their `data` is
//! length u16, ffff, CRC-32 of the value. A blob is any number of chunks, each within its page, and an index entry after
//! them. Entries of namespace 0 name the other namespaces.
//!
//! * [`Writer`] lays a new partition out in a buffer of the caller, as the vendor's generator does.
//! * [`Item`] is a value slot by slot, for a device that writes into its partition.
//! * [`Partition`] reads one: its pages, its entries with page, slot, offset and state, its values.
//! * [`NvsKeys`] and [`NvsCipher`] are its encryption, with a keys partition (scheme A) or under a key that never leaves the
//!   HMAC peripheral (scheme B).
//! * `remnants` (feature `alloc`) is what a dump still holds although it was erased or overwritten.
//!
//! What the format does not give: XTS has no authenticity and the CRCs are no MAC, so an older entry can be put back at its
//! place, and somebody who writes flash at will can change values blindly. A value that matters carries its own MAC.
//!
//! ```
//! # use kf_flash::nvs::*;
//! # use kf_key::SecretArray;
//! let mut image = [0; 3 * PAGE_OCTETS];
//! let mut writer = Writer::new(&mut image)?;
//! let factory = writer.namespace("factory")?;
//! writer.write(factory, "serial", Value::Text("KF-0001"))?;
//! writer.write(factory, "batch", Value::U32(7))?;
//! writer.finish();
//!
//! let keys = NvsKeys::from_secret(SecretArray::fill(|key| (0..).zip(key).for_each(|(number, octet)| *octet = number)))?;
//! keys.cipher().encrypt(&mut image)?;
//! keys.cipher().decrypt(&mut image)?;
//!
//! let partition = Partition::new(&image)?;
//! let factory = partition.namespace("factory")?.ok_or(NvsError::NotFound)?;
//! assert!(matches!(partition.value(factory, "serial")?, Some(Stored::Text("KF-0001"))));
//! # Ok::<(), NvsError>(())
//! ```

mod encryption;
mod entry;
mod error;
mod item;
mod keys;
mod page;
mod partition;
#[cfg(feature = "alloc")]
mod remnant;
mod value;
mod writer;

pub use encryption::NvsCipher;
pub use entry::{Entry, EntryKey, EntryState, ItemType, Placed, Reading, ValueCheck};
pub use error::{DamagedValue, NvsError};
pub use item::{Item, MAX_BLOB_IN_PAGE_OCTETS};
pub use keys::{HMAC_ENCRYPTION_MESSAGE, HMAC_TWEAK_MESSAGE, NvsKeys};
pub use page::{Page, PageHead, PageState};
pub use partition::Partition;
#[cfg(feature = "alloc")]
pub use remnant::{Remnant, RemnantItem, RemnantKind, remnants};
pub use value::{Blob, Stored, Value};
pub use writer::{Namespace, Writer, Written};

/// Octets of a page, which is what flash erases at once.
pub const PAGE_OCTETS: usize = 4096;
/// Octets of an entry.
pub const ENTRY_OCTETS: usize = 32;
/// Slots for entries in a page.
pub const ENTRIES_PER_PAGE: usize = 126;
/// Where the first slot of a page is.
pub const FIRST_ENTRY_OFFSET: usize = 64;
/// The most octets of a partition: 16 MiB, what the first address line of these chips reaches.
pub const MAX_PARTITION_OCTETS: usize = 16 << 20;
/// The most octets of text, its closing NUL included: what one page holds.
pub const MAX_TEXT_OCTETS: usize = 4000;
/// The most octets of a blob, by ESP-IDF's limit (`nvs_set_blob`).
pub const MAX_BLOB_OCTETS: usize = 508_000;
/// The most namespaces of a partition.
pub const MAX_NAMESPACES: u8 = 254;
/// The most octets of a key or of the name of a namespace.
pub const MAX_KEY_OCTETS: usize = 15;
/// The format version that this writes: blobs over several pages.
pub const VERSION: u8 = 0xfe;

/// The chunk number of what is not a chunk.
const NO_CHUNK: u8 = 0xff;
/// Chunks of one version of a blob: the top bit of the chunk number tells two versions apart.
const MAX_CHUNKS: u8 = 0x7f;

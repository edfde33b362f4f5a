//! What is in a flash image, and which secrets lie in it in clear.
//!
//! A [`Scanner`] takes an image piece by piece, in memory that does not grow with the image save one octet for each block
//! of 4096, and gives an [`ImageReport`]:
//!
//! * **findings**: private keys as PEM and as DER (PKCS#8, SEC1, PKCS#1), keys of NVS encryption in clear, and the secrets
//!   that the caller names, whole or in fragments of 8 octets and more, as they are, reversed, in hexadecimal or base64;
//! * **structures**: partition tables, NVS pages, `esp_secure_cert` records, firmware images;
//! * **regions**: what each block looks like.
//!
//! What it cannot do. A key that is nothing but random octets, such as the 32 of a P-256 scalar or of an AES key, looks like
//! any other random octets: it is found only when the caller gives it, or its digest. Compressed and encrypted data both
//! look random to a count of octets, so a region that [`BlockContent::LooksRandom`] is not proven to be encrypted; where a
//! format has a checksum (NVS, `esp_secure_cert`) the answer is certain, and is given as a structure.

mod block;
mod finding;
mod key_file;
mod private_key;
mod secret;
mod structure;
mod window;

pub use block::{BLOCK_OCTETS, BlockContent, Region};
pub use finding::{Encoding, Finding, FindingKind, KeyFormat};
pub use secret::{
    MAX_SECRET_OCTETS, MAX_SECRETS, MIN_FRAGMENT_OCTETS, NamedDigest, NamedSecret, SecretListError, Secrets,
};
pub use structure::{Structure, StructureKind};
pub use window::{ImageReport, ImageTooLong, MAX_FINDINGS, MAX_IMAGE_OCTETS, MAX_STRUCTURES, Scanner};

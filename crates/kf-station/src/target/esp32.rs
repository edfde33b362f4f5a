//! A chip of the ESP32 family: NVS, encrypted as the recipe says, and `esp_secure_cert` where the recipe has it.
//!
//! ```text
//! NVS namespace keyfleet: name, line, server   texts
//!                         device_key           blob, 32 octets, where the recipe injects it
//!                         anchor               blob, DER
//!                         idevid_chain         blob, PEM, leaf first
//!                         idevid_key           blob, PKCS#8
//!
//! esp_secure_cert:        CA certificate 0     PEM, the anchor
//!                         device certificate 0 PEM, the chain, leaf first
//!                         private key 0        PKCS#8, encrypted by what the HMAC peripheral makes of the fused key
//! ```
//! With `esp_secure_cert` anchor and chain lie there and not in NVS, and so does the key when a fuse protects it. One fused key then
//! serves both: the messages that the HMAC peripheral is asked differ.

use kf_crypto::PrivateKey;
use kf_flash::flash_encryption::FlashCipher;
use kf_flash::nvs::{NvsError, NvsKeys, PAGE_OCTETS, Partition as NvsPartition, Stored, Value, Writer};
use kf_flash::secure_cert::{
    HmacEfuseKey, RecordCipher, RecordType, SecureCert, SecureCertError, SecureCertWriter, open_record,
};
use kf_key::{KeyAlgorithm, SecretArray, SecretBytes};

use super::{Material, Protected, Target, TargetError, pem_chain};
use crate::fixture::copy_key;
use crate::image::{Image, Segment};
use crate::recipe::{Layout, Partition, Protection, Recipe};

const NAMESPACE: &str = "keyfleet";
const KEY: &str = "idevid_key";
const NVS: &str = "nvs";
const NVS_KEYS: &str = "nvs_keys";
const SECURE_CERT: &str = "esp_secure_cert";
/// The largest PKCS#8 that is looked for.
const MAX_PKCS8_OCTETS: usize = 512;

/// A chip of the ESP32 family.
#[derive(Clone, Debug)]
pub struct Esp32Target {
    layout: Layout,
    protection: Protection,
    /// Whether the station turns flash encryption on: what the chip would decrypt is written encrypted.
    encrypts_flash: bool,
}

impl Esp32Target {
    pub(super) fn of(recipe: &Recipe) -> Result<Self, TargetError> {
        let layout = recipe.layout.clone().ok_or(TargetError::Unsupported("esp32 without a layout"))?;
        let encrypts_flash = recipe.locks.flash_encryption;
        Ok(Self { layout, protection: recipe.identity.protection, encrypts_flash })
    }

    /// Whether the private key is the one encrypted record of `esp_secure_cert`.
    fn has_key_beside_chain(&self) -> bool {
        self.layout.secure_cert.is_some() && self.protection == Protection::NvsHmac
    }

    fn write_nvs(&self, material: &Material<'_>, octets: &mut [u8]) -> Result<(), NvsError> {
        let mut writer = Writer::new(octets)?;
        let namespace = writer.namespace(NAMESPACE)?;
        for (name, text) in [("name", material.name), ("line", material.product_line), ("server", material.server)] {
            writer.write(namespace, name, Value::Text(text))?;
        }
        if self.layout.secure_cert.is_none() {
            writer.write(namespace, "anchor", Value::Blob(material.anchor))?;
            writer.write(namespace, "idevid_chain", Value::Blob(&pem_chain(material.chain)))?;
        }
        if let Some(key) = material.device_key {
            // Exposed to the partition, which is encrypted below.
            writer.write(namespace, "device_key", Value::Blob(key.expose()))?;
        }
        if !self.has_key_beside_chain() {
            let pkcs8 = material.key.and_then(|key| key.to_pkcs8().ok()).ok_or(NvsError::NotFound)?;
            // Exposed to the partition, which is encrypted below, or which the recipe marks as unsafe.
            writer.write(namespace, KEY, Value::Blob(pkcs8.expose()))?;
        }
        writer.finish();
        Ok(())
    }

    /// Anchor and chain, and the private key where there is a cipher for it.
    fn secure_cert(
        &self,
        material: &Material<'_>,
        cipher: Option<RecordCipher>,
    ) -> Result<Option<Segment>, TargetError> {
        let Some(partition) = self.layout.secure_cert else { return Ok(None) };
        let full = |_error: SecureCertError| TargetError::DoesNotFit("esp_secure_cert partition");
        let mut octets = vec![0; size_of(partition)?];
        let mut writer = SecureCertWriter::new(&mut octets).map_err(full)?;
        let anchor = kf_pki::pem::certificate(material.anchor);
        writer.add(RecordType::CaCertificate, 0, anchor.as_bytes()).map_err(full)?;
        writer.add(RecordType::DeviceCertificate, 0, &pem_chain(material.chain)).map_err(full)?;
        if let Some(cipher) = cipher.filter(|_| self.has_key_beside_chain()) {
            let pkcs8 = material.key.ok_or(TargetError::Key)?.to_pkcs8().map_err(|_opaque| TargetError::Crypto)?;
            // Exposed to be encrypted.
            writer.add_encrypted(cipher, RecordType::PrivateKey, 0, pkcs8.expose()).map_err(full)?;
        }
        writer.finish().map_err(full)?;
        Ok(Some(segment(SECURE_CERT, partition, octets)))
    }

    /// The key in NVS, decrypted as the firmware decrypts it.
    fn open_nvs(&self, segments: &[Segment], held: &Protected) -> Option<PrivateKey> {
        // Exposed to be opened as the firmware opens it.
        let mut octets = find(segments, NVS)?.octets.expose().to_vec();
        let keys = match self.protection {
            Protection::NvsHmac => Some(keys_of_fuse(held.unlock.as_ref()?).ok()?),
            Protection::NvsKeys => Some(self.open_keys_partition(segments, held.flash_key.as_ref())?),
            Protection::Plain => None,
            Protection::Sealed | Protection::Hardware => return None,
        };
        if let Some(keys) = keys {
            keys.cipher().decrypt(&mut octets).ok()?;
        }
        let octets = SecretBytes::from_vec(octets);
        // Exposed to be read.
        let partition = NvsPartition::new(octets.expose()).ok()?;
        let namespace = partition.namespace(NAMESPACE).ok()??;
        let Some(Stored::Blob(blob)) = partition.value(namespace, KEY).ok()? else { return None };
        private_key(|out| blob.copy_to(out).map_or(0, <[u8]>::len))
    }
}

impl Esp32Target {
    /// The NVS keys, through flash encryption where that is on.
    fn open_keys_partition(&self, segments: &[Segment], flash_key: Option<&SecretArray<32>>) -> Option<NvsKeys> {
        let segment = find(segments, NVS_KEYS)?;
        // Exposed to be read as the chip reads it.
        let mut octets = segment.octets.expose().to_vec();
        if self.encrypts_flash {
            FlashCipher::aes_128(flash_key?).decrypt(segment.offset, &mut octets).ok()?;
        }
        let octets = SecretBytes::from_vec(octets);
        NvsKeys::from_partition(octets.expose()).ok()
    }
}

/// The key whose PKCS#8 `read` puts at the beginning of a buffer; it gives the length.
fn private_key(read: impl FnOnce(&mut [u8]) -> usize) -> Option<PrivateKey> {
    let mut length = 0;
    let buffer = SecretBytes::fill(MAX_PKCS8_OCTETS, |out| length = read(out));
    // Exposed to be cut to its length.
    let pkcs8 = buffer.expose().get(..length)?;
    let pkcs8 = SecretBytes::fill(length, |out| out.copy_from_slice(pkcs8));
    PrivateKey::from_pkcs8(KeyAlgorithm::P256, &pkcs8).ok()
}

/// The key in the encrypted record of `esp_secure_cert`.
fn open_secure_cert(segments: &[Segment], fuse: &SecretArray<32>) -> Option<PrivateKey> {
    // Exposed to be read as the firmware reads it.
    let partition = SecureCert::new(find(segments, SECURE_CERT)?.octets.expose()).ok()?;
    let record = partition.record(RecordType::PrivateKey, 0).ok()??;
    private_key(|out| {
        let opened = open_record(&record, out, |message| Ok::<_, SecureCertError>(hmac(fuse, message)));
        opened.map_or(0, <[u8]>::len)
    })
}

fn find<'a>(segments: &'a [Segment], name: &str) -> Option<&'a Segment> {
    segments.iter().find(|segment| segment.name == name)
}

fn size_of(partition: Partition) -> Result<usize, TargetError> {
    usize::try_from(partition.size).map_err(|_larger| TargetError::DoesNotFit("partition"))
}

fn segment(name: &str, partition: Partition, octets: Vec<u8>) -> Segment {
    Segment { name: name.to_owned(), offset: partition.offset, octets: SecretBytes::from_vec(octets) }
}

/// What the HMAC peripheral answers.
fn hmac(fuse: &SecretArray<32>, message: &[u8]) -> SecretArray<32> {
    // Exposed to HMAC, as the peripheral computes it.
    SecretArray::fill(|out| *out = kf_crypto::hmac_sha256(fuse.expose(), message))
}

/// Scheme B: what the HMAC peripheral makes of the fused key.
fn keys_of_fuse(fuse: &SecretArray<32>) -> Result<NvsKeys, NvsError> {
    NvsKeys::from_hmac(|message| -> Result<_, NvsError> { Ok(hmac(fuse, message)) })
}

/// Scheme A: two fresh keys, each one HMAC of 32 fresh octets.
fn keys_of_random(random: &SecretArray<32>) -> Result<NvsKeys, NvsError> {
    NvsKeys::from_secret(SecretArray::fill(|out: &mut [u8; 64]| {
        // Exposed to HMAC.
        let half = |label: &[u8]| kf_crypto::hmac_sha256(random.expose(), label);
        let (encryption, tweak) = out.split_at_mut(32);
        encryption.copy_from_slice(&half(b"keyfleet station nvs encryption key v1"));
        tweak.copy_from_slice(&half(b"keyfleet station nvs tweak key v1"));
    }))
}

impl Target for Esp32Target {
    fn image(&self, material: &Material<'_>) -> Result<Image, TargetError> {
        let full = |_error| TargetError::DoesNotFit("NVS partition");
        let mut octets = vec![0; size_of(self.layout.nvs)?];
        if material.key.is_none() {
            return Err(TargetError::Key);
        }
        self.write_nvs(material, &mut octets).map_err(full)?;
        let mut segments = Vec::new();
        let (mut unlock, mut cipher) = (None, None);
        match self.protection {
            Protection::NvsHmac => {
                // Exposed to be moved into what is burnt.
                let fresh = SecretArray::fill(|out: &mut [u8; 32]| *out = *material.random.expose());
                let fuse = if self.has_key_beside_chain() {
                    let split =
                        HmacEfuseKey::fresh(fresh).split(|fuse, message| Ok::<_, TargetError>(hmac(fuse, message)))?;
                    cipher = Some(split.1);
                    split.0
                } else {
                    fresh
                };
                keys_of_fuse(&fuse).and_then(|keys| keys.cipher().encrypt(&mut octets)).map_err(full)?;
                unlock = Some(fuse);
            }
            Protection::NvsKeys => {
                let keys = keys_of_random(material.random).map_err(full)?;
                keys.cipher().encrypt(&mut octets).map_err(full)?;
                let partition = self.layout.nvs_keys.ok_or(TargetError::Unsupported("nvs-keys without a partition"))?;
                let mut page = [0; PAGE_OCTETS];
                keys.write_partition(&mut page);
                let mut all = vec![0xff; size_of(partition)?];
                all.iter_mut().zip(page).for_each(|(out, octet)| *out = octet);
                if self.encrypts_flash {
                    let key = material.flash_key.ok_or(TargetError::Key)?;
                    let fits = |_error| TargetError::DoesNotFit("NVS keys partition");
                    FlashCipher::aes_128(key).encrypt(partition.offset, &mut all).map_err(fits)?;
                }
                segments.push(segment(NVS_KEYS, partition, all));
            }
            Protection::Plain => {}
            Protection::Sealed | Protection::Hardware => return Err(TargetError::Key),
        }
        segments.push(segment(NVS, self.layout.nvs, octets));
        segments.extend(self.secure_cert(material, cipher)?);
        let flash_key = material.flash_key.filter(|_| self.encrypts_flash).map(copy_key);
        Ok(Image { segments, unlock, flash_key })
    }

    fn open(&self, segments: &[Segment], held: &Protected) -> Option<PrivateKey> {
        if self.has_key_beside_chain() {
            open_secure_cert(segments, held.unlock.as_ref()?)
        } else {
            self.open_nvs(segments, held)
        }
    }
}

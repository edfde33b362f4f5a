//! A chip of the ESP32 family: NVS with key and certificate chain, encrypted as the recipe says.
//!
//! ```text
//! NVS namespace keyfleet: name, line, server   texts
//!                         anchor               blob, DER
//!                         idevid_key           blob, PKCS#8
//!                         device_key           blob, 32 octets, where the recipe injects it
//!                         idevid_chain         blob, PEM, leaf first
//! ```

use kf_crypto::PrivateKey;
use kf_flash::nvs::{NvsError, NvsKeys, PAGE_OCTETS, Partition as NvsPartition, Stored, Value, Writer};
use kf_key::{KeyAlgorithm, SecretArray, SecretBytes};

use super::{Material, Target, TargetError, pem_chain};
use crate::image::{Image, Segment};
use crate::recipe::{Layout, Partition, Protection, Recipe};

const NAMESPACE: &str = "keyfleet";
const KEY: &str = "idevid_key";
const NVS: &str = "nvs";
const NVS_KEYS: &str = "nvs_keys";
/// The largest PKCS#8 that is looked for.
const MAX_PKCS8_OCTETS: usize = 512;

/// A chip of the ESP32 family.
#[derive(Clone, Debug)]
pub struct Esp32Target {
    layout: Layout,
    protection: Protection,
}

impl Esp32Target {
    pub(super) fn of(recipe: &Recipe) -> Result<Self, TargetError> {
        let layout = recipe.layout.clone().ok_or(TargetError::Unsupported("esp32 without a layout"))?;
        if layout.secure_cert.is_some() {
            return Err(TargetError::Unsupported("esp32 with esp_secure_cert: leave it out, the chain goes into NVS"));
        }
        Ok(Self { layout, protection: recipe.identity.protection })
    }

    fn write_nvs(&self, material: &Material<'_>, octets: &mut [u8]) -> Result<(), NvsError> {
        let mut writer = Writer::new(octets)?;
        let namespace = writer.namespace(NAMESPACE)?;
        for (name, text) in [("name", material.name), ("line", material.product_line), ("server", material.server)] {
            writer.write(namespace, name, Value::Text(text))?;
        }
        writer.write(namespace, "anchor", Value::Blob(material.anchor))?;
        writer.write(namespace, "idevid_chain", Value::Blob(&pem_chain(material.chain)))?;
        if let Some(key) = material.device_key {
            // Exposed to the partition, which is encrypted below.
            writer.write(namespace, "device_key", Value::Blob(key.expose()))?;
        }
        let pkcs8 = material.key.and_then(|key| key.to_pkcs8().ok()).ok_or(NvsError::NotFound)?;
        // Exposed to the partition, which is encrypted below, or which the recipe marks as unsafe.
        writer.write(namespace, KEY, Value::Blob(pkcs8.expose()))?;
        writer.finish();
        Ok(())
    }
}

fn size_of(partition: Partition) -> Result<usize, TargetError> {
    usize::try_from(partition.size).map_err(|_larger| TargetError::DoesNotFit("partition"))
}

fn segment(name: &str, partition: Partition, octets: Vec<u8>) -> Segment {
    Segment { name: name.to_owned(), offset: partition.offset, octets: SecretBytes::from_vec(octets) }
}

/// Scheme B: what the HMAC peripheral makes of the fused key.
fn keys_of_fuse(fuse: &SecretArray<32>) -> Result<NvsKeys, NvsError> {
    NvsKeys::from_hmac(|message| -> Result<_, NvsError> {
        // Exposed to HMAC, as the peripheral computes it.
        Ok(SecretArray::fill(|out| *out = kf_crypto::hmac_sha256(fuse.expose(), message)))
    })
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
        let mut unlock = None;
        match self.protection {
            Protection::NvsHmac => {
                // Exposed to be moved into what is burnt.
                let fuse = SecretArray::fill(|out: &mut [u8; 32]| *out = *material.random.expose());
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
                segments.push(segment(NVS_KEYS, partition, all));
            }
            Protection::Plain => {}
            Protection::Sealed | Protection::Hardware => return Err(TargetError::Key),
        }
        segments.push(segment(NVS, self.layout.nvs, octets));
        Ok(Image { segments, unlock })
    }

    fn open(&self, segments: &[Segment], unlock: Option<&SecretArray<32>>) -> Option<PrivateKey> {
        let find = |name: &str| segments.iter().find(|segment| segment.name == name);
        // Exposed to be opened as the firmware opens it.
        let mut octets = find(NVS)?.octets.expose().to_vec();
        let keys = match self.protection {
            Protection::NvsHmac => Some(keys_of_fuse(unlock?).ok()?),
            Protection::NvsKeys => Some(NvsKeys::from_partition(find(NVS_KEYS)?.octets.expose()).ok()?),
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
        let mut length = 0;
        let buffer = SecretBytes::fill(MAX_PKCS8_OCTETS, |out| length = blob.copy_to(out).map_or(0, <[u8]>::len));
        let pkcs8 = buffer.expose().get(..length)?;
        let pkcs8 = SecretBytes::fill(length, |out| out.copy_from_slice(pkcs8));
        PrivateKey::from_pkcs8(KeyAlgorithm::P256, &pkcs8).ok()
    }
}

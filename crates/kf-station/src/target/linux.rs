//! The directory that `keyfleet-agent` starts from: configuration, anchor, IDevID chain, and its key sealed under a key that the
//! device is given at each start and that is not in the directory. As files, or as the file system that a device mounts.

use kf_crypto::PrivateKey;
use kf_key::{KeyAlgorithm, SecretArray, SecretBytes};

use super::file_system::{self, IMAGE};
use super::{Material, Protected, Target, TargetError, pem_chain};
use crate::image::{Image, Segment};
use crate::recipe::{Protection, Recipe};

/// The agent's own format of a stored key: protection, algorithm, and the seal under this context.
const SEALED: u8 = 2;
const P256: u8 = 1;
const SEAL_CONTEXT: &[u8] = b"keyfleet-agent private key v1";
const KEY: &str = "idevid.key";
/// The symmetric device key, sealed like the private one.
const DEVICE_KEY: &str = "device.key";
const DEVICE_KEY_CONTEXT: &[u8] = b"keyfleet station device key v1";

/// A Linux device.
#[derive(Clone, Copy, Debug)]
pub struct LinuxTarget {
    is_plain: bool,
    /// Size of the file system, in octets.
    file_system: Option<u32>,
}

impl LinuxTarget {
    pub(super) fn of(recipe: &Recipe) -> Self {
        let file_system = recipe.file_system.map(|plan| plan.size);
        Self { is_plain: recipe.identity.protection == Protection::Plain, file_system }
    }

    fn configuration(&self, material: &Material<'_>) -> String {
        let key = if self.is_plain {
            "idevid_key_file = \"idevid.key\"\n\n[key]\nallow_plain_key = true\n"
        } else {
            "idevid_sealed_key_file = \"idevid.key\"\n\n[key]\nseal_credential = \"keyfleet-seal\"\n"
        };
        agent_configuration(material, key)
    }
}

/// The configuration of `keyfleet-agent` whose IDevID is in `idevid.pem`; `key` says where its key is, and goes on with `[key]`.
/// Relative: the directory may lie anywhere; the service starts in it.
pub(super) fn agent_configuration(material: &Material<'_>, key: &str) -> String {
    format!(
        "server = \"{}\"\nlabel = \"{}\"\ndevice_name = \"{}\"\nstate_dir = \"state\"\n\n\
         [trust]\nroot_file = \"anchor.pem\"\n\n[bootstrap]\nidevid_chain_file = \"idevid.pem\"\n{key}",
        material.server, material.product_line, material.name
    )
}

impl Target for LinuxTarget {
    fn image(&self, material: &Material<'_>) -> Result<Image, TargetError> {
        let crypto = |_opaque| TargetError::Crypto;
        let pkcs8 = material.key.ok_or(TargetError::Key)?.to_pkcs8().map_err(crypto)?;
        // Exposed to be moved into the image's own copy.
        let unlock = SecretArray::fill(|out: &mut [u8; 32]| *out = *material.random.expose());
        let stored = if self.is_plain {
            private_key_pem(&pkcs8)
        } else {
            // Exposed to be sealed.
            let sealed = kf_crypto::seal(&unlock, SEAL_CONTEXT, pkcs8.expose()).map_err(crypto)?;
            SecretBytes::from_vec([&[SEALED, P256], sealed.as_slice()].concat())
        };
        let mut segments = vec![
            Segment::file("agent.toml", self.configuration(material).into_bytes()),
            Segment::file("anchor.pem", kf_pki::pem::certificate(material.anchor).into_bytes()),
            Segment { name: KEY.to_owned(), offset: 0, octets: stored },
            Segment::file("idevid.pem", pem_chain(material.chain)),
        ];
        if let Some(key) = material.device_key {
            // Exposed to be sealed.
            let sealed = kf_crypto::seal(&unlock, DEVICE_KEY_CONTEXT, key.expose()).map_err(crypto)?;
            segments.push(Segment::file(DEVICE_KEY, sealed));
        }
        if let Some(octets) = self.file_system {
            segments = vec![file_system::pack(material.device, octets, &segments)?];
        }
        let is_sealed = !self.is_plain || material.device_key.is_some();
        Ok(Image { segments, unlock: is_sealed.then_some(unlock), flash_key: None })
    }

    fn open(&self, segments: &[Segment], held: &Protected) -> Option<PrivateKey> {
        let unlock = held.unlock.as_ref();
        let mounted;
        let segments = match self.file_system {
            Some(_) => {
                mounted = file_system::unpack(segments.iter().find(|segment| segment.name == IMAGE)?)?;
                mounted.as_slice()
            }
            None => segments,
        };
        let stored = segments.iter().find(|segment| segment.name == KEY)?;
        // Exposed to be opened as the agent opens it.
        let octets = stored.octets.expose();
        let pkcs8 = if self.is_plain {
            let text = std::str::from_utf8(octets).ok()?;
            SecretBytes::from_vec(kf_pki::pem::decode_all("PRIVATE KEY", text)?.pop()?)
        } else {
            let sealed = octets.strip_prefix(&[SEALED, P256])?;
            kf_crypto::open(unlock?, SEAL_CONTEXT, sealed).ok()?
        };
        PrivateKey::from_pkcs8(KeyAlgorithm::P256, &pkcs8).ok()
    }
}

/// PKCS#8 as PEM (RFC 7468 section 10), in one buffer that is wiped.
pub(super) fn private_key_pem(pkcs8: &SecretBytes) -> SecretBytes {
    use base64::Engine as _;
    const LINE: usize = 64;
    let engine = base64::engine::general_purpose::STANDARD;
    // Exposed to be written into an image that the recipe marks as unsafe.
    let der = pkcs8.expose();
    let digits = SecretBytes::fill(der.len().div_ceil(3) * 4, |out| {
        // The slice has exactly the length of the encoding.
        let _length = engine.encode_slice(der, out);
    });
    let lines = digits.expose().chunks(LINE).flat_map(|line| line.iter().copied().chain([b'\n']));
    let head = b"-----BEGIN PRIVATE KEY-----\n";
    let foot = b"-----END PRIVATE KEY-----\n";
    let length = head.len() + digits.len() + digits.len().div_ceil(LINE) + foot.len();
    SecretBytes::fill(length, |out| {
        let text = head.iter().copied().chain(lines).chain(foot.iter().copied());
        out.iter_mut().zip(text).for_each(|(out, octet)| *out = octet);
    })
}

//! Files for whoever writes them to the device: PEM or DER. The key lies in clear in them, which is why the recipe says so.

use kf_crypto::PrivateKey;
use kf_key::{KeyAlgorithm, SecretArray, SecretBytes};

use super::linux::private_key_pem;
use super::{Material, Target, TargetError, pem_chain};
use crate::image::{Image, Segment};
use crate::recipe::{FileForm, Recipe};

/// Key and certificate as files.
#[derive(Clone, Copy, Debug)]
pub struct FileTarget {
    is_pem: bool,
}

impl FileTarget {
    pub(super) fn of(recipe: &Recipe) -> Result<Self, TargetError> {
        match recipe.file_form {
            Some(FileForm::Pem) => Ok(Self { is_pem: true }),
            Some(FileForm::Der) => Ok(Self { is_pem: false }),
            Some(FileForm::Pkcs12) | None => Err(TargetError::Unsupported("file with form pkcs12")),
        }
    }

    const fn key_name(self) -> &'static str {
        if self.is_pem { "device.key.pem" } else { "device.key.der" }
    }
}

impl Target for FileTarget {
    fn image(&self, material: &Material<'_>) -> Result<Image, TargetError> {
        let pkcs8 = material.key.ok_or(TargetError::Key)?.to_pkcs8().map_err(|_opaque| TargetError::Crypto)?;
        let file = |name: String, octets: Vec<u8>| Segment { name, offset: 0, octets: SecretBytes::from_vec(octets) };
        let mut segments = Vec::new();
        if self.is_pem {
            segments.push(file("device.chain.pem".to_owned(), pem_chain(material.chain)));
            segments.push(file("anchor.pem".to_owned(), kf_pki::pem::certificate(material.anchor).into_bytes()));
        } else {
            for (number, der) in material.chain.iter().enumerate() {
                segments.push(file(format!("device.chain.{number}.der"), der.clone()));
            }
            segments.push(file("anchor.der".to_owned(), material.anchor.to_vec()));
        }
        let octets = if self.is_pem { private_key_pem(&pkcs8) } else { pkcs8 };
        segments.push(Segment { name: self.key_name().to_owned(), offset: 0, octets });
        segments.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Image { segments, unlock: None })
    }

    fn open(&self, segments: &[Segment], _unlock: Option<&SecretArray<32>>) -> Option<PrivateKey> {
        let stored = segments.iter().find(|segment| segment.name == self.key_name())?;
        // Exposed to be read as the device reads it.
        let octets = stored.octets.expose();
        let der = if self.is_pem {
            kf_pki::pem::decode_all("PRIVATE KEY", std::str::from_utf8(octets).ok()?)?.pop()?
        } else {
            octets.to_vec()
        };
        PrivateKey::from_pkcs8(KeyAlgorithm::P256, &SecretBytes::from_vec(der)).ok()
    }
}

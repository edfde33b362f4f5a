//! Files for whoever writes them to the device: PEM or DER, in which the key lies in clear, as the recipe says; or PKCS#12, under a
//! passphrase that no person chose.

use kf_crypto::PrivateKey;
use kf_key::{KeyAlgorithm, SecretArray, SecretBytes};
use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, Pkcs12ImportPolicy, PrivateKeyChain,
};

use super::linux::private_key_pem;
use super::{Material, Protected, Target, TargetError, pem_chain};
use crate::image::{Image, Segment};
use crate::recipe::{FileForm, Recipe};

const PKCS12: &str = "device.p12";
/// OpenSSL's own number. A passphrase of 256 bits needs none.
const ITERATIONS: u32 = 2_048;

/// Key and certificate as files.
#[derive(Clone, Copy, Debug)]
pub struct FileTarget {
    form: FileForm,
}

/// 64 hexadecimal digits: what is typed or handed over where a PKCS#12 file is opened.
struct Passphrase(SecretArray<64>);

impl Passphrase {
    fn of(unlock: &SecretArray<32>) -> Result<Self, TargetError> {
        let mut written = Ok(());
        let digits = SecretArray::fill(|out: &mut [u8; 64]| {
            // Exposed to be written as text.
            written = hex::encode_to_slice(unlock.expose(), out);
        });
        written.map(|()| Self(digits)).map_err(|_length| TargetError::Crypto)
    }

    /// Exposed to whoever encrypts or opens.
    fn expose(&self) -> Result<&str, TargetError> {
        std::str::from_utf8(self.0.expose()).map_err(|_text| TargetError::Crypto)
    }
}

impl FileTarget {
    pub(super) fn of(recipe: &Recipe) -> Result<Self, TargetError> {
        recipe.file_form.map(|form| Self { form }).ok_or(TargetError::Unsupported("file without a form"))
    }

    const fn key_name(self) -> &'static str {
        match self.form {
            FileForm::Pem => "device.key.pem",
            FileForm::Der => "device.key.der",
            FileForm::Pkcs12 => PKCS12,
        }
    }
}

fn file(name: impl Into<String>, octets: Vec<u8>) -> Segment {
    Segment { name: name.into(), offset: 0, octets: SecretBytes::from_vec(octets) }
}

/// Key and chain under a passphrase: AES-256-CBC and HMAC-SHA-256, both by PBKDF2 or its like (RFC 7292, RFC 8018).
fn pkcs12(material: &Material<'_>, pkcs8: &SecretBytes, passphrase: &Passphrase) -> Result<Vec<u8>, TargetError> {
    let crypto = |_error| TargetError::Crypto;
    // Exposed to be encrypted. The crate's own copies live as long as this call, and are not wiped.
    let key = p12_keystore::PrivateKey::from_der(pkcs8.expose()).map_err(crypto)?;
    let chain = material.chain.iter().map(|der| Certificate::from_der(der));
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(crypto)?;
    let mut store = KeyStore::new();
    let id = kf_crypto::sha256(material.device.as_bytes());
    store.add_entry(material.name, KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(id.as_slice(), key, chain)));
    store
        .writer(passphrase.expose()?)
        .encryption_algorithm(EncryptionAlgorithm::PbeWithHmacSha256AndAes256)
        .encryption_iterations(ITERATIONS)
        .mac_algorithm(MacAlgorithm::HmacSha256)
        .mac_iterations(ITERATIONS)
        .write()
        .map_err(crypto)
}

impl Target for FileTarget {
    fn image(&self, material: &Material<'_>) -> Result<Image, TargetError> {
        let pkcs8 = material.key.ok_or(TargetError::Key)?.to_pkcs8().map_err(|_opaque| TargetError::Crypto)?;
        let (mut segments, mut unlock) = (Vec::new(), None);
        match self.form {
            FileForm::Pem => {
                segments.push(file("anchor.pem", kf_pki::pem::certificate(material.anchor).into_bytes()));
                segments.push(file("device.chain.pem", pem_chain(material.chain)));
                segments.push(Segment { name: self.key_name().to_owned(), offset: 0, octets: private_key_pem(&pkcs8) });
            }
            FileForm::Der => {
                segments.push(file("anchor.der", material.anchor.to_vec()));
                for (number, der) in material.chain.iter().enumerate() {
                    segments.push(file(format!("device.chain.{number}.der"), der.clone()));
                }
                segments.push(Segment { name: self.key_name().to_owned(), offset: 0, octets: pkcs8 });
            }
            FileForm::Pkcs12 => {
                // Exposed to be moved into what the fixture is given.
                let secret = SecretArray::fill(|out: &mut [u8; 32]| *out = *material.random.expose());
                segments.push(file("anchor.pem", kf_pki::pem::certificate(material.anchor).into_bytes()));
                segments.push(file(PKCS12, pkcs12(material, &pkcs8, &Passphrase::of(&secret)?)?));
                unlock = Some(secret);
            }
        }
        segments.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Image { segments, unlock, flash_key: None })
    }

    fn open(&self, segments: &[Segment], held: &Protected) -> Option<PrivateKey> {
        let unlock = held.unlock.as_ref();
        let stored = segments.iter().find(|segment| segment.name == self.key_name())?;
        // Exposed to be read as the device reads it.
        let octets = stored.octets.expose();
        let der = match self.form {
            FileForm::Pem => kf_pki::pem::decode_all("PRIVATE KEY", std::str::from_utf8(octets).ok()?)?.pop()?,
            FileForm::Der => octets.to_vec(),
            FileForm::Pkcs12 => {
                let passphrase = Passphrase::of(unlock?).ok()?;
                let store =
                    KeyStore::from_pkcs12(octets, passphrase.expose().ok()?, Pkcs12ImportPolicy::Relaxed).ok()?;
                store.private_key_chain()?.1.key().as_der().to_vec()
            }
        };
        PrivateKey::from_pkcs8(KeyAlgorithm::P256, &SecretBytes::from_vec(der)).ok()
    }
}

//! Encrypting, decrypting and re-encrypting for others. The server keeps neither what comes nor what goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kf_access::{Action, Principal};
use kf_api::ShownOnce;
use kf_api::ciphertext::{Ciphertext, MAX_DATA_AAD_OCTETS, MAX_PLAINTEXT_OCTETS, ciphertext_aad};
use kf_api::encryption_key::{
    CipherItem, CipherRefusal, CipherRequest, DataKey, DataKeyAnswer, DataKeyRequest, DecryptAnswer, DecryptOutcome,
    EncryptAnswer, EncryptRequest, EncryptionKey, MAX_DATA_ITEMS, MAX_DATA_KEYS, RewrapAnswer, RewrapOutcome,
};
use kf_key::{EncryptionKeyId, SecretArray, SecretBytes};
use kf_rotation::usage::Sealing;

use crate::sealed::octets;
use crate::{Fleet, FleetError};

type Material = Arc<SecretArray<32>>;

/// Why one item is refused; the others are answered.
struct Refusal {
    refusal: CipherRefusal,
    problem: String,
}

impl Refusal {
    fn new(refusal: CipherRefusal, problem: impl ToString) -> Self {
        Self { refusal, problem: problem.to_string() }
    }
}

/// A ciphertext that opened.
struct Opened {
    plaintext: SecretBytes,
    version: u32,
    external_aad: Vec<u8>,
}

/// The versions that one call meets, asked of the registry once each.
#[derive(Default)]
struct Versions(BTreeMap<u32, Result<Material, (CipherRefusal, String)>>);

/// Encrypts; where nothing was set aside for it, the caller must not call this.
fn encrypt(
    key: EncryptionKeyId,
    version: u32,
    material: &SecretArray<32>,
    external_aad: &[u8],
    plaintext: &[u8],
) -> Result<String, FleetError> {
    let iv_and_body = kf_crypto::seal(material, &ciphertext_aad(key, version, external_aad), plaintext)?;
    Ok(Ciphertext { key, version, iv_and_body }.to_string())
}

/// How many items there are, if they are not too many.
fn check_count(items: usize) -> Result<(), FleetError> {
    if (1..=MAX_DATA_ITEMS).contains(&items) {
        return Ok(());
    }
    Err(FleetError::invalid("items", format!("{items} at once"), format!("send 1 to {MAX_DATA_ITEMS}")))
}

pub(super) fn blocks(octets: usize) -> u64 {
    Sealing::blocks(u64::try_from(octets).unwrap_or(u64::MAX))
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl Fleet {
    /// Encrypts under the newest version of a key.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] naming the item; [`FleetError::NotFound`], [`FleetError::Denied`], [`FleetError::Signer`];
    /// [`FleetError::StoreFull`] and [`FleetError::Fenced`] when no encryptions can be set aside.
    pub async fn data_encrypt(
        &self,
        who: &Principal,
        key: &str,
        request: EncryptRequest,
    ) -> Result<EncryptAnswer, FleetError> {
        let (key, _permit) = self.encryption_key_for(who, key, Action::DataEncrypt)?;
        check_count(request.items.len())?;
        let mut items = Vec::with_capacity(request.items.len());
        for (number, item) in request.items.iter().enumerate() {
            let plaintext = octets(&format!("items[{number}].plaintext"), &item.plaintext, MAX_PLAINTEXT_OCTETS)?;
            let aad = octets(&format!("items[{number}].external_aad"), &item.external_aad, MAX_DATA_AAD_OCTETS)?;
            items.push((SecretBytes::from_vec(plaintext), aad));
        }
        let cost = items.iter().map(|(plaintext, aad)| blocks(plaintext.len() + aad.len())).sum();
        let (version, material) = self.newest(who, &key, Action::DataEncrypt, number(items.len()), cost).await?;
        let mut ciphertexts = Vec::with_capacity(items.len());
        for (plaintext, aad) in &items {
            // Exposed to be encrypted.
            ciphertexts.push(encrypt(key.id, version, &material, aad, plaintext.expose())?);
        }
        Ok(EncryptAnswer { version, ciphertexts })
    }

    /// Makes keys for the caller's own use, and keeps none of them.
    ///
    /// # Errors
    /// As [`Fleet::data_encrypt`].
    pub async fn data_keys(
        &self,
        who: &Principal,
        key: &str,
        request: DataKeyRequest,
    ) -> Result<DataKeyAnswer, FleetError> {
        let (key, _permit) = self.encryption_key_for(who, key, Action::DataEncrypt)?;
        let DataKeyRequest { count, external_aad } = request;
        if !(1..=MAX_DATA_KEYS).contains(&count) {
            return Err(FleetError::invalid("count", count.to_string(), format!("ask for 1 to {MAX_DATA_KEYS}")));
        }
        let aad = octets("external_aad", &external_aad, MAX_DATA_AAD_OCTETS)?;
        let cost = u64::from(count) * blocks(32 + aad.len());
        let (version, material) = self.newest(who, &key, Action::DataEncrypt, u64::from(count), cost).await?;
        let mut keys = Vec::new();
        for _ in 0..count {
            let fresh = kf_crypto::random_secret::<32>()?;
            // Exposed to be encrypted, and to the one who asked for it.
            let ciphertext = encrypt(key.id, version, &material, &aad, fresh.expose())?;
            keys.push(DataKey { key: ShownOnce::new(BASE64_STANDARD.encode(fresh.expose())), ciphertext });
        }
        Ok(DataKeyAnswer { version, keys })
    }

    /// Decrypts. Each ciphertext is judged by itself; what is refused says why. Who used which version is in the log before
    /// a plaintext leaves.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::NotFound`], [`FleetError::Denied`], [`FleetError::Signer`].
    pub async fn data_decrypt(
        &self,
        who: &Principal,
        key: &str,
        request: CipherRequest,
    ) -> Result<DecryptAnswer, FleetError> {
        let (key, _permit) = self.encryption_key_for(who, key, Action::DataDecrypt)?;
        let opened = self.open_all(&key, &request.items).await?;
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        for opened in opened.iter().flatten() {
            *counts.entry(opened.version).or_default() += 1;
        }
        for (version, count) in counts {
            self.note_uses(who, &key, version, Action::DataDecrypt, count).await?;
        }
        let items = opened.into_iter().map(|opened| match opened {
            // Exposed to whoever may decrypt.
            Ok(Opened { plaintext, version, .. }) => {
                DecryptOutcome::Decrypted { plaintext: BASE64_STANDARD.encode(plaintext.expose()), version }
            }
            Err(Refusal { refusal, problem }) => DecryptOutcome::Refused { refusal, problem },
        });
        Ok(DecryptAnswer { items: items.collect() })
    }

    /// Brings ciphertexts under the newest version. The caller sees no plaintext; what is under the newest version already
    /// comes back as it is.
    ///
    /// # Errors
    /// As [`Fleet::data_encrypt`].
    pub async fn data_rewrap(
        &self,
        who: &Principal,
        key: &str,
        request: CipherRequest,
    ) -> Result<RewrapAnswer, FleetError> {
        let (key, _permit) = self.encryption_key_for(who, key, Action::DataRewrap)?;
        let opened = self.open_all(&key, &request.items).await?;
        let older = |opened: &&Opened| opened.version < key.newest_version;
        let cost = |opened: &Opened| blocks(opened.plaintext.len() + opened.external_aad.len());
        let count = opened.iter().flatten().filter(older).count();
        let cost = opened.iter().flatten().filter(older).map(cost).sum();
        let newest = match count {
            0 => None,
            count => Some(self.newest(who, &key, Action::DataRewrap, number(count), cost).await?),
        };
        let version = newest.as_ref().map_or(key.newest_version, |(version, _)| *version);
        let mut items = Vec::with_capacity(opened.len());
        for (opened, item) in opened.into_iter().zip(request.items) {
            items.push(match (opened, &newest) {
                (Err(Refusal { refusal, problem }), _) => RewrapOutcome::Refused { refusal, problem },
                (Ok(opened), Some((version, material))) if opened.version < key.newest_version => {
                    // Exposed to be encrypted again.
                    let plaintext = opened.plaintext.expose();
                    let ciphertext = encrypt(key.id, *version, material, &opened.external_aad, plaintext)?;
                    RewrapOutcome::Newest { ciphertext, from_version: opened.version, changed: true }
                }
                (Ok(opened), _) => {
                    RewrapOutcome::Newest { ciphertext: item.ciphertext, from_version: opened.version, changed: false }
                }
            });
        }
        Ok(RewrapAnswer { version, items })
    }

    /// The newest version with encryptions set aside, and the use in the log.
    pub(super) async fn newest(
        &self,
        who: &Principal,
        key: &EncryptionKey,
        action: Action,
        encryptions: u64,
        blocks: u64,
    ) -> Result<(u32, Material), FleetError> {
        let version = self.set_aside(key, encryptions, blocks).await?;
        let known =
            self.store.encryption_version(key.id, version)?.ok_or(FleetError::Bug("a version without a row"))?;
        let decrypts = version >= key.minimum_version;
        let material = known.material.filter(|_| known.state.may_protect() && decrypts);
        let material = material.ok_or_else(|| {
            FleetError::conflict(
                "key",
                "its newest version encrypts no more",
                "rotate it: `keyfleet encryption-key rotate`",
            )
        })?;
        let material = self.material(key.id, version, &material).await?;
        self.note_uses(who, key, version, action, encryptions).await?;
        Ok((version, material))
    }

    async fn open_all(
        &self,
        key: &EncryptionKey,
        items: &[CipherItem],
    ) -> Result<Vec<Result<Opened, Refusal>>, FleetError> {
        check_count(items.len())?;
        let mut versions = Versions::default();
        let mut opened = Vec::with_capacity(items.len());
        for (number, item) in items.iter().enumerate() {
            let aad = octets(&format!("items[{number}].external_aad"), &item.external_aad, MAX_DATA_AAD_OCTETS)?;
            opened.push(self.open_one(key, &mut versions, &item.ciphertext, aad).await?);
        }
        Ok(opened)
    }

    async fn open_one(
        &self,
        key: &EncryptionKey,
        versions: &mut Versions,
        ciphertext: &str,
        external_aad: Vec<u8>,
    ) -> Result<Result<Opened, Refusal>, FleetError> {
        let parsed = match ciphertext.parse::<Ciphertext>() {
            Ok(parsed) if parsed.plaintext_octets() <= MAX_PLAINTEXT_OCTETS => parsed,
            Ok(_) => return Ok(Err(Refusal::new(CipherRefusal::Malformed, "it is longer than the longest"))),
            Err(error) => return Ok(Err(Refusal::new(CipherRefusal::Malformed, error))),
        };
        if parsed.key != key.id {
            let problem = format!("it is of {}, not of `{}`", parsed.key, key.name);
            return Ok(Err(Refusal::new(CipherRefusal::OtherKey, problem)));
        }
        let version = parsed.version;
        let material = match versions.0.get(&version) {
            Some(known) => known.clone(),
            None => {
                let found = self.usable(key, version).await?;
                versions.0.entry(version).or_insert(found).clone()
            }
        };
        let material = match material {
            Ok(material) => material,
            Err((refusal, problem)) => return Ok(Err(Refusal { refusal, problem })),
        };
        let aad = ciphertext_aad(key.id, version, &external_aad);
        Ok(match kf_crypto::open(&material, &aad, &parsed.iv_and_body) {
            Ok(plaintext) => Ok(Opened { plaintext, version, external_aad }),
            Err(_which_is_not_said) => Err(Refusal::new(
                CipherRefusal::NotAuthentic,
                "it was changed, or is bound to another external_aad than the one given",
            )),
        })
    }

    /// The material of a version that may decrypt.
    async fn usable(
        &self,
        key: &EncryptionKey,
        version: u32,
    ) -> Result<Result<Material, (CipherRefusal, String)>, FleetError> {
        let Some(known) = self.store.encryption_version(key.id, version)? else {
            return Ok(Err((CipherRefusal::UnknownVersion, format!("`{}` has no version {version}", key.name))));
        };
        let barred = |why: String| Ok(Err((CipherRefusal::VersionBarred, format!("version {version} {why}"))));
        match known.material {
            _ if version < key.minimum_version => {
                barred(format!("is below the minimum version {}", key.minimum_version))
            }
            Some(material) if known.state.may_process() => Ok(Ok(self.material(key.id, version, &material).await?)),
            _ => barred(format!("is {}", known.state)),
        }
    }
}

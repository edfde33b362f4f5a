//! A software model of an eFuse key block behind an HMAC peripheral.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use kf_backend::{
    BackendError, FusedBackend, KeyBackend, RootUse, SoftwareBackend, conformance, unwrap_replaceable, wrap_replaceable,
};
use kf_derive::{Algorithm, FleetRoot, FusedKey, Info, KeyedHmac, Level, Purpose, SoftwareKey};
use kf_key::{FacilityId, KeyId, SecretArray};

/// Burnt once, read-protected: what is in it can only be used for HMAC.
#[derive(Clone, Debug, Default)]
struct EfuseBlock(Arc<Block>);

#[derive(Debug, Default)]
struct Block {
    key: OnceLock<SoftwareKey>,
    calls: AtomicUsize,
}

impl EfuseBlock {
    fn burn(&self, key: SecretArray<32>) -> Result<(), BackendError> {
        let taken = |_key| BackendError::KeyExists { label: "BLOCK_KEY0".to_owned() };
        self.0.key.set(SoftwareKey::new(key)).map_err(taken)
    }

    fn burnt(octet: u8) -> Self {
        let block = Self::default();
        block.burn(secret(octet)).unwrap();
        block
    }

    fn calls(&self) -> usize {
        self.0.calls.load(Ordering::Relaxed)
    }
}

impl KeyedHmac for EfuseBlock {
    type Error = BackendError;

    fn hmac_sha256(&self, message: &[u8], tag: &mut [u8; 32]) -> Result<(), BackendError> {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        let missing = || BackendError::MissingKey { label: "BLOCK_KEY0".to_owned() };
        let Ok(()) = self.0.key.get().ok_or_else(missing)?.hmac_sha256(message, tag);
        Ok(())
    }
}

fn secret(octet: u8) -> SecretArray<32> {
    SecretArray::fill(|key| key.fill(octet))
}

fn backend(block: &EfuseBlock) -> FusedBackend<EfuseBlock> {
    FusedBackend::new(block.clone(), "BLOCK_KEY0".to_owned()).unwrap()
}

fn key(octet: u8) -> KeyId {
    KeyId::from_bytes([octet; 16])
}

#[test]
fn a_fused_key_conforms_and_only_wraps() {
    let backend = backend(&EfuseBlock::burnt(1));
    assert_eq!(backend.capabilities().root_use, RootUse::OnlyWraps);
    conformance::check(&backend, [key(1), key(2)]).unwrap();
}

#[test]
fn what_a_fused_key_may_not_do_is_refused_before_the_chip_is_asked() {
    let block = EfuseBlock::burnt(1);
    let backend = backend(&block);
    let before = block.calls();
    for level in Level::ALL.into_iter().filter(|level| *level != Level::Wrapping) {
        let info = Info::new(level, Algorithm::HkdfSha256, Purpose::Derive, b"", 1).unwrap();
        assert_eq!(backend.expand_root(&info).err(), Some(BackendError::OnlyWraps), "{level:?}");
    }
    assert_eq!(block.calls(), before);
}

#[test]
fn a_fused_key_gives_the_published_wrapping_keys_and_refuses_the_tree() {
    let covered = conformance::check_vectors(&mut |key| {
        let block = EfuseBlock::default();
        block.burn(SecretArray::fill(|octets| octets.copy_from_slice(key.expose())))?;
        Ok(Box::new(backend(&block)))
    });
    let covered = covered.unwrap();
    assert!(covered.steps >= 5 && covered.refused >= 35, "{covered:?}");
}

#[test]
fn a_block_burns_once() {
    let block = EfuseBlock::default();
    let empty = FusedBackend::new(block.clone(), "empty".to_owned()).unwrap_err();
    assert!(matches!(empty, BackendError::MissingKey { .. }));
    block.burn(secret(1)).unwrap();
    assert!(matches!(block.burn(secret(2)), Err(BackendError::KeyExists { .. })));
}

#[test]
fn the_key_below_a_fused_one_derives_the_tree_and_is_replaced() {
    let block = EfuseBlock::burnt(1);
    let chip = backend(&block);
    let [first, second] = [1_u32, 2].map(|epoch| {
        let wrapped = wrap_replaceable(&chip, epoch, &secret(0xa0 + u8::try_from(epoch).unwrap())).unwrap();
        let opened = unwrap_replaceable(&chip, epoch, &wrapped).unwrap();
        let below = SoftwareBackend::new(opened, format!("epoch {epoch} below BLOCK_KEY0")).unwrap();
        conformance::check(&below, [key(1), key(2)]).unwrap();
        (wrapped, below)
    });
    assert!(conformance::check_same_root(&first.1, &second.1).is_err(), "another epoch is another key");
    assert_eq!(
        unwrap_replaceable(&chip, 2, &first.0).err(),
        Some(BackendError::Handle),
        "an old epoch under a new one"
    );
    let other_chip = backend(&EfuseBlock::burnt(2));
    assert_eq!(
        unwrap_replaceable(&other_chip, 1, &first.0).err(),
        Some(BackendError::Handle),
        "a copy on another chip"
    );
    let mut altered = first.0;
    altered[20] ^= 1;
    assert_eq!(unwrap_replaceable(&chip, 1, &altered).err(), Some(BackendError::Handle));
}

#[test]
fn the_device_side_type_of_a_fused_key_wraps_with_the_same_key() {
    let block = EfuseBlock::burnt(1);
    let info = Info::new(Level::Wrapping, Algorithm::Aes256Gcm, Purpose::WrapReplaceableKey, &[], 5).unwrap();
    let server = backend(&block).expand_root(&info).unwrap();
    let device = FusedKey::new(block).wrapping(5).unwrap().into_secret();
    assert!(server.equals(&device));
}

#[test]
fn an_empty_block_in_the_role_of_a_root_yields_no_key() {
    let root = FleetRoot::from_keyed_hmac(EfuseBlock::default());
    let refused = root.facility(FacilityId::from_bytes([1; 16]), 1).unwrap_err();
    assert!(matches!(refused, kf_derive::DeriveError::Holder(BackendError::MissingKey { .. })));
}

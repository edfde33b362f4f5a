use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kf_backend::{SealError, create_sealed_root, open_sealed_root};
use kf_crypto::Argon2Cost;
use kf_key::SecretBytes;
use tempfile::TempDir;

const PASSPHRASE: &str = "correct horse battery";

fn passphrase(text: &str) -> SecretBytes {
    SecretBytes::from_vec(text.as_bytes().to_vec())
}

fn sealed() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.seal");
    create_sealed_root(&path, &passphrase(PASSPHRASE), Argon2Cost::FLOOR).unwrap();
    (directory, path)
}

fn open(path: &Path) -> Result<(), SealError> {
    open_sealed_root(path, &passphrase(PASSPHRASE)).map(drop)
}

#[test]
fn a_sealed_root_opens_under_its_passphrase_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.seal");
    let root = create_sealed_root(&path, &passphrase(PASSPHRASE), Argon2Cost::FLOOR).unwrap();
    assert!(open_sealed_root(&path, &passphrase(PASSPHRASE)).unwrap().equals(&root));
    let wrong = open_sealed_root(&path, &passphrase("correct horse batterz")).unwrap_err();
    assert!(matches!(wrong, SealError::Unseal));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no scratch file is left");
}

#[test]
fn a_sealed_root_is_never_overwritten() {
    let (directory, path) = sealed();
    let before = fs::read(&path).unwrap();
    let again = create_sealed_root(&path, &passphrase("another passphrase"), Argon2Cost::FLOOR).unwrap_err();
    assert!(matches!(again, SealError::Exists(_)));
    let dangling = directory.path().join("dangling");
    std::os::unix::fs::symlink(directory.path().join("nowhere"), &dangling).unwrap();
    let through_link = create_sealed_root(&dangling, &passphrase(PASSPHRASE), Argon2Cost::FLOOR).unwrap_err();
    assert!(matches!(through_link, SealError::Exists(_)));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn every_changed_field_is_refused_and_a_wrong_passphrase_looks_the_same() {
    let (_directory, path) = sealed();
    let text = fs::read_to_string(&path).unwrap();
    let changes = [
        ("\"memory_kib\": 65536", "\"memory_kib\": 65537"),
        ("\"passes\": 3", "\"passes\": 4"),
        ("\"lanes\": 4", "\"lanes\": 2"),
        // Above the ceiling and below the floor: refused without being computed.
        ("\"memory_kib\": 65536", "\"memory_kib\": 4000000000"),
        ("\"memory_kib\": 65536", "\"memory_kib\": 8"),
    ];
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replace(from, to)).unwrap();
        assert_eq!(open(&path).unwrap_err().to_string(), SealError::Unseal.to_string(), "{to}");
    }
}

#[test]
fn other_formats_versions_and_unknown_fields_are_refused() {
    let (_directory, path) = sealed();
    let text = fs::read_to_string(&path).unwrap();
    let changes = [
        ("\"version\": 1", "\"version\": 2"),
        ("keyfleet-root-seal", "keyfleet-root-sale"),
        ("argon2id", "argon2i"),
        ("\"version\": 1", "\"version\": 1, \"extra\": 1"),
    ];
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replace(from, to)).unwrap();
        assert!(matches!(open(&path), Err(SealError::Format(_))), "{to}");
    }
    fs::write(&path, vec![b' '; 5000]).unwrap();
    assert!(matches!(open(&path), Err(SealError::Format(_))));
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let (_directory, path) = sealed();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(open(&path), Err(SealError::Permissions { mode: 0o640, .. })));
}

#[test]
fn a_missing_file_and_a_short_passphrase_say_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.seal");
    assert!(open(&path).unwrap_err().to_string().contains("keyfleet init"));
    let short = create_sealed_root(&path, &passphrase("elevenchars"), Argon2Cost::FLOOR).unwrap_err();
    assert!(matches!(short, SealError::PassphraseTooShort));
    assert!(!path.exists());
}

use std::collections::BTreeMap;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use kf_crypto::PrivateKey;
use kf_key::{KeyAlgorithm, UnixMillis};
use proptest::prelude::*;

use crate::hash::{empty_root, leaf_hash};
use crate::note::{NoteError, VerifierKey, open_note, sign_note};
use crate::proof::{self, HashReader, ProofFails};
use crate::tile::{TileError, TileKind, TilePath, parse_bundle, parse_tile, push_bundle_entry, tile_width};
use crate::tree::Tree;
use crate::{Actor, AuditEntry, Checkpoint, Finding, Phase, TileSource, verify_log};

type Files = BTreeMap<String, Vec<u8>>;

/// A published log in memory.
#[derive(Clone)]
struct Published {
    files: Files,
    key: VerifierKey,
}

impl TileSource for Published {
    type Error = ();

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, ()> {
        Ok(self.files.get(path).cloned())
    }
}

struct Tiles<'a>(&'a Files, u64);

impl HashReader for Tiles<'_> {
    type Error = TileError;

    fn hashes(&self, level: u8, index: u64, width: u16) -> Result<Vec<[u8; 32]>, TileError> {
        assert_eq!(width, tile_width(self.1, level, index));
        let path = TilePath::new(TileKind::Hashes(level), index, width)?.to_string();
        parse_tile(self.0.get(&path).unwrap(), width)
    }
}

fn entry(number: u64) -> Vec<u8> {
    AuditEntry {
        v: 1,
        at: UnixMillis(number),
        who: Actor {
            id: "server".into(),
            name: "server".into(),
            role: "fleet-operator".into(),
            by: "server".into(),
            token: None,
        },
        act: "certificate.issue".into(),
        phase: Phase::Done,
        facility: None,
        subjects: vec![format!("cert:{number:040x}")],
        why: String::new(),
        detail: BTreeMap::new(),
    }
    .to_leaf()
}

/// The files of a log of these entries, without the checkpoint, and its tree.
fn tiles(entries: &[Vec<u8>]) -> (Files, Tree) {
    let mut tree = Tree::new();
    let mut completed = Vec::new();
    for entry in entries {
        tree.append(leaf_hash(entry), &mut completed);
    }
    let mut files = Files::new();
    let mut put = |kind, index, width, octets: Vec<u8>| {
        files.insert(TilePath::new(kind, index, width).unwrap().to_string(), octets);
    };
    for tile in completed {
        put(TileKind::Hashes(tile.level), tile.index, 256, tile.hashes.concat());
    }
    for level in 0..tree.levels() {
        let edge = tree.edge(level);
        if !edge.is_empty() {
            let index = tree.size() >> (8 * (level + 1));
            let kind = TileKind::Hashes(u8::try_from(level).unwrap());
            put(kind, index, u16::try_from(edge.len()).unwrap(), edge.concat());
        }
    }
    for (index, chunk) in (0..).zip(entries.chunks(256)) {
        let mut bundle = Vec::new();
        for entry in chunk {
            push_bundle_entry(&mut bundle, entry).unwrap();
        }
        put(TileKind::Entries, index, u16::try_from(chunk.len()).unwrap(), bundle);
    }
    (files, tree)
}

fn publish(entries: &[Vec<u8>], signer: &PrivateKey) -> (Published, Checkpoint) {
    let (mut files, tree) = tiles(entries);
    let key = VerifierKey::new("log.example", signer.public_key().try_into().unwrap()).unwrap();
    let checkpoint = Checkpoint { origin: "log.example".into(), size: tree.size(), root: tree.root() };
    let note = checkpoint.sign(&key, |text| signer.sign(text)).unwrap();
    files.insert("checkpoint".into(), note.into_bytes());
    (Published { files, key }, checkpoint)
}

fn oracle(entries: &[Vec<u8>]) -> MemoryBackedTree<sha2::Sha256, Vec<u8>> {
    let mut tree = MemoryBackedTree::new();
    for entry in entries {
        tree.push(entry.clone());
    }
    tree
}

fn check_against_oracle(count: u64) {
    let entries: Vec<_> = (0..count).map(entry).collect();
    let (files, tree) = tiles(&entries);
    let oracle = oracle(&entries);
    assert_eq!(&tree.root()[..], oracle.root().as_bytes().as_slice());
    let reader = Tiles(&files, count);
    assert_eq!(proof::root(&reader, count).unwrap(), tree.root());
    for index in [0, count / 3, count / 2, count - 1] {
        let made = proof::inclusion_proof(&reader, index, count).unwrap();
        let theirs = oracle.prove_inclusion(usize::try_from(index).unwrap());
        assert_eq!(made.concat(), theirs.as_bytes(), "inclusion of {index} in {count}");
        let entry = &entries[usize::try_from(index).unwrap()];
        assert_eq!(proof::verify_inclusion(entry, index, count, &tree.root(), &made), Ok(()));
        assert_eq!(proof::verify_inclusion(b"else", index, count, &tree.root(), &made), Err(ProofFails));
    }
    for old in [1, count / 3 + 1, count - 1] {
        if old == 0 || old >= count {
            continue;
        }
        let made = proof::consistency_proof(&reader, old, count).unwrap();
        let theirs = oracle.prove_consistency(usize::try_from(count - old).unwrap());
        assert_eq!(made.concat(), theirs.as_bytes(), "consistency of {old} and {count}");
        let (_, before) = tiles(&entries[..usize::try_from(old).unwrap()]);
        assert_eq!(proof::verify_consistency(old, &before.root(), count, &tree.root(), &made), Ok(()));
        assert_eq!(proof::verify_consistency(old, &[7; 32], count, &tree.root(), &made), Err(ProofFails));
        assert_eq!(proof::prefix_root(&reader, old, count).unwrap(), before.root());
    }
}

#[test]
fn roots_and_proofs_are_those_of_another_implementation() {
    for count in (1..=40).chain([63, 64, 65, 255, 256, 257, 511, 512, 513, 1_000]) {
        check_against_oracle(count);
    }
}

#[test]
fn a_third_level_of_tiles_is_made_like_the_others() {
    check_against_oracle(65_536 + 259);
}

#[test]
fn the_empty_tree_has_the_root_of_rfc_6962() {
    assert_eq!(Tree::new().root(), empty_root());
    assert_eq!(hex::encode(empty_root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_restored_tree_goes_on_as_if_nothing_had_happened(before in 0_u64..700, after in 0_u64..700) {
        let mut tree = Tree::new();
        let mut completed = Vec::new();
        for number in 0..before {
            tree.append(leaf_hash(&number.to_be_bytes()), &mut completed);
        }
        let edges = (0..tree.levels()).map(|level| tree.edge(level).to_vec()).collect();
        let mut restored = Tree::restore(tree.size(), edges).unwrap();
        let mut theirs = Vec::new();
        completed.clear();
        for number in before..before + after {
            tree.append(leaf_hash(&number.to_be_bytes()), &mut completed);
            restored.append(leaf_hash(&number.to_be_bytes()), &mut theirs);
        }
        prop_assert_eq!(restored.root(), tree.root());
        prop_assert_eq!(theirs, completed);
    }

    #[test]
    fn a_tree_with_a_wrong_edge_is_not_restored(size in 1_u64..100_000, wrong in 1_usize..3) {
        let edges = vec![vec![[0; 32]; usize::try_from(size % 256).unwrap() + wrong]];
        prop_assert!(Tree::restore(size, edges).is_err());
    }

    #[test]
    fn a_tile_path_survives_its_text(level in 0_u8..64, index: u64, width in 1_u16..=256, entries: bool) {
        let kind = if entries { TileKind::Entries } else { TileKind::Hashes(level) };
        let path = TilePath::new(kind, index, width).unwrap();
        prop_assert_eq!(path.to_string().parse(), Ok(path));
    }

    #[test]
    fn no_text_makes_the_readers_panic(text in "\\PC{0,80}", octets: Vec<u8>) {
        let _ = text.parse::<TilePath>();
        let _ = format!("tile/{text}").parse::<TilePath>();
        let _ = VerifierKey::from_text(&text);
        let _ = Checkpoint::from_text(&text);
        let _ = parse_bundle(&octets);
        let key = VerifierKey::new("k", [0; 32]).unwrap();
        prop_assert!(open_note(&text, &key).is_err());
    }
}

#[test]
fn paths_are_spelled_as_c2sp_spells_them() {
    let path = |kind, index, width| TilePath::new(kind, index, width).unwrap().to_string();
    assert_eq!(path(TileKind::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067");
    assert_eq!(path(TileKind::Hashes(1), 0, 12), "tile/1/000.p/12");
    assert_eq!(path(TileKind::Entries, 273, 112), "tile/entries/273.p/112");
    for wrong in [
        "tile/0/1",
        "tile/00/001",
        "tile/64/001",
        "tile/0/x000/001",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/012",
        "tile/0/001/",
        "tile/0/x001",
        "entries/001",
        "tile/0/+01",
        "tile/0/001.p/",
    ] {
        assert!(wrong.parse::<TilePath>().is_err(), "{wrong}");
    }
}

#[test]
fn a_note_is_refused_when_anything_in_it_changes() {
    let signer = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    let key = VerifierKey::new("log.example", signer.public_key().try_into().unwrap()).unwrap();
    assert_eq!(VerifierKey::from_text(&key.to_string()), Ok(key.clone()));
    let note = sign_note("log.example\n3\nroot\n", &key, |text| signer.sign(text)).unwrap();
    assert_eq!(open_note(&note, &key), Ok("log.example\n3\nroot\n"));
    assert_eq!(open_note(&note.replace("\n3\n", "\n4\n"), &key), Err(NoteError::Signature));
    let other = VerifierKey::new("log.example", [9; 32]).unwrap();
    assert_eq!(open_note(&note, &other), Err(NoteError::Unsigned));
    let renamed = VerifierKey::new("other.example", *key.public_key()).unwrap();
    assert_eq!(open_note(&note, &renamed), Err(NoteError::Unsigned));
    assert!(sign_note("text\n", &other, |text| signer.sign(text)).is_err());
    // A second signature line by somebody else, as a witness adds one, does not hurt.
    let cosigned = format!("{note}\u{2014} witness.example {}\n", "AAAAAAAA".repeat(9));
    assert_eq!(open_note(&cosigned, &key), Ok("log.example\n3\nroot\n"));
}

#[test]
fn the_verifier_key_of_the_specification_is_read() {
    // C2SP signed-note, "Verifier keys": the example of Go's golang.org/x/mod/sumdb/note.
    let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let key = VerifierKey::from_text(text).unwrap();
    assert_eq!(key.to_string(), text);
    assert_eq!(key.id(), [0xc7, 0x4f, 0x20, 0xa3]);
    let note = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    assert!(open_note(note, &key).is_ok());
}

fn log(count: u64) -> (Published, Checkpoint, Vec<Vec<u8>>, PrivateKey) {
    let signer = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    let entries: Vec<_> = (0..count).map(entry).collect();
    let (published, checkpoint) = publish(&entries, &signer);
    (published, checkpoint, entries, signer)
}

fn findings(published: &Published, older: &[Checkpoint]) -> Vec<Finding> {
    verify_log(published, &published.key, older).unwrap().findings
}

fn bundle(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut octets = Vec::new();
    for entry in entries {
        push_bundle_entry(&mut octets, entry).unwrap();
    }
    octets
}

#[test]
fn an_untouched_log_holds_with_every_older_checkpoint() {
    let (published, _, entries, signer) = log(1_000);
    let older: Vec<_> = [0, 1, 256, 300, 999, 1_000].map(|n| publish(&entries[..n], &signer).1).into();
    let report = verify_log(&published, &published.key, &older).unwrap();
    assert!(report.holds(), "{:?}", report.findings);
    assert_eq!((report.entries, report.consistent, report.tiles), (1_000, 6, 5));
    let (empty, ..) = log(0);
    assert!(verify_log(&empty, &empty.key, &[]).unwrap().holds());
}

#[test]
fn an_edited_entry_is_located() {
    let (mut published, _, mut entries, _) = log(700);
    entries[300] = entry(9_999);
    published.files.insert("tile/entries/001".into(), bundle(&entries[256..512]));
    assert_eq!(findings(&published, &[]), [Finding::Edited { index: 300 }]);
}

#[test]
fn a_removed_entry_is_located() {
    let (mut published, _, mut entries, _) = log(700);
    entries.remove(600);
    published.files.insert("tile/entries/002.p/188".into(), bundle(&entries[512..]));
    assert_eq!(findings(&published, &[]), [Finding::Removed { index: 600 }]);
    entries.pop();
    let (mut published, _, entries, _) = log(700);
    published.files.insert("tile/entries/002.p/188".into(), bundle(&entries[512..699]));
    assert_eq!(findings(&published, &[]), [Finding::Removed { index: 699 }]);
}

#[test]
fn an_inserted_entry_is_located() {
    let (mut published, _, mut entries, _) = log(100);
    entries.insert(7, entry(9_999));
    published.files.insert("tile/entries/000.p/100".into(), bundle(&entries));
    assert_eq!(findings(&published, &[]), [Finding::Inserted { index: 7 }]);
}

#[test]
fn reordered_entries_are_located() {
    let (mut published, _, mut entries, _) = log(700);
    entries.swap(5, 9);
    published.files.insert("tile/entries/000".into(), bundle(&entries[..256]));
    assert_eq!(findings(&published, &[]), [Finding::Reordered { index: 5 }]);
}

#[test]
fn a_missing_or_cut_file_is_named() {
    let (published, ..) = log(700);
    for path in published.files.keys() {
        let mut without = published.clone();
        without.files.remove(path);
        let expected =
            if path == "checkpoint" { Finding::NoCheckpoint } else { Finding::Missing { path: path.clone() } };
        assert!(findings(&without, &[]).contains(&expected), "{path}");
        let mut cut = published.clone();
        cut.files.get_mut(path).unwrap().pop();
        assert!(!findings(&cut, &[]).is_empty(), "{path}");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (published, ..) = log(300);
    for (path, octets) in &published.files {
        for position in (0..octets.len()).step_by(octets.len() / 16 + 1) {
            let mut flipped = published.clone();
            flipped.files.get_mut(path).unwrap()[position] ^= 0x01;
            assert!(!findings(&flipped, &[]).is_empty(), "{path} at {position}");
        }
    }
}

#[test]
fn a_rewritten_tile_is_located_by_the_level_above() {
    let (mut published, _, mut entries, _) = log(700);
    entries[300] = entry(9_999);
    let (forged, _) = tiles(&entries);
    for path in ["tile/entries/001", "tile/0/001"] {
        published.files.insert(path.into(), forged[path].clone());
    }
    assert_eq!(findings(&published, &[]), [Finding::Tile { level: 0, index: 1, first: 256, last: 511 }]);
    // With the level above rewritten too, the root of the checkpoint does not fit.
    published.files.insert("tile/1/000.p/2".into(), forged["tile/1/000.p/2"].clone());
    assert_eq!(findings(&published, &[]), [Finding::Root]);
}

#[test]
fn a_log_signed_anew_is_unmasked_by_an_older_checkpoint() {
    let (_, old, mut entries, signer) = log(700);
    entries[300] = entry(9_999);
    entries.push(entry(700));
    let (forged, _) = publish(&entries, &signer);
    assert_eq!(findings(&forged, &[]), []);
    assert_eq!(findings(&forged, std::slice::from_ref(&old)), [Finding::Forked { old: 700 }]);
    let (cut, _) = publish(&entries[..200], &signer);
    assert_eq!(findings(&cut, &[old]), [Finding::Truncated { old: 700, size: 200 }]);
}

#[test]
fn a_checkpoint_by_another_key_is_not_trusted() {
    let (mut published, checkpoint, ..) = log(10);
    let thief = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    let key = VerifierKey::new("log.example", thief.public_key().try_into().unwrap()).unwrap();
    let note = checkpoint.sign(&key, |text| thief.sign(text)).unwrap();
    published.files.insert("checkpoint".into(), note.into_bytes());
    assert_eq!(findings(&published, &[]), [Finding::Checkpoint(NoteError::Unsigned)]);
}

#[test]
fn an_entry_of_an_unknown_version_is_reported() {
    let signer = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    let (published, _) = publish(&[entry(0), b"{\"v\":2}".to_vec()], &signer);
    assert_eq!(findings(&published, &[]), [Finding::Unreadable { index: 1 }]);
}

use kf_access::Visibility;
use kf_api::PageRequest;
use kf_key::KeyAlgorithm;
use kf_log::hash::leaf_hash;
use kf_log::tile::{TileKind, TilePath, tile_width};
use kf_log::{Checkpoint, TileSource, Tree, VerifierKey, proof, verify_log};
use kf_store::log::PublishedCheckpoint;
use kf_store::{Store, StoreError};

use crate::fixture::{done, entry, facility_id, fleet, only, open, populate, small_reserve};

async fn fill(store: &Store, count: u64) {
    let mut number = 0;
    while number < count {
        let chunk = 500.min(count - number);
        let entries: Vec<_> = (number..number + chunk)
            .map(|number| {
                let facility = Some(number % 2 + 1);
                entry("test.act", facility, &[format!("dev_{:032x}", number % 10), format!("spki:{number}")])
            })
            .collect();
        store.append_log(entries).await.unwrap();
        number += chunk;
    }
}

fn recomputed(store: &Store) -> [u8; 32] {
    let mut tree = Tree::new();
    let mut completed = Vec::new();
    while tree.size() < store.tree().size {
        for leaf in store.log_entries(tree.size()..u64::MAX).unwrap() {
            tree.append(leaf_hash(&leaf), &mut completed);
        }
    }
    tree.root()
}

#[tokio::test]
async fn the_root_after_reopening_is_that_of_a_recomputation() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, small_reserve());
    populate(&store).await;
    let mut size = store.tree().size;
    drop(store);
    for more in [0, 1, 250, 5, 700, 256] {
        let store = open(&directory, small_reserve());
        assert_eq!(store.tree().size, size);
        fill(&store, more).await;
        size += more;
        assert_eq!(store.tree().size, size);
        assert_eq!(store.tree().root, recomputed(&store), "at {size}");
    }
    // A third level of tiles.
    let store = open(&directory, small_reserve());
    fill(&store, 66_000).await;
    let head = store.tree();
    store.close().await;
    drop(store);
    let store = open(&directory, small_reserve());
    assert_eq!(store.tree(), head);
    assert_eq!(head.root, recomputed(&store));
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let _store = open(&directory, small_reserve());
    let second = Store::open(&directory.path().join("registry.db"), small_reserve());
    assert!(matches!(second, Err(StoreError::Io { .. })));
}

#[tokio::test]
async fn entries_are_listed_by_subject_facility_and_scope_page_by_page() {
    let store = fleet().await;
    let before = store.tree().size;
    fill(&store, 200).await;
    let list = |subject: Option<&str>, visibility: &Visibility| {
        let mut indices = Vec::new();
        let mut page = PageRequest { after: None, limit: Some(7) };
        loop {
            let found = store.log_list(subject, visibility, &page).unwrap();
            indices.extend(found.items.iter().map(|record| record.index - before.min(record.index)));
            page.after = found.next;
            if page.after.is_none() {
                return indices;
            }
        }
    };
    let every = |modulus: usize, rest: u64| (rest..200).step_by(modulus).collect::<Vec<_>>();
    let device = format!("dev_{:032x}", 3);
    assert_eq!(list(Some(&device), &Visibility::Fleet), every(10, 3));
    assert_eq!(list(Some(&device), &only(2)), every(10, 3));
    assert_eq!(list(Some(&device), &only(1)), Vec::<u64>::new());
    assert_eq!(list(Some(&facility_id(1).to_string()), &Visibility::Fleet), every(2, 0));
    assert_eq!(list(Some(&facility_id(1).to_string()), &only(2)), Vec::<u64>::new());
    assert_eq!(list(None, &only(2)), every(2, 1));
    assert_eq!(list(None, &Visibility::Fleet).len(), 200 + usize::try_from(before).unwrap());
    assert_eq!(list(Some("dev_unknown"), &Visibility::Fleet), Vec::<u64>::new());
    let both = Visibility::Facilities([facility_id(1), facility_id(2)].into());
    assert_eq!(list(None, &both), every(1, 0));
}

/// The log of a store as an outsider sees it, with its checkpoint.
struct Published<'a> {
    store: &'a Store,
    note: String,
}

impl TileSource for Published<'_> {
    type Error = StoreError;

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        if path == "checkpoint" {
            return Ok(Some(self.note.clone().into_bytes()));
        }
        // A log whose key has no successor has no other files.
        if path == kf_log::succession::SUCCESSION {
            return Ok(None);
        }
        let path: TilePath = path.parse().unwrap();
        Ok(match path.kind() {
            TileKind::Hashes(level) => self.store.log_tile(level, path.index(), path.width()),
            TileKind::Entries => self.store.log_bundle(path.index(), path.width()),
        }
        .ok())
    }
}

#[tokio::test]
async fn what_is_published_passes_the_complete_check_also_at_an_older_checkpoint() {
    let store = fleet().await;
    fill(&store, 600).await;
    let signer = kf_crypto::PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    let key = VerifierKey::new("fleet.example", signer.public_key().try_into().unwrap()).unwrap();
    let head = store.tree();
    let checkpoint = Checkpoint { origin: "fleet.example".into(), size: head.size, root: head.root };
    let note = checkpoint.sign(&key, |text| signer.sign(text)).unwrap();
    let published = Published { store: &store, note };
    let report = verify_log(&published, &key, &[]).unwrap();
    assert!(report.holds(), "{:?}", report.findings);
    fill(&store, 700).await;
    let report = verify_log(&published, &key, std::slice::from_ref(&checkpoint)).unwrap();
    assert!(report.holds(), "{:?}", report.findings);
    let now = store.tree();
    let consistency = proof::consistency_proof(&store, checkpoint.size, now.size).unwrap();
    assert!(proof::verify_consistency(checkpoint.size, &checkpoint.root, now.size, &now.root, &consistency).is_ok());
    let inclusion = proof::inclusion_proof(&store, 77, now.size).unwrap();
    let leaf = store.log_entries(77..78).unwrap().remove(0);
    assert!(proof::verify_inclusion(&leaf, 77, now.size, &now.root, &inclusion).is_ok());
    assert!(store.log_tile(0, now.size / 256, tile_width(now.size, 0, now.size / 256) + 1).is_err());
    assert!(store.log_bundle(now.size / 256 + 1, 1).is_err());
}

#[tokio::test]
async fn the_published_checkpoint_never_goes_back() {
    let store = fleet().await;
    let at = |size| PublishedCheckpoint { size, note: format!("note {size}") };
    assert_eq!(store.checkpoint().unwrap(), None);
    store.publish_checkpoint(at(2)).await.unwrap();
    store.publish_checkpoint(at(3)).await.unwrap();
    assert!(matches!(store.publish_checkpoint(at(2)).await, Err(StoreError::IllegalState { .. })));
    assert!(matches!(store.publish_checkpoint(at(1_000)).await, Err(StoreError::IllegalState { .. })));
    assert_eq!(store.checkpoint().unwrap(), Some(at(3)));
    store.append_log(done()).await.unwrap();
}

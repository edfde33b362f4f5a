use super::*;

const ID: BackupId = BackupId::from_bytes([7; 16]);
const OCTETS: usize = 512;

/// A file that says it has pages of 512 octets, filled as given.
fn file(directory: &Path, fillings: &[u8]) -> std::path::PathBuf {
    let mut octets: Vec<u8> = fillings.iter().flat_map(|filling| [*filling; OCTETS]).collect();
    octets[PAGE_SIZE_AT].copy_from_slice(&512_u16.to_be_bytes());
    let path = directory.join("copy");
    std::fs::write(&path, octets).unwrap();
    path
}

fn changed(directory: &Path, fillings: &[u8], base: Option<PageIndex>) -> (Vec<u8>, RegistryFile) {
    let mut pages = Pages::open(&file(directory, fillings), &directory.join("index"), ID, base).unwrap();
    let mut log = Vec::new();
    let mut frames = Changed::of(&mut pages, [3; 8]);
    frames.read_to_end(&mut log).unwrap();
    let count = usize::try_from(frames.frames()).unwrap();
    assert_eq!(log.len(), 32 + count * (FRAME_HEADER_OCTETS + OCTETS));
    (log, pages.finish().unwrap())
}

/// Page numbers and database sizes of the frames.
fn frames(log: &[u8]) -> Vec<(u32, u32)> {
    log[32..].chunks(FRAME_HEADER_OCTETS + OCTETS).map(|frame| (word(&frame[..4]), word(&frame[4..8]))).collect()
}

#[test]
fn pages_that_changed_came_or_went_are_held_and_the_last_frame_says_how_many_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for (after, held) in [
        (&[1, 2, 3, 4][..], vec![]),
        (&[1, 9, 3, 4], vec![(2, 4)]),
        (&[9, 2, 3, 9], vec![(1, 0), (4, 4)]),
        (&[1, 2, 3, 4, 5, 6], vec![(5, 0), (6, 6)]),
        (&[9, 2], vec![(1, 2)]),
    ] {
        let mut pages = Pages::open(&file(path, &[1, 2, 3, 4]), &path.join("index"), ID, None).unwrap();
        let mut whole = Vec::new();
        WholeCopy::of(&mut pages).read_to_end(&mut whole).unwrap();
        assert!(whole == std::fs::read(path.join("copy")).unwrap(), "a full backup is the copy as it is");
        pages.finish().unwrap();
        std::fs::rename(path.join("index"), path.join("before")).unwrap();
        let base = PageIndex::open(&path.join("before")).unwrap().unwrap();
        assert_eq!(base.backup(), ID);
        let (log, facts) = changed(path, after, Some(base));
        assert_eq!(frames(&log), held, "{after:?}");
        assert_eq!(facts.octets, u64::try_from(after.len() * OCTETS).unwrap());
        assert_eq!(facts.sha256, hex::encode(sha256(&std::fs::read(path.join("copy")).unwrap())));
    }
}

#[test]
fn an_index_that_is_cut_or_changed_anywhere_is_none() {
    let directory = tempfile::tempdir().unwrap();
    changed(directory.path(), &[1, 2], None);
    let path = directory.path().join("index");
    let good = std::fs::read(&path).unwrap();
    assert!(PageIndex::open(&path).unwrap().is_some());
    for at in 0..good.len() {
        std::fs::write(&path, &good[..at]).unwrap();
        assert!(PageIndex::open(&path).unwrap().is_none(), "cut at {at}");
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, bad).unwrap();
        assert!(PageIndex::open(&path).unwrap().is_none(), "changed at {at}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(PageIndex::open(&path).unwrap().is_none());
}

#[test]
fn the_checksum_is_that_of_the_documentation() {
    // By hand: s0 = 1, s1 = 2 + 1; then s0 += 3 + s1, s1 += 4 + s0.
    let octets: Vec<u8> = [1_u32, 2, 3, 4].into_iter().flat_map(u32::to_be_bytes).collect();
    assert_eq!(summed((0, 0), &octets), (7, 14));
}

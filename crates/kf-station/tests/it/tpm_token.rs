//! A station whose keys are in its TPM.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use kf_key::SecretBytes;
use kf_station::fixture::{Board, Fixture, Simulator, Supply};
use kf_station::token::{StationKey, StationToken, TpmToken, TpmTokenError};
use kf_testkit::SoftwareTpm;

use crate::stage::{Disk, LINUX, Stage};

fn open(directory: &Path, tpm: &SoftwareTpm) -> Result<TpmToken, TpmTokenError> {
    TpmToken::open(directory, &tpm.address(), SecretBytes::from_vec(b"correct horse battery".to_vec()))
}

const BATCH: [u8; 16] = [1; 16];

/// A copy of a directory of files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn keys_and_counts_are_found_again_and_an_old_copy_another_tpm_or_another_passphrase_is_refused() {
    let mut tpm = SoftwareTpm::new();
    let folder = kf_testkit::scratch();
    let (path, old) = (folder.path().join("token"), folder.path().join("old"));
    let keys = {
        let token = open(&path, &tpm).unwrap();
        token.advance(&BATCH, 5).unwrap();
        copy(&path, &old);
        token.advance(&BATCH, 7).unwrap();
        token.advance(&BATCH, 3).unwrap();
        StationKey::ALL.map(|key| token.public_key(key).unwrap())
    };
    tpm.restart();
    {
        let token = open(&path, &tpm).unwrap();
        assert_eq!(StationKey::ALL.map(|key| token.public_key(key).unwrap()), keys);
        assert_eq!((token.counter(&BATCH), token.counter(&[2; 16])), (Ok(7), Ok(0)));
        let mut octets = [0; 100];
        token.fill_random(&mut octets).unwrap();
        assert!(octets.windows(8).all(|window| window != [0; 8]));
    }
    assert!(matches!(open(&old, &tpm), Err(TpmTokenError::RolledBack { .. })), "a copy of the disk counts again");
    fs::remove_file(path.join("counters")).unwrap();
    assert!(matches!(open(&path, &tpm), Err(TpmTokenError::RolledBack { .. })));
    let guess = SecretBytes::from_vec(b"another passphrase".to_vec());
    assert!(TpmToken::open(&old, &tpm.address(), guess).is_err());
    let other = SoftwareTpm::new();
    assert!(open(&old, &other).is_err(), "what one TPM made another one opens");
}

#[test]
fn power_cut_between_the_file_and_the_tpm_loses_no_count_and_a_torn_write_spoils_none() {
    let tpm = SoftwareTpm::new();
    let folder = kf_testkit::scratch();
    let path = folder.path().join("token");
    let counters = path.join("counters");
    let before = {
        let token = open(&path, &tpm).unwrap();
        token.advance(&BATCH, 1).unwrap();
        let before = fs::read(&counters).unwrap();
        token.advance(&BATCH, 2).unwrap();
        before
    };
    let after = fs::read(&counters).unwrap();
    // The TPM was raised: only the new file is believed, wherever else the write was torn.
    fs::write(&counters, &before).unwrap();
    assert!(matches!(open(&path, &tpm), Err(TpmTokenError::RolledBack { .. })));
    fs::write(&counters, &after).unwrap();
    assert_eq!(open(&path, &tpm).unwrap().counter(&BATCH), Ok(2));
    // The file was written, or half of it, and the TPM was not raised: the state of a copy whose next write was cut.
    let twin = folder.path().join("twin");
    copy(&path, &twin);
    open(&path, &tpm).unwrap().advance(&BATCH, 3).unwrap();
    let next = fs::read(&counters).unwrap();
    for torn in [0, 1, 36, 2_000, 4_095, 4_097, 6_000, 8_191] {
        let mixed = [&next[..torn], &after[torn..]].concat();
        fs::write(&counters, &mixed).unwrap();
        let counted = open(&path, &tpm).map(|token| token.counter(&BATCH).unwrap());
        assert!(matches!(counted, Ok(3) | Err(TpmTokenError::RolledBack { .. })), "{torn}: {counted:?}");
    }
    fs::write(&counters, &next).unwrap();
    assert_eq!(open(&path, &tpm).unwrap().counter(&BATCH), Ok(3));
}

#[test]
fn a_line_works_with_its_keys_and_its_counter_in_a_tpm() {
    let tpm = SoftwareTpm::new();
    let folder = kf_testkit::scratch();
    let path = folder.path().join("token");
    let token: Arc<dyn StationToken> = Arc::new(open(&path, &tpm).unwrap());
    let stage = Stage::authorised_for(LINUX, 4, Arc::clone(&token));
    let supply = Supply::new((0..3).map(|number| Board::new(number, None)));
    let (station, _) = stage.open_with(Disk::default(), Arc::clone(&token)).unwrap();
    let fixture = |_| -> Box<dyn Fixture> { Box::new(Simulator::new(Arc::clone(&supply), Arc::clone(&stage.target))) };
    station.run((0..3).map(fixture).collect(), &());
    assert_eq!(station.counts().good, 3);
    let batch = stage.authorised.quota.terms.batch;
    assert_eq!(token.counter(batch.as_bytes()), Ok(3));
    // The journal is lost, and the TPM still knows.
    assert!(stage.open_with(Disk::default(), token).is_err());
}

//! A station whose keys are in its TPM.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use kf_batch::P256Key;
use kf_key::SecretBytes;
use kf_station::fixture::{Board, Fixture, Simulator, Supply};
use kf_station::token::{Generation, StationKey, StationToken, TokenError, TpmToken, TpmTokenError, labels};
use kf_testkit::SoftwareTpm;

use crate::stage::{Disk, LINUX, Stage};

fn open(directory: &Path, tpm: &SoftwareTpm) -> Result<TpmToken, TpmTokenError> {
    TpmToken::open(directory, &tpm.address(), SecretBytes::from_vec(b"correct horse battery".to_vec()))
}

const BATCH: [u8; 16] = [1; 16];
const FIRST: Generation = Generation::FIRST;

fn keys_of(token: &TpmToken, generation: Generation) -> Result<[P256Key; 4], TokenError> {
    Ok([
        token.public_key(StationKey::Identity)?,
        token.public_key(StationKey::Authority(generation))?,
        token.public_key(StationKey::Record(generation))?,
        token.transport_key(generation)?,
    ])
}

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
        token.draw(FIRST).unwrap();
        token.advance(&BATCH, 5).unwrap();
        copy(&path, &old);
        token.advance(&BATCH, 7).unwrap();
        token.advance(&BATCH, 3).unwrap();
        keys_of(&token, FIRST).unwrap()
    };
    tpm.restart();
    {
        let token = open(&path, &tpm).unwrap();
        assert_eq!(keys_of(&token, FIRST), Ok(keys));
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

#[test]
fn the_keys_of_one_batch_are_gone_with_what_the_tpm_loads_and_those_of_another_stay() {
    let tpm = SoftwareTpm::new();
    let folder = kf_testkit::scratch();
    let path = folder.path().join("token");
    let second = FIRST.next().unwrap();
    let (token, peer) = {
        let token = open(&path, &tpm).unwrap();
        token.draw(FIRST).unwrap();
        token.draw(second).unwrap();
        let (first, kept) = (keys_of(&token, FIRST).unwrap(), keys_of(&token, second).unwrap());
        assert!(first[0] == kept[0] && first[1..].iter().all(|key| !kept[1..].contains(key)));
        for label in labels(FIRST) {
            fs::hard_link(path.join(&label), folder.path().join(&label)).unwrap();
        }
        token.destroy(FIRST).unwrap();
        token.destroy(FIRST).unwrap();
        (token, kept)
    };
    assert_eq!(keys_of(&token, FIRST), Err(TokenError::MISSING));
    drop(token);
    let token = open(&path, &tpm).unwrap();
    assert_eq!(token.sign(StationKey::Record(FIRST), b"record"), Err(TokenError::MISSING));
    assert_eq!(token.agree(FIRST, peer[3].point()).err(), Some(TokenError::MISSING));
    assert!(token.sign(StationKey::Record(second), b"record").is_ok() && token.agree(second, peer[3].point()).is_ok());
    for label in labels(FIRST) {
        assert!(!path.join(&label).exists());
        assert!(fs::read(folder.path().join(&label)).unwrap().iter().all(|octet| *octet == 0), "{label}");
    }
}

#[test]
fn two_lines_of_one_station_count_side_by_side_and_neither_loses_a_count_of_the_other() {
    let tpm = SoftwareTpm::new();
    let folder = kf_testkit::scratch();
    let path = folder.path().join("token");
    let (one, other) = (open(&path, &tpm).unwrap(), open(&path, &tpm).unwrap());
    for count in 1..=4 {
        one.advance(&BATCH, count).unwrap();
        other.advance(&[2; 16], 10 * count).unwrap();
    }
    assert_eq!((one.counter(&[2; 16]), other.counter(&BATCH)), (Ok(40), Ok(4)));
    drop((one, other));
    let token = open(&path, &tpm).unwrap();
    assert_eq!((token.counter(&BATCH), token.counter(&[2; 16])), (Ok(4), Ok(40)));
    // A copy that is put in its place while a line works is seen at the next count.
    let before = fs::read(path.join("counters")).unwrap();
    token.advance(&BATCH, 5).unwrap();
    token.advance(&BATCH, 6).unwrap();
    fs::write(path.join("counters"), before).unwrap();
    assert!(token.advance(&BATCH, 7).is_err() && token.counter(&BATCH).is_err());
}

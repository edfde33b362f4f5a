use std::io::{Cursor, Read};

use kf_key::UnixMillis;

use super::*;
use crate::line::FailReason;

/// A disk that keeps what was synced, and of the rest what it likes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Memory {
    pub(crate) durable: Vec<u8>,
    pub(crate) waiting: Vec<u8>,
    pub(crate) fails_after: Option<u32>,
}

impl JournalFile for Memory {
    fn reader(&mut self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(Cursor::new(&self.durable)))
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.durable.truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        if let Some(left) = &mut self.fails_after {
            *left = left.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        }
        self.waiting.extend_from_slice(octets);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut waiting = std::mem::take(&mut self.waiting);
        self.durable.append(&mut waiting);
        Ok(())
    }
}

fn entry(number: u32) -> Entry {
    Entry::Refused { hardware: None, reason: FailReason::Hang, at: UnixMillis(u64::from(number)) }
}

fn entries(file: Memory) -> Result<(Vec<u64>, Memory), JournalError> {
    let mut seen = Vec::new();
    let journal = Journal::open(file, |noted| {
        seen.push(noted.entry.at().0);
        Ok::<_, JournalError>(())
    })?;
    Ok((seen, journal.into_file()))
}

fn written(count: u32, document: &[u8]) -> Memory {
    let journal = Journal::open(Memory::default(), |_| Ok::<_, JournalError>(())).unwrap();
    for number in 0..count {
        let ticket = journal.append(&entry(number), document).unwrap();
        journal.wait(ticket).unwrap();
    }
    journal.into_file()
}

#[test]
fn what_was_durable_is_read_again_with_its_documents() {
    let file = written(5, b"document");
    let mut documents = 0;
    Journal::open(file, |noted| {
        documents += usize::from(noted.document == b"document");
        Ok::<_, JournalError>(())
    })
    .unwrap();
    assert_eq!(documents, 5);
}

#[test]
fn a_write_torn_at_any_octet_is_cut_off_and_the_journal_goes_on() {
    let whole = written(3, b"");
    let two = written(2, b"").durable.len();
    for length in two..whole.durable.len() {
        let torn = Memory { durable: whole.durable[..length].to_vec(), ..Memory::default() };
        let (seen, file) = entries(torn).unwrap();
        assert_eq!((seen, file.durable.len()), (vec![0, 1], two), "cut at {length}");
        let journal = Journal::open(file, |_| Ok::<_, JournalError>(())).unwrap();
        let ticket = journal.append(&entry(9), b"").unwrap();
        journal.wait(ticket).unwrap();
        assert_eq!(entries(journal.into_file()).unwrap().0, [0, 1, 9]);
    }
}

#[test]
fn a_group_that_reached_the_disk_out_of_order_is_cut_off_where_the_hole_is() {
    let journal = Journal::open(Memory::default(), |_| Ok::<_, JournalError>(())).unwrap();
    let tickets: Vec<u64> = (0..4).map(|number| journal.append(&entry(number), &[7; 100]).unwrap()).collect();
    journal.wait(tickets[3]).unwrap();
    let mut file = journal.into_file();
    let frame = file.durable.len() / 4;
    file.durable[frame..2 * frame].fill(0);
    assert_eq!(entries(file).unwrap().0, [0]);
}

#[test]
fn a_flipped_bit_in_what_later_frames_call_durable_stops_the_station() {
    let whole = written(4, b"");
    let last = written(3, b"").durable.len();
    for position in 0..last {
        let mut damaged = whole.clone();
        damaged.durable[position] ^= 0x10;
        let refusal = entries(damaged);
        assert!(matches!(refusal, Err(JournalError::Damage(_))), "octet {position}: {refusal:?}");
    }
}

#[test]
fn after_a_failed_write_nothing_more_is_taken() {
    let file = Memory { fails_after: Some(1), ..Memory::default() };
    let journal = Journal::open(file, |_| Ok::<_, JournalError>(())).unwrap();
    let ticket = journal.append(&entry(0), b"").unwrap();
    journal.wait(ticket).unwrap();
    let ticket = journal.append(&entry(1), b"").unwrap();
    assert!(matches!(journal.wait(ticket), Err(JournalError::Io { .. })));
    assert!(matches!(journal.wait(ticket), Err(JournalError::Poisoned)));
    assert!(matches!(journal.append(&entry(2), b""), Err(JournalError::Poisoned)));
}

#[test]
fn many_threads_share_a_sync_and_lose_nothing() {
    let journal = Journal::open(Memory::default(), |_| Ok::<_, JournalError>(())).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let journal = &journal;
            scope.spawn(move || {
                for number in 0..50 {
                    let ticket = journal.append(&entry(thread * 50 + number), b"").unwrap();
                    journal.wait(ticket).unwrap();
                }
            });
        }
    });
    let (mut seen, _) = entries(journal.into_file()).unwrap();
    seen.sort_unstable();
    assert_eq!(seen, (0..400).collect::<Vec<u64>>());
}

#[test]
fn a_second_station_on_the_same_journal_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let first = DirectoryFile::open(&path).unwrap();
    assert_eq!(DirectoryFile::open(&path).err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    drop(first);
    assert!(DirectoryFile::open(&path).is_ok());
}

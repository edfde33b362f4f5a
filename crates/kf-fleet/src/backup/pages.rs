//! The pages of a copy of the registry: digested, and those that changed since the previous backup written as a write-ahead log of SQLite
//! (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>). Laid beside the copy that they build on, SQLite takes them up
//! by itself: an increment needs no program of ours to be read.
//!
//! The index has a digest of every page of the newest backup. It stays beside the registry, is as well protected, and tells what
//! changed; without it, or where it is damaged, the next backup is a full one. Everything passes page by page.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use kf_api::backup::RegistryFile;
use kf_crypto::{Sha256, sha256};
use kf_key::BackupId;

use crate::FleetError;
use crate::log_publisher::local;

const INDEX_MAGIC: &[u8; 16] = b"keyfleet pages 1";
/// Magic, identifier, octets of a page, pages.
const INDEX_HEADER_OCTETS: usize = 16 + 16 + 4 + 4;
const DIGEST_OCTETS: usize = 32;
/// Where the header of an SQLite file says how large a page is.
const PAGE_SIZE_AT: std::ops::Range<usize> = 16..18;
const SQLITE_HEADER_OCTETS: usize = 100;
/// A write-ahead log whose checksums are over big-endian words.
const WAL_MAGIC: u32 = 0x377f_0683;
const WAL_VERSION: u32 = 3_007_000;
const FRAME_HEADER_OCTETS: usize = 24;

/// The index of a backup, checked whole and read from its beginning.
pub(super) struct PageIndex {
    digests: BufReader<File>,
    backup: BackupId,
    page_octets: u32,
    left: u32,
}

impl PageIndex {
    /// Opens an index; `None` when it is not there, or not as it was written.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, FleetError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(local(path, &error)),
        };
        let length = file.metadata().map_err(|error| local(path, &error))?.len();
        let mut file = BufReader::new(file);
        let index = Self::checked(&mut file, length).map_err(|error| local(path, &error))?;
        let Some((backup, page_octets, left)) = index else { return Ok(None) };
        let header = u64::try_from(INDEX_HEADER_OCTETS).unwrap_or(0);
        let mut file = file.into_inner();
        file.seek(SeekFrom::Start(header)).map_err(|error| local(path, &error))?;
        Ok(Some(Self { digests: BufReader::new(file), backup, page_octets, left }))
    }

    /// What the header says, if length and digest are right.
    fn checked(file: &mut impl Read, length: u64) -> io::Result<Option<(BackupId, u32, u32)>> {
        let mut header = [0; INDEX_HEADER_OCTETS];
        if read_fully(file, &mut header)? < header.len() {
            return Ok(None);
        }
        let (magic, rest) = header.split_at(16);
        let (id, rest) = rest.split_at(16);
        let (page_octets, pages) = rest.split_at(4);
        let (page_octets, pages) = (word(page_octets), word(pages));
        let digests = u64::from(pages) * 32;
        if magic != INDEX_MAGIC || length != digests + 72 {
            return Ok(None);
        }
        let mut digest = Sha256::new();
        digest.update(&header);
        io::copy(&mut file.take(digests), &mut Fed(&mut digest))?;
        let mut said = [0; DIGEST_OCTETS];
        if read_fully(file, &mut said)? < said.len() || digest.finish() != said {
            return Ok(None);
        }
        let id = <[u8; 16]>::try_from(id).map(BackupId::from_bytes).ok();
        Ok(id.map(|id| (id, page_octets, pages)))
    }

    /// Whose pages these are.
    pub(super) const fn backup(&self) -> BackupId {
        self.backup
    }

    /// The digest of the next page; `None` after the last.
    fn next(&mut self) -> io::Result<Option<[u8; DIGEST_OCTETS]>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let mut digest = [0; DIGEST_OCTETS];
        self.digests.read_exact(&mut digest)?;
        Ok(Some(digest))
    }
}

/// Writes an index; it is whole once [`IndexWriter::finish`] returns.
struct IndexWriter {
    to: BufWriter<File>,
    digest: Sha256,
}

impl IndexWriter {
    fn create(path: &Path, backup: BackupId, page_octets: u32, pages: u32) -> io::Result<Self> {
        let mut index = Self { to: BufWriter::new(File::create(path)?), digest: Sha256::new() };
        for part in [&INDEX_MAGIC[..], backup.as_bytes(), &page_octets.to_be_bytes(), &pages.to_be_bytes()] {
            index.write(part)?;
        }
        Ok(index)
    }

    fn write(&mut self, part: &[u8]) -> io::Result<()> {
        self.digest.update(part);
        self.to.write_all(part)
    }

    fn finish(self) -> io::Result<()> {
        let Self { mut to, digest } = self;
        to.write_all(&digest.finish())?;
        to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

/// Feeds a digest.
struct Fed<'a>(&'a mut Sha256);

impl Write for Fed<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.update(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A copy of the registry, read page by page from the first to the last.
pub(super) struct Pages {
    from: BufReader<File>,
    page: Vec<u8>,
    /// The number of the page that is held, from 1; 0 before the first.
    number: u32,
    count: u32,
    whole: Sha256,
    index: IndexWriter,
    base: Option<PageIndex>,
}

impl Pages {
    /// Opens a copy, compares it with the pages of `base`, and writes an index of its own for `backup`.
    pub(super) fn open(
        copy: &Path,
        index: &Path,
        backup: BackupId,
        base: Option<PageIndex>,
    ) -> Result<Self, FleetError> {
        let read = || -> io::Result<_> {
            let mut file = File::open(copy)?;
            let length = file.metadata()?.len();
            let mut header = [0; SQLITE_HEADER_OCTETS];
            file.read_exact(&mut header)?;
            file.rewind()?;
            let said = header.get(PAGE_SIZE_AT).and_then(|said| <[u8; 2]>::try_from(said).ok()).unwrap_or_default();
            // One is what 65,536 does not fit into (section 1.3.2).
            let octets = match u16::from_be_bytes(said) {
                1 => 65_536,
                octets => u32::from(octets),
            };
            let count = length.checked_div(u64::from(octets)).and_then(|count| u32::try_from(count).ok());
            Ok((file, octets, count.filter(|count| u64::from(*count) * u64::from(octets) == length)))
        };
        let (file, octets, count) = read().map_err(|error| local(copy, &error))?;
        let count = count.ok_or(FleetError::Bug("a copy that is no whole number of pages"))?;
        // Of pages of another size nothing is the same.
        let base = base.filter(|base| base.page_octets == octets);
        let page = vec![0; usize::try_from(octets).unwrap_or(0)];
        let index = IndexWriter::create(index, backup, octets, count).map_err(|error| local(index, &error))?;
        Ok(Self { from: BufReader::new(file), page, number: 0, count, whole: Sha256::new(), index, base })
    }

    /// Takes the next page; whether it differs from that of the base, or `None` after the last.
    fn advance(&mut self) -> io::Result<Option<bool>> {
        if self.number == self.count {
            return Ok(None);
        }
        self.from.read_exact(&mut self.page)?;
        self.number += 1;
        self.whole.update(&self.page);
        let digest = sha256(&self.page);
        self.index.write(&digest)?;
        let before = match &mut self.base {
            None => None,
            Some(base) => base.next()?,
        };
        Ok(Some(before != Some(digest)))
    }

    /// Finishes the index durably; what the copy is, once every page was read.
    pub(super) fn finish(self) -> Result<RegistryFile, FleetError> {
        if self.number != self.count {
            return Err(FleetError::Bug("a copy that was not read to its end"));
        }
        let octets = u64::from(self.count) * u64::try_from(self.page.len()).unwrap_or(0);
        self.index
            .finish()
            .map_err(|error| FleetError::Local { path: "the index of pages".to_owned(), problem: error.to_string() })?;
        Ok(RegistryFile { octets, sha256: hex::encode(self.whole.finish()) })
    }
}

/// All pages, one after the other: the copy as it is.
pub(super) struct WholeCopy<'a> {
    pages: &'a mut Pages,
    at: usize,
}

impl<'a> WholeCopy<'a> {
    pub(super) fn of(pages: &'a mut Pages) -> Self {
        let at = pages.page.len();
        Self { pages, at }
    }
}

impl Read for WholeCopy<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.at == self.pages.page.len() {
            if self.pages.advance()?.is_none() {
                return Ok(0);
            }
            self.at = 0;
        }
        let left = self.pages.page.get(self.at..).unwrap_or_default();
        let taken = move_into(to, left);
        self.at += taken;
        Ok(taken)
    }
}

/// Pages that changed, as a write-ahead log of one transaction.
pub(super) struct Changed<'a> {
    pages: &'a mut Pages,
    salts: [u8; 8],
    sums: (u32, u32),
    /// A page that changed and is not written yet: the last one says how large the database is.
    waiting: Option<(u32, Vec<u8>)>,
    frames: u64,
    out: Vec<u8>,
    at: usize,
}

impl<'a> Changed<'a> {
    /// `salts` tell this log from others that were at the same place.
    pub(super) fn of(pages: &'a mut Pages, salts: [u8; 8]) -> Self {
        let page_octets = u32::try_from(pages.page.len()).unwrap_or(0);
        let mut out = Vec::with_capacity(FRAME_HEADER_OCTETS + pages.page.len());
        for word in [WAL_MAGIC, WAL_VERSION, page_octets, 0] {
            out.extend(word.to_be_bytes());
        }
        out.extend(salts);
        let sums = summed((0, 0), &out);
        out.extend(sums.0.to_be_bytes());
        out.extend(sums.1.to_be_bytes());
        Self { pages, salts, sums, waiting: None, frames: 0, out, at: 0 }
    }

    /// Pages that were written, once everything was read.
    pub(super) const fn frames(&self) -> u64 {
        self.frames
    }

    /// Puts the next frame into `out`; false after the last.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            match self.pages.advance()? {
                Some(true) => {
                    let changed = (self.pages.number, self.pages.page.clone());
                    if let Some((number, page)) = self.waiting.replace(changed) {
                        self.frame(number, 0, &page);
                        return Ok(true);
                    }
                }
                Some(false) => {}
                None => {
                    let Some((number, page)) = self.waiting.take() else { return Ok(false) };
                    self.frame(number, self.pages.count, &page);
                    return Ok(true);
                }
            }
        }
    }

    /// `size` is that of the database in pages, in the frame that commits, else 0.
    fn frame(&mut self, number: u32, size: u32, page: &[u8]) {
        self.out.clear();
        self.at = 0;
        self.out.extend(number.to_be_bytes());
        self.out.extend(size.to_be_bytes());
        self.sums = summed(summed(self.sums, &self.out), page);
        self.out.extend(self.salts);
        self.out.extend(self.sums.0.to_be_bytes());
        self.out.extend(self.sums.1.to_be_bytes());
        self.out.extend(page);
        self.frames += 1;
    }
}

impl Read for Changed<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.at == self.out.len() && !self.next_frame()? {
            return Ok(0);
        }
        let taken = move_into(to, self.out.get(self.at..).unwrap_or_default());
        self.at += taken;
        Ok(taken)
    }
}

/// The checksum of a write-ahead log, carried on over `octets` (section 4.2).
fn summed(before: (u32, u32), octets: &[u8]) -> (u32, u32) {
    let (mut first, mut second) = before;
    for pair in octets.chunks_exact(8) {
        let (left, right) = pair.split_at(4);
        first = first.wrapping_add(word(left)).wrapping_add(second);
        second = second.wrapping_add(word(right)).wrapping_add(first);
    }
    (first, second)
}

fn word(octets: &[u8]) -> u32 {
    <[u8; 4]>::try_from(octets).map(u32::from_be_bytes).unwrap_or_default()
}

fn move_into(to: &mut [u8], from: &[u8]) -> usize {
    let taken = to.len().min(from.len());
    if let (Some(to), Some(from)) = (to.get_mut(..taken), from.get(..taken)) {
        to.copy_from_slice(from);
    }
    taken
}

/// Octets read, fewer than asked for only at the end.
fn read_fully(from: &mut impl Read, to: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(left) = to.get_mut(done..).filter(|left| !left.is_empty()) {
        match from.read(left)? {
            0 => break,
            octets => done += octets,
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests;

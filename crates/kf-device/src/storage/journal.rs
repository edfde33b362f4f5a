//! Reading, writing and moving groups.

use super::flash::Flash;
use super::format::{
    Bank, CHUNK, ERASED, HEAD_OCTETS, HEADER_OCTETS, MAGIC, MARK, MAX_GROUP_OCTETS, RECORD_HEAD_OCTETS, REMOVED,
};
use super::integrity::Integrity;
use super::store::{Change, RecordId, StorageError, Store};

type Result<T, F> = core::result::Result<T, StorageError<<F as Flash>::Error>>;

/// A record that was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Where its octets are.
    pub(super) octets: u32,
    pub(super) length: u16,
    /// Where its group begins, and how many octets of records that has.
    pub(super) group: u32,
    pub(super) records: u32,
}

/// A place between two records.
#[derive(Clone, Copy, Debug)]
struct Place {
    group: u32,
    records: u32,
    /// Within the records of the group.
    position: u32,
}

/// A record as met on the way.
#[derive(Clone, Copy, Debug)]
struct Met {
    id: RecordId,
    /// `None`: removed.
    length: Option<u16>,
    found: Found,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    Blank,
    Records(u32),
    Torn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MarkState {
    Blank,
    Set,
    Torn,
}

impl<F: Flash, I: Integrity> Store<F, I> {
    fn read_at<const N: usize>(&mut self, offset: u32) -> Result<[u8; N], F> {
        let mut octets = [0; N];
        self.flash.read(offset, &mut octets).map_err(StorageError::Flash)?;
        Ok(octets)
    }

    /// Octets from `from` to `to` that are not erased.
    fn programmed_octets(&mut self, from: u32, to: u32) -> Result<u32, F> {
        let (mut offset, mut count) = (from, 0_u32);
        let mut buffer = [0; CHUNK];
        while offset < to {
            let chunk = chunk_of(&mut buffer, to.saturating_sub(offset));
            self.flash.read(offset, chunk).map_err(StorageError::Flash)?;
            for octet in chunk.iter() {
                count = count.saturating_add(u32::from(*octet != ERASED));
            }
            offset = offset.saturating_add(length_of(chunk));
        }
        Ok(count)
    }

    fn mark_at(&mut self, offset: u32) -> Result<MarkState, F> {
        let mut buffer = [0; CHUNK];
        let mark = chunk_of(&mut buffer, self.layout.word);
        self.flash.read(offset, mark).map_err(StorageError::Flash)?;
        Ok(if mark.iter().all(|octet| *octet == MARK) {
            MarkState::Set
        } else if mark.iter().all(|octet| *octet == ERASED) {
            MarkState::Blank
        } else {
            MarkState::Torn
        })
    }

    fn head_at(&mut self, offset: u32) -> Result<Head, F> {
        let [a, b, c, d] = self.read_at::<4>(offset)?;
        let length = u16::from_be_bytes([a, b]);
        let records = u32::from(length);
        let group_end = offset.saturating_add(self.layout.group(records));
        Ok(if [a, b, c, d] == [ERASED; 4] {
            Head::Blank
        } else if u16::from_be_bytes([c, d]) == !length
            && records <= MAX_GROUP_OCTETS
            && group_end <= self.layout.end(self.active)
        {
            Head::Records(records)
        } else {
            Head::Torn
        })
    }

    /// The tag covers where the group lies and in which life of the bank.
    fn begin_tag(&self, group: u32, sequence: u32) -> I::Tag {
        let mut tag = self.integrity.begin();
        I::update(&mut tag, &MAGIC);
        I::update(&mut tag, &sequence.to_be_bytes());
        I::update(&mut tag, &group.to_be_bytes());
        tag
    }

    /// Whether the tag of a group is right.
    pub(super) fn is_whole(&mut self, group: u32, records: u32) -> Result<bool, F> {
        let mut tag = self.begin_tag(group, self.sequence);
        let (mut offset, to) = (group, group.saturating_add(HEAD_OCTETS).saturating_add(records));
        let mut buffer = [0; CHUNK];
        while offset < to {
            let chunk = chunk_of(&mut buffer, to.saturating_sub(offset));
            self.flash.read(offset, chunk).map_err(StorageError::Flash)?;
            I::update(&mut tag, chunk);
            offset = offset.saturating_add(length_of(chunk));
        }
        zeroize::Zeroize::zeroize(&mut buffer);
        Ok(I::finish(tag) == self.read_at::<8>(to)?)
    }

    /// The record after `place`, which moves on.
    fn next_record(&mut self, place: &mut Place) -> Result<Option<Met>, F> {
        while place.position.saturating_add(RECORD_HEAD_OCTETS) > place.records {
            if place.position != place.records {
                return Err(StorageError::Corrupt);
            }
            let next = if place.group == 0 && place.records == 0 {
                self.layout.first_group(self.active)
            } else {
                place.group.saturating_add(self.layout.group(place.records))
            };
            if next >= self.end {
                return Ok(None);
            }
            let Head::Records(records) = self.head_at(next)? else { return Err(StorageError::Corrupt) };
            *place = Place { group: next, records, position: 0 };
        }
        let at = place.group.saturating_add(HEAD_OCTETS).saturating_add(place.position);
        let [a, b, c, d] = self.read_at::<4>(at)?;
        let id = RecordId(u16::from_be_bytes([a, b]));
        let length = u16::from_be_bytes([c, d]);
        let octets = if length == REMOVED { 0 } else { length };
        place.position = place.position.saturating_add(RECORD_HEAD_OCTETS).saturating_add(u32::from(octets));
        if place.position > place.records {
            return Err(StorageError::Corrupt);
        }
        let found = Found {
            octets: at.saturating_add(RECORD_HEAD_OCTETS),
            length: octets,
            group: place.group,
            records: place.records,
        };
        Ok(Some(Met { id, length: (length != REMOVED).then_some(length), found }))
    }

    const fn beginning() -> Place {
        Place { group: 0, records: 0, position: 0 }
    }

    /// The newest record of an id.
    pub(super) fn find(&mut self, id: RecordId) -> Result<Option<Found>, F> {
        let (mut place, mut newest) = (Self::beginning(), None);
        while let Some(met) = self.next_record(&mut place)? {
            if met.id == id {
                newest = met.length.map(|_| met.found);
            }
        }
        Ok(newest)
    }

    /// The lowest id from `from` on that is met, living or not.
    pub(super) fn lowest_id(&mut self, from: RecordId) -> Result<Option<RecordId>, F> {
        let (mut place, mut lowest) = (Self::beginning(), None);
        while let Some(met) = self.next_record(&mut place)? {
            if met.id >= from && lowest.is_none_or(|known| met.id < known) {
                lowest = Some(met.id);
            }
        }
        Ok(lowest)
    }

    /// Whether no later record replaces the one before `place`.
    fn is_newest(&mut self, id: RecordId, mut place: Place) -> Result<bool, F> {
        while let Some(met) = self.next_record(&mut place)? {
            if met.id == id {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Octets free in the other bank once the living records are there.
    pub(super) fn room_after_compaction(&mut self) -> Result<u32, F> {
        self.room_after_moving(&|_| true)
    }

    /// Octets free in the other bank once those of the living records are there that `keeps` names.
    pub(super) fn room_after_moving(&mut self, keeps: &dyn Fn(RecordId) -> bool) -> Result<u32, F> {
        let spare = self.active.other();
        let mut used = self.layout.first_group(spare).saturating_sub(self.layout.start(spare));
        let mut place = Self::beginning();
        while let Some(met) = self.next_record(&mut place)? {
            if let Some(length) = met.length
                && keeps(met.id)
                && self.is_newest(met.id, place)?
            {
                let records = RECORD_HEAD_OCTETS.saturating_add(u32::from(length));
                used = used.saturating_add(self.layout.group(records));
            }
        }
        Ok(self.layout.bank_octets.saturating_sub(used))
    }

    /// Settles what is there after a start.
    pub(super) fn recover(&mut self) -> Result<(), F> {
        let (a, b) = (self.header_of(Bank::A)?, self.header_of(Bank::B)?);
        let newer = match (a, b) {
            (None, None) => return Err(self.without_header()?),
            (Some(a), None) => (Bank::A, a),
            (None, Some(b)) => (Bank::B, b),
            // A header whose mark is missing may read differently next time: as long as another bank has both, that one
            // holds the same records.
            (Some(a), Some(b)) if a.1 != b.1 => {
                if a.1 {
                    (Bank::A, a)
                } else {
                    (Bank::B, b)
                }
            }
            (Some(a), Some(b)) => {
                if a.0 > b.0 {
                    (Bank::A, a)
                } else {
                    (Bank::B, b)
                }
            }
        };
        let (active, (sequence, is_marked)) = newer;
        (self.active, self.sequence) = (active, sequence);
        let is_clean = self.scan()? && is_marked;
        // Only now is it certain that this bank holds everything.
        let spare = active.other();
        if self.programmed_octets(self.layout.start(spare), self.layout.end(spare))? > 0 {
            self.erase(spare)?;
            self.is_spare_fresh = true;
        }
        if is_clean { Ok(()) } else { self.compact() }
    }

    fn without_header(&mut self) -> Result<StorageError<F::Error>, F> {
        let is_blank = self.programmed_octets(0, self.layout.end(Bank::B))? == 0;
        Ok(if is_blank { StorageError::Unformatted } else { StorageError::Corrupt })
    }

    /// Sequence, and whether the mark is set.
    fn header_of(&mut self, bank: Bank) -> Result<Option<(u32, bool)>, F> {
        let start = self.layout.start(bank);
        let [m0, m1, m2, m3, s0, s1, s2, s3] = self.read_at::<8>(start)?;
        let sequence = u32::from_be_bytes([s0, s1, s2, s3]);
        let mut tag = self.begin_tag(start, sequence);
        I::update(&mut tag, &MAGIC);
        if [m0, m1, m2, m3] != MAGIC || I::finish(tag) != self.read_at::<8>(start.saturating_add(8))? {
            return Ok(None);
        }
        let mark = self.mark_at(start.saturating_add(self.layout.words(HEADER_OCTETS)))?;
        Ok(Some((sequence, mark == MarkState::Set)))
    }

    /// Finds the end of the journal. Gives whether the tail is whole and the rest erased.
    fn scan(&mut self) -> Result<bool, F> {
        let bank_end = self.layout.end(self.active);
        let mut at = self.layout.first_group(self.active);
        let mut is_clean = true;
        while at.saturating_add(self.layout.group(0)) <= bank_end {
            match self.head_at(at)? {
                Head::Blank => break,
                Head::Torn => {
                    // Its first word was being programmed, so nothing can stand behind it.
                    let behind = at.saturating_add(self.layout.words(HEAD_OCTETS));
                    self.refuse_programmed(behind, bank_end)?;
                    self.end = at;
                    return Ok(false);
                }
                Head::Records(records) => {
                    let mark = at.saturating_add(self.layout.body(records));
                    let next = mark.saturating_add(self.layout.word);
                    let is_marked = self.mark_at(mark)?;
                    if self.is_whole(at, records)? {
                        is_clean &= is_marked == MarkState::Set;
                        at = next;
                        continue;
                    }
                    // The mark comes after everything else: a group that has one was whole.
                    if is_marked != MarkState::Blank {
                        return Err(StorageError::Corrupt);
                    }
                    self.refuse_programmed(next, bank_end)?;
                    self.end = at;
                    return Ok(false);
                }
            }
        }
        self.end = at;
        // A single word may have begun to change, or have lost a bit; more cannot come from one cut.
        let programmed = self.programmed_octets(at, bank_end)?;
        if programmed > self.layout.word.max(HEAD_OCTETS) {
            return Err(StorageError::Corrupt);
        }
        Ok(is_clean && programmed == 0)
    }

    fn refuse_programmed(&mut self, from: u32, to: u32) -> Result<(), F> {
        if self.programmed_octets(from, to)? == 0 { Ok(()) } else { Err(StorageError::Corrupt) }
    }

    pub(super) fn append(&mut self, changes: &[Change<'_>], records: u32) -> Result<(), F> {
        let (group, sequence) = (self.end, self.sequence);
        self.is_broken = true;
        self.write_group(group, sequence, changes, records)?;
        self.end = group.saturating_add(self.layout.group(records));
        self.is_broken = false;
        Ok(())
    }

    fn write_group(&mut self, group: u32, sequence: u32, changes: &[Change<'_>], records: u32) -> Result<(), F> {
        let mut writer = Writer::begin(self, group, sequence, records)?;
        for change in changes {
            match change {
                Change::Put(id, octets) => {
                    let length = u16::try_from(octets.len()).map_err(|_octets| StorageError::TooLarge)?;
                    writer.record_head(self, *id, length)?;
                    writer.push(self, octets)?;
                }
                Change::Remove(id) => writer.record_head(self, *id, REMOVED)?,
            }
        }
        writer.finish(self)
    }

    /// Moves the living records to the other bank and erases this one.
    pub(super) fn compact(&mut self) -> Result<(), F> {
        self.move_living(&|_| true, None)
    }

    /// Moves those of the living records to the other bank that `keeps` names, puts changes behind them, and erases this one.
    pub(super) fn move_living(
        &mut self,
        keeps: &dyn Fn(RecordId) -> bool,
        with: Option<(&[Change<'_>], u32)>,
    ) -> Result<(), F> {
        let (spare, sequence) = self.prepare_spare()?;
        let mut to = self.layout.first_group(spare);
        let mut place = Self::beginning();
        while let Some(met) = self.next_record(&mut place)? {
            let Some(length) = met.length else { continue };
            if !keeps(met.id) || !self.is_newest(met.id, place)? {
                continue;
            }
            let records = RECORD_HEAD_OCTETS.saturating_add(u32::from(length));
            self.copy_record(to, sequence, met.id, met.found)?;
            to = to.saturating_add(self.layout.group(records));
        }
        if let Some((changes, records)) = with {
            self.write_group(to, sequence, changes, records)?;
            to = to.saturating_add(self.layout.group(records));
        }
        self.switch_to(spare, sequence, to)
    }

    /// Moves to the other bank with these records only.
    pub(super) fn replace_all(&mut self, keep: &[Change<'_>], records: u32) -> Result<(), F> {
        let (spare, sequence) = self.prepare_spare()?;
        let group = self.layout.first_group(spare);
        self.write_group(group, sequence, keep, records)?;
        self.switch_to(spare, sequence, group.saturating_add(self.layout.group(records)))
    }

    fn prepare_spare(&mut self) -> Result<(Bank, u32), F> {
        let spare = self.active.other();
        let sequence = self.sequence.checked_add(1).ok_or(StorageError::Full)?;
        self.is_broken = true;
        // Erasing that was cut may look finished; it is done again, unless it was done since the power came.
        if !self.is_spare_fresh {
            self.erase(spare)?;
        }
        self.is_spare_fresh = false;
        Ok((spare, sequence))
    }

    fn switch_to(&mut self, spare: Bank, sequence: u32, end: u32) -> Result<(), F> {
        self.write_header(spare, sequence)?;
        let old = self.active;
        (self.active, self.sequence, self.end) = (spare, sequence, end);
        self.erase(old)?;
        self.is_spare_fresh = true;
        self.is_broken = false;
        Ok(())
    }

    fn copy_record(&mut self, to: u32, sequence: u32, id: RecordId, from: Found) -> Result<(), F> {
        if !self.is_whole(from.group, from.records)? {
            return Err(StorageError::Corrupt);
        }
        let records = RECORD_HEAD_OCTETS.saturating_add(u32::from(from.length));
        let mut writer = Writer::begin(self, to, sequence, records)?;
        writer.record_head(self, id, from.length)?;
        let (mut offset, end) = (from.octets, from.octets.saturating_add(u32::from(from.length)));
        let mut buffer = zeroize::Zeroizing::new([0; CHUNK]);
        while offset < end {
            let chunk = chunk_of(&mut buffer, end.saturating_sub(offset));
            self.flash.read(offset, chunk).map_err(StorageError::Flash)?;
            writer.push(self, chunk)?;
            offset = offset.saturating_add(length_of(chunk));
        }
        writer.finish(self)
    }

    pub(super) fn write_header(&mut self, bank: Bank, sequence: u32) -> Result<(), F> {
        let start = self.layout.start(bank);
        let mut tag = self.begin_tag(start, sequence);
        I::update(&mut tag, &MAGIC);
        let tag = I::finish(tag);
        let mut buffer = [0; CHUNK];
        let header = chunk_of(&mut buffer, self.layout.words(HEADER_OCTETS));
        let octets = MAGIC.into_iter().chain(sequence.to_be_bytes()).chain(tag);
        header.iter_mut().zip(octets).for_each(|(place, octet)| *place = octet);
        self.program(start, header)?;
        self.write_mark(start.saturating_add(self.layout.words(HEADER_OCTETS)))
    }

    fn write_mark(&mut self, offset: u32) -> Result<(), F> {
        let mut buffer = [MARK; CHUNK];
        let mark = chunk_of(&mut buffer, self.layout.word);
        self.program(offset, mark)
    }

    /// Programs and reads back.
    fn program(&mut self, offset: u32, octets: &[u8]) -> Result<(), F> {
        self.flash.program(offset, octets).map_err(StorageError::Flash)?;
        let mut buffer = zeroize::Zeroizing::new([0; CHUNK]);
        let back = chunk_of(&mut buffer, length_of(octets));
        self.flash.read(offset, back).map_err(StorageError::Flash)?;
        if *back == *octets { Ok(()) } else { Err(StorageError::NotTaken) }
    }

    /// Erases a bank and reads every octet back.
    pub(super) fn erase(&mut self, bank: Bank) -> Result<(), F> {
        let first = self.layout.first_sector(bank);
        for sector in first..first.saturating_add(self.layout.bank_sectors) {
            self.flash.erase(sector).map_err(StorageError::Flash)?;
        }
        let left = self.programmed_octets(self.layout.start(bank), self.layout.end(bank))?;
        if left == 0 { Ok(()) } else { Err(StorageError::NotTaken) }
    }
}

/// Writes one group in chunks of whole words.
struct Writer<T> {
    buffer: zeroize::Zeroizing<[u8; CHUNK]>,
    filled: usize,
    offset: u32,
    tag: T,
}

impl<T> Writer<T> {
    fn begin<F: Flash, I: Integrity<Tag = T>>(
        store: &mut Store<F, I>,
        group: u32,
        sequence: u32,
        records: u32,
    ) -> Result<Self, F> {
        let tag = store.begin_tag(group, sequence);
        let mut writer = Self { buffer: zeroize::Zeroizing::new([0; CHUNK]), filled: 0, offset: group, tag };
        let length = u16::try_from(records).map_err(|_records| StorageError::TooLarge)?;
        writer.push(store, &length.to_be_bytes())?;
        writer.push(store, &(!length).to_be_bytes())?;
        Ok(writer)
    }

    fn record_head<F: Flash, I: Integrity<Tag = T>>(
        &mut self,
        store: &mut Store<F, I>,
        id: RecordId,
        length: u16,
    ) -> Result<(), F> {
        self.push(store, &id.0.to_be_bytes())?;
        self.push(store, &length.to_be_bytes())
    }

    fn push<F: Flash, I: Integrity<Tag = T>>(&mut self, store: &mut Store<F, I>, octets: &[u8]) -> Result<(), F> {
        I::update(&mut self.tag, octets);
        self.write(store, octets)
    }

    fn write<F: Flash, I: Integrity>(&mut self, store: &mut Store<F, I>, octets: &[u8]) -> Result<(), F> {
        for octet in octets {
            if let Some(place) = self.buffer.get_mut(self.filled) {
                *place = *octet;
            }
            self.filled += 1;
            if self.filled == CHUNK {
                self.flush(store)?;
            }
        }
        Ok(())
    }

    fn flush<F: Flash, I: Integrity>(&mut self, store: &mut Store<F, I>) -> Result<(), F> {
        let octets = self.buffer.get(..self.filled).unwrap_or_default();
        if !octets.is_empty() {
            store.program(self.offset, octets)?;
            self.offset = self.offset.saturating_add(length_of(octets));
        }
        self.filled = 0;
        Ok(())
    }

    fn finish<F: Flash, I: Integrity<Tag = T>>(self, store: &mut Store<F, I>) -> Result<(), F> {
        let Self { buffer, filled, offset, tag } = self;
        let mut rest = Writer { buffer, filled, offset, tag: () };
        rest.write(store, &I::finish(tag))?;
        while !length_of(rest.buffer.get(..rest.filled).unwrap_or_default()).is_multiple_of(store.layout.word) {
            rest.write(store, &[0])?;
        }
        rest.flush(store)?;
        store.write_mark(rest.offset)
    }
}

/// The first `left` octets of a buffer, or all of it.
fn chunk_of(buffer: &mut [u8; CHUNK], left: u32) -> &mut [u8] {
    let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
    buffer.get_mut(..length).unwrap_or_default()
}

/// At most [`CHUNK`].
fn length_of(octets: &[u8]) -> u32 {
    u32::try_from(octets.len()).unwrap_or(u32::MAX)
}

//! A flash translation layer.

use std::fmt;

use super::nor::{FlashFault, NorFlash};

/// Octets of a sector.
pub const SECTOR_OCTETS: usize = 512;

/// Octets of a page: a sector, and what tells which one and how new.
const PAGE_OCTETS: usize = SECTOR_OCTETS + SPARE_OCTETS;
/// Sector number 4, sequence 8, checksum 4.
const SPARE_OCTETS: usize = 16;
/// Blocks that are kept free, so that there is room to move pages to.
const RESERVED_BLOCKS: usize = 2;
/// After so many collections the wear is looked at.
const LEVELLING_PAUSE: u64 = 16;
/// By how many erases the most worn block may be ahead of the least worn.
const MAX_WEAR_SPREAD: u32 = 8;

/// What a card is made of.
#[derive(Clone, Copy, Debug)]
pub struct CardShape {
    /// Blocks, those that are bad from the factory among them.
    pub blocks: usize,
    /// Pages of a block.
    pub pages_per_block: usize,
    /// Sectors that it shows.
    pub sectors: usize,
    /// Erases that a good block survives at least; some survive twice as many.
    pub endurance: u32,
    /// Of a thousand blocks so many are bad from the factory.
    pub bad_per_mille: u32,
}

/// Sectors on flash, page-mapped: every write goes to another place, and the old one stays until its block is collected.
///
/// Writing puts the sector with a sequence number and a checksum into the next free page. When free blocks run out, the
/// block with the fewest pages in use is emptied and erased; among free blocks the least worn one is taken; and now and
/// then what lies still in a little worn block moves to another, so that its block takes part. A block that cannot be
/// erased any more is left as it is. After a power cut [`TranslatedFlash::mount`] finds the newest whole copy of
/// every sector. Trimming only forgets, and only until the next mount.
#[derive(Clone)]
pub struct TranslatedFlash {
    flash: NorFlash,
    pages_per_block: usize,
    /// The page of each sector.
    map: Vec<Option<usize>>,
    /// The sector of each page in use.
    owners: Vec<Option<usize>>,
    free_blocks: Vec<usize>,
    /// Blocks of the factory's list, which are never touched.
    factory_bad: Vec<usize>,
    bad_blocks: Vec<usize>,
    collections: u64,
    /// The next page to be written, if its block has one left.
    head: Option<usize>,
    sequence: u64,
}

impl TranslatedFlash {
    /// Blank flash of `blocks` blocks of `pages_per_block` pages, which shows `sectors` sectors.
    ///
    /// # Panics
    /// When there is no room for the sectors and the reserve.
    #[must_use]
    pub fn new(blocks: usize, pages_per_block: usize, sectors: usize, endurance: u32) -> Self {
        let room = blocks.saturating_sub(RESERVED_BLOCKS + 1) * pages_per_block;
        assert!(sectors < room, "{sectors} sectors do not fit: at most {room}");
        let flash = NorFlash::new(blocks, pages_per_block * PAGE_OCTETS, endurance);
        Self { free_blocks: (0..blocks).collect(), ..Self::with_map(flash, pages_per_block, sectors) }
    }

    /// A card as it leaves the factory. Which of its blocks are bad, how much each of the others endures, and in which
    /// order they come into use, follow from `seed`.
    ///
    /// # Panics
    /// When the good blocks have no room for the sectors and the reserve.
    #[must_use]
    pub fn manufactured(shape: CardShape, seed: u64) -> Self {
        let CardShape { blocks, pages_per_block, sectors, endurance, bad_per_mille } = shape;
        let mut random = Random(seed);
        let mut bad = Vec::new();
        let mut draw = |block: usize| {
            if random.below(1_000) < bad_per_mille {
                bad.push(block);
                return 0;
            }
            endurance.saturating_add(random.below(endurance.saturating_add(1)))
        };
        let flash = NorFlash::with_endurance(pages_per_block * PAGE_OCTETS, (0..blocks).map(&mut draw).collect());
        let mut free: Vec<usize> = (0..blocks).filter(|block| !bad.contains(block)).collect();
        let room = free.len().saturating_sub(RESERVED_BLOCKS + 1) * pages_per_block;
        assert!(sectors < room, "{sectors} sectors do not fit: at most {room}");
        for at in (1..free.len()).rev() {
            let other = usize::try_from(random.below(u32::try_from(at + 1).unwrap_or(1))).unwrap_or(0);
            free.swap(at, other);
        }
        Self { free_blocks: free, factory_bad: bad, ..Self::with_map(flash, pages_per_block, sectors) }
    }

    fn with_map(flash: NorFlash, pages_per_block: usize, sectors: usize) -> Self {
        let pages = flash.blocks() * pages_per_block;
        Self {
            flash,
            pages_per_block,
            map: vec![None; sectors],
            owners: vec![None; pages],
            free_blocks: Vec::new(),
            factory_bad: Vec::new(),
            bad_blocks: Vec::new(),
            collections: 0,
            head: None,
            sequence: 0,
        }
    }

    /// Starts again after a power cut: reads every page and takes the newest whole copy of each sector.
    #[must_use]
    pub fn mount(self) -> Self {
        let (mut flash, pages_per_block, sectors) = (self.flash, self.pages_per_block, self.map.len());
        flash.power_on();
        let mut mounted = Self::with_map(flash, pages_per_block, sectors);
        mounted.factory_bad = self.factory_bad;
        let mut newest = vec![0_u64; sectors];
        for page in 0..mounted.owners.len() {
            let Some((sector, sequence)) = mounted.page(page).and_then(read_spare) else { continue };
            let Some(known) = newest.get_mut(sector).filter(|known| **known < sequence) else { continue };
            *known = sequence;
            mounted.sequence = mounted.sequence.max(sequence);
            mounted.assign(sector, page);
        }
        let is_blank = |block: &usize| mounted.block(*block).iter().all(|octet| *octet == 0xff);
        mounted.free_blocks =
            (0..mounted.flash.blocks()).filter(|block| !mounted.factory_bad.contains(block)).filter(is_blank).collect();
        mounted
    }

    /// The raw flash below, to look at what is left, to wear it out, and to cut its power.
    pub const fn flash(&mut self) -> &mut NorFlash {
        &mut self.flash
    }

    /// How many sectors there are.
    #[must_use]
    pub const fn sectors(&self) -> usize {
        self.map.len()
    }

    /// Blocks that were bad from the factory.
    #[must_use]
    pub fn factory_bad_blocks(&self) -> &[usize] {
        &self.factory_bad
    }

    /// Blocks that can no longer be erased.
    #[must_use]
    pub fn bad_blocks(&self) -> &[usize] {
        &self.bad_blocks
    }

    /// What a sector holds; zeroes when it was never written or was trimmed.
    #[must_use]
    pub fn read(&self, sector: usize) -> [u8; SECTOR_OCTETS] {
        let page = self.map.get(sector).copied().flatten().and_then(|page| self.page(page));
        page.and_then(|page| page.first_chunk().copied()).unwrap_or([0; SECTOR_OCTETS])
    }

    /// Writes a sector. After a power cut it holds the old or the new contents.
    ///
    /// # Errors
    /// [`FlashFault::PowerCut`]; [`FlashFault::WornOut`] when no block is left to write to.
    pub fn write(&mut self, sector: usize, contents: &[u8; SECTOR_OCTETS]) -> Result<(), FlashFault> {
        while self.head.is_none() && self.free_blocks.len() <= RESERVED_BLOCKS {
            if self.collections % LEVELLING_PAUSE == LEVELLING_PAUSE - 1
                && let Some(still) = self.lagging_block()
            {
                self.collect(still)?;
            }
            self.collect_one()?;
        }
        self.append(sector, contents)
    }

    /// Says that the contents of a sector are of no use any more.
    pub fn trim(&mut self, sector: usize) {
        if let Some(page) = self.map.get_mut(sector).and_then(Option::take)
            && let Some(owner) = self.owners.get_mut(page)
        {
            *owner = None;
        }
    }

    /// Collects every block that holds a page no longer in use: what the sanitize command of a good card does.
    ///
    /// # Errors
    /// As [`TranslatedFlash::write`].
    pub fn sanitize(&mut self) -> Result<(), FlashFault> {
        self.head = None;
        for block in 0..self.flash.blocks() {
            let is_stale = |page: usize| {
                let is_written = self.page(page).is_some_and(|octets| octets.iter().any(|octet| *octet != 0xff));
                is_written && self.owners.get(page).is_some_and(Option::is_none)
            };
            if !self.is_bad(block) && self.pages_of(block).any(is_stale) {
                self.collect(block)?;
            }
        }
        Ok(())
    }

    /// How many copies of `needle` lie in the raw flash.
    #[must_use]
    pub fn copies(&self, needle: &[u8]) -> usize {
        self.flash.raw().windows(needle.len()).filter(|window| *window == needle).count()
    }

    fn append(&mut self, sector: usize, contents: &[u8; SECTOR_OCTETS]) -> Result<(), FlashFault> {
        let page = self.next_page().ok_or(FlashFault::WornOut { block: self.flash.blocks() })?;
        self.sequence += 1;
        let mut octets = contents.to_vec();
        octets.extend(u32::try_from(sector).unwrap_or(u32::MAX).to_le_bytes());
        octets.extend(self.sequence.to_le_bytes());
        octets.extend(checksum(&octets).to_le_bytes());
        self.flash.program(page * PAGE_OCTETS, &octets)?;
        self.assign(sector, page);
        Ok(())
    }

    /// The page to write to, in the block begun or in the least worn free one.
    fn next_page(&mut self) -> Option<usize> {
        let page = match self.head.take() {
            Some(page) => page,
            None => {
                let wear = |at: &usize| self.free_blocks.get(*at).map_or(u32::MAX, |block| self.flash.wear(*block));
                let least = (0..self.free_blocks.len()).min_by_key(wear)?;
                self.free_blocks.swap_remove(least) * self.pages_per_block
            }
        };
        self.head = Some(page + 1).filter(|next| next % self.pages_per_block != 0);
        Some(page)
    }

    fn assign(&mut self, sector: usize, page: usize) {
        let Some(place) = self.map.get_mut(sector) else { return };
        if let Some(old) = place.replace(page)
            && let Some(owner) = self.owners.get_mut(old)
        {
            *owner = None;
        }
        if let Some(owner) = self.owners.get_mut(page) {
            *owner = Some(sector);
        }
    }

    /// Empties and erases the block with the fewest pages in use, the least worn of several.
    fn collect_one(&mut self) -> Result<(), FlashFault> {
        let is_candidate = |block: &usize| !self.free_blocks.contains(block) && !self.is_bad(*block);
        let in_use = |block: usize| self.pages_of(block).filter(|page| self.owner(*page).is_some()).count();
        let victim = (0..self.flash.blocks())
            .filter(is_candidate)
            .filter(|block| in_use(*block) < self.pages_per_block)
            .min_by_key(|block| (in_use(*block), self.flash.wear(*block)));
        self.collect(victim.ok_or(FlashFault::WornOut { block: self.flash.blocks() })?)
    }

    fn is_bad(&self, block: usize) -> bool {
        self.bad_blocks.contains(&block) || self.factory_bad.contains(&block)
    }

    /// A block in use that has fallen behind in wear.
    fn lagging_block(&self) -> Option<usize> {
        let good = || (0..self.flash.blocks()).filter(|block| !self.is_bad(*block));
        let most = good().map(|block| self.flash.wear(block)).max()?;
        good()
            .filter(|block| !self.free_blocks.contains(block))
            .min_by_key(|block| self.flash.wear(*block))
            .filter(|block| self.flash.wear(*block) + MAX_WEAR_SPREAD < most)
    }

    fn collect(&mut self, block: usize) -> Result<(), FlashFault> {
        self.collections += 1;
        for page in self.pages_of(block) {
            let Some(sector) = self.owner(page) else { continue };
            let contents = self.read(sector);
            self.append(sector, &contents)?;
        }
        match self.flash.erase(block) {
            Ok(()) => self.free_blocks.push(block),
            Err(FlashFault::WornOut { .. }) => self.bad_blocks.push(block),
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    fn owner(&self, page: usize) -> Option<usize> {
        self.owners.get(page).copied().flatten()
    }

    fn pages_of(&self, block: usize) -> std::ops::Range<usize> {
        block * self.pages_per_block..(block + 1) * self.pages_per_block
    }

    fn page(&self, page: usize) -> Option<&[u8]> {
        self.flash.raw().get(page * PAGE_OCTETS..(page + 1) * PAGE_OCTETS)
    }

    fn block(&self, block: usize) -> &[u8] {
        self.flash.raw().chunks(self.pages_per_block * PAGE_OCTETS).nth(block).unwrap_or_default()
    }
}

/// Sector and sequence of a page that was written whole.
fn read_spare(page: &[u8]) -> Option<(usize, u64)> {
    let (covered, sum) = page.split_last_chunk::<4>()?;
    let (rest, sequence) = covered.split_last_chunk::<8>()?;
    let (_, sector) = rest.split_last_chunk::<4>()?;
    if checksum(covered) != u32::from_le_bytes(*sum) {
        return None;
    }
    Some((usize::try_from(u32::from_le_bytes(*sector)).ok()?, u64::from_le_bytes(*sequence)))
}

/// splitmix64: repeatable from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) % u64::from(end.max(1))).unwrap_or(0)
    }
}

/// FNV-1a, enough to tell a torn page from a whole one.
fn checksum(octets: &[u8]) -> u32 {
    octets.iter().fold(0x811c_9dc5, |sum: u32, octet| (sum ^ u32::from(*octet)).wrapping_mul(0x0100_0193))
}

impl fmt::Debug for TranslatedFlash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TranslatedFlash({} sectors on {:?})", self.map.len(), self.flash)
    }
}

#[cfg(test)]
mod tests;

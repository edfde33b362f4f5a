//! The memory of a live process, searched for pieces of secrets: heap, stacks, what its libraries keep. What a core dump
//! would hold is read from `/proc/PID/mem`, without stopping the process.
//!
//! Whoever may trace a process may read it so: its parent of the same user, as long as it is dumpable, and root always
//! (ptrace(2), "access mode checking"). A test that cannot read fails and says so.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufRead as _;
use std::io::BufReader;
use std::os::unix::fs::FileExt as _;

/// Octets of the shortest piece that counts.
const FRAGMENT_OCTETS: usize = 8;
/// Octets read at once, a multiple of the page size.
const CHUNK_OCTETS: usize = 1 << 20;
const PAGE_OCTETS: usize = 4096;
const FILTER_BITS: u32 = 20;
/// Where an allocator begins a block: at a multiple of this.
const BLOCK_OCTETS: usize = 16;
/// How many different octets 32 random ones have at least, but in one case of ten million.
const DIFFERENT_OCTETS: usize = 22;

/// A secret that is known to the test.
#[derive(Clone)]
pub struct KnownSecret {
    name: String,
    octets: Vec<u8>,
}

impl KnownSecret {
    /// A secret of at least 8 octets. It is looked for as it is, and backwards: big numbers lie in memory so.
    ///
    /// # Panics
    /// When it is shorter.
    #[must_use]
    pub fn new(name: &str, octets: &[u8]) -> Self {
        assert!(octets.len() >= FRAGMENT_OCTETS, "{name} is too short to be looked for");
        Self { name: name.to_owned(), octets: octets.to_vec() }
    }

    /// Whether one of these runs of 8 octets is of it.
    #[must_use]
    pub fn lies_in(&self, runs: &BTreeSet<Vec<u8>>) -> bool {
        self.octets.windows(FRAGMENT_OCTETS).any(|run| runs.contains(run))
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Where a piece of a secret lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryFinding {
    /// The name of the secret.
    pub secret: String,
    /// `[heap]`, `[stack]`, a file, or empty for anonymous memory.
    pub region: String,
    /// Address of the first octet.
    pub address: u64,
    /// How many octets of the secret lie there in a row; at least 8.
    pub octets: usize,
}

/// What was searched, and what was found.
#[derive(Clone, Debug, Default)]
pub struct MemoryReport {
    /// Octets that were read.
    pub octets: u64,
    /// Octets of regions that nobody may read: secret memory (memfd_secret(2)) and device memory.
    pub unreadable_octets: u64,
    /// Pieces of secrets.
    pub findings: Vec<MemoryFinding>,
}

impl MemoryReport {
    /// How many pieces of one secret there are.
    #[must_use]
    pub fn count(&self, secret: &str) -> usize {
        self.findings.iter().filter(|finding| finding.secret == secret).count()
    }
}

/// Searches the memory of a process for every run of 8 octets of the secrets. Files that are mapped and not written to are
/// left out: what lies in them lies on the disk.
///
/// # Panics
/// When the memory may not be read.
#[must_use]
pub fn search_memory(process: u32, secrets: &[KnownSecret]) -> MemoryReport {
    let fragments = Fragments::of(secrets);
    let mut report = MemoryReport::default();
    for_each_region(process, |region, memory| region.search(memory, &fragments, &mut report));
    assert!(report.octets > 0, "nothing of process {process} could be read; run the tests as root");
    report
}

/// A secret that no test knows, in the memory of a process: the first 32 octets that `is_it` takes, of those that begin where an allocator
/// begins a block and are different enough to be a key. What a key opens tells it from everything else.
///
/// # Panics
/// As [`search_memory`].
pub fn find_in_memory(process: u32, mut is_it: impl FnMut(&[u8; 32]) -> bool) -> Option<[u8; 32]> {
    let mut found = None;
    for_each_region(process, |region, memory| {
        region.read(memory, |octets, _| {
            let blocks = octets.windows(32).step_by(BLOCK_OCTETS).filter_map(<[u8]>::as_array);
            found = found.or_else(|| blocks.filter(|block| is_a_key(block)).copied().find(&mut is_it));
        });
    });
    found
}

/// The memory that is searched, one mapping after the other.
fn for_each_region(process: u32, mut work: impl FnMut(&Region<'_>, &File)) {
    let open = |name: &str| {
        let path = format!("/proc/{process}/{name}");
        File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}; run the tests as root"))
    };
    let (maps, memory) = (open("maps"), open("mem"));
    for line in BufReader::new(maps).lines() {
        let line = line.unwrap_or_else(|error| panic!("/proc/{process}/maps: {error}"));
        if let Some(region) = Region::of(&line).filter(Region::is_searched) {
            work(&region, &memory);
        }
    }
}

/// A line of `/proc/PID/maps` (proc(5)).
struct Region<'l> {
    start: u64,
    end: u64,
    rights: &'l str,
    inode: u64,
    name: &'l str,
}

impl<'l> Region<'l> {
    fn of(line: &'l str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (rights, inode) = (fields.next()?, fields.nth(2)?);
        Some(Self {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            rights,
            inode: inode.parse().ok()?,
            name: fields.next().unwrap_or_default(),
        })
    }

    fn is_searched(&self) -> bool {
        let is_of_the_kernel = matches!(self.name, "[vvar]" | "[vvar_vclock]" | "[vsyscall]" | "[vdso]");
        self.rights.starts_with('r') && !is_of_the_kernel && (self.inode == 0 || self.rights.contains('w'))
    }

    /// Reads it piece by piece; returns how many octets may not be read.
    fn read(&self, memory: &File, mut work: impl FnMut(&[u8], u64)) -> u64 {
        let mut chunk = vec![0; CHUNK_OCTETS];
        let mut at = self.start;
        while at < self.end {
            let length = usize::try_from(self.end - at).map_or(CHUNK_OCTETS, |left| left.min(CHUNK_OCTETS));
            let Some(octets) = chunk.get_mut(..length) else { return 0 };
            // A region may have shrunk or gone since the list was read; secret memory answers EIO or EFAULT.
            if memory.read_exact_at(octets, at).is_err() {
                return self.end - at;
            }
            work(octets, at);
            at += u64::try_from(length).unwrap_or(u64::MAX);
        }
        0
    }

    fn search(&self, memory: &File, fragments: &Fragments, report: &mut MemoryReport) {
        let mut run = Run::default();
        report.unreadable_octets += self.read(memory, |octets, at| {
            report.octets += u64::try_from(octets.len()).unwrap_or(0);
            for (number, page) in octets.chunks(PAGE_OCTETS).enumerate() {
                let address = at + u64::try_from(number * PAGE_OCTETS).unwrap_or(0);
                run.page(page, address, self.name, fragments, report);
            }
        });
    }
}

/// The last octets, and how long they have been of one secret.
#[derive(Default)]
struct Run {
    window: u64,
    /// Which secret, and octets so far.
    found: Option<(usize, usize)>,
}

impl Run {
    fn page(&mut self, page: &[u8], address: u64, name: &str, fragments: &Fragments, report: &mut MemoryReport) {
        const BLANK: [u8; PAGE_OCTETS] = [0; PAGE_OCTETS];
        if self.window == 0 && BLANK.get(..page.len()) == Some(page) {
            self.found = None;
            return;
        }
        for (octet, place) in page.iter().zip(address..) {
            self.window = (self.window << 8) | u64::from(*octet);
            let Some(secret) = fragments.secret_of(self.window) else {
                self.found = None;
                continue;
            };
            match (&mut self.found, report.findings.last_mut()) {
                (Some((of, octets)), Some(last)) if *of == secret => {
                    *octets += 1;
                    last.octets = *octets;
                }
                _ => {
                    self.found = Some((secret, FRAGMENT_OCTETS));
                    report.findings.push(MemoryFinding {
                        secret: fragments.names.get(secret).cloned().unwrap_or_default(),
                        region: name.to_owned(),
                        address: (place + 1).saturating_sub(8),
                        octets: FRAGMENT_OCTETS,
                    });
                }
            }
        }
    }
}

/// Every run of 8 octets of the secrets, forwards and backwards.
struct Fragments {
    names: Vec<String>,
    windows: Vec<(u64, usize)>,
    filter: Vec<u64>,
}

fn place(window: u64) -> (usize, u64) {
    let bit = window.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - FILTER_BITS);
    (usize::try_from(bit / 64).unwrap_or(0), 1 << (bit % 64))
}

impl Fragments {
    fn of(secrets: &[KnownSecret]) -> Self {
        let mut windows = Vec::new();
        for (number, secret) in secrets.iter().enumerate() {
            let backwards: Vec<u8> = secret.octets.iter().rev().copied().collect();
            for octets in [&secret.octets, &backwards] {
                let runs = octets.windows(FRAGMENT_OCTETS).filter(|run| is_telling(run));
                windows.extend(runs.filter_map(|run| Some((u64::from_be_bytes(run.try_into().ok()?), number))));
            }
        }
        windows.sort_unstable();
        windows.dedup_by_key(|(window, _)| *window);
        let mut filter = vec![0; 1 << (FILTER_BITS - 6)];
        for (window, _) in &windows {
            let (word, bit) = place(*window);
            if let Some(word) = filter.get_mut(word) {
                *word |= bit;
            }
        }
        Self { names: secrets.iter().map(|secret| secret.name.clone()).collect(), windows, filter }
    }

    fn secret_of(&self, window: u64) -> Option<usize> {
        let (word, bit) = place(window);
        self.filter.get(word).filter(|word| **word & bit != 0)?;
        let at = self.windows.binary_search_by_key(&window, |(known, _)| *known).ok()?;
        self.windows.get(at).map(|(_, secret)| *secret)
    }
}

/// Runs of few different octets, such as zeroes, lie everywhere.
fn is_telling(run: &[u8]) -> bool {
    let mut octets = run.to_vec();
    octets.sort_unstable();
    octets.dedup();
    octets.len() >= 4
}

fn is_a_key(block: &[u8; 32]) -> bool {
    let mut octets = *block;
    octets.sort_unstable();
    octets.chunk_by(u8::eq).count() >= DIFFERENT_OCTETS
}

#[cfg(test)]
mod tests;

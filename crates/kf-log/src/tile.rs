//! Tiles and entry bundles, and their paths (C2SP tlog-tiles).

use std::fmt;
use std::str::FromStr;

use crate::entry::MAX_ENTRY_OCTETS;

/// Hashes in a complete tile, entries in a complete bundle.
pub const TILE_WIDTH: u16 = 256;

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TileKind {
    /// Hashes of a level: 0 for leaf hashes, at most 63.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// A tile or bundle: `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TilePath {
    kind: TileKind,
    index: u64,
    width: u16,
}

/// Why something is not a tile path, a tile or a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// Not a path of C2SP tlog-tiles.
    #[error("not a tile path")]
    Path,
    /// Not between 1 and 256 wide.
    #[error("the width of a tile is 1 to 256")]
    Width,
    /// The octets are not as many as the width asks for.
    #[error("the tile is not as long as its width says")]
    Length,
    /// An entry of a bundle is longer than the limit, or the bundle ends inside it.
    #[error("the bundle is cut or holds an entry over {MAX_ENTRY_OCTETS} octets")]
    Bundle,
}

impl TilePath {
    /// A tile or bundle of this width.
    ///
    /// # Errors
    /// [`TileError::Width`]; [`TileError::Path`] for a level above 63.
    pub const fn new(kind: TileKind, index: u64, width: u16) -> Result<Self, TileError> {
        if width == 0 || width > TILE_WIDTH {
            return Err(TileError::Width);
        }
        if let TileKind::Hashes(level) = kind
            && level > 63
        {
            return Err(TileError::Path);
        }
        Ok(Self { kind, index, width })
    }

    /// What it holds.
    #[must_use]
    pub const fn kind(&self) -> TileKind {
        self.kind
    }

    /// Number within its level.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Hashes or entries in it, 1 to 256.
    #[must_use]
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// The same tile once it is complete.
    #[must_use]
    pub const fn complete(&self) -> Self {
        Self { kind: self.kind, index: self.index, width: TILE_WIDTH }
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}")?,
            TileKind::Entries => f.write_str("tile/entries")?,
        }
        let mut groups = Vec::new();
        let mut rest = self.index;
        loop {
            groups.push(rest % 1_000);
            rest /= 1_000;
            if rest == 0 {
                break;
            }
        }
        while let Some(group) = groups.pop() {
            let more = if groups.is_empty() { "" } else { "x" };
            write!(f, "/{more}{group:03}")?;
        }
        if self.width < TILE_WIDTH {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

/// A decimal number without sign or leading zero.
fn canonical(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// `x001/x234/067` as 1,234,067.
fn index_of(text: &str) -> Option<u64> {
    let mut index = 0_u64;
    let mut groups = text.split('/').peekable();
    let mut first = true;
    while let Some(group) = groups.next() {
        let last = groups.peek().is_none();
        let digits = if last { group } else { group.strip_prefix('x')? };
        if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // One spelling per number: no leading group of zeros.
        if first && !last && digits == "000" {
            return None;
        }
        index = index.checked_mul(1_000)?.checked_add(digits.parse().ok()?)?;
        first = false;
    }
    Some(index)
}

impl FromStr for TilePath {
    type Err = TileError;

    fn from_str(text: &str) -> Result<Self, TileError> {
        let rest = text.strip_prefix("tile/").filter(|rest| rest.len() <= 64).ok_or(TileError::Path)?;
        let (kind, rest) = rest.split_once('/').ok_or(TileError::Path)?;
        let kind = if kind == "entries" {
            TileKind::Entries
        } else {
            TileKind::Hashes(canonical(kind).and_then(|level| u8::try_from(level).ok()).ok_or(TileError::Path)?)
        };
        let (number, width) = match rest.split_once(".p/") {
            None => (rest, TILE_WIDTH),
            Some((number, width)) => {
                let width = canonical(width).and_then(|width| u16::try_from(width).ok()).ok_or(TileError::Path)?;
                if width >= TILE_WIDTH {
                    return Err(TileError::Width);
                }
                (number, width)
            }
        };
        Self::new(kind, index_of(number).ok_or(TileError::Path)?, width)
    }
}

/// Hashes that a tree of `size` entries has in tile `index` of `level`; 0 when it does not reach that far.
#[must_use]
pub fn tile_width(size: u64, level: u8, index: u64) -> u16 {
    let count = size.checked_shr(u32::from(level) * 8).unwrap_or(0);
    let before = index.saturating_mul(u64::from(TILE_WIDTH));
    u16::try_from(count.saturating_sub(before).min(u64::from(TILE_WIDTH))).unwrap_or(TILE_WIDTH)
}

/// The hashes of a tile.
///
/// # Errors
/// [`TileError::Length`] unless there are exactly `width` of them.
pub fn parse_tile(octets: &[u8], width: u16) -> Result<Vec<[u8; 32]>, TileError> {
    let (hashes, rest) = octets.as_chunks::<32>();
    if !rest.is_empty() || hashes.len() != usize::from(width) {
        return Err(TileError::Length);
    }
    Ok(hashes.to_vec())
}

/// Adds one entry to a bundle: its length in 16 bits, big-endian, then its octets.
///
/// # Errors
/// [`TileError::Bundle`] for an entry over the limit.
pub fn push_bundle_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), TileError> {
    let length = u16::try_from(entry.len()).ok().filter(|_| entry.len() <= MAX_ENTRY_OCTETS);
    bundle.extend_from_slice(&length.ok_or(TileError::Bundle)?.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// The entries of a bundle, at most 256.
///
/// # Errors
/// [`TileError::Bundle`] when it is cut, holds more than 256 entries, or one over the limit.
pub fn parse_bundle(octets: &[u8]) -> Result<Vec<&[u8]>, TileError> {
    let mut entries = Vec::new();
    let mut rest = octets;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<2>().ok_or(TileError::Bundle)?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length > MAX_ENTRY_OCTETS || entries.len() >= usize::from(TILE_WIDTH) {
            return Err(TileError::Bundle);
        }
        let (entry, after) = after.split_at_checked(length).ok_or(TileError::Bundle)?;
        entries.push(entry);
        rest = after;
    }
    Ok(entries)
}

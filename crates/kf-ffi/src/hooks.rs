//! What the firmware brings: hooks, and the facts about its board.

use core::ffi::c_void;
use core::fmt;

use kf_derive::{FusedKey, KeyedHmac};
use kf_device::destruction::RevocableKey;
use kf_device::entropy::{Alphabet, Assessment, Noise, NoiseState, Nonce, Profile, SourceId};
use kf_device::storage::{Authenticated, Checksum, Flash, Geometry, Integrity, Medium};
use kf_device::wrap::{WRAPPED_OCTETS, WrapError, WrapKey, Wrapped};
use kf_entropy::Cutoffs;
use kf_key::{DeviceId, SecretArray};

use crate::status::{HookFailed, Status};

/// `kf_hooks` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the header documents them")]
pub struct Hooks {
    pub context: *mut c_void,
    pub noise: Option<unsafe extern "C" fn(*mut c_void, *mut u8) -> i32>,
    pub read: Option<unsafe extern "C" fn(*mut c_void, u32, *mut u8, usize) -> i32>,
    pub program: Option<unsafe extern "C" fn(*mut c_void, u32, *const u8, usize) -> i32>,
    pub erase: Option<unsafe extern "C" fn(*mut c_void, u32) -> i32>,
    pub chip_hmac: Option<unsafe extern "C" fn(*mut c_void, *const u8, usize, *mut u8) -> i32>,
    pub counter: Option<unsafe extern "C" fn(*mut c_void, *mut u32) -> i32>,
    pub revoke: Option<unsafe extern "C" fn(*mut c_void) -> i32>,
}

/// `kf_board` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the header documents them")]
pub struct BoardOfC {
    pub device: [u8; 16],
    pub noise_source: [u8; 16],
    pub word: u32,
    pub sector: u32,
    pub sectors: u32,
    pub noise_millibits: u16,
    pub noise_alpha: u8,
    pub noise_alphabet: u8,
    pub noise_state: u8,
    pub medium: u8,
    pub tags: u8,
}

/// The facts about a board, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Board {
    pub(crate) device: DeviceId,
    pub(crate) profile: Profile,
    geometry: Geometry,
    medium: Medium,
    is_authenticated: bool,
}

pub(crate) fn noise_state(code: u8) -> Result<NoiseState, Status> {
    match code {
        1 => Ok(NoiseState::PhysicalOn),
        2 => Ok(NoiseState::PseudoRandomOnly),
        3 => Ok(NoiseState::Unknown),
        _ => Err(Status::Argument),
    }
}

impl BoardOfC {
    pub(crate) fn checked(&self) -> Result<Board, Status> {
        let Self { device, noise_source, word, sector, sectors, noise_millibits, noise_alpha, .. } = *self;
        let alphabet = match self.noise_alphabet {
            1 => Alphabet::Binary,
            2 => Alphabet::Octet,
            _ => return Err(Status::Argument),
        };
        let medium = match self.medium {
            1 => Medium::Raw,
            2 => Medium::Remapped,
            _ => return Err(Status::Argument),
        };
        let is_authenticated = match self.tags {
            1 => false,
            2 => true,
            _ => return Err(Status::Argument),
        };
        let assessment = Assessment { alphabet, millibits: noise_millibits, alpha: noise_alpha };
        let cutoffs = Cutoffs::new(assessment).map_err(|_out_of_range| Status::Argument)?;
        let profile = Profile { source: SourceId(noise_source), state: noise_state(self.noise_state)?, cutoffs };
        let geometry = Geometry { word, sector, sectors };
        Ok(Board { device: DeviceId::from_bytes(device), profile, geometry, medium, is_authenticated })
    }
}

const fn done(status: i32) -> Result<(), HookFailed> {
    if status == 0 { Ok(()) } else { Err(HookFailed) }
}

impl Hooks {
    /// Those that nothing works without.
    pub(crate) const fn require(&self) -> Result<(), Status> {
        match self {
            Self { noise: Some(_), read: Some(_), program: Some(_), erase: Some(_), chip_hmac: Some(_), .. } => Ok(()),
            _ => Err(Status::Board),
        }
    }

    /// The next number of the monotonic counter in hardware; `None` when the board has none.
    pub(crate) fn next_number(&self) -> Result<Option<u32>, Status> {
        let Some(hook) = self.counter else { return Ok(None) };
        let mut number = 0;
        // SAFETY: the hook is the caller's, called as the header says.
        done(unsafe { hook(self.context, &raw mut number) }).map_err(|HookFailed| Status::CounterHook)?;
        Ok(Some(number))
    }
}

impl Noise for Hooks {
    type Error = HookFailed;

    fn sample(&mut self) -> Result<u8, HookFailed> {
        let (mut sample, hook) = (0, self.noise.ok_or(HookFailed)?);
        // SAFETY: the hook is the caller's, called as the header says.
        done(unsafe { hook(self.context, &raw mut sample) })?;
        Ok(sample)
    }
}

/// The flash memory behind its hooks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HookFlash {
    hooks: Hooks,
    geometry: Geometry,
    medium: Medium,
}

impl HookFlash {
    pub(crate) const fn new(hooks: Hooks, board: &Board) -> Self {
        Self { hooks, geometry: board.geometry, medium: board.medium }
    }
}

impl Flash for HookFlash {
    type Error = HookFailed;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn medium(&self) -> Medium {
        self.medium
    }

    fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), HookFailed> {
        let hook = self.hooks.read.ok_or(HookFailed)?;
        // SAFETY: the hook is the caller's, called as the header says.
        done(unsafe { hook(self.hooks.context, offset, octets.as_mut_ptr(), octets.len()) })
    }

    fn program(&mut self, offset: u32, octets: &[u8]) -> Result<(), HookFailed> {
        let hook = self.hooks.program.ok_or(HookFailed)?;
        // SAFETY: the hook is the caller's, called as the header says.
        done(unsafe { hook(self.hooks.context, offset, octets.as_ptr(), octets.len()) })
    }

    fn erase(&mut self, sector: u32) -> Result<(), HookFailed> {
        let hook = self.hooks.erase.ok_or(HookFailed)?;
        // SAFETY: the hook is the caller's, called as the header says.
        done(unsafe { hook(self.hooks.context, sector) })
    }
}

/// The tags of the store.
#[derive(Debug)]
pub(crate) enum Tags {
    Checksum(Checksum),
    Authenticated(Authenticated),
}

/// A tag in the making.
#[allow(clippy::large_enum_variant, reason = "there is no heap to put one on")]
pub(crate) enum Tag {
    Checksum(<Checksum as Integrity>::Tag),
    Authenticated(<Authenticated as Integrity>::Tag),
}

/// What the chip's key authenticates the store with: no `info` begins like this.
const TAGS_LABEL: &[u8] = b"keyfleet storage tags v1";

impl Tags {
    /// The tags that the board asks for.
    pub(crate) fn of(hooks: Hooks, board: &Board) -> Result<Self, Status> {
        if !board.is_authenticated {
            return Ok(Self::Checksum(Checksum));
        }
        let key = SecretArray::try_fill(|key| HookHmac(hooks).hmac_sha256(TAGS_LABEL, key));
        key.map(|key| Self::Authenticated(Authenticated::new(key))).map_err(|HookFailed| Status::ChipHook)
    }
}

impl Integrity for Tags {
    type Tag = Tag;

    fn begin(&self) -> Tag {
        match self {
            Self::Checksum(tags) => Tag::Checksum(tags.begin()),
            Self::Authenticated(tags) => Tag::Authenticated(tags.begin()),
        }
    }

    fn update(tag: &mut Tag, octets: &[u8]) {
        match tag {
            Tag::Checksum(tag) => Checksum::update(tag, octets),
            Tag::Authenticated(tag) => Authenticated::update(tag, octets),
        }
    }

    fn finish(tag: Tag) -> [u8; 8] {
        match tag {
            Tag::Checksum(tag) => Checksum::finish(tag),
            Tag::Authenticated(tag) => Authenticated::finish(tag),
        }
    }
}

/// The chip's key behind its hook.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HookHmac(Hooks);

impl KeyedHmac for HookHmac {
    type Error = HookFailed;

    fn hmac_sha256(&self, message: &[u8], tag: &mut [u8; 32]) -> Result<(), HookFailed> {
        let hook = self.0.chip_hmac.ok_or(HookFailed)?;
        // SAFETY: the hook is the caller's, called as the header says.
        done(unsafe { hook(self.0.context, message.as_ptr(), message.len(), tag.as_mut_ptr()) })
    }
}

/// The chip's key as what wraps the others.
pub(crate) struct Chip {
    hooks: Hooks,
    key: FusedKey<HookHmac>,
}

impl fmt::Debug for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chip")
    }
}

impl Chip {
    pub(crate) const fn new(hooks: Hooks) -> Self {
        Self { hooks, key: FusedKey::new(HookHmac(hooks)) }
    }

    pub(crate) const fn is_revocable(&self) -> bool {
        self.hooks.revoke.is_some()
    }
}

impl WrapKey for Chip {
    type Error = HookFailed;

    fn wrap(
        &self,
        context: Wrapped,
        nonce: Nonce,
        key: &SecretArray<32>,
    ) -> Result<[u8; WRAPPED_OCTETS], WrapError<HookFailed>> {
        self.key.wrap(context, nonce, key)
    }

    fn unwrap(
        &self,
        context: Wrapped,
        wrapped: &[u8; WRAPPED_OCTETS],
    ) -> Result<SecretArray<32>, WrapError<HookFailed>> {
        self.key.unwrap(context, wrapped)
    }
}

impl RevocableKey for Chip {
    fn revoke(&mut self) -> Result<(), HookFailed> {
        let hook = self.hooks.revoke.ok_or(HookFailed)?;
        // SAFETY: the hook is the caller's, called as the header says.
        done(unsafe { hook(self.hooks.context) })
    }
}

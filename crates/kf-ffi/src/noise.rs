//! The noise source behind a hook, with its health tests.

use core::ffi::c_void;

use kf_device::entropy::{Alphabet, Assessment, EntropyError, Healthy, Noise, NoiseState, Profile, Source, SourceId};
use kf_entropy::Cutoffs;

use crate::handle::{self, Held, InHandle};
use crate::pointer;
use crate::status::{Status, code};

/// `kf_hooks` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the header documents them")]
pub struct Hooks {
    pub context: *mut c_void,
    pub noise: Option<unsafe extern "C" fn(*mut c_void, *mut u8) -> i32>,
    pub counter: Option<unsafe extern "C" fn(*mut c_void, *mut u32) -> i32>,
}

/// A hook did not return 0.
#[derive(Debug)]
pub struct HookFailed;

impl Noise for Hooks {
    type Error = HookFailed;

    fn sample(&mut self) -> Result<u8, HookFailed> {
        let (mut sample, hook) = (0, self.noise.ok_or(HookFailed)?);
        // SAFETY: the hook is the caller's, called as the header says.
        if unsafe { hook(self.context, &raw mut sample) } == 0 { Ok(sample) } else { Err(HookFailed) }
    }
}

/// What a `kf_noise` holds.
#[derive(Debug)]
pub struct HeldNoise {
    source: Source<Hooks, Healthy>,
    hooks: Hooks,
}

impl InHandle for HeldNoise {
    const MARK: u64 = 0x4b46_4e4f_4953_4531;
    const WORDS: usize = 64;
}

fn told<E>(error: EntropyError<E>) -> Status {
    match error {
        EntropyError::NotPhysical(_) => Status::NotPhysical,
        _ => Status::Noise,
    }
}

impl HeldNoise {
    /// The next boot number and 16 fresh octets.
    pub(crate) fn boot(&mut self) -> Result<(u32, [u8; 16]), Status> {
        let (mut number, hook) = (0, self.hooks.counter.ok_or(Status::Counter)?);
        // SAFETY: the hook is the caller's, called as the header says.
        if unsafe { hook(self.hooks.context, &raw mut number) } != 0 {
            return Err(Status::Counter);
        }
        let random = self.source.random::<16>().map_err(told)?;
        // Not secret: it stands in the header of every envelope.
        Ok((number, *random.expose()))
    }
}

/// `kf_noise_start` of the header.
///
/// # Safety
/// Every pointer is NULL or valid; the hooks are as the header says, and stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_noise_start(
    noise: *mut Held<HeldNoise>,
    hooks: *const Hooks,
    state: u8,
    millibits: u16,
) -> i32 {
    // SAFETY: by the caller's promise.
    code(unsafe { pointer::value(hooks) }.and_then(|hooks| {
        let state = match state {
            1 => NoiseState::PhysicalOn,
            2 => NoiseState::PseudoRandomOnly,
            3 => NoiseState::Unknown,
            _ => return Err(Status::Argument),
        };
        let assessment = Assessment { alphabet: Alphabet::Octet, millibits, alpha: 30 };
        let cutoffs = Cutoffs::new(assessment).map_err(|_out_of_range| Status::Argument)?;
        let profile = Profile { source: SourceId(*b"behind a C hook "), state, cutoffs };
        let source = Source::new(*hooks, profile).start_up().map_err(|failed| told(failed.error))?;
        // SAFETY: by the caller's promise.
        unsafe { handle::put(noise, HeldNoise { source, hooks: *hooks }) }
    }))
}

/// `kf_noise_key` of the header.
///
/// # Safety
/// Every pointer is NULL or valid for the length that the header gives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_noise_key(noise: *mut Held<HeldNoise>, key: *mut u8) -> i32 {
    // SAFETY: by the caller's promise.
    let checked = unsafe { handle::get(noise).and_then(|noise| Ok((noise, pointer::octets_mut(key, 32)?))) };
    code(checked.and_then(|(noise, place)| {
        drop(noise.source.seed().map_err(told)?);
        let key = noise.source.random::<32>().map_err(told)?;
        // Exposed to the caller, who asked for it.
        place.copy_from_slice(key.expose());
        Ok(())
    }))
}

/// `kf_noise_wipe` of the header.
///
/// # Safety
/// `noise` is NULL or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_noise_wipe(noise: *mut Held<HeldNoise>) {
    // SAFETY: by the caller's promise.
    unsafe { handle::wipe(noise) }
}

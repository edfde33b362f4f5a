//! A partition in the format of ESP-IDF's NVS under the storage key.

use core::ffi::{c_char, c_void};

use kf_device::nvs::{
    KeepError, KeepStep, MAX_BLOB_IN_PAGE_OCTETS, Nvs, NvsCipher, NvsError, NvsKeys, PageStep, Under, Value, is_kept,
};
use kf_device::protected::Step;
use kf_device::storage::{Flash, Geometry, Medium};
use kf_key::SecretArray;

use crate::device::Device;
use crate::handle::{self, Held};
use crate::pointer;
use crate::protected::{IDLE, MOVED, OVER, Protecting};
use crate::status::{HookFailed, Status};

/// The most octets of a value that is put.
pub(crate) const VALUE_OCTETS: usize = MAX_BLOB_IN_PAGE_OCTETS;
/// Encryption key and tweak key.
const KEYS_OCTETS: usize = 64;
const PAGE_OCTETS: u32 = 4_096;

/// `kf_nvs` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the header documents them")]
pub struct NvsOfC {
    pub context: *mut c_void,
    pub read: Option<unsafe extern "C" fn(*mut c_void, u32, *mut u8, usize) -> i32>,
    pub program: Option<unsafe extern "C" fn(*mut c_void, u32, *const u8, usize) -> i32>,
    pub erase: Option<unsafe extern "C" fn(*mut c_void, u32) -> i32>,
    pub word: u32,
    pub pages: u32,
}

/// The memory of the partition behind its hooks.
#[derive(Clone, Copy, Debug)]
struct Partition(NvsOfC);

impl NvsOfC {
    fn checked(self) -> Result<Nvs<Partition>, Status> {
        match self {
            Self { read: Some(_), program: Some(_), erase: Some(_), .. } => {
                Nvs::new(Partition(self)).map_err(|_geometry| Status::Board)
            }
            _ => Err(Status::Board),
        }
    }
}

const fn done(status: i32) -> Result<(), HookFailed> {
    if status == 0 { Ok(()) } else { Err(HookFailed) }
}

impl Flash for Partition {
    type Error = HookFailed;

    fn geometry(&self) -> Geometry {
        Geometry { word: self.0.word, sector: PAGE_OCTETS, sectors: self.0.pages }
    }

    /// What is erased of a partition is said of nothing: the storage key is what dies.
    fn medium(&self) -> Medium {
        Medium::Remapped
    }

    fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), HookFailed> {
        let hook = self.0.read.ok_or(HookFailed)?;
        // SAFETY: the hook is the caller's, called as the header says.
        done(unsafe { hook(self.0.context, offset, octets.as_mut_ptr(), octets.len()) })
    }

    fn program(&mut self, offset: u32, octets: &[u8]) -> Result<(), HookFailed> {
        let hook = self.0.program.ok_or(HookFailed)?;
        // SAFETY: the hook is the caller's, called as the header says.
        done(unsafe { hook(self.0.context, offset, octets.as_ptr(), octets.len()) })
    }

    fn erase(&mut self, sector: u32) -> Result<(), HookFailed> {
        let hook = self.0.erase.ok_or(HookFailed)?;
        // SAFETY: the hook is the caller's, called as the header says.
        done(unsafe { hook(self.0.context, sector) })
    }
}

/// What a partition lies under before it comes under the storage key: keys of its own, or nothing.
///
/// # Safety
/// `from` is NULL or valid for reading 64 octets.
unsafe fn former(from: *const [u8; KEYS_OCTETS]) -> Result<Option<NvsCipher>, Status> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: by the caller's promise.
    let octets = unsafe { pointer::value(from) }?;
    let keys = NvsKeys::from_secret(SecretArray::fill(|keys| *keys = *octets)).map_err(|_weak| Status::Argument)?;
    Ok(Some(keys.cipher()))
}

const fn under(cipher: Option<&NvsCipher>) -> Under<'_> {
    match cipher {
        Some(cipher) => Under::Keys(cipher),
        None => Under::Clear,
    }
}

const fn code_of(step: PageStep) -> u8 {
    match step {
        PageStep::Moved(_) | PageStep::Cleared(_) => MOVED,
        PageStep::Over => OVER,
    }
}

/// A value of the type that ESP-IDF gives this code; numbers are little endian.
fn value_of(kind: u8, octets: &[u8]) -> Result<Value<'_>, Status> {
    macro_rules! number {
        ($($code:literal $kind:ident $number:ty;)+) => {
            match kind {
                $($code => <[u8; size_of::<$number>()]>::try_from(octets)
                    .map(|octets| Value::$kind(<$number>::from_le_bytes(octets)))
                    .map_err(|_other_length| Status::Length),)+
                0x21 => core::str::from_utf8(octets).map(Value::Text).map_err(|_no_text| Status::Argument),
                0x42 => Ok(Value::Blob(octets)),
                _ => Err(Status::Argument),
            }
        };
    }
    number! {
        0x01 U8 u8;
        0x11 I8 i8;
        0x02 U16 u16;
        0x12 I16 i16;
        0x04 U32 u32;
        0x14 I32 i32;
        0x08 U64 u64;
        0x18 I64 i64;
    }
}

border! {
    /// `kf_nvs_format` of the header.
    kf_nvs_format(keys: *mut Held<Protecting>, device: *mut Held<Device>, nvs: *const NvsOfC)
    takes { keys = handle::get(keys), device = handle::get(device), nvs = pointer::value(nvs) } {
        Ok(keys.0.format_nvs::<_, _, _, HookFailed>(&mut device.store, &mut nvs.checked()?)?)
    }
}

border! {
    /// `kf_nvs_adopt` of the header.
    kf_nvs_adopt(
        keys: *mut Held<Protecting>,
        device: *mut Held<Device>,
        nvs: *const NvsOfC,
        from: *const [u8; KEYS_OCTETS],
        what: *mut u8,
    ) takes {
        keys = handle::get(keys),
        device = handle::get(device),
        nvs = pointer::value(nvs),
        from = former(from),
        what = pointer::value_mut(what),
    } {
        let (mut nvs, from) = (nvs.checked()?, under(from.as_ref()));
        *what = code_of(keys.0.adopt_nvs::<_, _, _, HookFailed>(&mut device.store, &mut nvs, from)?);
        Ok(())
    }
}

border! {
    /// `kf_nvs_step` of the header.
    kf_nvs_step(keys: *mut Held<Protecting>, device: *mut Held<Device>, nvs: *const NvsOfC, what: *mut u8)
    takes {
        keys = handle::get(keys),
        device = handle::get(device),
        nvs = pointer::value(nvs),
        what = pointer::value_mut(what),
    } {
        let device = &mut *device;
        *what = match keys.0.step_with_nvs(&mut device.store, &mut nvs.checked()?, &mut device.source)? {
            KeepStep::Page(_) | KeepStep::Record(Step::Moved(_)) => MOVED,
            KeepStep::Record(Step::Over(_)) => OVER,
            KeepStep::Record(Step::Idle) => IDLE,
        };
        Ok(())
    }
}

border! {
    /// `kf_nvs_settle` of the header.
    kf_nvs_settle(keys: *mut Held<Protecting>, device: *mut Held<Device>, nvs: *const NvsOfC)
    takes { keys = handle::get(keys), device = handle::get(device), nvs = pointer::value(nvs) } {
        Ok(keys.0.settle_nvs::<_, _, _, HookFailed>(&mut device.store, &mut nvs.checked()?)?)
    }
}

border! {
    /// `kf_nvs_keys` of the header.
    kf_nvs_keys(keys: *mut Held<Protecting>, nvs_keys: *mut [u8; KEYS_OCTETS])
    takes { keys = handle::get(keys), place = pointer::value_mut(nvs_keys) } {
        let keys = keys.0.nvs_keys::<HookFailed, HookFailed, HookFailed>()?;
        // Exposed to ESP-IDF's driver, which takes them in clear.
        place.copy_from_slice(keys.expose());
        Ok(())
    }
}

border! {
    /// `kf_nvs_put` of the header.
    kf_nvs_put(
        keys: *mut Held<Protecting>,
        device: *mut Held<Device>,
        nvs: *const NvsOfC,
        space: *const c_char,
        key: *const c_char,
        kind: u8,
        octets: *const u8,
        length: usize,
    ) takes {
        keys = handle::get(keys),
        device = handle::get(device),
        nvs = pointer::value(nvs),
        space = pointer::text(space),
        key = pointer::text(key),
        octets = pointer::octets(octets, length),
    } {
        let (value, mut nvs) = (value_of(kind, octets)?, nvs.checked()?);
        Ok(keys.0.put_nvs::<_, _, _, HookFailed>(&mut device.store, &mut nvs, (space, key), value)?)
    }
}

border! {
    /// `kf_nvs_get` of the header.
    kf_nvs_get(
        keys: *mut Held<Protecting>,
        device: *mut Held<Device>,
        nvs: *const NvsOfC,
        from: *const [u8; KEYS_OCTETS],
        space: *const c_char,
        key: *const c_char,
        octets: *mut u8,
        capacity: usize,
        length: *mut usize,
    ) takes {
        keys = handle::get(keys),
        device = handle::get(device),
        nvs = pointer::value(nvs),
        from = former(from),
        space = pointer::text(space),
        key = pointer::text(key),
        place = pointer::octets_mut(octets, capacity),
        length = pointer::value_mut(length),
    } {
        // In clear, or under its former keys, nothing is read any more once the partition is there.
        let from = (!is_kept(&mut device.store)?).then_some(under(from.as_ref()));
        match keys.0.read_nvs::<HookFailed, HookFailed, _>(&mut nvs.checked()?, from, (space, key), place) {
            Ok(Some(found)) => {
                *length = found;
                Ok(())
            }
            Ok(None) => Err(Status::Missing),
            Err(error) => {
                if let KeepError::Nvs(NvsError::Buffer { needed }) = error {
                    *length = needed;
                }
                Err(error.into())
            }
        }
    }
}

border! {
    /// `kf_nvs_remove` of the header.
    kf_nvs_remove(
        keys: *mut Held<Protecting>,
        device: *mut Held<Device>,
        nvs: *const NvsOfC,
        space: *const c_char,
        key: *const c_char,
    ) takes {
        keys = handle::get(keys),
        device = handle::get(device),
        nvs = pointer::value(nvs),
        space = pointer::text(space),
        key = pointer::text(key),
    } {
        let mut nvs = nvs.checked()?;
        let was_there = keys.0.remove_nvs::<_, _, _, HookFailed>(&mut device.store, &mut nvs, (space, key))?;
        if was_there { Ok(()) } else { Err(Status::Missing) }
    }
}

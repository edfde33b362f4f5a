//! Statuses and their texts, and the border that every call crosses.

use core::convert::Infallible;
use core::ffi::{CStr, c_char};

use kf_device::certificate::CertificateError;
use kf_device::enrolment::EstError;
use kf_device::entropy::{EntropyError, RestartError};
use kf_device::exchange::kf_exchange::order::OrderRefusal;
use kf_device::exchange::kf_exchange::{ExchangeError, Refusal};
use kf_device::exchange::{BeginError, KeepError};
use kf_device::nvs::{KeepError as NvsKeepError, NvsError};
use kf_device::order::OrderError;
use kf_device::protected::ProtectError;
use kf_device::sealed::kf_seal::{OpenError, SealError};
use kf_device::storage::{CounterError, StorageError};
use kf_device::wrap::WrapError;
use kf_device::{BootError, KeyError, PayloadError};

/// A hook did not return 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookFailed;

macro_rules! statuses {
    ($($name:ident $code:literal $text:literal)+) => {
        /// A status of the header.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(i32)]
        pub(crate) enum Status {
            $($name = $code,)+
        }

        /// Every status with its text.
        const TEXTS: &[(Status, &CStr)] = &[$((Status::$name, $text),)+];
    };
}

statuses! {
    Ok 0 c"done"
    Null -1 c"a pointer is NULL or not aligned"
    Length -2 c"a length is not allowed"
    Buffer -3 c"the buffer is too small: *length says what is needed where that is known"
    Argument -4 c"a code, text or number is not allowed"
    State -5 c"the handle was not made, was wiped, or is at another step"
    Busy -6 c"the handle is in use: a hook has called back, or another thread has"
    Board -7 c"the description of the board or a hook that it needs is missing or not supported"
    NotBuilt -8 c"this library was built without the algorithm"
    NoiseHook -16 c"the noise hook failed"
    Unhealthy -17 c"a health test of the noise source has failed"
    NotPhysical -18 c"the noise source is not declared as physical and on: it makes no production key"
    Repeats -19 c"the noise source gave the same samples after the last power-on"
    Stuck -20 c"all random octets are the same"
    DrawAgain -21 c"the random octets are no private key, once in 2^32: call again"
    FlashHook -32 c"a hook of the flash memory failed"
    Unformatted -33 c"the storage is blank: kf_format, once, in the factory"
    Corrupt -34 c"the storage holds what no power cut leaves: nothing was changed"
    Full -35 c"the storage is full"
    TooLarge -36 c"more octets than one update of the storage may have"
    NotTaken -37 c"the flash memory does not hold what was written: worn-out cells"
    StartAgain -38 c"an earlier call failed in the middle: stop the device and start it again"
    CounterHook -48 c"the hook of the monotonic counter failed"
    CounterBack -49 c"a counter went back or did not rise"
    Exhausted -50 c"the counter is at its end: begin another boot, or another device key"
    ChipHook -64 c"the hook of the chip's key failed"
    NotUnwrapped -65 c"a stored key does not unwrap under the chip's key"
    StillUnwraps -66 c"the chip still unwraps with a key that it has revoked"
    Missing -80 c"there is no such key, certificate or record"
    Occupied -81 c"there is one already"
    OtherKey -82 c"the certificate is for another key"
    Certificate -83 c"the certificate cannot be read or is too long"
    NotAnchored -84 c"no chain of signatures leads from the certificate to the pinned root"
    UnderWay -85 c"something that was begun has to be over first"
    NvsFirst -86 c"a partition of NVS lies under the storage key too: kf_nvs_step"
    Malformed -96 c"the message, envelope or answer cannot be read"
    Refused -97 c"it is not authentic, does not open, or is for another key"
    Replayed -98 c"it was accepted before, or is too old to tell"
    Expired -99 c"the order has expired"
    OtherDevice -100 c"the order is for another device"
    UnpinnedServer -101 c"the message is signed by a key that is not the pinned one"
    OutOfOrder -102 c"not the message that is due, or of another session or purpose"
    OlderKey -103 c"the delivered key is older than the one held"
    NotAhead -104 c"the ratchet is there or beyond already"
    TooFar -105 c"more steps of the ratchet than one call may take"
    Bug -127 c"a defect of the SDK: please report this"
}

/// Runs what a call does and gives its code. No panic crosses: where unwinding exists it becomes `KF_BUG`, and on bare
/// metal a panic stops the processor in the handler.
pub(crate) fn border(act: impl FnOnce() -> Result<(), Status>) -> i32 {
    #[cfg(not(target_os = "none"))]
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).unwrap_or(Err(Status::Bug));
    #[cfg(target_os = "none")]
    let outcome = act();
    code(outcome.err().unwrap_or(Status::Ok))
}

#[allow(clippy::as_conversions, reason = "a fieldless enum with explicit codes")]
const fn code(status: Status) -> i32 {
    status as i32
}

/// `kf_status_text` of the header.
// SAFETY: no other symbol of this name exists: the prefix is ours.
#[unsafe(no_mangle)]
pub extern "C" fn kf_status_text(status: i32) -> *const c_char {
    let known = TEXTS.iter().find(|(known, _)| code(*known) == status);
    known.map_or(c"unknown", |(_, text)| *text).as_ptr()
}

/// The codes of all statuses, for the test that holds the header against them.
#[doc(hidden)]
pub fn codes() -> impl Iterator<Item = i32> {
    TEXTS.iter().map(|(status, _)| code(*status))
}

impl From<EntropyError<HookFailed>> for Status {
    fn from(error: EntropyError<HookFailed>) -> Self {
        match error {
            EntropyError::Noise(_) => Self::NoiseHook,
            EntropyError::Unhealthy(_) => Self::Unhealthy,
            EntropyError::NotPhysical(_) => Self::NotPhysical,
            _ => Self::Bug,
        }
    }
}

impl From<RestartError<HookFailed>> for Status {
    fn from(error: RestartError<HookFailed>) -> Self {
        match error {
            RestartError::Repeats => Self::Repeats,
            RestartError::Storage(error) => error.into(),
        }
    }
}

impl From<StorageError<HookFailed>> for Status {
    fn from(error: StorageError<HookFailed>) -> Self {
        match error {
            StorageError::Flash(_) => Self::FlashHook,
            StorageError::Geometry => Self::Board,
            StorageError::Unformatted => Self::Unformatted,
            StorageError::Corrupt => Self::Corrupt,
            StorageError::Full => Self::Full,
            StorageError::TooLarge => Self::TooLarge,
            StorageError::Buffer { .. } => Self::Buffer,
            StorageError::NotTaken => Self::NotTaken,
            StorageError::OpenAgain => Self::StartAgain,
            _ => Self::Bug,
        }
    }
}

impl From<CounterError<HookFailed>> for Status {
    fn from(error: CounterError<HookFailed>) -> Self {
        match error {
            CounterError::Storage(error) => error.into(),
            CounterError::Exhausted => Self::Exhausted,
            CounterError::NotAbove { .. } => Self::CounterBack,
        }
    }
}

impl From<WrapError<HookFailed>> for Status {
    fn from(error: WrapError<HookFailed>) -> Self {
        match error {
            WrapError::Holder(_) => Self::ChipHook,
            WrapError::Refused => Self::NotUnwrapped,
        }
    }
}

/// Of a key that a hook wraps, and of one that nothing wraps.
pub(crate) trait IntoStatus {
    fn into_status(self) -> Status;
}

impl IntoStatus for HookFailed {
    fn into_status(self) -> Status {
        Status::ChipHook
    }
}

impl IntoStatus for Infallible {
    fn into_status(self) -> Status {
        match self {}
    }
}

impl<W: IntoStatus> From<KeyError<HookFailed, W>> for Status {
    fn from(error: KeyError<HookFailed, W>) -> Self {
        match error {
            KeyError::Storage(error) => error.into(),
            KeyError::Wrap(WrapError::Holder(holder)) => holder.into_status(),
            KeyError::Wrap(WrapError::Refused) => Self::NotUnwrapped,
            KeyError::Missing => Self::Missing,
            KeyError::Occupied => Self::Occupied,
            KeyError::DrawAgain => Self::DrawAgain,
            KeyError::OtherKey => Self::OtherKey,
            KeyError::Certificate => Self::Certificate,
            KeyError::Ratchet(error) => error.into(),
            _ => Self::Bug,
        }
    }
}

impl From<kf_derive::RatchetError> for Status {
    fn from(error: kf_derive::RatchetError) -> Self {
        match error {
            kf_derive::RatchetError::NotAhead { .. } => Self::NotAhead,
            kf_derive::RatchetError::TooFar { .. } => Self::TooFar,
            kf_derive::RatchetError::Context(_) => Self::Length,
        }
    }
}

impl From<PayloadError<HookFailed>> for Status {
    fn from(error: PayloadError<HookFailed>) -> Self {
        match error {
            PayloadError::Malformed(_) => Self::Malformed,
            PayloadError::Open(error) => error.into(),
            PayloadError::Replay(_) => Self::Replayed,
            PayloadError::DamagedRecord => Self::Corrupt,
            PayloadError::Storage(error) => error.into(),
            _ => Self::Bug,
        }
    }
}

impl From<OpenError> for Status {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::BufferTooSmall { .. } => Self::Buffer,
            OpenError::ExternalAadTooLarge { .. } => Self::Length,
            OpenError::AlgorithmNotBuilt => Self::NotBuilt,
            _ => Self::Refused,
        }
    }
}

impl From<EntropyError<Infallible>> for Status {
    fn from(error: EntropyError<Infallible>) -> Self {
        match error {
            EntropyError::Noise(never) => match never {},
            EntropyError::Unhealthy(_) => Self::Unhealthy,
            EntropyError::NotPhysical(_) => Self::NotPhysical,
            _ => Self::Bug,
        }
    }
}

impl<W: IntoStatus, N> From<ProtectError<HookFailed, W, N>> for Status
where
    Self: From<EntropyError<N>>,
{
    fn from(error: ProtectError<HookFailed, W, N>) -> Self {
        match error {
            ProtectError::Key(error) => error.into(),
            ProtectError::Entropy(error) => error.into(),
            ProtectError::Id => Self::Argument,
            ProtectError::TooLarge => Self::Length,
            ProtectError::Refused => Self::Refused,
            ProtectError::NvsFirst => Self::NvsFirst,
            _ => Self::Bug,
        }
    }
}

impl From<NvsError<HookFailed>> for Status {
    fn from(error: NvsError<HookFailed>) -> Self {
        match error {
            NvsError::Flash(_) => Self::FlashHook,
            NvsError::Geometry => Self::Board,
            NvsError::NoSpare | NvsError::Full => Self::Full,
            NvsError::Unreadable { .. } => Self::Refused,
            NvsError::NotTaken => Self::NotTaken,
            NvsError::Name => Self::Argument,
            NvsError::Damaged => Self::Corrupt,
            NvsError::Buffer { .. } => Self::Buffer,
            NvsError::Value => Self::Length,
            _ => Self::Bug,
        }
    }
}

impl From<NvsKeepError<HookFailed, HookFailed, HookFailed>> for Status {
    fn from(error: NvsKeepError<HookFailed, HookFailed, HookFailed>) -> Self {
        match error {
            NvsKeepError::Protect(error) => error.into(),
            NvsKeepError::Nvs(error) => error.into(),
            NvsKeepError::UnderWay => Self::UnderWay,
            NvsKeepError::Kept => Self::Occupied,
            NvsKeepError::NotKept => Self::Missing,
            _ => Self::Bug,
        }
    }
}

impl From<SealError> for Status {
    fn from(error: SealError) -> Self {
        match error {
            SealError::PlaintextTooLarge { .. } | SealError::ExternalAadTooLarge { .. } => Self::Length,
            SealError::BufferTooSmall { .. } => Self::Buffer,
            SealError::BootExhausted => Self::Exhausted,
            SealError::AlgorithmNotBuilt => Self::NotBuilt,
            _ => Self::Bug,
        }
    }
}

impl From<BootError<HookFailed, HookFailed>> for Status {
    fn from(error: BootError<HookFailed, HookFailed>) -> Self {
        match error {
            BootError::Counter(error) => error.into(),
            BootError::Entropy(error) => error.into(),
            BootError::StuckRandom => Self::Stuck,
            BootError::Seal(error) => error.into(),
            _ => Self::Bug,
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLong | Refusal::Malformed | Refusal::Version | Refusal::PublicKey => Self::Malformed,
            Refusal::OutOfOrder | Refusal::Purpose | Refusal::OtherSession => Self::OutOfOrder,
            Refusal::UnpinnedServer => Self::UnpinnedServer,
            Refusal::Unauthentic => Self::Refused,
            Refusal::OlderKey => Self::OlderKey,
            Refusal::DrawAgain => Self::DrawAgain,
            _ => Self::Bug,
        }
    }
}

impl From<ExchangeError<Infallible>> for Status {
    fn from(error: ExchangeError<Infallible>) -> Self {
        let ExchangeError::Refused(refusal) = error;
        refusal.into()
    }
}

impl From<BeginError<HookFailed>> for Status {
    fn from(error: BeginError<HookFailed>) -> Self {
        match error {
            BeginError::Entropy(error) => error.into(),
            BeginError::Exchange(refusal) => refusal.into(),
        }
    }
}

impl From<KeepError<HookFailed, HookFailed>> for Status {
    fn from(error: KeepError<HookFailed, HookFailed>) -> Self {
        match error {
            KeepError::Key(error) => error.into(),
            KeepError::Exchange(refusal) => refusal.into(),
        }
    }
}

impl From<OrderError<HookFailed>> for Status {
    fn from(error: OrderError<HookFailed>) -> Self {
        match error {
            OrderError::Refused(OrderRefusal::Message(refusal)) => refusal.into(),
            OrderError::Refused(OrderRefusal::OtherKey) => Self::UnpinnedServer,
            OrderError::Refused(OrderRefusal::OtherDevice) => Self::OtherDevice,
            OrderError::Refused(OrderRefusal::Expired) => Self::Expired,
            OrderError::Refused(_) => Self::Replayed,
            OrderError::Storage(error) => error.into(),
            OrderError::Report(error) => error.into(),
            _ => Self::Bug,
        }
    }
}

impl From<EstError> for Status {
    fn from(error: EstError) -> Self {
        match error {
            EstError::Label => Self::Argument,
            EstError::Buffer => Self::Length,
            EstError::Certificate(error) => error.into(),
            _ => Self::Malformed,
        }
    }
}

impl From<CertificateError> for Status {
    fn from(error: CertificateError) -> Self {
        match error {
            CertificateError::OtherKey => Self::OtherKey,
            CertificateError::NotAnchored => Self::NotAnchored,
            _ => Self::Certificate,
        }
    }
}

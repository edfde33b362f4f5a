//! What the device keeps beside its identity: the device key, and the counters of boots and orders. It is the journal of
//! the device SDK ([`kf_device::storage`]) over a file: every record authenticated, every key wrapped under the key
//! source's wrapping key. Power cuts, replays and half-written updates are settled by the code that microcontrollers run.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use kf_derive::{FusedKey, KeyedHmac as _, SoftwareKey};
use kf_device::derivation::HeldKey;
use kf_device::entropy::{Alphabet, Assessment, Healthy, Noise, NoiseState, Profile, Source, SourceId};
use kf_device::exchange::{BeginError, FinishError, KeepError, Kept, begin, keep};
use kf_device::order::{Accepted, OrderError, OrderKey, Remembered, ResetOrder, WipeOrder, reset_report, wipe_report};
use kf_device::pin::Pin;
use kf_device::protected::{MAX_OCTETS, Migrated, ProtectError, Step, StorageKeys, last_migration};
use kf_device::storage::{Authenticated, Flash, Geometry, Medium, RecordId, StorageError, Store};
use kf_device::{BootError, KeyError};
use kf_entropy::Cutoffs;
use kf_exchange::order::OrderRefusal;
use kf_exchange::{
    AwaitChallenge, Delivered, Ephemeral, ExchangeError, IdentityKey, MAX_MESSAGE_OCTETS, Message, PublicKey, Purpose,
    Refusal,
};
use kf_key::{DeviceId, KeyRole, SecretArray, SecretBytes, UnixMillis};
use kf_seal::Boot;

/// The file of the journal, in the state directory.
pub(crate) const VAULT: &str = "vault";

/// The file of what a new vault takes over from the one before: order counters of former owners, and the counter of boots.
pub(crate) const REMEMBERED: &str = "remembered";

const GEOMETRY: Geometry = Geometry { word: 8, sector: 4_096, sectors: 4 };
const FILE_OCTETS: u64 = 4 * 4_096;
const SECTOR_OCTETS: u64 = 4_096;

/// Four bits of each octet: half of what the operating system promises, so that the tests have something to find.
const CUTOFFS: Cutoffs = match Cutoffs::new(Assessment { alphabet: Alphabet::Octet, millibits: 4_000, alpha: 30 }) {
    Ok(cutoffs) => cutoffs,
    Err(_) => panic!("an assessment of ours"),
};

/// Why the vault did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum VaultError {
    /// The file.
    #[error("the file of the device key cannot be used")]
    Disk(#[source] io::Error),
    /// What is in it.
    #[error("the file of the device key is damaged, or was written under another seal key")]
    Damaged,
    /// The operating system.
    #[error("the random numbers of the operating system failed their tests")]
    Random,
    /// The other side of an exchange.
    #[error("the server's message is refused")]
    Exchange(#[source] Refusal),
    /// An order.
    #[error("the order is refused")]
    Order(#[source] OrderRefusal),
    /// The identity key.
    #[error("the identity key did not sign")]
    Identity,
    /// There is no device key, or a counter is at its end.
    #[error("{0}")]
    State(&'static str),
}

impl From<StorageError<io::Error>> for VaultError {
    fn from(error: StorageError<io::Error>) -> Self {
        match error {
            StorageError::Flash(source) => Self::Disk(source),
            _ => Self::Damaged,
        }
    }
}

impl<W> From<KeyError<io::Error, W>> for VaultError {
    fn from(error: KeyError<io::Error, W>) -> Self {
        match error {
            KeyError::Storage(error) => error.into(),
            KeyError::Missing => Self::State("there is no device key yet"),
            _ => Self::Damaged,
        }
    }
}

impl<W, N> From<ProtectError<io::Error, W, N>> for VaultError {
    fn from(error: ProtectError<io::Error, W, N>) -> Self {
        match error {
            ProtectError::Key(KeyError::Storage(StorageError::Full)) => Self::State("there is no room for this record"),
            ProtectError::Key(error) => error.into(),
            ProtectError::Entropy(_) => Self::Random,
            ProtectError::Id => Self::State("there is no such record"),
            ProtectError::TooLarge => Self::State("a record has at most 256 octets"),
            _ => Self::Damaged,
        }
    }
}

impl<K> From<OrderError<io::Error, K>> for VaultError {
    fn from(error: OrderError<io::Error, K>) -> Self {
        match error {
            OrderError::Refused(refusal) => Self::Order(refusal),
            OrderError::Storage(error) => error.into(),
            _ => Self::Identity,
        }
    }
}

/// Stack that is written over after keys were used on it: the SDK's ciphers are in pure Rust and leave pieces in frames that are
/// gone, and what is moved to the heap later takes them along.
const STACK_OCTETS: usize = if cfg!(debug_assertions) { 256 * 1024 } else { 64 * 1024 };

pub(crate) fn on_a_wiped_stack<T>(work: impl FnOnce() -> T) -> T {
    kf_key::with_wiped_stack::<STACK_OCTETS, T>(work)
}

/// A file that behaves as erase-block memory.
#[derive(Debug)]
pub(crate) struct FileFlash(File);

impl Flash for FileFlash {
    type Error = io::Error;

    fn geometry(&self) -> Geometry {
        GEOMETRY
    }

    fn medium(&self) -> Medium {
        Medium::Remapped
    }

    fn read(&mut self, offset: u32, octets: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(octets, offset.into())
    }

    fn program(&mut self, offset: u32, octets: &[u8]) -> io::Result<()> {
        self.0.write_all_at(octets, offset.into())?;
        self.0.sync_data()
    }

    fn erase(&mut self, sector: u32) -> io::Result<()> {
        self.0.write_all_at(&[0xff; 4_096], u64::from(sector).saturating_mul(SECTOR_OCTETS))?;
        self.0.sync_data()
    }
}

/// The operating system's generator, looked at octet by octet.
struct Kernel {
    octets: [u8; 256],
    used: usize,
}

impl Noise for Kernel {
    type Error = kf_crypto::CryptoError;

    fn sample(&mut self) -> Result<u8, kf_crypto::CryptoError> {
        if self.used >= self.octets.len() {
            kf_crypto::fill_random(&mut self.octets)?;
            self.used = 0;
        }
        let octet = self.octets.get_mut(self.used).map(std::mem::take);
        self.used = self.used.saturating_add(1);
        octet.ok_or(kf_crypto::CryptoError)
    }
}

fn kernel() -> Result<Source<Kernel, Healthy>, VaultError> {
    let noise = Kernel { octets: [0; 256], used: 256 };
    let profile =
        Profile { source: SourceId(*b"linux getrandom "), state: NoiseState::PseudoRandomOnly, cutoffs: CUTOFFS };
    Source::new(noise, profile).start_up().map_err(|_failed| VaultError::Random)
}

type Journal = Store<FileFlash, Authenticated>;

/// The journal, open, and what it takes to use it.
pub(crate) struct Vault {
    path: PathBuf,
    /// `None` after a call that failed in the middle: the next one opens it again.
    journal: Option<Journal>,
    wrapping: SecretArray<32>,
    wrap: FusedKey<SoftwareKey>,
    source: Source<Kernel, Healthy>,
    /// The device was wiped: nothing is opened or made any more.
    is_forgotten: bool,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("path", &self.path).finish_non_exhaustive()
    }
}

fn copy(secret: &SecretArray<32>) -> SecretArray<32> {
    // Exposed to its other holder.
    SecretArray::fill(|octets| octets.copy_from_slice(secret.expose()))
}

impl Vault {
    /// Opens the journal in `state_dir`, making it when there is none.
    ///
    /// # Errors
    /// [`VaultError`]: a damaged journal is never taken for an empty one.
    pub(crate) fn open(state_dir: &Path, wrapping: SecretArray<32>) -> Result<Self, VaultError> {
        let wrap = FusedKey::new(SoftwareKey::new(copy(&wrapping)));
        let (path, source) = (state_dir.join(VAULT), kernel()?);
        let mut vault = Self { path, journal: None, wrapping, wrap, source, is_forgotten: false };
        on_a_wiped_stack(|| vault.opened().map(|_journal| ()))?;
        Ok(vault)
    }

    /// Forgets what everything in the journal is wrapped under: the device was wiped, and others still hold this vault.
    pub(crate) fn forget(&mut self) {
        self.journal = None;
        self.is_forgotten = true;
        let nothing = || SecretArray::fill(|octets: &mut [u8; 32]| octets.fill(0));
        self.wrapping = nothing();
        self.wrap = FusedKey::new(SoftwareKey::new(nothing()));
    }

    fn integrity(&self) -> Authenticated {
        let key = SoftwareKey::new(copy(&self.wrapping));
        Authenticated::new(SecretArray::fill(|tag| match key.hmac_sha256(b"keyfleet-agent vault integrity v1", tag) {
            Ok(()) => {}
            Err(never) => match never {},
        }))
    }

    fn opened(&mut self) -> Result<&mut Journal, VaultError> {
        if self.is_forgotten {
            return Err(VaultError::State("the device was wiped"));
        }
        if self.journal.is_none() {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&self.path);
            let file = file.map_err(VaultError::Disk)?;
            let octets = file.metadata().map_err(VaultError::Disk)?.len();
            let journal = match octets {
                FILE_OCTETS => match Store::open(FileFlash(file), self.integrity()) {
                    // Its making was cut short: blank from end to end.
                    Err(StorageError::Unformatted) => return self.formatted(),
                    outcome => outcome?,
                },
                0 => return self.formatted(),
                _ => return Err(VaultError::Damaged),
            };
            self.journal = Some(journal);
        }
        self.journal.as_mut().ok_or(VaultError::Damaged)
    }

    /// Makes an empty journal beside its place and moves it there, so that a file of another length is damage.
    fn formatted(&mut self) -> Result<&mut Journal, VaultError> {
        let temporary = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let file = file.map_err(VaultError::Disk)?;
        file.set_len(FILE_OCTETS).map_err(VaultError::Disk)?;
        let mut journal = Store::format(FileFlash(file), self.integrity())?;
        match std::fs::read(self.path.with_file_name(REMEMBERED)) {
            Ok(octets) => Remembered::from_bytes(&octets).ok_or(VaultError::Damaged)?.put(&mut journal)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(VaultError::Disk(error)),
        }
        std::fs::rename(&temporary, &self.path)
            .and_then(|()| match self.path.parent() {
                Some(directory) => File::open(directory)?.sync_all(),
                None => Ok(()),
            })
            .map_err(VaultError::Disk)?;
        Ok(self.journal.insert(journal))
    }

    /// Runs `work`; after a failure of the storage the journal is opened again before the next.
    fn with<T>(
        &mut self,
        work: impl FnOnce(&mut Journal, &FusedKey<SoftwareKey>, &mut Source<Kernel, Healthy>) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        on_a_wiped_stack(|| self.opened().map(|_journal| ()))?;
        let Some(journal) = &mut self.journal else { return Err(VaultError::Damaged) };
        let outcome = on_a_wiped_stack(|| work(journal, &self.wrap, &mut self.source));
        if matches!(outcome, Err(VaultError::Disk(_) | VaultError::Damaged)) {
            self.journal = None;
        }
        outcome
    }

    /// The device key in use.
    pub(crate) fn held(&mut self, device: DeviceId) -> Result<Option<HeldKey>, VaultError> {
        self.with(|journal, wrap, _| Ok(HeldKey::load(journal, wrap, device)?))
    }

    /// The key of a role that the device holds: the one that is configured, or what was taken up from it.
    pub(crate) fn pin(&mut self, role: KeyRole, configured: PublicKey) -> Result<Pin, VaultError> {
        self.with(|journal, _, _| Ok(Pin::load(journal, role, configured)?))
    }

    /// Takes up the newest key that `pin` leads to; whether there was one.
    pub(crate) fn take_up_pin(&mut self, pin: &mut Pin, links: &[u8]) -> Result<bool, VaultError> {
        self.with(|journal, _, _| Ok(pin.take_up(journal, links)?))
    }

    /// Begins an exchange with the server that holds this key.
    pub(crate) fn begin(
        &mut self,
        purpose: Purpose,
        server: &PublicKey,
    ) -> Result<(AwaitChallenge<Ephemeral>, Message), VaultError> {
        on_a_wiped_stack(|| begin(purpose, server, &mut self.source)).map_err(|error| match error {
            BeginError::Entropy(_) => VaultError::Random,
            BeginError::Exchange(refusal) => VaultError::Exchange(refusal),
        })
    }

    /// Stores a delivered key and reads it back; the acknowledgement.
    pub(crate) fn keep(&mut self, delivered: Delivered, device: DeviceId) -> Result<(Kept, Message), VaultError> {
        self.with(|journal, wrap, source| {
            let nonce = source.nonce().map_err(|_unhealthy| VaultError::Random)?;
            keep(delivered, device, journal, wrap, nonce).map_err(|error| match error {
                KeepError::Key(error) => error.into(),
                KeepError::Exchange(refusal) => VaultError::Exchange(refusal),
            })
        })
    }

    /// The server knows of the new key: it becomes the one in use, and the old one is erased.
    pub(crate) fn finish(&mut self, kept: Kept, answer: &[u8]) -> Result<HeldKey, VaultError> {
        self.with(|journal, wrap, _| match kept.finish(answer, journal, wrap) {
            Ok((held, _erasure)) => Ok(held),
            Err(FinishError::Refused { refusal, .. }) => Err(VaultError::Exchange(refusal)),
            Err(FinishError::Key(error)) => Err(error.into()),
        })
    }

    /// Begins a boot of sealing: steps the durable counter and draws its random bits.
    pub(crate) fn begin_boot(&mut self) -> Result<Boot, VaultError> {
        self.with(|journal, _, source| {
            kf_device::sealed::begin_boot(journal, source).map_err(|error| match error {
                BootError::Counter(kf_device::storage::CounterError::Storage(error)) => error.into(),
                BootError::Counter(_) => {
                    VaultError::State("the counter of boots is at its end: give the device a new epoch")
                }
                _ => VaultError::Random,
            })
        })
    }

    /// Verifies an order. The counter of one to rotate is durable when this returns.
    pub(crate) fn accept(&mut self, key: &OrderKey, message: &[u8], now: UnixMillis) -> Result<Accepted, VaultError> {
        self.with(|journal, _, _| Ok(key.accept(message, now, journal)?))
    }

    /// Makes the counter of an order to wipe durable, and signs that it is not carried out.
    pub(crate) fn decline<K: IdentityKey>(
        &mut self,
        order: WipeOrder,
        now: UnixMillis,
        identity: &K,
    ) -> Result<Message, VaultError> {
        self.with(|journal, _, _| Ok(order.decline(now, identity, journal)?))
    }

    /// Replaces everything in the journal by the order's counter and the signed receipt, in one step.
    pub(crate) fn wipe<K: IdentityKey>(
        &mut self,
        order: WipeOrder,
        now: UnixMillis,
        identity: &K,
    ) -> Result<Message, VaultError> {
        self.with(|journal, _, _| Ok(order.carry_out(now, identity, journal)?.0))
    }

    /// As [`decline`](Self::decline), of an order to reset.
    pub(crate) fn decline_reset<K: IdentityKey>(
        &mut self,
        order: ResetOrder,
        now: UnixMillis,
        identity: &K,
    ) -> Result<Message, VaultError> {
        self.with(|journal, _, _| Ok(order.decline(now, identity, journal)?))
    }

    /// Replaces what the owner brought by the signed receipt and the order's counter, in one step.
    pub(crate) fn reset<K: IdentityKey>(
        &mut self,
        order: ResetOrder,
        now: UnixMillis,
        identity: &K,
    ) -> Result<Message, VaultError> {
        self.with(|journal, _, _| Ok(order.carry_out(now, identity, journal)?.0))
    }

    /// Puts what the device keeps under a new storage key, because `request` asks for it, and destroys the old one; once for each
    /// request. A power cut in between is gone on from.
    pub(crate) fn migrate(&mut self, device: DeviceId, request: [u8; 16]) -> Result<Migrated, VaultError> {
        self.with(|journal, wrap, source| {
            let mut keys = StorageKeys::open(journal, wrap, device, source)?;
            keys.begin(journal, wrap, request, source)?;
            loop {
                match keys.step(journal, source)? {
                    Step::Moved(_) => {}
                    Step::Over(migrated) => return Ok(migrated),
                    Step::Idle => {
                        let missing = VaultError::State("no storage key was ever replaced");
                        return last_migration(journal)?.ok_or(missing);
                    }
                }
            }
        })
    }

    /// Keeps octets under the storage key.
    pub(crate) fn put_record(&mut self, device: DeviceId, id: RecordId, octets: &[u8]) -> Result<(), VaultError> {
        self.with(|journal, wrap, source| {
            let keys = StorageKeys::open(journal, wrap, device, source)?;
            Ok(keys.put(journal, id, octets, source)?)
        })
    }

    /// What is kept there; `None` when nothing is.
    pub(crate) fn read_record(&mut self, device: DeviceId, id: RecordId) -> Result<Option<SecretBytes>, VaultError> {
        self.with(|journal, wrap, source| {
            let keys = StorageKeys::open(journal, wrap, device, source)?;
            let mut outcome = Ok(None);
            let octets = SecretBytes::fill(MAX_OCTETS, |place| outcome = keys.read(journal, id, place));
            let Some(length) = outcome? else { return Ok(None) };
            // Exposed to be cut to its length.
            let kept = octets.expose().get(..length).unwrap_or_default();
            Ok(Some(SecretBytes::fill(length, |place| place.copy_from_slice(kept))))
        })
    }

    /// The receipt of a reset that a power cut interrupted.
    pub(crate) fn reset_receipt(&mut self) -> Result<Option<Vec<u8>>, VaultError> {
        self.with(|journal, _, _| {
            let mut octets = [0; MAX_MESSAGE_OCTETS];
            Ok(reset_report(journal, &mut octets)?.map(<[u8]>::to_vec))
        })
    }

    /// What the vault that takes the place of this one is to know: counters, no secrets.
    pub(crate) fn remembered(&mut self) -> Result<Vec<u8>, VaultError> {
        self.with(|journal, _, _| Ok(Remembered::of(journal)?.as_bytes().to_vec()))
    }

    /// The receipt of a wipe that a power cut interrupted.
    pub(crate) fn wiped(&mut self) -> Result<Option<Vec<u8>>, VaultError> {
        self.with(|journal, _, _| {
            let mut octets = [0; MAX_MESSAGE_OCTETS];
            Ok(wipe_report(journal, &mut octets)?.map(<[u8]>::to_vec))
        })
    }
}

impl From<Refusal> for VaultError {
    fn from(refusal: Refusal) -> Self {
        Self::Exchange(refusal)
    }
}

impl<K> From<ExchangeError<K>> for VaultError {
    fn from(error: ExchangeError<K>) -> Self {
        match error {
            ExchangeError::Refused(refusal) => Self::Exchange(refusal),
            ExchangeError::Holder(_) => Self::Identity,
        }
    }
}

#[cfg(test)]
mod tests {
    use kf_exchange::P256IdentityKey;
    use kf_exchange::order::{Order, OrderAct, OrderOutcome, OrderReport};

    use super::*;

    const DEVICE: DeviceId = DeviceId::from_bytes([7; 16]);
    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn secret(octet: u8) -> SecretArray<32> {
        SecretArray::fill(|secret| secret.fill(octet))
    }

    fn signed(act: OrderAct, counter: u64) -> (OrderKey, Vec<u8>) {
        let key = P256IdentityKey::from_secret(&secret(9)).unwrap();
        let order = Order { act, device: DEVICE, counter, expires: NOW.plus(1_000) };
        let pinned = OrderKey { key: key.public_key(), factory: key.public_key(), device: DEVICE };
        (pinned, order.sign(&key).unwrap().as_bytes().to_vec())
    }

    #[test]
    fn counters_survive_a_restart_and_another_wrapping_key_opens_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (key, order) = signed(OrderAct::Rotate, 3);
        let mut vault = Vault::open(directory.path(), secret(1)).unwrap();
        let first = vault.begin_boot().unwrap().id().number();
        assert!(matches!(vault.accept(&key, &order, NOW), Ok(Accepted::Rotate(_))));
        drop(vault);
        let mut vault = Vault::open(directory.path(), secret(1)).unwrap();
        assert_eq!(vault.begin_boot().unwrap().id().number(), first + 1);
        let again = vault.accept(&key, &order, NOW).unwrap_err();
        assert!(matches!(again, VaultError::Order(OrderRefusal::Replayed)));
        drop(vault);
        assert!(matches!(Vault::open(directory.path(), secret(2)), Err(VaultError::Damaged)));
        let file = directory.path().join(VAULT);
        let mut octets = std::fs::read(&file).unwrap();
        octets.truncate(100);
        std::fs::write(&file, octets).unwrap();
        assert!(matches!(Vault::open(directory.path(), secret(1)), Err(VaultError::Damaged)));
    }

    #[test]
    fn a_declined_wipe_leaves_the_keys_and_is_not_obeyed_later() {
        let directory = tempfile::tempdir().unwrap();
        let identity = P256IdentityKey::from_secret(&secret(5)).unwrap();
        let mut vault = Vault::open(directory.path(), secret(1)).unwrap();
        let (key, order) = signed(OrderAct::Wipe, 1);
        let Ok(Accepted::Wipe(wipe)) = vault.accept(&key, &order, NOW) else { panic!("not accepted") };
        let report = vault.decline(wipe, NOW, &identity).unwrap();
        let report = OrderReport::verify(report.as_bytes(), &identity.public_key()).unwrap();
        assert_eq!((report.outcome, report.counter), (OrderOutcome::Declined, 1));
        assert_eq!(vault.wiped().unwrap(), None);
        assert!(matches!(vault.accept(&key, &order, NOW), Err(VaultError::Order(OrderRefusal::Replayed))));
    }

    #[test]
    fn a_wipe_leaves_its_receipt_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let identity = P256IdentityKey::from_secret(&secret(5)).unwrap();
        let mut vault = Vault::open(directory.path(), secret(1)).unwrap();
        vault.begin_boot().unwrap();
        let (key, order) = signed(OrderAct::Wipe, 1);
        let Ok(Accepted::Wipe(wipe)) = vault.accept(&key, &order, NOW) else { panic!("not accepted") };
        let receipt = vault.wipe(wipe, NOW, &identity).unwrap();
        drop(vault);
        let mut vault = Vault::open(directory.path(), secret(1)).unwrap();
        assert_eq!(vault.wiped().unwrap().as_deref(), Some(receipt.as_bytes()));
        assert!(vault.held(DEVICE).unwrap().is_none());
    }
}

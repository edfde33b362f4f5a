//! `fence.jsonl`: a line for each thing that a restored registry must not bring back. Lines are added and never changed; a
//! last line without its end is what a crash left, and was never relied upon.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use kf_api::batch::BatchState;
use kf_key::{
    AuthorityId, BackupId, BatchId, DeviceId, DeviceState, EncryptionKeyId, FacilityId, KeyId, OperatorId, ProposalId,
    RevocationReason, SerialNumber, TokenId, UnixMillis,
};
use kf_store::revocation::StatusChange;
use serde::{Deserialize, Serialize};

use super::FenceKeeper;
use crate::FleetError;
use crate::log_publisher::local;

const FILE: &str = "fence.jsonl";
/// The most octets of a line.
const MAX_LINE_OCTETS: u64 = 4_096;
/// The most lines: some 16 million.
const MAX_LINES: u64 = 1 << 24;

/// What must not come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub(crate) enum Line {
    /// The keys of a device were destroyed.
    DeviceKey {
        /// Whose.
        device: DeviceId,
        /// When it was about to happen.
        at: UnixMillis,
        /// The state in which the device left, so as to be of use to somebody else; absent: decommissioned.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        state: Option<DeviceState>,
    },
    /// The status of a certificate changed. The last line about it counts.
    Certificate {
        /// Its serial number.
        serial: SerialNumber,
        /// Its CA.
        authority: AuthorityId,
        /// The device that it names.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        device: Option<DeviceId>,
        /// The end of its validity.
        not_after: UnixMillis,
        /// When it was revoked or held, and why; absent: released.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        stopped: Option<(UnixMillis, RevocationReason)>,
    },
    /// The state of a device changed. The last line about it counts.
    DeviceState {
        /// Which.
        device: DeviceId,
        /// The state that it is in now; one in which it may enrol says that it goes on.
        state: DeviceState,
        /// When.
        at: UnixMillis,
    },
    /// A batch ended: nothing of it is merged any more. The last line about it counts.
    BatchEnded {
        /// Which.
        batch: BatchId,
        /// How.
        state: BatchState,
        /// When.
        at: UnixMillis,
    },
    /// A public key was blocked: it is never certified.
    KeyBlocked {
        /// SHA-256 of its SubjectPublicKeyInfo, hexadecimal.
        spki_sha256: String,
        /// When.
        at: UnixMillis,
    },
    /// Issuance was stopped, or goes on. The last line about a place counts.
    Issuance {
        /// The facility; with no CA either: the whole fleet.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        facility: Option<FacilityId>,
        /// The CA.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        authority: Option<AuthorityId>,
        /// Why it is stopped; absent: it goes on.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        stopped: Option<String>,
        /// When.
        at: UnixMillis,
    },
    /// A backup was begun.
    Backup {
        /// Which.
        backup: BackupId,
        /// Version of the key that it is sealed to.
        key_version: u32,
        /// When.
        at: UnixMillis,
    },
    /// A backup was retired.
    BackupRetired {
        /// Which.
        backup: BackupId,
        /// When.
        at: UnixMillis,
    },
    /// Nothing of an encryption key is decrypted below this version.
    EncryptionMinimum {
        /// The key.
        key: EncryptionKeyId,
        /// The oldest version that is decrypted.
        version: u32,
        /// When it was about to be so.
        at: UnixMillis,
    },
    /// A version of an encryption key was destroyed.
    EncryptionVersion {
        /// The key.
        key: EncryptionKeyId,
        /// The version.
        version: u32,
        /// When it was about to happen.
        at: UnixMillis,
    },
    /// An operator was disabled, or enabled again. The last line about one counts.
    Operator {
        /// Who.
        operator: OperatorId,
        /// Whether they may sign in.
        enabled: bool,
        /// When.
        at: UnixMillis,
    },
    /// An API token was withdrawn.
    TokenWithdrawn {
        /// Which.
        token: TokenId,
        /// When.
        at: UnixMillis,
    },
    /// A break-glass credential was about to be opened: its secret opens nothing any more.
    BreakGlassOpened {
        /// Which.
        credential: ProposalId,
        /// When.
        at: UnixMillis,
    },
    /// The key of a CA was destroyed.
    AuthorityKey {
        /// The CA.
        authority: AuthorityId,
        /// When it was about to happen.
        at: UnixMillis,
    },
    /// A key of the log was destroyed.
    LogKey {
        /// Which.
        key: KeyId,
        /// When it was about to happen.
        at: UnixMillis,
    },
    /// A key that devices or stations pin was destroyed.
    PinnedKey {
        /// Which.
        key: KeyId,
        /// When it was about to happen.
        at: UnixMillis,
    },
    /// A version of the wrapping key was destroyed.
    WrappingVersion {
        /// The version.
        version: u32,
        /// When it was about to happen.
        at: UnixMillis,
    },
    /// A key epoch of a facility was destroyed.
    FacilityEpoch {
        /// The facility.
        facility: FacilityId,
        /// The epoch.
        epoch: u32,
        /// When it was about to happen.
        at: UnixMillis,
    },
}

impl From<&StatusChange> for Line {
    fn from(change: &StatusChange) -> Self {
        let StatusChange { serial, authority, revoked, not_after, device, .. } = *change;
        Self::Certificate { serial, authority, device, not_after, stopped: revoked }
    }
}

impl Line {
    /// What this line stops, and when; `None` for what only says that something exists, or goes on again.
    const fn stops(&self) -> Option<(&'static str, UnixMillis)> {
        Some(match self {
            Self::DeviceKey { at, .. } => ("keys of devices", *at),
            Self::Certificate { stopped: Some((at, _)), .. } => ("certificates", *at),
            Self::EncryptionMinimum { at, .. } => ("minimum versions of encryption keys", *at),
            Self::EncryptionVersion { at, .. } => ("versions of encryption keys", *at),
            Self::DeviceState { state, at, .. } if !state.may_enrol() => ("devices", *at),
            Self::BatchEnded { at, .. } => ("batches", *at),
            Self::KeyBlocked { at, .. } => ("blocked keys", *at),
            Self::Issuance { stopped: Some(_), at, .. } => ("places where nothing is issued", *at),
            Self::Operator { enabled: false, at, .. } => ("operators", *at),
            Self::TokenWithdrawn { at, .. } => ("tokens", *at),
            Self::BreakGlassOpened { at, .. } => ("break-glass credentials", *at),
            Self::AuthorityKey { at, .. } => ("keys of CAs", *at),
            Self::LogKey { at, .. } => ("keys of the log", *at),
            Self::PinnedKey { at, .. } => ("keys that devices or stations pin", *at),
            Self::WrappingVersion { at, .. } => ("versions of the wrapping key", *at),
            Self::FacilityEpoch { at, .. } => ("key epochs", *at),
            Self::Certificate { stopped: None, .. }
            | Self::DeviceState { .. }
            | Self::Issuance { stopped: None, .. }
            | Self::Operator { enabled: true, .. }
            | Self::Backup { .. }
            | Self::BackupRetired { .. } => return None,
        })
    }

    /// What it is about, where a later line about the same takes its place.
    fn subject(&self) -> Option<Vec<u8>> {
        match self {
            Self::DeviceKey { device, .. } => Some([&b"d"[..], device.as_bytes()].concat()),
            Self::Certificate { serial, .. } => Some([&b"c"[..], serial.as_bytes()].concat()),
            Self::BatchEnded { batch, .. } => Some([&b"b"[..], batch.as_bytes()].concat()),
            Self::DeviceState { device, .. } => Some([&b"s"[..], device.as_bytes()].concat()),
            Self::Issuance { facility, authority, .. } => {
                let place = |id: Option<&[u8; 16]>| id.copied().unwrap_or_default();
                let (facility, authority) =
                    (facility.as_ref().map(FacilityId::as_bytes), authority.as_ref().map(AuthorityId::as_bytes));
                Some([&b"i"[..], &place(facility), &place(authority)].concat())
            }
            Self::Operator { operator, .. } => Some([&b"o"[..], operator.as_bytes()].concat()),
            _ => None,
        }
    }
}

/// A line with the version of its format.
#[derive(Serialize, Deserialize)]
struct Versioned {
    v: u8,
    #[serde(flatten)]
    line: Line,
}

impl FenceKeeper {
    fn book(&self) -> Option<PathBuf> {
        self.witness.as_ref().map(|witness| witness.join(FILE))
    }

    /// Adds lines; durable when this returns. False without a witness.
    pub(crate) fn add(&self, lines: &[Line]) -> Result<bool, FleetError> {
        let Some(path) = self.book() else { return Ok(false) };
        let _turn = self.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut text = Vec::new();
        for line in lines {
            let versioned = Versioned { v: 1, line: line.clone() };
            serde_json::to_writer(&mut text, &versioned).map_err(|_bug| FleetError::Bug("fence line"))?;
            text.push(b'\n');
        }
        append(&path, &text).map_err(|error| local(&path, &error))?;
        Ok(true)
    }

    /// Notes changes of status, to be written with the next turn.
    pub(crate) fn note(&self, changes: &[StatusChange]) {
        if self.witness.is_some() {
            let mut waiting = self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            waiting.extend(changes.iter().map(Line::from));
        }
    }

    /// Notes lines, to be written with the next turn at the latest.
    pub(crate) fn note_lines(&self, lines: impl IntoIterator<Item = Line>) {
        if self.witness.is_some() {
            self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(lines);
        }
    }

    /// Writes what was noted; what could not be written stays noted.
    pub(crate) fn write_noted(&self) -> Result<(), FleetError> {
        let mut waiting = self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !waiting.is_empty() {
            self.add(&waiting)?;
            waiting.clear();
        }
        Ok(())
    }

    /// Versions of the wrapping key that were destroyed.
    pub(crate) fn destroyed_wrapping(&self) -> Result<BTreeSet<u32>, FleetError> {
        let mut gone = BTreeSet::new();
        self.for_each_line(|line| {
            if let Line::WrappingVersion { version, .. } = line {
                gone.insert(version);
            }
        })?;
        Ok(gone)
    }

    /// How much was stopped after a moment and is stopped still, by kind.
    pub(crate) fn stopped_since(&self, moment: UnixMillis) -> Result<BTreeMap<&'static str, u64>, FleetError> {
        let (mut last, mut counts) = (BTreeMap::new(), BTreeMap::new());
        let mut count = |stops: Option<(&'static str, UnixMillis)>| {
            if let Some((kind, _)) = stops.filter(|(_, at)| *at > moment) {
                *counts.entry(kind).or_default() += 1;
            }
        };
        self.for_each_line(|line| match line.subject() {
            Some(subject) => drop(last.insert(subject, line.stops())),
            None => count(line.stops()),
        })?;
        last.into_values().for_each(count);
        Ok(counts)
    }

    /// Calls `each` for every line, oldest first.
    pub(crate) fn for_each_line(&self, mut each: impl FnMut(Line)) -> Result<(), FleetError> {
        let Some(path) = self.book() else { return Ok(()) };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(local(&path, &error)),
        };
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let mut text = String::new();
        for number in 1..=MAX_LINES {
            text.clear();
            let read = (&mut reader).take(MAX_LINE_OCTETS).read_line(&mut text);
            let read = read.map_err(|error| local(&path, &error))?;
            if !text.ends_with('\n') {
                let is_torn = u64::try_from(read).unwrap_or(u64::MAX) < MAX_LINE_OCTETS;
                return if is_torn { Ok(()) } else { Err(damaged(&path, number)) };
            }
            match serde_json::from_str::<Versioned>(&text) {
                Ok(Versioned { v: 1, line }) => each(line),
                _ => return Err(damaged(&path, number)),
            }
        }
        Err(damaged(&path, MAX_LINES))
    }
}

/// Appends to a file, over a torn last line, and flushes.
fn append(path: &Path, text: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let is_new = !path.exists();
    let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
    let whole = whole_octets(&mut file)?;
    file.set_len(whole)?;
    file.seek(SeekFrom::Start(whole))?;
    file.write_all(text)?;
    file.sync_all()?;
    if let (true, Some(parent)) = (is_new, path.parent()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Octets up to the end of the last whole line.
fn whole_octets(file: &mut File) -> std::io::Result<u64> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(MAX_LINE_OCTETS);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(MAX_LINE_OCTETS).read_to_end(&mut tail)?;
    let end = tail.iter().rposition(|octet| *octet == b'\n');
    Ok(end.map_or(from, |end| from + u64::try_from(end).unwrap_or(0) + 1))
}

fn damaged(path: &Path, number: u64) -> FleetError {
    FleetError::Local {
        path: path.display().to_string(),
        problem: format!(
            "line {number} is not a fence line of a known version; restore the file from the witness's own backup"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u8) -> Line {
        let at = UnixMillis(u64::from(number));
        Line::DeviceKey { device: DeviceId::from_bytes([number; 16]), at, state: None }
    }

    fn read(keeper: &FenceKeeper) -> Result<Vec<Line>, FleetError> {
        let mut lines = Vec::new();
        keeper.for_each_line(|line| lines.push(line)).map(|()| lines)
    }

    #[test]
    fn a_book_cut_anywhere_keeps_its_whole_lines_and_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let keeper = FenceKeeper::new(Some(directory.path().into()));
        assert_eq!(read(&keeper).unwrap(), []);
        assert!(keeper.add(&[line(1), line(2)]).unwrap());
        keeper.add(&[line(3)]).unwrap();
        let path = directory.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let kept = whole[..cut].iter().filter(|octet| **octet == b'\n').count();
            assert_eq!(read(&keeper).unwrap().len(), kept, "cut at {cut}");
            keeper.add(&[line(9)]).unwrap();
            let lines = read(&keeper).unwrap();
            assert_eq!((lines.len(), lines.last()), (kept + 1, Some(&line(9))), "cut at {cut}");
        }
    }

    #[test]
    fn a_line_that_is_not_one_is_named_and_nothing_is_guessed() {
        let directory = tempfile::tempdir().unwrap();
        let keeper = FenceKeeper::new(Some(directory.path().into()));
        keeper.add(&[line(1)]).unwrap();
        let path = directory.path().join(FILE);
        for bad in ["{}\n", "{\"v\":2,\"kind\":\"device-key\"}\n", "\u{0}\n", &format!("{}\n", "x".repeat(5_000))] {
            let good = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, format!("{good}{bad}")).unwrap();
            let error = read(&keeper).unwrap_err();
            assert!(error.to_string().contains("line 2"), "{error}");
            std::fs::write(&path, good).unwrap();
        }
    }

    #[test]
    fn what_stopped_after_a_moment_is_counted_once_and_not_what_goes_on_again() {
        let directory = tempfile::tempdir().unwrap();
        let keeper = FenceKeeper::new(Some(directory.path().into()));
        let operator = OperatorId::from_bytes([5; 16]);
        let enabled = |enabled, at| Line::Operator { operator, enabled, at: UnixMillis(at) };
        keeper.add(&[line(1), line(4), line(9), line(9)]).unwrap();
        keeper.add(&[enabled(false, 8)]).unwrap();
        assert_eq!(keeper.stopped_since(UnixMillis(4)).unwrap(), [("keys of devices", 1), ("operators", 1)].into());
        keeper.add(&[enabled(true, 9)]).unwrap();
        assert_eq!(keeper.stopped_since(UnixMillis(4)).unwrap(), [("keys of devices", 1)].into());
        assert_eq!(keeper.stopped_since(UnixMillis(9)).unwrap(), [].into());
    }

    #[test]
    fn without_a_witness_there_is_no_book() {
        let keeper = FenceKeeper::new(None);
        assert!(!keeper.add(&[line(1)]).unwrap());
        assert_eq!(read(&keeper).unwrap(), []);
    }
}

//! What the journal says.

use kf_key::UnixMillis;
use serde::{Deserialize, Serialize};

/// The most octets of a text that a device says about itself.
pub const MAX_TEXT_OCTETS: usize = 64;

/// What a device is before it has an identity: its MAC or chip identifier, and the number on its board.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HardwareId {
    mac: String,
    board: String,
}

impl HardwareId {
    /// From what a fixture read; `None` for empty or overlong texts and for what is not printable ASCII.
    #[must_use]
    pub fn new(mac: &str, board: &str) -> Option<Self> {
        let is_text = |text: &str| text.len() <= MAX_TEXT_OCTETS && text.bytes().all(|octet| octet.is_ascii_graphic());
        (is_text(mac) && !mac.is_empty() && is_text(board))
            .then(|| Self { mac: mac.to_ascii_lowercase(), board: board.to_owned() })
    }

    /// MAC address or chip identifier, in lower case.
    #[must_use]
    pub fn mac(&self) -> &str {
        &self.mac
    }

    /// The number on the board; may be empty.
    #[must_use]
    pub fn board(&self) -> &str {
        &self.board
    }
}

/// What an operator does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Put it in again.
    TryAgain,
    /// Into the scrap bin.
    Scrap,
    /// To rework: it may come back as a new unit.
    Rework,
    /// Set aside for a supervisor.
    SetAside,
    /// Call for help: the station cannot go on.
    Stop,
}

impl Next {
    /// What the screen says.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::TryAgain => "put it in again",
            Self::Scrap => "scrap bin",
            Self::Rework => "rework",
            Self::SetAside => "set aside, call the supervisor",
            Self::Stop => "stop, call the supervisor",
        }
    }
}

/// Why a device did not pass. Every one is a number in records and a text on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailReason {
    /// The fixture did not answer in time.
    Hang,
    /// The fixture or the device reported an error.
    Fixture,
    /// The fixture's program ended.
    FixtureGone,
    /// What was read is no identification.
    Unreadable,
    /// The device was finished before.
    AlreadyMade,
    /// Fuses of this board were burnt, or its secure element locked, for a unit that was scrapped, or elsewhere.
    Spent,
    /// The device's unit is in another fixture now.
    InWork,
    /// Its number on the board is that of another device.
    DuplicateBoard,
    /// Its key was seen before.
    DuplicateKey,
    /// It is not the chip of the recipe.
    WrongChip,
    /// The quota is used up.
    Exhausted,
    /// The quota has expired.
    Expired,
    /// The clock went back.
    ClockBack,
    /// The random source failed its health test.
    Noise,
    /// The token did not do what was asked.
    Token,
    /// The journal cannot be written: disk full, or a failed sync.
    Journal,
    /// The journal cannot be written for want of space.
    JournalFull,
    /// What was read back is not what was written.
    ReadBack,
    /// A private key lies in clear in the image.
    KeyInClear,
    /// The fuses or the locks are not as the recipe demands.
    Fuses,
    /// The image was not made: a tool for it is missing or failed.
    Image,
    /// Its label cannot be stored.
    Label,
    /// There is no space on a disk of the station.
    DiskFull,
    /// The device's random source failed its health test.
    DeviceNoise,
    /// The image is larger than its place.
    DoesNotFit,
    /// The device's signature does not verify under its key.
    Proof,
    /// The device's request is not signed by the key in it.
    Request,
    /// Power was cut while its key was in memory only.
    PowerCut,
    /// The shift ended before it came back.
    NotPresented,
    /// A bug of ours.
    Bug,
}

impl FailReason {
    /// Every reason.
    pub const ALL: [Self; 30] = [
        Self::Hang,
        Self::Fixture,
        Self::FixtureGone,
        Self::Unreadable,
        Self::AlreadyMade,
        Self::Spent,
        Self::InWork,
        Self::DuplicateBoard,
        Self::DuplicateKey,
        Self::WrongChip,
        Self::Exhausted,
        Self::Expired,
        Self::ClockBack,
        Self::Noise,
        Self::Token,
        Self::Journal,
        Self::JournalFull,
        Self::ReadBack,
        Self::KeyInClear,
        Self::Fuses,
        Self::Image,
        Self::Label,
        Self::DiskFull,
        Self::DeviceNoise,
        Self::DoesNotFit,
        Self::Proof,
        Self::Request,
        Self::PowerCut,
        Self::NotPresented,
        Self::Bug,
    ];

    /// A short text.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Hang => "no answer in time",
            Self::Fixture => "fixture error",
            Self::FixtureGone => "fixture out of service",
            Self::Unreadable => "no MAC or serial number",
            Self::AlreadyMade => "has an identity already",
            Self::Spent => "burnt or locked for another unit",
            Self::InWork => "is in another fixture",
            Self::DuplicateBoard => "board number of another device",
            Self::DuplicateKey => "key seen before",
            Self::WrongChip => "other chip than the recipe",
            Self::Exhausted => "quota used up",
            Self::Expired => "quota expired",
            Self::ClockBack => "clock went back",
            Self::Noise => "random source failed",
            Self::Token => "token failed",
            Self::Journal => "journal cannot be written",
            Self::JournalFull => "disk full: free space, start again",
            Self::ReadBack => "read-back differs",
            Self::KeyInClear => "private key in clear",
            Self::Fuses => "fuses not as demanded",
            Self::Image => "image was not made",
            Self::Label => "label cannot be stored",
            Self::DiskFull => "disk full: free space",
            Self::DeviceNoise => "device's random source failed",
            Self::DoesNotFit => "image does not fit its place",
            Self::Proof => "device did not prove its key",
            Self::Request => "request not signed by its key",
            Self::PowerCut => "power was cut",
            Self::NotPresented => "did not come back",
            Self::Bug => "bug: please report",
        }
    }

    /// What the operator does next. `is_scrap`: the board cannot be used again.
    #[must_use]
    pub const fn next(self, is_scrap: bool) -> Next {
        if is_scrap {
            return Next::Scrap;
        }
        match self {
            Self::Hang | Self::Fixture | Self::Unreadable | Self::PowerCut | Self::InWork | Self::DiskFull => {
                Next::TryAgain
            }
            Self::AlreadyMade | Self::DuplicateBoard | Self::DuplicateKey | Self::WrongChip => Next::SetAside,
            Self::Spent => Next::Scrap,
            Self::FixtureGone
            | Self::Exhausted
            | Self::Expired
            | Self::ClockBack
            | Self::Noise
            | Self::Token
            | Self::Journal
            | Self::JournalFull
            | Self::Image
            | Self::Label
            | Self::DoesNotFit
            | Self::Bug => Next::Stop,
            Self::ReadBack | Self::Proof | Self::Request | Self::NotPresented => Next::Rework,
            Self::KeyInClear | Self::Fuses | Self::DeviceNoise => Next::SetAside,
        }
    }
}

/// One entry, written and durable before the act that it announces. A document may lie beside it ([`crate::journal`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum Entry {
    /// A journal begins: for which quota, by which plan. Beside it: the quota.
    Opened {
        /// Hash of the plan, hexadecimal.
        plan: String,
        /// How many devices the quota lists.
        count: u32,
        /// When.
        at: UnixMillis,
    },
    /// A unit is given to a device, for the first time or after rework. The token's counter follows.
    Begun {
        /// Place in the quota, from 0.
        unit: u32,
        /// The device.
        hardware: HardwareId,
        /// When.
        at: UnixMillis,
    },
    /// A certificate is about to be signed.
    Certifying {
        /// Unit.
        unit: u32,
        /// First octets of the SHA-256 of the key's SubjectPublicKeyInfo.
        key: u64,
        /// When.
        at: UnixMillis,
    },
    /// The image is about to be written. Beside it: the record as it will be when all goes well.
    Writing {
        /// Unit.
        unit: u32,
        /// SHA-256 of the image, hexadecimal; empty when the station does not see it.
        image: String,
        /// Whether fuses are burnt without an entry of their own.
        burns: bool,
        /// When.
        at: UnixMillis,
    },
    /// The image was read back; fuses are about to be burnt. From here on the board is of use to this unit alone.
    Burning {
        /// Unit.
        unit: u32,
        /// When.
        at: UnixMillis,
    },
    /// Everything was checked; the serial port is about to be closed.
    Closing {
        /// Unit.
        unit: u32,
        /// When.
        at: UnixMillis,
    },
    /// It is good. Beside it: the record.
    Finished {
        /// Unit.
        unit: u32,
        /// When.
        at: UnixMillis,
    },
    /// It is not good; its key is barred. Beside it: the record.
    Spoiled {
        /// Unit.
        unit: u32,
        /// Why.
        reason: FailReason,
        /// Whether the unit is used up. If not, it may be given to the same device once more.
        is_scrap: bool,
        /// When.
        at: UnixMillis,
    },
    /// A device was turned away without a number.
    Refused {
        /// The device, if it told.
        hardware: Option<HardwareId>,
        /// Why.
        reason: FailReason,
        /// When.
        at: UnixMillis,
    },
    /// A shift was closed. Beside it: the manifest.
    Closed {
        /// Whether nothing more will be made.
        is_final: bool,
        /// When.
        at: UnixMillis,
    },
}

impl Entry {
    /// When it was written.
    #[must_use]
    pub const fn at(&self) -> UnixMillis {
        match self {
            Self::Opened { at, .. }
            | Self::Begun { at, .. }
            | Self::Certifying { at, .. }
            | Self::Writing { at, .. }
            | Self::Burning { at, .. }
            | Self::Closing { at, .. }
            | Self::Finished { at, .. }
            | Self::Spoiled { at, .. }
            | Self::Refused { at, .. }
            | Self::Closed { at, .. } => *at,
        }
    }
}

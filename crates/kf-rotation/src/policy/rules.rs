//! The rules that hold where a policy says nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use crate::class::KeyClass;
use crate::period::Period;
use crate::sweep::Event;
use crate::usage::Sealing;

/// The rule of every class.
pub(super) fn defaults() -> BTreeMap<KeyClass, Rule> {
    KeyClass::ALL.into_iter().map(|class| (class, default(class))).collect()
}

/// Cryptoperiods from SP 800-57 Part 1 section 5.3.6, or shorter; where longer, why. docs/manual/rotation.md has the table.
pub(super) fn default(class: KeyClass) -> Rule {
    let (originator, rotate_at, exception) = period(class);
    let seals = class.seals();
    Rule {
        originator,
        recipient_after: seals.then(|| Period::years(3)),
        rotate_at,
        uses: seals.then(|| Sealing::GcmRandomNonce.max_messages(MESSAGE_OCTETS)),
        octets: None,
        rotate_on: BTreeSet::from([Event::Compromise]),
        exception: exception.map(str::to_owned),
    }
}

/// The message size that the default limit of uses is for: what a sealed payload holds at most.
const MESSAGE_OCTETS: u32 = 16 * 1024;

/// Originator-usage period, percent at which the successor is made, exception.
fn period(class: KeyClass) -> (Option<Period>, u8, Option<&'static str>) {
    match class {
        KeyClass::FleetRootKey => (
            Some(Period::years(10)),
            80,
            Some("held by a token or sealed, used by the signer alone; facility epochs below it change every year"),
        ),
        KeyClass::FacilityKey | KeyClass::DeviceKey => (Some(Period::years(1)), 80, None),
        KeyClass::BatchKey => (Some(Period::days(30)), 100, None),
        KeyClass::StorageKey => (Some(Period::years(1)), 80, None),
        KeyClass::ApplicationKey => (Some(Period::days(90)), 80, None),
        KeyClass::WrappingKey | KeyClass::DataEncryptionKey => (Some(Period::years(2)), 80, None),
        KeyClass::RootAuthorityKey => (
            Some(Period::years(20)),
            80,
            Some("a trust anchor is as hard to replace as the devices that hold it; roll-over is a campaign"),
        ),
        KeyClass::IssuingAuthorityKey => {
            (Some(Period::years(10)), 50, Some("must outlive what it certifies; signs nothing in the second half"))
        }
        KeyClass::OcspResponderKey => (Some(Period::days(1)), 50, None),
        KeyClass::TlsServerKey => (Some(Period::days(7)), 67, None),
        KeyClass::LogKey => (Some(Period::years(3)), 80, None),
        KeyClass::DeliveryKey | KeyClass::OrderKey | KeyClass::BatchAuthorisationKey => {
            (Some(Period::years(2)), 80, None)
        }
        KeyClass::IDevIdKey => (None, 100, Some("IEEE 802.1AR: an IDevID does not expire; it dies on scrap or theft")),
        KeyClass::LDevIdKey | KeyClass::OperatorKey => (Some(Period::days(90)), 67, None),
    }
}

//! The key inventory: every key that the server knows of, section by section, in pages of bounded cost.
//!
//! A page reads at most [`MAX_READS`] times as many rows as it may hold; where few of them match it is short, and says
//! where the next one starts. Nothing of a page is kept, so that a fleet of any size costs the memory of one page.

mod device;
mod row;
mod server;

use std::collections::BTreeMap;

use kf_access::{Action, Principal, Target, Visibility, authorize};
use kf_api::inventory::{InventoryFilter, InventoryKey};
use kf_api::{Page, PageRequest};
use kf_key::{FacilityId, KeyState, ProductLineId, UnixMillis};
use kf_rotation::KeyClass;
use kf_rotation::verdict::VerdictName;

use crate::{Fleet, FleetError};
use row::Row;

/// How many times the rows of a page are read at most before it is given out as it is.
const MAX_READS: u32 = 8;

/// The sections in their order, each with the classes that it may hold.
const SECTIONS: [Section; 10] = [
    Section { name: "root", kind: Kind::Root, classes: &[KeyClass::FleetRootKey, KeyClass::WrappingKey] },
    Section {
        name: "keys",
        kind: Kind::Keys,
        classes: &[
            KeyClass::RootAuthorityKey,
            KeyClass::IssuingAuthorityKey,
            KeyClass::LogKey,
            KeyClass::DeliveryKey,
            KeyClass::OrderKey,
            KeyClass::BatchAuthorisationKey,
        ],
    },
    Section { name: "ocsp", kind: Kind::Own(server::OCSP), classes: &[KeyClass::OcspResponderKey] },
    Section { name: "tls", kind: Kind::Own(server::TLS), classes: &[KeyClass::TlsServerKey] },
    Section { name: "operators", kind: Kind::Own(server::OPERATOR), classes: &[KeyClass::OperatorKey] },
    Section {
        name: "batch-authorities",
        kind: Kind::Own(server::AUTHORITY),
        classes: &[KeyClass::IssuingAuthorityKey],
    },
    Section { name: "facilities", kind: Kind::Facilities, classes: &[KeyClass::FacilityKey] },
    Section { name: "batches", kind: Kind::Batches, classes: &[KeyClass::BatchKey] },
    Section { name: "encryption-keys", kind: Kind::Encryption, classes: &[KeyClass::DataEncryptionKey] },
    Section {
        name: "devices",
        kind: Kind::Devices,
        classes: &[KeyClass::IDevIdKey, KeyClass::LDevIdKey, KeyClass::DeviceKey],
    },
];

struct Section {
    name: &'static str,
    kind: Kind,
    classes: &'static [KeyClass],
}

#[derive(Clone, Copy)]
enum Kind {
    Root,
    Keys,
    Own(kf_key::CertificateProfile),
    Facilities,
    Batches,
    Encryption,
    Devices,
}

impl Kind {
    /// Whether its keys belong to no facility, so that only somebody with the whole fleet in view sees them.
    const fn is_of_fleet(self) -> bool {
        matches!(self, Self::Root | Self::Keys | Self::Own(_))
    }

    const fn is_of_devices(self) -> bool {
        matches!(self, Self::Devices)
    }
}

/// What is asked for, with its names resolved.
struct Asked {
    class: Option<KeyClass>,
    state: Option<KeyState>,
    verdict: Option<VerdictName>,
    facility: Option<FacilityId>,
    product_line: Option<ProductLineId>,
    due_before: Option<UnixMillis>,
    ended: bool,
    visibility: Visibility,
    rows: u32,
}

/// Names of facilities and product lines, which overrides of a policy go by, looked up once per page.
#[derive(Default)]
struct Names {
    facilities: BTreeMap<FacilityId, String>,
    product_lines: BTreeMap<ProductLineId, String>,
}

/// One reading of a section: its rows, and where to go on; `None` at its end.
type Reading = (Vec<Row>, Option<String>);

impl Fleet {
    /// One page of the key inventory.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] naming the field, [`FleetError::NotFound`] for a facility or product line,
    /// [`FleetError::Denied`].
    pub async fn inventory(&self, who: &Principal, filter: InventoryFilter) -> Result<Page<InventoryKey>, FleetError> {
        let permit = authorize(who, Action::InventoryRead, Target::Visible)?;
        let asked = self.asked(&filter, permit.visibility())?;
        let (mut section, mut cursor) = position(filter.after.as_deref())?;
        let mut names = Names::default();
        let mut items = Vec::new();
        let wanted = usize::try_from(asked.rows).unwrap_or(usize::MAX);
        let mut reads = 0;
        while let Some(current) = SECTIONS.get(section) {
            if items.len() >= wanted || reads >= MAX_READS {
                return Ok(Page { items, next: Some(format!("{}:{cursor}", current.name)) });
            }
            let next = if asked.wants(current) {
                reads += 1;
                let (rows, next) = self.read_section(current.kind, &asked, &cursor)?;
                for row in rows {
                    let key = self.judged(row, &mut names)?;
                    items.extend(Some(key).filter(|key| asked.matches(key)));
                }
                next
            } else {
                None
            };
            match next {
                Some(next) => cursor = next,
                None => {
                    section += 1;
                    cursor = String::new();
                }
            }
        }
        Ok(Page { items, next: None })
    }

    fn asked(&self, filter: &InventoryFilter, visibility: &Visibility) -> Result<Asked, FleetError> {
        let class = match &filter.class {
            Some(text) => Some(text.parse::<KeyClass>().map_err(|error| unknown("class", &error))?),
            None => None,
        };
        let verdict = match &filter.verdict {
            Some(text) => Some(text.parse::<VerdictName>().map_err(|error| unknown("verdict", &error))?),
            None => None,
        };
        let facility = match &filter.facility {
            Some(reference) => Some(self.find_facility(reference, visibility)?.id),
            None => None,
        };
        let product_line = match &filter.product_line {
            Some(reference) => Some(self.find_product_line(reference)?.id),
            None => None,
        };
        let page = PageRequest { after: None, limit: filter.limit };
        Ok(Asked {
            class,
            state: filter.state,
            verdict,
            facility,
            product_line,
            due_before: filter.due_before,
            ended: filter.ended,
            visibility: visibility.clone(),
            rows: page.rows(),
        })
    }

    fn read_section(&self, kind: Kind, asked: &Asked, cursor: &str) -> Result<Reading, FleetError> {
        match kind {
            Kind::Root => self.root_rows(),
            Kind::Keys => self.key_rows(asked, cursor),
            Kind::Own(profile) => self.own_rows(profile, asked, cursor),
            Kind::Facilities => self.facility_rows(asked, cursor),
            Kind::Batches => self.batch_rows(asked, cursor),
            Kind::Encryption => self.encryption_rows(asked, cursor),
            Kind::Devices => self.device_rows(asked, cursor),
        }
    }
}

impl Asked {
    fn wants(&self, section: &Section) -> bool {
        let in_view = self.visibility == Visibility::Fleet && self.facility.is_none() && self.product_line.is_none();
        let in_scope = match section.kind {
            kind if kind.is_of_fleet() => in_view,
            kind => kind.is_of_devices() || self.product_line.is_none(),
        };
        in_scope && self.class.is_none_or(|class| section.classes.contains(&class))
    }

    fn matches(&self, key: &InventoryKey) -> bool {
        let ended_too = self.ended || self.state.is_some() || self.verdict.is_some();
        let is_ended = key.verdict == "ended";
        let calls = || matches!(key.verdict.as_str(), "due" | "overdue" | "algorithm");
        let is_near = |before| key.verdict == "good" && key.rotate_at.is_some_and(|at| at < before);
        (ended_too || !is_ended)
            && self.class.is_none_or(|class| key.class == class.name())
            && self.state.is_none_or(|state| key.state == state)
            && self.verdict.is_none_or(|verdict| verdict.is_named(&key.verdict))
            && self.due_before.is_none_or(|before| calls() || is_near(before))
    }
}

fn unknown(field: &str, error: &impl std::fmt::Display) -> FleetError {
    FleetError::invalid(field, error.to_string(), "use one of these names")
}

/// The refusal of a cursor that no page of this listing gave.
fn bad_cursor() -> FleetError {
    FleetError::invalid("after", "is not the `next` of a page of this listing", "start without `after`")
}

fn position(after: Option<&str>) -> Result<(usize, String), FleetError> {
    let Some(after) = after else { return Ok((0, String::new())) };
    let (name, cursor) = after.split_once(':').ok_or_else(bad_cursor)?;
    let section = SECTIONS.iter().position(|section| section.name == name).ok_or_else(bad_cursor)?;
    Ok((section, cursor.to_owned()))
}

//! Pages of devices.

use kf_access::Visibility;
use kf_api::Page;
use kf_api::device::Device;
use kf_key::{DeviceId, DeviceState, FacilityId};
use rusqlite::Connection;
use rusqlite::types::Value;

use super::{DeviceQuery, columns, device_row};
use crate::column::{self, Coded};
use crate::listing::{BAD_CURSOR, Branch, Listing, next_of, scopes};
use crate::{StoreError, sql};

/// Facilities whose ranges are merged into one listing of the fleet; with more of them the table is read instead.
const MAX_FACILITIES_MERGED: u32 = 2_000;

/// See [`crate::Store::devices`].
pub(super) fn page(
    connection: &Connection,
    query: &DeviceQuery,
    visibility: &Visibility,
) -> Result<Page<Device>, StoreError> {
    let rows = usize::try_from(query.page.rows()).unwrap_or(usize::MAX);
    let by_name = query.name_prefix.is_some();
    let after = match (&query.page.after, by_name) {
        (None, true) => Value::Text(String::new()),
        (None, false) => Value::Blob(Vec::new()),
        (Some(name), true) => Value::Text(name.clone()),
        (Some(text), false) => {
            let id: DeviceId = text.parse().map_err(|_detail| BAD_CURSOR)?;
            Value::Blob(id.as_bytes().to_vec())
        }
    };
    let listing = Listing::ascending(if by_name { "name" } else { "id" }, branches(connection, query, visibility)?);
    let sql = if by_name { concat!(columns!(), " WHERE name = ?1") } else { concat!(columns!(), " WHERE id = ?1") };
    let mut items = Vec::new();
    for key in listing.keys(connection, after, rows + 1)? {
        items.extend(sql::one(connection, sql, [key], device_row)?);
    }
    let next = next_of(&mut items, rows, |last: &Device| if by_name { last.name.clone() } else { last.id.to_string() });
    Ok(Page { items, next })
}

/// The first text that sorts after everything that starts with `prefix`, in SQLite's order of octets.
fn end_of_prefix(prefix: &str) -> Value {
    // U+10FFFF is the largest character and no name holds it.
    Value::Text(format!("{prefix}\u{10ffff}"))
}

/// The ranges to merge: those of the narrowest index that fits, the other conditions as filters.
fn branches(connection: &Connection, query: &DeviceQuery, visibility: &Visibility) -> Result<Vec<Branch>, StoreError> {
    let mut facilities: Vec<Option<FacilityId>> = match query.facility {
        Some(facility) if visibility.sees(facility) => vec![Some(facility)],
        Some(_) => Vec::new(),
        None => scopes(visibility),
    };
    // A state may be rare in a large fleet: ask each facility for its own, in the order of the index.
    let broad = query.batch.is_none() && query.product_line.is_none() && query.name_prefix.is_none();
    if query.state.is_some() && broad && facilities == [None] {
        let sql = "SELECT id FROM facility LIMIT ?1";
        let all = sql::all(connection, sql, [MAX_FACILITIES_MERGED + 1], |row| column::id(row, 0).map(Some))?;
        if u32::try_from(all.len()).is_ok_and(|count| count <= MAX_FACILITIES_MERGED) {
            facilities = all;
        }
    }
    let states: Vec<u8> = match query.state {
        Some(state) => vec![state.code()],
        None => DeviceState::CODES.iter().map(|(code, _)| *code).collect(),
    };
    let blob = |octets: &[u8]| Value::Blob(octets.to_vec());
    let line = query.product_line.map(|id| blob(id.as_bytes()));
    let mut branches = Vec::new();
    for facility in facilities {
        let facility_value = facility.map(|id| blob(id.as_bytes()));
        let base = |table| {
            Branch::new(table)
                .with_optional("facility = ?", facility_value.clone())
                .with_optional("product_line = ?", line.clone())
                .with_optional("batch = ?", query.batch.clone())
        };
        let state = query.state.map(Coded::code);
        if let Some(prefix) = &query.name_prefix {
            let table = if facility.is_some() { "device INDEXED BY device_by_facility_name" } else { "device" };
            branches.push(
                base(table)
                    .with("name >= ?", prefix.clone())
                    .with("name < ?", end_of_prefix(prefix))
                    .with_optional("state = ?", state),
            );
        } else if query.batch.is_some() {
            branches.push(base("device INDEXED BY device_by_batch").with_optional("state = ?", state));
        } else if facility.is_some() {
            branches.extend(
                states.iter().map(|state| base("device INDEXED BY device_by_facility").with("state = ?", *state)),
            );
        } else if line.is_some() {
            branches.push(base("device INDEXED BY device_by_product_line").with_optional("state = ?", state));
        } else {
            branches.push(base("device").with_optional("state = ?", state));
        }
    }
    Ok(branches)
}

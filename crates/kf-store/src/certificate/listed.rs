//! Pages of certificates.

use kf_access::Visibility;
use kf_api::Page;
use kf_api::certificate::Certificate;
use kf_key::{AuthorityId, CertificateProfile, CertificateStatus, FacilityId, SerialNumber, UnixMillis};
use rusqlite::Connection;
use rusqlite::types::Value;

use super::{CertificateQuery, certificate_row, columns};
use crate::StoreError;
use crate::column::{self, Coded, millis};
use crate::listing::{BAD_CURSOR, Branch, Listing, next_of, scopes};
use crate::sql::{self, in_scope, scope};

/// See [`crate::Store::certificates`].
pub(super) fn page(
    connection: &Connection,
    query: &CertificateQuery,
    visibility: &Visibility,
) -> Result<Page<Certificate>, StoreError> {
    if let Some(before) = query.expires_before {
        return page_by_expiry(connection, query, before, visibility);
    }
    let after = match &query.page.after {
        None => Vec::new(),
        Some(text) => text.parse::<SerialNumber>().map_err(|_detail| BAD_CURSOR)?.as_bytes().to_vec(),
    };
    let rows = usize::try_from(query.page.rows()).unwrap_or(usize::MAX);
    let listing = Listing::ascending("serial", branches(connection, query, visibility)?);
    let mut items = Vec::new();
    for key in listing.keys(connection, Value::Blob(after), rows + 1)? {
        items.extend(sql::one(connection, concat!(columns!(), " WHERE c.serial = ?1"), [key], certificate_row)?);
    }
    let next = next_of(&mut items, rows, |last: &Certificate| last.serial.to_string());
    Ok(Page { items, next })
}

/// The ranges to merge: those of the narrowest index that fits, the other conditions as filters.
fn branches(
    connection: &Connection,
    query: &CertificateQuery,
    visibility: &Visibility,
) -> Result<Vec<Branch>, StoreError> {
    let facilities: Vec<Option<FacilityId>> = match (query.facility, visibility) {
        (Some(facility), visibility) if visibility.sees(facility) => vec![Some(facility)],
        (Some(_), _) => Vec::new(),
        (None, visibility) => scopes(visibility),
    };
    let statuses: Vec<u8> = match query.status {
        Some(status) => vec![status.code()],
        None => CertificateStatus::CODES.iter().map(|(code, _)| *code).collect(),
    };
    let rare =
        query.profile.filter(|profile| !matches!(profile, CertificateProfile::IDevId | CertificateProfile::LDevId));
    let authorities: Vec<AuthorityId> = match query.authority {
        Some(authority) => vec![authority],
        // Held and revoked ones are few in many: ask each CA for its own.
        None if query.status.is_some_and(|status| status != CertificateStatus::Good) => {
            sql::all(connection, "SELECT id FROM authority", [], |row| column::id(row, 0))?
        }
        None => Vec::new(),
    };
    let blob = |octets: &[u8]| Value::Blob(octets.to_vec());
    let mut branches = Vec::new();
    for facility in facilities {
        let facility_value = facility.map(|id| blob(id.as_bytes()));
        let base = |table| {
            Branch::new(table)
                .with_optional("profile = ?", query.profile.map(Coded::code))
                .with_optional("device = ?", query.device.map(|id| blob(id.as_bytes())))
                .with_optional("facility = ?", facility_value.clone())
                .with_optional("authority = ?", query.authority.map(|id| blob(id.as_bytes())))
        };
        let status = query.status.map(Coded::code);
        if query.device.is_some() {
            branches.push(base("certificate INDEXED BY certificate_by_device").with_optional("status = ?", status));
        } else if rare.is_some() {
            let rare = base("certificate INDEXED BY certificate_by_rare_profile").with_optional("status = ?", status);
            branches.push(rare.and("profile <> 4"));
        } else if facility.is_some() {
            branches.extend(
                statuses
                    .iter()
                    .map(|status| base("certificate INDEXED BY certificate_by_facility").with("status = ?", *status)),
            );
        } else if authorities.is_empty() {
            branches.push(base("certificate").with_optional("status = ?", status));
        } else {
            branches.extend(authorities.iter().flat_map(|authority| {
                let range = base("certificate INDEXED BY certificate_by_authority")
                    .with("authority = ?", blob(authority.as_bytes()));
                statuses.iter().map(move |status| range.clone().with("status = ?", *status))
            }));
        }
    }
    Ok(branches)
}

/// In the order of expiry; the cursor is the moment and the serial number of the last row.
fn page_by_expiry(
    connection: &Connection,
    query: &CertificateQuery,
    before: UnixMillis,
    visibility: &Visibility,
) -> Result<Page<Certificate>, StoreError> {
    let (from, serial) = match &query.page.after {
        None => (-1, Vec::new()),
        Some(text) => {
            let (from, serial) = text.split_once('.').ok_or(BAD_CURSOR)?;
            let serial: SerialNumber = serial.parse().map_err(|_detail| BAD_CURSOR)?;
            (from.parse::<i64>().map_err(|_detail| BAD_CURSOR)?, serial.as_bytes().to_vec())
        }
    };
    let sql = concat!(
        columns!(),
        " WHERE ",
        in_scope!("c.facility"),
        " AND (c.not_after, c.serial) > (?2, ?3) AND c.not_after < ?4
            AND (?5 IS NULL OR c.device = ?5) AND (?6 IS NULL OR c.facility = ?6)
            AND (?7 IS NULL OR c.authority = ?7) AND (?8 IS NULL OR c.profile = ?8)
            AND (?9 IS NULL OR c.status = ?9) ORDER BY c.not_after, c.serial LIMIT ?10"
    );
    let rows = usize::try_from(query.page.rows()).unwrap_or(usize::MAX);
    let params = (
        scope(visibility),
        from,
        serial,
        millis(before),
        query.device.map(|id| id.as_bytes().to_vec()),
        query.facility.map(|id| id.as_bytes().to_vec()),
        query.authority.map(|id| id.as_bytes().to_vec()),
        query.profile.map(Coded::code),
        query.status.map(Coded::code),
        query.page.rows() + 1,
    );
    let mut items = sql::all(connection, sql, params, certificate_row)?;
    let next = next_of(&mut items, rows, |last| format!("{}.{}", last.not_after.0, last.serial));
    Ok(Page { items, next })
}

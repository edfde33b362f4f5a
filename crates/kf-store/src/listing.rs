//! Keyset paging over several index ranges at once.
//!
//! A listing that is limited to some facilities, or to none of some states, is the merge of ranges that each stand in
//! one index in the order of the key. Each range is read only as far as it can still contribute to the page, so a page
//! costs the same at any size of the table.

use std::cmp::Ordering;

use kf_access::Visibility;
use kf_key::FacilityId;
use rusqlite::Connection;
use rusqlite::types::{Value, ValueRef};

use crate::{StoreError, sql};

/// One range: rows of a table that meet some conditions.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    table: &'static str,
    conditions: Vec<&'static str>,
    values: Vec<Value>,
}

impl Branch {
    /// All rows.
    pub(crate) const fn new(table: &'static str) -> Self {
        Self { table, conditions: Vec::new(), values: Vec::new() }
    }

    /// Only those that meet a condition with one `?` in it.
    pub(crate) fn with(mut self, condition: &'static str, value: impl Into<Value>) -> Self {
        self.conditions.push(condition);
        self.values.push(value.into());
        self
    }

    /// Only those that meet a condition without a parameter; a partial index wants its own condition spelled out.
    pub(crate) fn and(mut self, condition: &'static str) -> Self {
        self.conditions.push(condition);
        self
    }

    /// As [`Branch::with`] where there is a value.
    pub(crate) fn with_optional(self, condition: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            None => self,
            Some(value) => self.with(condition, value),
        }
    }
}

/// The ranges and the key that orders them, which is one column.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    key: &'static str,
    descending: bool,
    branches: Vec<Branch>,
}

fn order(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Integer(left), Value::Integer(right)) => left.cmp(right),
        (Value::Text(left), Value::Text(right)) => left.cmp(right),
        (Value::Blob(left), Value::Blob(right)) => left.cmp(right),
        _ => Ordering::Equal,
    }
}

impl Listing {
    /// Smallest key first.
    pub(crate) const fn ascending(key: &'static str, branches: Vec<Branch>) -> Self {
        Self { key, descending: false, branches }
    }

    /// Largest key first.
    pub(crate) const fn descending(key: &'static str, branches: Vec<Branch>) -> Self {
        Self { key, descending: true, branches }
    }

    /// The next `limit` keys beyond `after`, in order, each once.
    pub(crate) fn keys(&self, connection: &Connection, after: Value, limit: usize) -> Result<Vec<Value>, StoreError> {
        let mut found: Vec<Value> = Vec::new();
        for branch in &self.branches {
            // What lies beyond the last key of a page that is full already cannot be on it.
            let bound = if found.len() >= limit { found.last().cloned() } else { None };
            found.extend(self.branch_keys(connection, branch, &after, bound, limit)?);
            found.sort_by(|left, right| {
                let ascending = order(left, right);
                if self.descending { ascending.reverse() } else { ascending }
            });
            found.dedup();
            found.truncate(limit);
        }
        Ok(found)
    }

    fn branch_keys(
        &self,
        connection: &Connection,
        branch: &Branch,
        after: &Value,
        bound: Option<Value>,
        limit: usize,
    ) -> Result<Vec<Value>, StoreError> {
        let Self { key, descending, .. } = self;
        let (beyond, before, direction) = if *descending { ("<", ">", " DESC") } else { (">", "<", "") };
        let mut text = format!("SELECT {key} FROM {} WHERE {key} {beyond} ?", branch.table);
        let mut values = vec![after.clone()];
        if let Some(bound) = bound {
            text.push_str(&format!(" AND {key} {before} ?"));
            values.push(bound);
        }
        for condition in &branch.conditions {
            text.push_str(" AND ");
            text.push_str(condition);
        }
        values.extend(branch.values.iter().cloned());
        text.push_str(&format!(" ORDER BY {key}{direction} LIMIT ?"));
        values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        sql::all(connection, &text, rusqlite::params_from_iter(values), |row| {
            Ok(match row.get_ref(0)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(value) => Value::Integer(value),
                ValueRef::Real(value) => Value::Real(value),
                ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Blob(octets) => Value::Blob(octets.to_vec()),
            })
        })
    }
}

/// The facilities that a listing runs over one by one; `None` stands for the whole fleet.
pub(crate) fn scopes(visibility: &Visibility) -> Vec<Option<FacilityId>> {
    match visibility {
        Visibility::Fleet => vec![None],
        Visibility::Facilities(facilities) => facilities.iter().copied().map(Some).collect(),
    }
}

/// Cuts a page that was read one row too far, and says where the next one starts.
pub(crate) fn next_of<T>(items: &mut Vec<T>, rows: usize, cursor: impl FnOnce(&T) -> String) -> Option<String> {
    if items.len() <= rows {
        return None;
    }
    items.truncate(rows);
    items.last().map(cursor)
}

/// The refusal of a cursor that no page of this listing gave.
pub(crate) const BAD_CURSOR: StoreError =
    StoreError::Invalid { field: "after", problem: "not the `next` of a page of this listing" };

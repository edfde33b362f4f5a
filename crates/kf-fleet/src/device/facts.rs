//! What a device to be registered may look like.

use kf_api::device::NewDevice;

use crate::FleetError;
use crate::naming::{check_device_name, shortened};

const MAX_ATTRIBUTES: usize = 32;
const MAX_ATTRIBUTE_NAME: usize = 64;
const MAX_ATTRIBUTE_VALUE: usize = 256;

/// Checks name, batch and attributes. Whether facility and product line exist is the registry's to say.
///
/// # Errors
/// [`FleetError::Invalid`], naming the first field that is wrong.
pub(crate) fn check_new_device(new: &NewDevice) -> Result<(), FleetError> {
    // In full, so that a new field cannot be forgotten here.
    let NewDevice { name, facility, product_line, batch, attributes } = new;
    check_device_name("name", name)?;
    for (field, value) in [("facility", facility), ("product_line", product_line)] {
        if value.is_empty() {
            return Err(FleetError::invalid(field, "is empty", format!("give the name or id of the {field}")));
        }
    }
    if let Some(batch) = batch {
        check_device_name("batch", batch)?;
    }
    if attributes.len() > MAX_ATTRIBUTES {
        return Err(FleetError::invalid(
            "attributes",
            format!("{} attributes", attributes.len()),
            format!("keep at most {MAX_ATTRIBUTES}"),
        ));
    }
    attributes.iter().try_for_each(|(key, value)| check_attribute(key, value))
}

fn check_attribute(key: &str, value: &str) -> Result<(), FleetError> {
    let field = || format!("attributes.{}", shortened(key));
    let key_octet = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    if key.is_empty() || key.len() > MAX_ATTRIBUTE_NAME || !key.bytes().all(key_octet) {
        return Err(FleetError::invalid(
            field(),
            "the attribute's name is malformed",
            "use 1 to 64 characters of A-Z, a-z, 0-9, `-`, `.`, `_`",
        ));
    }
    if value.chars().count() > MAX_ATTRIBUTE_VALUE || value.chars().any(char::is_control) {
        return Err(FleetError::invalid(
            field(),
            "the value is too long, or has control characters",
            format!("use at most {MAX_ATTRIBUTE_VALUE} plain characters"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn refused_field(change: impl FnOnce(&mut NewDevice)) -> Option<String> {
        let mut new = NewDevice {
            name: "pump-7".into(),
            facility: "north".into(),
            product_line: "pumps".into(),
            batch: None,
            attributes: BTreeMap::new(),
        };
        change(&mut new);
        match check_new_device(&new) {
            Ok(()) => None,
            Err(FleetError::Invalid { field, .. }) => Some(field),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plain_device_and_the_limits_are_accepted() {
        assert_eq!(refused_field(|_| ()), None);
        let at_limits = |new: &mut NewDevice| {
            new.batch = Some("2026-W47".into());
            new.attributes = (0..32).map(|n| (format!("{n:0>64}"), "ä".repeat(256))).collect();
        };
        assert_eq!(refused_field(at_limits), None);
    }

    #[test]
    fn each_wrong_field_is_named() {
        let check = |change: fn(&mut NewDevice), field: &str| assert_eq!(refused_field(change).as_deref(), Some(field));
        check(|new| new.name.clear(), "name");
        check(|new| new.name = "pump 7".into(), "name");
        check(|new| new.facility.clear(), "facility");
        check(|new| new.product_line.clear(), "product_line");
        check(|new| new.batch = Some(String::new()), "batch");
        check(|new| new.attributes = (0..33).map(|n| (n.to_string(), String::new())).collect(), "attributes");
        check(|new| drop(new.attributes.insert("a b".into(), String::new())), "attributes.a b");
        check(|new| drop(new.attributes.insert("a".into(), "x".repeat(257))), "attributes.a");
        check(|new| drop(new.attributes.insert("a".into(), "x\ny".into())), "attributes.a");
        check(
            |new| drop(new.attributes.insert("x".repeat(65), String::new())),
            &format!("attributes.{}", "x".repeat(65)),
        );
    }
}

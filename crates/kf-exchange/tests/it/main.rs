//! The published vectors, by programs that are not ours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use kf_testkit::{Output, Python};
use serde_json::Value;

fn vectors(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors").join(name)
}

fn check(document: &Path) -> Output {
    let script = vectors("exchange.py");
    Python::with_module("cbor2, cryptography").tool().run(&[script.to_str().unwrap(), document.to_str().unwrap()])
}

#[test]
fn an_independent_implementation_computes_every_message() {
    let output = check(&vectors("exchange.json"));
    assert!(output.success(), "{}", output.text());
}

#[test]
fn the_independent_implementation_notices_a_wrong_vector() {
    let scratch = kf_testkit::scratch();
    let published = fs::read_to_string(vectors("exchange.json")).unwrap();
    let document: Value = serde_json::from_str(&published).unwrap();
    let places = ["hello", "challenge", "proof", "delivery", "acknowledgement", "done"];
    let places = places.iter().flat_map(|name| [("delivery", *name), ("session", *name)]);
    let signed = [("order", "message"), ("outcome", "message"), ("input", "device key"), ("input", "session")];
    for (part, field) in places.chain(signed) {
        let mut wrong = document.clone();
        let value = wrong[part][field].as_str().unwrap().to_owned();
        let last = if value.ends_with('0') { "1" } else { "0" };
        wrong[part][field] = format!("{}{last}", &value[..value.len() - 1]).into();
        let file = scratch.path().join("wrong.json");
        fs::write(&file, wrong.to_string()).unwrap();
        assert!(!check(&file).success(), "a wrong {field} of {part} was not noticed");
    }
}

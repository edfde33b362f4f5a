//! The published vectors, computed by a C program.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{c_file, compile, root};

fn vectors(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(root().join("vectors").join(name)).unwrap()).unwrap()
}

fn text<'a>(vector: &'a Value, field: &str) -> &'a str {
    vector[field].as_str().unwrap_or_default()
}

/// `derive.json` as rows of a C table.
fn derivations() -> String {
    let file = vectors("derive.json");
    let order = ["facility_id", "device_id", "device_salt", "sender", "boot_random", "transcript_hash", "label"];
    let mut rows = String::new();
    for vector in file["vectors"].as_array().unwrap().iter().filter(|vector| vector["operation"] == "step") {
        let context: String = order.iter().map(|name| text(&vector["inputs"], name)).collect();
        let code = |kind: &str| file["codes"][kind][text(vector, kind)].as_u64().unwrap();
        writeln!(
            rows,
            "{{\"{}\", {}, {}, \"{}\", \"{context}\", {}u, \"{}\"}},",
            text(vector, "key"),
            code("level"),
            code("algorithm"),
            text(vector, "purpose"),
            vector["epoch"].as_u64().unwrap(),
            text(vector, "output")
        )
        .unwrap();
    }
    rows
}

/// The vectors of `seal.json` as rows of a C table.
fn seals() -> String {
    let mut rows = String::new();
    for vector in vectors("seal.json")["vectors"].as_array().unwrap() {
        let number = |field: &str| vector[field].as_u64().unwrap();
        let sender = if text(vector, "sender") == "server" { 2 } else { 1 };
        let hex = ["device_key", "device", "boot_random", "external_aad", "plaintext", "envelope"];
        let hex: Vec<String> = hex.iter().map(|field| format!("\"{}\"", text(vector, field))).collect();
        writeln!(
            rows,
            "{{{}, \"{}\", {}u, {}u, {sender}, {}, {}u, {}u}},",
            hex.join(", "),
            text(vector, "service"),
            number("facility_epoch"),
            number("device_epoch"),
            number("alg"),
            number("boot_number"),
            number("counter")
        )
        .unwrap();
    }
    rows
}

#[test]
fn c_reproduces_the_published_vectors() {
    let scratch = kf_testkit::scratch();
    let tables = format!("#define DERIVATIONS \\\n{}\n#define SEALS \\\n{}\n", table(&derivations()), table(&seals()));
    std::fs::write(scratch.path().join("vectors.h"), tables).unwrap();
    let program = compile("gcc", "-std=c11", scratch.path(), &[c_file("vectors.c")]);
    let printed = program.run::<&str>(&[]).expect_success().stdout_text();
    assert!(printed.contains("all agree"), "{printed}");
}

fn table(rows: &str) -> String {
    rows.lines().collect::<Vec<_>>().join(" \\\n")
}

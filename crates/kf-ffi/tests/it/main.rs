//! C reproduces the published vectors: the header compiled without a warning, the static library linked by gcc.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kf_testkit::Tool;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// The newest static library beside this test's own program.
fn library() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let deps = program.parent().unwrap();
    let found = std::fs::read_dir(deps).unwrap().map(|entry| entry.unwrap().path());
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("libkf_ffi") && name.ends_with(".a")
    };
    found.filter(is_ours).max_by_key(|path| path.metadata().unwrap().modified().unwrap()).unwrap()
}

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
fn c_reproduces_the_vectors_and_the_header_compiles_without_a_warning() {
    let scratch = kf_testkit::scratch();
    let tables = format!("#define DERIVATIONS \\\n{}\n#define SEALS \\\n{}\n", table(&derivations()), table(&seals()));
    std::fs::write(scratch.path().join("vectors.h"), tables).unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (include, source) = (here.join("include"), here.join("tests/c/vectors.c"));
    let library = library();
    let arguments = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I.", "-o", "vectors"];
    let mut arguments: Vec<&str> = arguments.to_vec();
    let (include, source) = (format!("-I{}", include.display()), source.to_string_lossy().into_owned());
    let library = library.to_string_lossy().into_owned();
    arguments.extend([include.as_str(), &source, &library, "-lpthread", "-ldl", "-lm"]);
    drop(Tool::new("gcc").directory(scratch.path()).run(&arguments).expect_success());
    let program = scratch.path().join("vectors");
    let printed = Tool::at(&program).directory(scratch.path()).run::<&str>(&[]).expect_success().stdout_text();
    assert!(printed.contains("all agree"), "{printed}");
}

fn table(rows: &str) -> String {
    rows.lines().collect::<Vec<_>>().join(" \\\n")
}

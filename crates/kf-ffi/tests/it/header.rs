//! Header and library agree on every symbol, size and status.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use kf_testkit::Tool;

use crate::{compile, prefix, root};

fn header() -> String {
    std::fs::read_to_string(prefix().join("include/keyfleet.h")).unwrap()
}

/// The header without comments.
fn code() -> String {
    let (mut rest, mut code) = (header(), String::new());
    while let Some((before, after)) = rest.clone().split_once("/*") {
        code.push_str(before);
        rest = after.split_once("*/").unwrap().1.to_owned();
    }
    code + &rest
}

/// Functions that the header declares: a name of ours with an opening parenthesis behind it.
fn declared() -> BTreeSet<String> {
    let code = code();
    let words = code.split(|letter: char| letter.is_whitespace() || letter == '*');
    words
        .filter_map(|word| word.split_once('('))
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("kf_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    let library = prefix().join("lib/libkeyfleet.a");
    let listed = Tool::new("nm").run(&["--defined-only", "--extern-only", library.to_str().unwrap()]).stdout_text();
    let symbols = listed.lines().filter_map(|line| line.split_once(" T ")).map(|(_, name)| name);
    let exported: BTreeSet<String> = symbols.filter(|name| name.starts_with("kf_")).map(str::to_owned).collect();
    assert!(exported.len() > 50, "{exported:?}");
    assert_eq!(declared(), exported);
}

#[test]
fn c_and_the_library_agree_on_every_size_and_offset() {
    let scratch = kf_testkit::scratch();
    let mut text = "#include <stdio.h>\n#include \"keyfleet.h\"\nint main(void) {\n".to_owned();
    for layout in kf_ffi::layouts() {
        writeln!(text, "  printf(\"%zu\\n\", (size_t)({}));", layout.expression).unwrap();
    }
    text.push_str("  return 0;\n}\n");
    let source = scratch.path().join("layout.c");
    std::fs::write(&source, text).unwrap();
    let printed = compile("gcc", "-std=c11", scratch.path(), &[source]).run::<&str>(&[]).expect_success().stdout_text();
    let in_c: Vec<usize> = printed.lines().map(|line| line.parse().unwrap()).collect();
    let layouts: Vec<kf_ffi::Layout> = kf_ffi::layouts().collect();
    assert_eq!(in_c.len(), layouts.len());
    for (octets, layout) in in_c.into_iter().zip(layouts) {
        assert_eq!(octets, layout.octets, "{}", layout.expression);
        assert!(layout.used <= layout.octets, "{}: {} octets are used", layout.expression, layout.used);
    }
}

#[test]
fn every_status_of_the_header_is_one_of_the_library_and_the_other_way_round() {
    let text = header();
    let negative = text.lines().filter_map(|line| line.strip_prefix("#define KF_")?.split_once(" (-"));
    let mut of_header: BTreeSet<i32> =
        negative.map(|(_, rest)| -rest.split_once(')').unwrap().0.parse::<i32>().unwrap()).collect();
    of_header.insert(0);
    assert_eq!(of_header, kf_ffi::codes().collect());
}

#[test]
fn the_header_serves_c_plus_plus_too() {
    let scratch = kf_testkit::scratch();
    let source = scratch.path().join("program.cpp");
    let text = "#include \"keyfleet.h\"\n#include <cstring>\n\
        int main() { return std::strcmp(kf_status_text(KF_OK), \"done\") == 0 ? 0 : 1; }\n";
    std::fs::write(&source, text).unwrap();
    drop(compile("g++", "-std=c++11", scratch.path(), &[source]).run::<&str>(&[]).expect_success());
}

#[test]
fn the_examples_for_esp_idf_and_zephyr_agree_with_the_signatures_of_the_hooks() {
    let examples = root().join("examples/c");
    for (stubs, file) in
        [("esp-idf/stubs", "esp-idf/main/keyfleet_port.c"), ("zephyr/stubs", "zephyr/src/keyfleet_port.c")]
    {
        let include = |folder: &std::path::Path| format!("-I{}", folder.display());
        let flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"].map(str::to_owned);
        let places = [include(&prefix().join("include")), include(&examples.join(stubs))];
        let file = examples.join(file).display().to_string();
        let arguments: Vec<String> = flags.into_iter().chain(places).chain([file]).collect();
        drop(Tool::new("gcc").run(&arguments).expect_success());
    }
}

//! Words and names that do not appear.

use std::path::Path;

use super::Violation;
use super::source::Source;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "manager", "misc"];

/// Unfinished code.
const UNFINISHED: &[&str] = &["todo!(", "unimplemented!("];

/// Folders of the machine that something was written on. Put together here, so that this file does not hold them.
const MACHINE_FOLDERS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

pub(crate) fn check_source(source: &Source) -> Vec<Violation> {
    let mut violations: Vec<Violation> = file_name(&source.path).into_iter().collect();
    for (number, line) in source.numbered() {
        if line.contains("#[ignore") {
            let remedy = "nothing is ignored: a slow suite goes behind the feature `slow` of its crate";
            violations.push(Violation::new(&source.path, number, "ignored-test", remedy));
        }
        if let Some(name) = module_name(line).filter(|name| EMPTY_NAMES.contains(name)) {
            let remedy = format!("`{name}` says nothing: name the module after what it holds");
            violations.push(Violation::new(&source.path, number, "module-name", remedy));
        }
    }
    for (number, line) in source.shipped() {
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            let remedy = format!("{word}…) ships a panic: finish it, or take it out");
            violations.push(Violation::new(&source.path, number, "unfinished", remedy));
        }
    }
    violations
}

fn file_name(path: &Path) -> Option<Violation> {
    let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if name == "mod" {
        return Some(Violation::new(path, 1, "mod-file", "use foo.rs beside foo/, not foo/mod.rs"));
    }
    let remedy = format!("`{name}` says nothing: name the file after what it holds");
    EMPTY_NAMES.contains(&name).then(|| Violation::new(path, 1, "module-name", remedy))
}

fn module_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    if words.next() != Some("mod") {
        return None;
    }
    words.next().map(|name| name.trim_end_matches([';', '{']))
}

/// Looks through a text of any kind, comments included.
pub(crate) fn check_text(path: &Path, text: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for folder in MACHINE_FOLDERS.iter().filter(|folder| names_folder(line, folder)) {
            let remedy = format!("{folder} exists on one machine only: use a path relative to the workspace");
            violations.push(Violation::new(path, index + 1, "machine-path", remedy));
        }
    }
    violations
}

/// Whether the folder stands at the beginning of a path, not inside of one.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        before.is_none_or(|before| !(before.is_alphanumeric() || "._-/}*>".contains(before)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        check_source(&Source::new(path.into(), text)).into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn ignored_tests_unfinished_code_and_empty_names_are_found() {
        assert_eq!(rules("crates/kf-x/tests/it/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n"), ["ignored-test"]);
        assert_eq!(rules("crates/kf-x/src/a.rs", "fn f() { todo!() }\nfn g() { unimplemented!(\"x\") }\n").len(), 2);
        assert_eq!(rules("crates/kf-x/src/a.rs", "pub(crate) mod helpers;\n"), ["module-name"]);
        assert_eq!(rules("crates/kf-x/src/utils.rs", ""), ["module-name"]);
        assert_eq!(rules("crates/kf-x/src/a/mod.rs", ""), ["mod-file"]);
    }

    #[test]
    fn comments_and_tests_may_speak_of_unfinished_code() {
        assert!(
            rules("crates/kf-x/src/a.rs", "// todo!()\n#[cfg(test)]\nmod tests { fn f() { todo!() } }\n").is_empty()
        );
    }

    #[test]
    fn a_path_of_one_machine_is_found_in_any_text() {
        let line = concat!("see /wo", "rk/main and \"/ro", "ot/x\"");
        assert_eq!(check_text(Path::new("README.md"), line).len(), 2);
        assert!(check_text(Path::new("README.md"), concat!("the folder net", "/wo", "rk/x")).is_empty());
    }
}

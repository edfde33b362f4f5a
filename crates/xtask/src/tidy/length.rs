//! Functions fit a screen; files have one reason to change.

use super::Violation;
use super::source::{Source, end_of_item};

/// Lines of a function, signature and braces included, blank lines and comments not counted.
const FUNCTION_LINES: usize = 70;
/// Lines of a file.
const FILE_LINES: usize = 1_000;

pub(crate) fn check(source: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (number, line) in source.shipped() {
        if !starts_function(line) {
            continue;
        }
        let last = end_of_item(&source.lines, number - 1);
        let counted = source.is_blank.iter().take(last + 1).skip(number - 1).filter(|blank| !**blank).count();
        if counted > FUNCTION_LINES {
            let remedy = format!("the function has {counted} lines, the limit is {FUNCTION_LINES}: split it");
            violations.push(Violation::new(&source.path, number, "function-length", remedy));
        }
    }
    let shipped = source.shipped().count();
    if shipped > FILE_LINES {
        let remedy = format!("{shipped} lines besides tests: look for a second reason to change, and split there");
        violations.push(Violation::warning(&source.path, 1, "file-length", remedy));
    }
    violations
}

fn starts_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let qualifiers = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern"];
    words.find(|word| !qualifiers.contains(word)) == Some("fn")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize, path: &str) -> Vec<Violation> {
        let body = "    step();\n\n    // why\n".repeat(lines - 2);
        check(&Source::new(path.into(), &format!("pub(crate) async fn long(\n) {{\n{body}}}\n")))
    }

    #[test]
    fn a_function_over_the_limit_is_found_and_comments_do_not_count() {
        assert!(function(FUNCTION_LINES - 1, "crates/kf-x/src/a.rs").is_empty());
        let found = function(FUNCTION_LINES, "crates/kf-x/src/a.rs");
        assert_eq!(
            found.iter().map(|violation| (violation.line, violation.rule)).collect::<Vec<_>>(),
            [(1, "function-length")]
        );
    }

    #[test]
    fn tests_may_be_long() {
        assert!(function(FUNCTION_LINES + 9, "crates/kf-x/tests/it/a.rs").is_empty());
    }

    #[test]
    fn a_long_file_is_a_warning() {
        let found = check(&Source::new("crates/kf-x/src/a.rs".into(), &"use x;\n".repeat(FILE_LINES + 1)));
        assert!(found.iter().all(|violation| violation.is_warning) && found.len() == 1);
    }
}

//! Links of the documents lead somewhere, and ARCHITECTURE.md stays short enough to be read.

use std::fs;
use std::path::Path;

use super::Violation;

const ARCHITECTURE_LINES: usize = 250;

pub(crate) fn check(root: &Path, path: &Path, text: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    if path == Path::new("ARCHITECTURE.md") && text.lines().count() > ARCHITECTURE_LINES {
        let remedy = format!("more than {ARCHITECTURE_LINES} lines: move what changes often to docs/");
        violations.push(Violation::new(path, ARCHITECTURE_LINES + 1, "architecture-length", remedy));
    }
    for (number, target) in links(text) {
        if let Err(remedy) = resolve(root, path, text, target) {
            violations.push(Violation::new(path, number, "broken-link", remedy));
        }
    }
    violations
}

/// The targets of `[text](target)` outside code, with their lines.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (at, opening) in line.match_indices("](") {
            let in_span = line.get(..at).is_some_and(|before| before.matches('`').count() % 2 == 1);
            let target = line.get(at + opening.len()..).and_then(|rest| rest.split(')').next());
            found.extend(target.filter(|_| !in_span).map(|target| (index + 1, target)));
        }
    }
    found
}

fn resolve(root: &Path, path: &Path, text: &str, target: &str) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let linked = root.join(path).parent().unwrap_or(root).join(file);
    if !file.is_empty() && !linked.exists() {
        return Err(format!("{target} does not exist: mend the link"));
    }
    let Some(anchor) = anchor else { return Ok(()) };
    let linked_text = if file.is_empty() { text.to_owned() } else { fs::read_to_string(linked).unwrap_or_default() };
    let known = linked_text.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor);
    if known { Ok(()) } else { Err(format!("no heading becomes #{anchor} in {target}: mend the link")) }
}

/// The anchor that a heading gets: lower case, punctuation dropped, spaces as hyphens.
fn slug(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_'))
        .map(|character| if character == ' ' { '-' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_and_headings_that_do_not_exist_are_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = "# A heading, twice\n[a](Cargo.toml) [b](missing.md) [c](#a-heading-twice) [d](#none) [e](https://x/y)\n\
                    `[f](code)`\n```\n[g](block)\n```\n";
        let found = check(root, Path::new("README.md"), text);
        let remedies: Vec<&str> = found.iter().map(|violation| violation.remedy.as_str()).collect();
        assert_eq!(remedies.len(), 2, "{remedies:?}");
        assert!(remedies.iter().any(|remedy| remedy.contains("missing.md")));
        assert!(remedies.iter().any(|remedy| remedy.contains("#none")));
    }

    #[test]
    fn architecture_has_at_most_250_lines() {
        let path = Path::new("ARCHITECTURE.md");
        assert!(check(Path::new("."), path, &"line\n".repeat(ARCHITECTURE_LINES)).is_empty());
        assert_eq!(check(Path::new("."), path, &"line\n".repeat(ARCHITECTURE_LINES + 1)).len(), 1);
    }
}

//! Types that hold secrets are not copied, compared, printed or serialised.

use super::Violation;
use super::source::{Source, end_of_item};

/// Words in the name of a type that make it a secret one.
const SECRET_WORDS: &[&str] = &["Secret", "PrivateKey", "Passphrase", "WrappingKey", "Plaintext", "Unsealed"];
/// Types of fields that make the type around them a secret one.
const SECRET_FIELDS: &[&str] = &["SecretArray<", "SecretBytes", "Zeroizing<"];
/// Types of fields that print what they hold.
const RAW_FIELDS: &[&str] = &["Vec<u8>", "[u8", "String"];
/// What a secret type does not derive. `Debug` is allowed where every field is of a type that prints its name only.
const FORBIDDEN: &[&str] = &["Clone", "Copy", "PartialEq", "Eq", "Hash", "PartialOrd", "Ord", "Serialize"];

/// Types whose name has a secret word although they hold none, each with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[];

pub(crate) fn check(source: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (number, line) in source.shipped() {
        let Some(name) = defined_type(line) else { continue };
        if EXCEPTIONS.iter().any(|(exception, _)| *exception == name) {
            continue;
        }
        let body: Vec<&str> = source
            .lines
            .iter()
            .take(end_of_item(&source.lines, number - 1) + 1)
            .skip(number - 1)
            .map(String::as_str)
            .collect();
        // An error or a reference to a key by name is no secret; the words count only where bytes or keys are held.
        let named = SECRET_WORDS.iter().any(|word| name.contains(word)) && !is_description(name);
        let holds = body.iter().any(|line| SECRET_FIELDS.iter().any(|field| line.contains(field)));
        let raw = body.iter().any(|line| RAW_FIELDS.iter().any(|field| line.contains(field)));
        if !named && !holds {
            continue;
        }
        for derived in derives(source, number) {
            let prints = derived == "Debug" && named && raw;
            if FORBIDDEN.contains(&derived.as_str()) || prints {
                let remedy = format!("{name} holds a secret: it must not derive {derived}");
                violations.push(Violation::new(&source.path, number, "secret-type", remedy));
            }
        }
    }
    violations
}

/// Errors, identifiers, algorithms, sealed and wrapped forms speak about secrets without holding them.
fn is_description(name: &str) -> bool {
    ["Error", "Id", "Algorithm", "State", "Kind", "Source", "Sealed", "Refusal"].iter().any(|end| name.ends_with(end))
}

fn defined_type(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    if !matches!(words.next(), Some("struct" | "enum")) {
        return None;
    }
    words.next()?.split(|character: char| !(character.is_alphanumeric() || character == '_')).next()
}

/// What the attributes directly above line `number` derive.
fn derives(source: &Source, number: usize) -> Vec<String> {
    let attributes: Vec<&str> = source
        .lines
        .iter()
        .zip(&source.is_blank)
        .take(number - 1)
        .rev()
        .map(|(line, blank)| (line.trim(), *blank))
        .take_while(|(line, blank)| *blank || !(line.ends_with('}') || line.ends_with(';') || line.ends_with('{')))
        .map(|(line, _)| line)
        .collect();
    let text: String = attributes.into_iter().rev().collect::<Vec<_>>().join(" ");
    text.split("derive(")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .flat_map(|list| list.split(','))
        .map(|derived| derived.trim().rsplit("::").next().unwrap_or_default().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<String> {
        check(&Source::new("crates/kf-x/src/a.rs".into(), text)).into_iter().map(|found| found.remedy).collect()
    }

    #[test]
    fn a_secret_type_that_can_be_cloned_compared_printed_or_serialised_is_found() {
        assert_eq!(rules("#[derive(Clone, serde::Serialize)]\npub struct Root(SecretArray<32>);\n").len(), 2);
        assert_eq!(rules("#[derive(PartialEq)]\n/// Words.\nstruct Held {\n  bytes: SecretBytes,\n}\n").len(), 1);
        assert_eq!(rules("#[derive(Debug)]\nstruct Passphrase(String);\n").len(), 1);
    }

    #[test]
    fn types_that_only_speak_about_secrets_are_left_alone() {
        assert!(rules("#[derive(Clone, Debug)]\nenum PassphraseError { Short }\n").is_empty());
        assert!(rules("#[derive(Clone)]\nstruct Public;\nstruct Root(SecretBytes);\n").is_empty());
        assert!(rules("#[derive(Debug)]\nstruct Root(SecretBytes);\n").is_empty());
    }
}

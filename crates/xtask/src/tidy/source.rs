//! A Rust file with its comments, strings and characters blanked out, so that rules see code only.

use std::path::PathBuf;

/// A Rust file as the rules see it.
pub(crate) struct Source {
    /// Relative to the root of the workspace.
    pub(crate) path: PathBuf,
    /// Code only; every line as long as it was.
    pub(crate) lines: Vec<String>,
    /// Whether a line is a comment and nothing else, or empty.
    pub(crate) is_blank: Vec<bool>,
    /// Whether a line belongs to a test.
    pub(crate) is_test: Vec<bool>,
}

impl Source {
    pub(crate) fn new(path: PathBuf, text: &str) -> Self {
        let code = blank_out(text);
        let lines: Vec<String> = code.lines().map(str::to_owned).collect();
        let is_blank = lines.iter().map(|line| line.trim().is_empty()).collect();
        let whole_file = is_test_file(&path);
        let is_test = test_lines(&lines).into_iter().map(|line| line || whole_file).collect();
        Self { path, lines, is_blank, is_test }
    }

    /// The crate that the file belongs to: the folder below `crates`.
    pub(crate) fn crate_name(&self) -> Option<&str> {
        let mut parts = self.path.iter();
        if parts.next()? != "crates" {
            return None;
        }
        parts.next()?.to_str()
    }

    /// Lines of code that ship, numbered from 1.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        self.numbered().filter(|(number, _)| !self.is_test.get(number - 1).copied().unwrap_or(false))
    }

    /// All lines, numbered from 1.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines.iter().enumerate().map(|(index, line)| (index + 1, line.as_str()))
    }
}

fn is_test_file(path: &std::path::Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs")
        || path.iter().any(|part| part == "tests" || part == "benches" || part == "kf-testkit")
}

/// Marks the item after each `#[cfg(test)]`, to the end of its braces or its semicolon.
fn test_lines(lines: &[String]) -> Vec<bool> {
    let mut marks = vec![false; lines.len()];
    let mut start = 0;
    while let Some(found) = lines.iter().skip(start).position(|line| line.contains("#[cfg(test)]")) {
        let first = start + found;
        let last = end_of_item(lines, first);
        marks.iter_mut().take(last + 1).skip(first).for_each(|mark| *mark = true);
        start = last + 1;
    }
    marks
}

/// The index of the line on which the item that starts at `first` ends.
pub(crate) fn end_of_item(lines: &[String], first: usize) -> usize {
    let mut depth = 0_i64;
    for (index, line) in lines.iter().enumerate().skip(first) {
        for character in line.chars() {
            match character {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => {
                    depth -= 1;
                    if depth == 0 && character == '}' {
                        return index;
                    }
                }
                ';' if depth == 0 => return index,
                _ => {}
            }
        }
    }
    lines.len().saturating_sub(1)
}

/// Replaces what is not code by spaces; line breaks stay.
fn blank_out(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(character) = rest.chars().next() {
        let length = length_of_other(rest, before);
        let (piece, keep) = if length > 0 { (length, false) } else { (character.len_utf8(), true) };
        let (taken, left) = rest.split_at(piece);
        if keep {
            code.push_str(taken);
        } else {
            code.extend(taken.chars().map(|other| if other == '\n' { '\n' } else { ' ' }));
        }
        before = taken.chars().next_back().unwrap_or(' ');
        rest = left;
    }
    code
}

/// How many bytes of a comment, a string or a character begin here; 0 when code does.
fn length_of_other(rest: &str, before: char) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return length_of_block_comment(rest);
    }
    let starts_word = !(before.is_alphanumeric() || before == '_');
    if starts_word {
        let prefix = rest.len() - rest.trim_start_matches(['b', 'c']).len();
        let (_, body) = rest.split_at(prefix.min(1));
        if let Some(raw) = body.strip_prefix('r') {
            let hashes = raw.len() - raw.trim_start_matches('#').len();
            if raw.get(hashes..).is_some_and(|after| after.starts_with('"')) {
                return length_of_raw_string(rest, hashes);
            }
        }
        if prefix <= 1 && body.starts_with('"') {
            return prefix + length_to_closing(body, '"');
        }
        if prefix <= 1 && is_character(body) {
            return prefix + length_to_closing(body, '\'');
        }
    }
    if rest.starts_with('"') { length_to_closing(rest, '"') } else { 0 }
}

/// Tells `'x'` and `'\n'` from a lifetime.
fn is_character(body: &str) -> bool {
    let Some(inside) = body.strip_prefix('\'') else { return false };
    let mut characters = inside.chars();
    match characters.next() {
        Some('\\') => true,
        Some(_) => characters.next() == Some('\''),
        None => false,
    }
}

fn length_to_closing(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return index + quote.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

fn length_of_raw_string(rest: &str, hashes: usize) -> usize {
    let closing = format!("\"{}", "#".repeat(hashes));
    let Some(opening) = rest.find('"') else { return rest.len() };
    let body = opening + 1;
    rest.get(body..).and_then(|text| text.find(&closing)).map_or(rest.len(), |found| body + found + closing.len())
}

fn length_of_block_comment(rest: &str) -> usize {
    let mut depth = 0_u32;
    let mut length = 0;
    while let Some(left) = rest.get(length..).filter(|left| !left.is_empty()) {
        if left.starts_with("/*") {
            depth += 1;
            length += 2;
        } else if left.starts_with("*/") {
            depth -= 1;
            length += 2;
        } else {
            length += left.chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return length;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_blanked_and_code_stays() {
        let text = "let a = \"{\\\"\"; // {\nlet b = '{'; /* { /* { */ */ let c: &'static str = r#\"{\"}\"#; b\"{\"; x";
        let code = blank_out(text);
        assert_eq!(code.len(), text.len());
        assert!(!code.contains('{'), "{code}");
        assert!(code.contains("let c: &'static str ="), "{code}");
        assert!(code.ends_with("; x"), "{code}");
    }

    #[test]
    fn test_modules_are_recognised_to_their_last_brace() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod tests;\nfn d() {}\n";
        let source = Source::new(PathBuf::from("crates/kf-x/src/a.rs"), text);
        assert_eq!(source.is_test, [false, true, true, true, true, false, true, true, false]);
        assert_eq!(source.crate_name(), Some("kf-x"));
    }
}

//! What the operations cost on the microcontroller, against the table of the manual.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::machine::{Machine, MachineError};
use crate::report::Row;

/// The yardstick of the derivations.
const YARDSTICK: &str = "hmac";

/// How far an instruction count may be from the table, in hundredths: another version of a dependency moves it a little.
const TOLERANCE_PERCENT: u64 = 5;
/// How far the stack may be from the table, in octets: alignment moves it.
const STACK_TOLERANCE_OCTETS: u64 = 128;

/// What a derivation may cost, in hundredths of the yardstick: encoding the place and wiping come on top of the HMAC.
const DERIVATION_LIMIT_PERCENT: u64 = 125;

const BEGIN: &str = "<!-- figures -->";
const END: &str = "<!-- end of figures -->";

/// What one operation costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) instructions: u64,
    pub(crate) stack_octets: u64,
}

/// Why there are no figures, or none to compare them with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FiguresError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("the firmware reported {line:?}, which is no figure")]
    Form { line: String },
    #[error("no figure named {YARDSTICK} was measured")]
    NoYardstick,
    #[error("the manual has no lines between {BEGIN} and {END}")]
    NoTable,
    #[error("the manual cannot be read or written")]
    Manual(#[from] std::io::Error),
}

/// Runs the image that measures.
///
/// # Errors
/// [`FiguresError`].
pub(crate) fn measure(image: &Path) -> Result<Vec<Figure>, FiguresError> {
    let mut machine = Machine::start(image)?;
    let mut figures = Vec::new();
    loop {
        let line = machine.receive()?;
        if line.is_empty() {
            return Ok(figures);
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        figures.push(parse(&line).ok_or(FiguresError::Form { line })?);
    }
}

fn parse(line: &str) -> Option<Figure> {
    let mut fields = line.split('\t');
    let name = fields.next()?.to_owned();
    let instructions = fields.next()?.parse().ok()?;
    let stack_octets = fields.next()?.parse().ok()?;
    fields.next().is_none().then_some(Figure { name, instructions, stack_octets })
}

/// The table as the manual has it.
///
/// # Errors
/// [`FiguresError::NoYardstick`].
pub(crate) fn table(figures: &[Figure]) -> Result<String, FiguresError> {
    let yardstick = figures.iter().find(|figure| figure.name == YARDSTICK).ok_or(FiguresError::NoYardstick)?;
    let mut text =
        String::from("| Operation | Instructions | × HMAC | Stack, octets |\n| --- | ---: | ---: | ---: |\n");
    for Figure { name, instructions, stack_octets } in figures {
        let hundredths = instructions * 100 / yardstick.instructions.max(1);
        let ratio = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        let _to_a_string = writeln!(text, "| {name} | {instructions} | {ratio} | {stack_octets} |");
    }
    Ok(text)
}

/// A derivation is one HMAC and little more.
///
/// # Errors
/// [`FiguresError::NoYardstick`] when either was not measured.
pub(crate) fn derivation_ratio(figures: &[Figure]) -> Result<Row, FiguresError> {
    let instructions = |name: &str| {
        let found = figures.iter().find(|figure| figure.name == name);
        found.map(|figure| figure.instructions).filter(|count| *count > 0).ok_or(FiguresError::NoYardstick)
    };
    let percent = instructions("derive a device key")? * 100 / instructions(YARDSTICK)?;
    Ok(Row {
        what: "derivation against the bare HMAC".to_owned(),
        found: format!("{percent} %"),
        limit: format!("at most {DERIVATION_LIMIT_PERCENT} %"),
        holds: percent <= DERIVATION_LIMIT_PERCENT,
    })
}

/// The table between the marks of the manual, and what stands around it.
fn split(manual: &str) -> Option<(&str, &str, &str)> {
    let begin = manual.find(BEGIN)? + BEGIN.len();
    let end = manual.find(END)?;
    Some((manual.get(..begin)?, manual.get(begin..end)?, manual.get(end..)?))
}

/// Writes the figures into the manual.
///
/// # Errors
/// [`FiguresError`].
pub(crate) fn update(manual: &Path, figures: &[Figure]) -> Result<(), FiguresError> {
    let text = std::fs::read_to_string(manual)?;
    let (before, _, after) = split(&text).ok_or(FiguresError::NoTable)?;
    std::fs::write(manual, format!("{before}\n{}{after}", table(figures)?))?;
    Ok(())
}

fn published(manual: &str) -> Result<BTreeMap<String, (u64, u64)>, FiguresError> {
    let (_, table, _) = split(manual).ok_or(FiguresError::NoTable)?;
    let row = |line: &str| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let name = cells.next()?.to_owned();
        let instructions = cells.next()?.parse().ok()?;
        Some((name, (instructions, cells.nth(1)?.parse().ok()?)))
    };
    Ok(table.lines().filter_map(row).collect())
}

/// Compares each figure with the manual. One that is missing there, or there only, does not hold.
///
/// # Errors
/// [`FiguresError`].
pub(crate) fn compare(manual: &Path, figures: &[Figure]) -> Result<Vec<Row>, FiguresError> {
    let mut published = published(&std::fs::read_to_string(manual)?)?;
    let mut rows = Vec::new();
    for Figure { name, instructions, stack_octets } in figures {
        let expected = published.remove(name);
        let holds = expected.is_some_and(|(count, stack)| {
            instructions.abs_diff(count) * 100 <= count * TOLERANCE_PERCENT
                && stack_octets.abs_diff(stack) <= STACK_TOLERANCE_OCTETS
        });
        let limit = expected.map_or_else(
            || "not in the manual".to_owned(),
            |(count, stack)| format!("{count} ± {TOLERANCE_PERCENT} %, {stack} ± {STACK_TOLERANCE_OCTETS}"),
        );
        let found = format!("{instructions} instructions, {stack_octets} octets of stack");
        rows.push(Row { what: name.clone(), found, limit, holds });
    }
    rows.extend(published.into_keys().map(|name| Row {
        what: name,
        found: "not measured".to_owned(),
        limit: "in the manual".to_owned(),
        holds: false,
    }));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, instructions: u64) -> Figure {
        Figure { name: name.to_owned(), instructions, stack_octets: 1_000 }
    }

    fn compared(published: &[Figure], measured: &[Figure]) -> Vec<bool> {
        let folder = tempfile::tempdir().expect("a folder");
        let manual = folder.path().join("manual.md");
        std::fs::write(&manual, format!("text\n{BEGIN}\n{END}\nmore\n")).expect("written");
        update(&manual, published).expect("updated");
        compare(&manual, measured).expect("compared").iter().map(|row| row.holds).collect()
    }

    #[test]
    fn figures_within_the_tolerance_hold() {
        let published = [figure("hmac", 10_000), figure("derive", 20_000)];
        assert_eq!(compared(&published, &[figure("hmac", 10_400), figure("derive", 20_900)]), [true, true]);
    }

    #[test]
    fn a_figure_that_moved_is_new_or_has_gone_does_not_hold() {
        let published = [figure("hmac", 10_000), figure("derive", 20_000)];
        assert_eq!(compared(&published, &[figure("hmac", 10_000), figure("derive", 21_001)]), [true, false]);
        assert_eq!(compared(&published, &[figure("hmac", 10_000)]), [true, false]);
        assert_eq!(compared(&published[..1], &published), [true, false]);
    }

    #[test]
    fn a_line_that_is_no_figure_is_refused() {
        assert_eq!(parse("hmac\t10\t20"), Some(Figure { name: "hmac".into(), instructions: 10, stack_octets: 20 }));
        for line in ["", "hmac", "hmac\t1", "hmac\tx\t2", "hmac\t1\t2\t3"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}

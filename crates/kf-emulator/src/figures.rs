//! What the operations cost on the microcontroller, against the table of the manual.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::machine::{Machine, MachineError};
use crate::report::Row;
use crate::target::Target;

/// The yardstick of the derivations.
const YARDSTICK: &str = "hmac";

/// How far an instruction count may be from the table, in hundredths: another version of a dependency moves it a little.
const TOLERANCE_PERCENT: u64 = 5;
/// How far the stack may be from the table, in octets: alignment moves it.
const STACK_TOLERANCE_OCTETS: u64 = 128;

/// What a derivation may cost, in hundredths of the yardstick: encoding the place and wiping come on top of the HMAC.
const DERIVATION_LIMIT_PERCENT: u64 = 125;

const END: &str = "<!-- end of figures -->";
/// What a cell holds where nothing was measured.
const NONE: &str = "–";

/// The mark before the table of a target.
fn begin(target: Target) -> String {
    format!("<!-- figures of {} -->", target.name())
}

/// What one operation, or one image, costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) instructions: Option<u64>,
    pub(crate) stack_octets: Option<u64>,
    pub(crate) flash_octets: Option<u64>,
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
    #[error("the manual has no lines between {} and {END}", begin(*target))]
    NoTable { target: Target },
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
    let instructions = Some(fields.next()?.parse().ok()?);
    let stack_octets = Some(fields.next()?.parse().ok()?);
    fields.next().is_none().then_some(Figure { name, instructions, stack_octets, flash_octets: None })
}

/// The table as the manual has it.
///
/// # Errors
/// [`FiguresError::NoYardstick`].
fn table(figures: &[Figure]) -> Result<String, FiguresError> {
    let yardstick = instructions_of(figures, YARDSTICK)?;
    let mut text = String::from(
        "| Operation or image | Instructions | × HMAC | Stack, octets | Flash, octets |\n\
         | --- | ---: | ---: | ---: | ---: |\n",
    );
    let cell = |value: Option<u64>| value.map_or_else(|| NONE.to_owned(), |value| value.to_string());
    for Figure { name, instructions, stack_octets, flash_octets } in figures {
        let ratio = instructions.map_or_else(
            || NONE.to_owned(),
            |instructions| {
                let hundredths = instructions * 100 / yardstick;
                format!("{}.{:02}", hundredths / 100, hundredths % 100)
            },
        );
        let (instructions, stack, flash) = (cell(*instructions), cell(*stack_octets), cell(*flash_octets));
        let _to_a_string = writeln!(text, "| {name} | {instructions} | {ratio} | {stack} | {flash} |");
    }
    Ok(text)
}

fn instructions_of(figures: &[Figure], name: &str) -> Result<u64, FiguresError> {
    let found = figures.iter().find(|figure| figure.name == name).and_then(|figure| figure.instructions);
    found.filter(|count| *count > 0).ok_or(FiguresError::NoYardstick)
}

/// A derivation is one HMAC and little more.
///
/// # Errors
/// [`FiguresError::NoYardstick`] when either was not measured.
pub(crate) fn derivation_ratio(figures: &[Figure]) -> Result<Row, FiguresError> {
    let percent = instructions_of(figures, "derive a device key")? * 100 / instructions_of(figures, YARDSTICK)?;
    Ok(Row {
        what: "derivation against the bare HMAC".to_owned(),
        found: format!("{percent} %"),
        limit: format!("at most {DERIVATION_LIMIT_PERCENT} %"),
        holds: percent <= DERIVATION_LIMIT_PERCENT,
        target: None,
    })
}

/// The table between the marks of the manual, and what stands around it.
fn split(manual: &str, target: Target) -> Result<(&str, &str, &str), FiguresError> {
    let cut = || {
        let mark = begin(target);
        let begin = manual.find(&mark)? + mark.len();
        let end = begin + manual.get(begin..)?.find(END)?;
        Some((manual.get(..begin)?, manual.get(begin..end)?, manual.get(end..)?))
    };
    cut().ok_or(FiguresError::NoTable { target })
}

/// Writes the figures into the manual.
///
/// # Errors
/// [`FiguresError`].
pub(crate) fn update(manual: &Path, target: Target, figures: &[Figure]) -> Result<(), FiguresError> {
    let text = std::fs::read_to_string(manual)?;
    let (before, _, after) = split(&text, target)?;
    std::fs::write(manual, format!("{before}\n{}{after}", table(figures)?))?;
    Ok(())
}

fn published(manual: &str, target: Target) -> Result<BTreeMap<String, Figure>, FiguresError> {
    let (_, table, _) = split(manual, target)?;
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, instructions, _ratio, stack, flash] = cells.as_slice() else { return None };
        let figure = Figure {
            name: (*name).to_owned(),
            instructions: instructions.parse().ok(),
            stack_octets: stack.parse().ok(),
            flash_octets: flash.parse().ok(),
        };
        let is_empty = figure == Figure { name: figure.name.clone(), ..Figure::default() };
        (!is_empty).then(|| (figure.name.clone(), figure))
    };
    Ok(table.lines().filter_map(row).collect())
}

/// Compares each figure with the manual. One that is missing there, or there only, does not hold.
///
/// # Errors
/// [`FiguresError`].
pub(crate) fn compare(manual: &Path, target: Target, figures: &[Figure]) -> Result<Vec<Row>, FiguresError> {
    let mut published = published(&std::fs::read_to_string(manual)?, target)?;
    let mut rows = Vec::new();
    for figure in figures {
        let expected = published.remove(&figure.name);
        let holds = expected.as_ref().is_some_and(|expected| is_near(figure, expected));
        let limit = expected.as_ref().map_or_else(|| "not in the manual".to_owned(), text);
        rows.push(Row { what: figure.name.clone(), found: text(figure), limit, holds, target: None });
    }
    rows.extend(published.into_keys().map(|name| Row {
        what: name,
        found: "not measured".to_owned(),
        limit: "in the manual".to_owned(),
        holds: false,
        target: None,
    }));
    Ok(rows)
}

/// Whether each value is what the manual says, within its tolerance; one that is there on one side only is not.
fn is_near(measured: &Figure, published: &Figure) -> bool {
    let Figure { name: _, instructions, stack_octets, flash_octets } = measured;
    let within = |measured: Option<u64>, published: Option<u64>, tolerance: fn(u64) -> u64| match (measured, published)
    {
        (None, None) => true,
        (Some(measured), Some(published)) => measured.abs_diff(published) <= tolerance(published),
        _ => false,
    };
    let percent = |value: u64| value * TOLERANCE_PERCENT / 100;
    within(*instructions, published.instructions, percent)
        && within(*stack_octets, published.stack_octets, |_| STACK_TOLERANCE_OCTETS)
        && within(*flash_octets, published.flash_octets, percent)
}

fn text(figure: &Figure) -> String {
    let Figure { name: _, instructions, stack_octets, flash_octets } = figure;
    let parts = [(instructions, "instructions"), (stack_octets, "octets of stack"), (flash_octets, "of flash")];
    let parts = parts.into_iter().filter_map(|(value, unit)| value.map(|value| format!("{value} {unit}")));
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target::CortexM4;

    fn figure(name: &str, instructions: u64) -> Figure {
        let (name, instructions, stack_octets) = (name.to_owned(), Some(instructions), Some(1_000));
        Figure { name, instructions, stack_octets, flash_octets: None }
    }

    fn image(flash_octets: u64) -> Figure {
        Figure { name: "image".to_owned(), flash_octets: Some(flash_octets), ..Figure::default() }
    }

    fn compared(published: &[Figure], measured: &[Figure]) -> Vec<bool> {
        let folder = tempfile::tempdir().expect("a folder");
        let manual = folder.path().join("manual.md");
        let other = format!("<!-- figures of another target -->\n| other | 1 | 1.00 | 1 | 1 |\n{END}");
        std::fs::write(&manual, format!("text\n{other}\n{}\n{END}\nmore\n", begin(TARGET))).expect("written");
        update(&manual, TARGET, published).expect("updated");
        compare(&manual, TARGET, measured).expect("compared").iter().map(|row| row.holds).collect()
    }

    #[test]
    fn figures_within_the_tolerance_hold() {
        let published = [figure("hmac", 10_000), figure("derive", 20_000), image(20_000)];
        assert_eq!(
            compared(&published, &[figure("hmac", 10_400), figure("derive", 20_900), image(21_000)]),
            [true, true, true]
        );
    }

    #[test]
    fn a_figure_that_moved_is_new_or_has_gone_does_not_hold() {
        let published = [figure("hmac", 10_000), figure("derive", 20_000)];
        assert_eq!(compared(&published, &[figure("hmac", 10_000), figure("derive", 21_001)]), [true, false]);
        assert_eq!(compared(&published, &[figure("hmac", 10_000)]), [true, false]);
        assert_eq!(compared(&published[..1], &published), [true, false]);
        assert_eq!(compared(&[figure("hmac", 1), image(1_000)], &[figure("hmac", 1), image(1_051)]), [true, false]);
        let without_stack = Figure { stack_octets: None, ..figure("hmac", 10_000) };
        assert_eq!(compared(&published[..1], &[without_stack]), [false]);
    }

    #[test]
    fn a_line_that_is_no_figure_is_refused() {
        let whole = parse("hmac\t10\t20").expect("whole");
        assert_eq!((whole.name.as_str(), whole.instructions, whole.stack_octets), ("hmac", Some(10), Some(20)));
        for line in ["", "hmac", "hmac\t1", "hmac\tx\t2", "hmac\t1\t2\t3"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}

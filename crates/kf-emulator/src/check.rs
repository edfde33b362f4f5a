//! Everything that must hold of the firmware.

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::machine::Machine;
use crate::report::{Format, Row, print};
use crate::{figures, size, vectors};

/// What the core may take: derivation and sealing, opening included.
const FLASH_LIMIT_OCTETS: u64 = 24 * 1024;
const STACK_LIMIT_OCTETS: u64 = 4 * 1024;

/// What to check, and where it lies.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder with the built images.
    #[arg(long)]
    images: PathBuf,
    /// The folder with derive.json and seal.json.
    #[arg(long, default_value = "vectors")]
    vectors: PathBuf,
    /// The manual's page with the table of figures.
    #[arg(long, default_value = "docs/manual/firmware.md")]
    manual: PathBuf,
    /// Write the measured figures into the manual instead of comparing them.
    #[arg(long)]
    update: bool,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs all checks; `false` when one does not hold.
///
/// # Errors
/// When something could not be checked.
pub(crate) fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let mut all_hold = true;
    let mut show = |rows: Vec<Row>| -> std::io::Result<()> {
        for row in rows {
            all_hold &= row.holds;
            print(arguments.format, &row)?;
        }
        Ok(())
    };
    show(vectors::run(&arguments.images.join("vectors-image"), &arguments.vectors)?)?;
    show(core_costs(&arguments.images.join("core-image"))?)?;
    let measured = figures::measure(&arguments.images.join("figures-image"))?;
    if arguments.update {
        figures::update(&arguments.manual, &measured)?;
    }
    show(figures::compare(&arguments.manual, &measured)?)?;
    show(vec![figures::derivation_ratio(&measured)?])?;
    Ok(all_hold)
}

/// Flash and stack of an image that derives, seals and opens, and does nothing else.
fn core_costs(image: &Path) -> Result<Vec<Row>, Box<dyn Error>> {
    let (status, said) = Machine::start(image)?.ended()?;
    let stack_octets: u64 = said
        .lines()
        .rev()
        .find_map(|line| line.trim().parse().ok())
        .filter(|_| status.success())
        .ok_or_else(|| format!("the core image did not seal and open ({status}): {said}"))?;
    let row = |what: &str, octets: u64, limit: u64| Row {
        what: what.to_owned(),
        found: format!("{octets} octets"),
        limit: format!("at most {limit}"),
        holds: octets <= limit,
    };
    Ok(vec![
        row("flash of derivation and sealing", size::flash_octets(image)?, FLASH_LIMIT_OCTETS),
        row("stack of derivation and sealing", stack_octets, STACK_LIMIT_OCTETS),
    ])
}

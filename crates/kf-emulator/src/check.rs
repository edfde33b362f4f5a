//! Everything that must hold of the firmware.

use std::error::Error;
use std::path::PathBuf;

use crate::figures;
use crate::report::{Format, Row, print};

/// What to check, and where it lies.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder with the built images.
    #[arg(long)]
    images: PathBuf,
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
    let measured = figures::measure(&arguments.images.join("figures"))?;
    if arguments.update {
        figures::update(&arguments.manual, &measured)?;
    }
    show(figures::compare(&arguments.manual, &measured)?)?;
    Ok(all_hold)
}

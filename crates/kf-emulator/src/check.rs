//! Everything that must hold of the firmware.

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::machine::Machine;
use crate::report::{Format, Row, print};
use crate::{figures, life, size, vectors};

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
    /// Where the power cuts of the life fall; drawn and printed when not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Live the device's life against a throw-away server with power cuts, and check nothing else.
    #[arg(long)]
    only_life: bool,
    /// The server [default: keyfleet beside this program].
    #[arg(long)]
    keyfleet: Option<PathBuf>,
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
    if !arguments.only_life {
        show(vectors::run(&arguments.images.join("vectors-image"), &arguments.vectors)?)?;
        show(core_costs(&arguments.images.join("core-image"))?)?;
        let measured = figures::measure(&arguments.images.join("figures-image"))?;
        if arguments.update {
            figures::update(&arguments.manual, &measured)?;
        }
        show(figures::compare(&arguments.manual, &measured)?)?;
        show(vec![figures::derivation_ratio(&measured)?])?;
    }
    if !arguments.only_life {
        return Ok(all_hold);
    }
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => drawn_seed()?,
    };
    let keyfleet = match &arguments.keyfleet {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("keyfleet"),
    };
    let lived = life::run(&keyfleet, &arguments.images.join("device-image"), seed);
    show(lived.map_err(|error| format!("the life with seed {seed}: {error}"))?)?;
    Ok(all_hold)
}

fn drawn_seed() -> std::io::Result<u64> {
    let mut seed = [0; 4];
    crate::noise::fill(&mut seed)?;
    Ok(u32::from_le_bytes(seed).into())
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

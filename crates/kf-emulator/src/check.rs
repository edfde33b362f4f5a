//! Everything that must hold of the firmware.

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::figures::Figure;
use crate::machine::Machine;
use crate::report::{Format, Row, print};
use crate::target::Target;
use crate::{figures, life, size, vectors};

/// The image of a whole device, which is built for one target.
const DEVICE_IMAGE: &str = "device-image";
/// The images of examples/c/bare-metal, linked with the C library.
const C_DEVICE_IMAGE: &str = "c-device-image";
const C_VECTORS_IMAGE: &str = "c-vectors-image";
/// What the core may take: derivation and sealing, opening included.
const fn flash_limit_octets(target: Target) -> u64 {
    match target {
        Target::CortexM4 => 24 * 1024,
    }
}
const STACK_LIMIT_OCTETS: u64 = 4 * 1024;

/// What to check, and where it lies.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A folder with built images; may be given once for each target.
    #[arg(long, required = true)]
    images: Vec<PathBuf>,
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
    #[arg(long, conflicts_with = "update")]
    only_life: bool,
    /// The image that lives: `c-device-image` is the one in C.
    #[arg(long, default_value = DEVICE_IMAGE)]
    device_image: String,
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
    for images in arguments.images.iter().filter(|_| !arguments.only_life) {
        show(check_target(arguments, images)?)?;
    }
    let device = &arguments.device_image;
    if let Some(image) = arguments.images.iter().map(|images| images.join(device)).find(|image| image.exists()) {
        show(live(arguments, &image)?)?;
    } else {
        return Err(format!("no folder of images holds {device}").into());
    }
    Ok(all_hold)
}

/// Vectors, budgets and figures of the images of one target.
fn check_target(arguments: &Arguments, images: &Path) -> Result<Vec<Row>, Box<dyn Error>> {
    let core = images.join("core-image");
    let target = Target::of(&core)?;
    let mut rows = vectors::run(&images.join("vectors-image"), &arguments.vectors)?;
    rows.extend(vectors::run(&images.join(C_VECTORS_IMAGE), &arguments.vectors)?.into_iter().map(in_c));
    let mut measured = figures::measure(&images.join("figures-image"))?;
    rows.push(figures::derivation_ratio(&measured)?);
    let core = core_costs(&core)?;
    rows.extend(budget(target, &core));
    measured.push(core);
    for (image, name) in [(DEVICE_IMAGE, "image: a whole device"), (C_DEVICE_IMAGE, "image: a whole device in C")] {
        let image = images.join(image);
        if image.exists() {
            let (name, flash_octets) = (name.to_owned(), Some(size::flash_octets(&image)?));
            measured.push(Figure { name, flash_octets, ..Figure::default() });
        }
    }
    if arguments.update {
        figures::update(&arguments.manual, target, &measured)?;
    }
    rows.extend(figures::compare(&arguments.manual, target, &measured)?);
    for row in &mut rows {
        row.target = Some(target.name());
    }
    Ok(rows)
}

/// The same check of the C library.
fn in_c(row: Row) -> Row {
    Row { what: format!("{}, in C", row.what), ..row }
}

fn live(arguments: &Arguments, image: &Path) -> Result<Vec<Row>, Box<dyn Error>> {
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => drawn_seed()?,
    };
    let keyfleet = match &arguments.keyfleet {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("keyfleet"),
    };
    let lived = life::run(&keyfleet, image, seed);
    lived.map_err(|error| format!("the life with seed {seed} (`--seed {seed}` repeats it): {error}").into())
}

fn drawn_seed() -> std::io::Result<u64> {
    let mut seed = [0; 4];
    crate::noise::fill(&mut seed)?;
    Ok(u32::from_le_bytes(seed).into())
}

/// Flash and stack of an image that derives, seals and opens, and does nothing else.
fn core_costs(image: &Path) -> Result<Figure, Box<dyn Error>> {
    let (status, said) = Machine::start(image)?.ended()?;
    let stack_octets: u64 = said
        .lines()
        .rev()
        .find_map(|line| line.trim().parse().ok())
        .filter(|_| status.success())
        .ok_or_else(|| format!("the core image did not seal and open ({status}): {said}"))?;
    Ok(Figure {
        name: "image: derive, seal, open".to_owned(),
        instructions: None,
        stack_octets: Some(stack_octets),
        flash_octets: Some(size::flash_octets(image)?),
    })
}

fn budget(target: Target, core: &Figure) -> [Row; 2] {
    let row = |what: &str, octets: Option<u64>, limit: u64| Row {
        what: what.to_owned(),
        found: octets.map_or_else(|| "not measured".to_owned(), |octets| format!("{octets} octets")),
        limit: format!("at most {limit}"),
        holds: octets.is_some_and(|octets| octets <= limit),
        target: None,
    };
    [
        row("flash of derivation and sealing", core.flash_octets, flash_limit_octets(target)),
        row("stack of derivation and sealing", core.stack_octets, STACK_LIMIT_OCTETS),
    ]
}

//! One emulated device from the command line: its fuses and its flash are in a folder.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kf_device::certificate::Certificate;
use kf_key::DeviceId;

use crate::bridge::{Board, Command};
use crate::fuses::{Fuses, NoiseState};
use crate::modem::Server;
use crate::server::pem;

/// What can be done with a device.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Burn the fuses of a new device
    Make(Make),
    /// Get a certificate, or renew the one in use
    Enrol {
        #[command(flatten)]
        device: Device,
        #[command(flatten)]
        server: ServerArguments,
        /// The file with the one-time code
        #[arg(long)]
        code_file: Option<PathBuf>,
        /// Renew at once
        #[arg(long)]
        renew: bool,
        /// Where to write the certificate, DER
        #[arg(long)]
        out: PathBuf,
    },
    /// Get the newest device key
    Exchange {
        #[command(flatten)]
        device: Device,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Seal what comes on standard input
    Seal {
        #[command(flatten)]
        device: Device,
        /// The service
        #[arg(long)]
        service: String,
        /// Where to write the envelope
        #[arg(long)]
        out: PathBuf,
    },
    /// Open an envelope of the server, and print the plaintext
    Open {
        #[command(flatten)]
        device: Device,
        /// The service
        #[arg(long)]
        service: String,
        /// The envelope
        file: PathBuf,
    },
    /// Fetch the order that waits, obey it and answer it
    Orders {
        #[command(flatten)]
        device: Device,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Destroy every key
    Destroy {
        #[command(flatten)]
        device: Device,
    },
    /// Show what the device holds
    Show {
        #[command(flatten)]
        device: Device,
    },
}

/// A new device.
#[derive(Debug, Args)]
pub(crate) struct Make {
    /// The folder to make
    #[arg(long)]
    folder: PathBuf,
    /// Its id in the registry
    #[arg(long)]
    device: DeviceId,
    /// Its name in the registry
    #[arg(long)]
    name: String,
    /// Its product line
    #[arg(long)]
    product_line: String,
    /// The root to trust, PEM
    #[arg(long)]
    root: PathBuf,
    /// The public keys to pin, PEM: the delivery key, then the order key
    #[arg(long)]
    pins: Option<PathBuf>,
    /// What the designer of the board declares about the noise source
    #[arg(long, value_enum, default_value_t = NoiseState::PhysicalOn)]
    noise: NoiseState,
}

/// Which device.
#[derive(Debug, Args)]
pub(crate) struct Device {
    /// The folder of the device
    #[arg(long)]
    folder: PathBuf,
    /// The firmware that it runs
    #[arg(long)]
    image: PathBuf,
}

/// Which server.
#[derive(Debug, Args)]
pub(crate) struct ServerArguments {
    /// Its address, `https://host:port`
    #[arg(long)]
    server: String,
    /// A root that the modem has at hand, PEM; whether it is believed, the firmware says
    #[arg(long)]
    root: PathBuf,
}

impl ServerArguments {
    fn read(self) -> Result<Server, Box<dyn Error>> {
        Ok(Server { url: self.server, root: first_block(&self.root)? })
    }
}

fn first_block(path: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let block = pem(&std::fs::read_to_string(path)?).into_iter().next();
    Ok(block.ok_or_else(|| format!("{} holds no PEM block", path.display()))?)
}

/// Carries out a verb.
///
/// # Errors
/// When the device refuses, or does not run.
pub(crate) fn run(verb: Verb) -> Result<(), Box<dyn Error>> {
    match verb {
        Verb::Make(new) => make(new),
        Verb::Enrol { device, server, code_file, renew, out } => {
            let code = code_file.map(std::fs::read).transpose()?.unwrap_or_default();
            let server = Some(server.read()?);
            let certificate = tell(&device, server, Command::Enrol, &[code.trim_ascii(), &[u8::from(renew)]])?;
            Ok(std::fs::write(out, certificate)?)
        }
        Verb::Exchange { device, server } => {
            let place = tell(&device, Some(server.read()?), Command::Exchange, &[])?;
            Ok(say(&place_text(&place))?)
        }
        Verb::Seal { device, service, out } => {
            let mut plaintext = Vec::new();
            std::io::stdin().lock().read_to_end(&mut plaintext)?;
            Ok(std::fs::write(out, tell(&device, None, Command::Seal, &[service.as_bytes(), &plaintext])?)?)
        }
        Verb::Open { device, service, file } => {
            let plaintext = tell(&device, None, Command::Open, &[service.as_bytes(), &std::fs::read(file)?])?;
            Ok(std::io::stdout().lock().write_all(&plaintext)?)
        }
        Verb::Orders { device, server } => {
            let report = tell(&device, Some(server.read()?), Command::Orders, &[])?;
            Ok(say(if report.is_empty() { "no order waits" } else { "obeyed, and the server has the signed report" })?)
        }
        Verb::Destroy { device } => match tell(&device, None, Command::Destroy, &[])?.as_slice() {
            [1] => Ok(say("every key is erased, and its cells were read back")?),
            _ => Err("the keys are overwritten; the cells were not read back".into()),
        },
        Verb::Show { device } => show(&tell(&device, None, Command::Show, &[])?),
    }
}

fn make(new: Make) -> Result<(), Box<dyn Error>> {
    use base64::Engine as _;
    let Make { folder, device, name, product_line, root, pins, noise } = new;
    let pins = pins.map(std::fs::read_to_string).transpose()?.map(|text| pem(&text)).unwrap_or_default();
    let pin =
        |place: usize| pins.get(place).map(|der| base64::prelude::BASE64_STANDARD.encode(der)).unwrap_or_default();
    let anchor = hex::encode(Certificate::from_der(&first_block(&root)?)?.fingerprint());
    let fuses = Fuses { device, name, label: product_line, anchor, noise, delivery: pin(0), orders: pin(1) };
    Ok(fuses.burn(&folder)?)
}

fn tell(
    device: &Device,
    server: Option<Server>,
    command: Command,
    arguments: &[&[u8]],
) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut board = Board::new(&device.folder, server)?;
    let (mut running, _evidence) = board.start(&device.image)?;
    Ok(running.tell(command, arguments)?)
}

fn show(state: &[u8]) -> Result<(), Box<dyn Error>> {
    let (front, certificate) = state.split_first_chunk::<25>().ok_or("the device said something else")?;
    let (noise, place) = front.split_first().ok_or("the device said something else")?;
    say(if *noise == 1 { "noise source: physical, on" } else { "noise source: not declared as physical and on" })?;
    say(&place_text(place))?;
    match certificate {
        [] => say("no certificate")?,
        der => say(&format!("certificate: sha256 {}", hex::encode(Certificate::from_der(der)?.fingerprint())))?,
    }
    Ok(())
}

/// Facility 16, facility epoch, device epoch.
fn place_text(place: &[u8]) -> String {
    let epoch =
        |at: usize| place.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_be_bytes(*four));
    if epoch(20) == 0 {
        return "no device key".to_owned();
    }
    let facility = hex::encode(place.get(..16).unwrap_or_default());
    format!("device key: facility fac_{facility}, facility epoch {}, device epoch {}", epoch(16), epoch(20))
}

fn say(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")
}

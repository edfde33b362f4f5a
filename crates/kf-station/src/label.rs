//! Labels: a QR code with the claim of a device, and the one-time code in characters that people read aloud.
//!
//! The code has 100 bits and a check character ([`kf_enrol::code`]). A label is a secret until it is claimed: files have mode
//! 0600, and a photographed label alone claims nothing.

mod pdf;
mod raster;
mod svg;
mod zpl;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use kf_api::ShownOnce;
use kf_enrol::claim::claim_uri_of_key;
use kf_enrol::code::EnrolmentCode;
use kf_key::SecretBytes;
use qrcode::{Color, EcLevel, QrCode};
use serde::{Deserialize, Serialize};

pub use pdf::{MAX_LABELS, sheet_pdf};

/// Modules of the quiet zone (ISO/IEC 18004 section 6.3.8).
const QUIET_ZONE: usize = 4;

/// Why a label is not drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// The claim is too long for a QR code: a very long server name.
    #[error("the claim does not fit a QR code: use a shorter server name")]
    TooLong,
    /// More labels than a sheet file takes.
    #[error("at most {MAX_LABELS} labels in one file")]
    TooMany,
    /// PNG encoding.
    #[error("the image cannot be encoded")]
    Png(#[source] png::EncodingError),
}

/// What stands on a label.
#[derive(Debug)]
pub struct Label {
    sku: String,
    name: String,
    claim: ShownOnce,
    code: ShownOnce,
}

#[derive(Serialize)]
struct Store<'a> {
    sku: &'a str,
    name: &'a str,
    claim: &'a str,
    code: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    sku: String,
    name: String,
    claim: ShownOnce,
    code: ShownOnce,
}

/// Counts what is written.
#[derive(Default)]
struct Size(usize);

impl io::Write for Size {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(octets.len());
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Label {
    /// The label of a device.
    #[must_use]
    pub fn new(
        sku: &str,
        name: &str,
        server: &str,
        code: &EnrolmentCode,
        root_sha256: &[u8; 32],
        key_sha256: &[u8; 32],
    ) -> Self {
        let code = code.to_text();
        let claim = claim_uri_of_key(server, name, &code, root_sha256, key_sha256);
        Self { sku: sku.to_owned(), name: name.to_owned(), claim, code }
    }

    /// The name of the device.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The claim, as the QR code carries it.
    #[must_use]
    pub const fn claim(&self) -> &ShownOnce {
        &self.claim
    }

    /// As it lies in the spool. Written in its final size: a text that grows leaves copies of the code behind.
    fn to_stored(&self) -> io::Result<SecretBytes> {
        // Exposed to the spool, mode 0600: the label is printed from there.
        let (claim, code) = (self.claim.expose(), self.code.expose());
        let stored = Store { sku: &self.sku, name: &self.name, claim, code };
        let mut size = Size::default();
        serde_json::to_writer(&mut size, &stored)?;
        let mut written = Ok(());
        let octets = SecretBytes::fill(size.0, |octets| written = serde_json::to_writer(octets, &stored));
        written.map(|()| octets).map_err(io::Error::from)
    }

    /// Reads a label from the spool.
    #[must_use]
    pub fn from_stored(octets: &[u8]) -> Option<Self> {
        let Stored { sku, name, claim, code } = serde_json::from_slice(octets).ok()?;
        Some(Self { sku, name, claim, code })
    }

    /// The QR code: dark modules, row by row, without quiet zone.
    fn matrix(&self) -> Result<Matrix, LabelError> {
        // Exposed to the label: the QR code is the claim.
        let code = QrCode::with_error_correction_level(self.claim.expose(), EcLevel::M)
            .map_err(|_too_long| LabelError::TooLong)?;
        let width = code.width();
        Ok(Matrix { width, dark: code.into_colors().into_iter().map(|color| color == Color::Dark).collect() })
    }

    /// The QR code as PNG, eight pixels a module, with its quiet zone.
    ///
    /// # Errors
    /// [`LabelError`].
    pub fn to_png(&self) -> Result<Vec<u8>, LabelError> {
        raster::png(&self.matrix()?)
    }

    /// The whole label as SVG, 50 × 25 mm.
    ///
    /// # Errors
    /// [`LabelError`].
    pub fn to_svg(&self) -> Result<String, LabelError> {
        Ok(svg::label(&self.matrix()?, self))
    }

    /// The whole label in ZPL II, for a printer of 203 dots per inch; the printer draws the QR code.
    #[must_use]
    pub fn to_zpl(&self) -> String {
        zpl::label(self)
    }

    /// Lines of text beside the QR code.
    fn lines(&self) -> Vec<String> {
        // Exposed to the label: people type it.
        let code = self.code.expose();
        let (head, tail) = code.split_at_checked(12).unwrap_or((code, ""));
        [self.sku.as_str(), &self.name, head, tail].iter().map(|line| (*line).to_owned()).collect()
    }
}

struct Matrix {
    width: usize,
    dark: Vec<bool>,
}

impl Matrix {
    fn is_dark(&self, x: usize, y: usize) -> bool {
        x < self.width && self.dark.get(y * self.width + x).copied().unwrap_or(false)
    }

    /// Runs of dark modules: x, y, length.
    fn runs(&self) -> Vec<(usize, usize, usize)> {
        let mut runs = Vec::new();
        for y in 0..self.width {
            let mut x = 0;
            while x < self.width {
                let length = (x..self.width).take_while(|x| self.is_dark(*x, y)).count();
                if length > 0 {
                    runs.push((x, y, length));
                }
                x += length.max(1);
            }
        }
        runs
    }
}

/// Where labels go.
pub trait LabelSink: Send + Sync {
    /// Keeps a label durably, before its device is written. One of the same name is replaced.
    ///
    /// # Errors
    /// Of the disk.
    fn spool(&self, label: &Label) -> io::Result<()>;

    /// The device passed: its label may be printed.
    ///
    /// # Errors
    /// Of the disk.
    fn release(&self, name: &str) -> io::Result<()>;
}

/// No labels.
impl LabelSink for () {
    fn spool(&self, _label: &Label) -> io::Result<()> {
        Ok(())
    }

    fn release(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }
}

/// A directory: `spool/` until the device passes, `ready/` after.
#[derive(Debug)]
pub struct LabelDirectory(PathBuf);

impl LabelDirectory {
    /// Uses `directory`, making it when missing.
    ///
    /// # Errors
    /// Of the disk.
    pub fn open(directory: &Path) -> io::Result<Self> {
        for name in ["spool", "ready"] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory.join(name))?;
        }
        Ok(Self(directory.to_owned()))
    }

    /// The labels of devices that passed, in the order of their names, at most [`MAX_LABELS`].
    ///
    /// # Errors
    /// Of the disk.
    pub fn ready(&self) -> io::Result<Vec<Label>> {
        let mut paths: Vec<PathBuf> = fs::read_dir(self.0.join("ready"))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        paths.sort();
        paths.truncate(MAX_LABELS);
        let read = |path: &PathBuf| {
            let stored = SecretBytes::from_vec(fs::read(path)?);
            // Exposed to be read.
            Label::from_stored(stored.expose())
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{} is no label", path.display())))
        };
        paths.iter().map(read).collect()
    }

    fn path(&self, part: &str, name: &str) -> PathBuf {
        // Names of devices have no slash; those that the alphabet allows and a file system may not are spelled out.
        self.0.join(part).join(format!("{}.json", name.replace([':', '/'], "_")))
    }
}

impl LabelSink for LabelDirectory {
    fn spool(&self, label: &Label) -> io::Result<()> {
        let path = self.path("spool", &label.name);
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        // Exposed to the file.
        file.write_all(label.to_stored()?.expose())?;
        file.sync_all()?;
        File::open(self.0.join("spool"))?.sync_all()
    }

    fn release(&self, name: &str) -> io::Result<()> {
        match fs::rename(self.path("spool", name), self.path("ready", name)) {
            // Released before the power was cut.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path("ready", name).exists() => Ok(()),
            outcome => outcome,
        }
    }
}

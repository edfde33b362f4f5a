//! The devices of a file: CSV, or a manifest whose signatures are verified here.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kf_api::device::RowError;
use kf_api::vendor::VendorRow;
use kf_enrol::manifest::{self, EntryError, MAX_MANIFEST_OCTETS};
use serde::Deserialize;

use super::Form;
use crate::failure::Failure;
use crate::file;

/// What a file holds.
pub(super) struct Rows {
    /// Each with its number in the file.
    pub(super) rows: Vec<(u64, VendorRow)>,
    /// What is not even sent.
    pub(super) refused: Vec<RowError>,
    /// For the log: the form and the SHA-256 of the file.
    pub(super) source: String,
}

pub(super) fn read(path: &Path, form: Form, signer: Option<&Path>) -> Result<Rows, Failure> {
    let text = whole(path)?;
    let digest = hex::encode(kf_crypto::sha256(&text));
    let (rows, name) = match form {
        Form::Csv if signer.is_some() => {
            return Err(Failure::usage("a CSV file is not signed", "leave --signer out, or give --form microchip"));
        }
        Form::Csv => (csv(path, &text)?, "csv"),
        Form::Microchip => {
            let signer = signer.ok_or_else(|| {
                Failure::usage(
                    "the signer of the manifest is not given",
                    "give --signer FILE: the certificate that the vendor publishes apart from the manifest",
                )
            })?;
            (microchip(path, &text, signer)?, "microchip")
        }
    };
    let mut read = Rows { rows: Vec::new(), refused: Vec::new(), source: format!("{name} {digest}") };
    for (number, row) in (1..).zip(rows) {
        match row {
            Ok(row) => read.rows.push((number, row)),
            Err((field, problem, remedy)) => {
                let (field, remedy) = (field.to_owned(), remedy.to_owned());
                read.refused.push(RowError { row: number, field, problem, remedy });
            }
        }
    }
    Ok(read)
}

type Row = Result<VendorRow, (&'static str, String, &'static str)>;

fn whole(path: &Path) -> Result<Vec<u8>, Failure> {
    let limit = u64::try_from(MAX_MANIFEST_OCTETS).unwrap_or(u64::MAX);
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut text))
        .map_err(|error| Failure::file("read", path, error))?;
    if text.len() > MAX_MANIFEST_OCTETS {
        let problem = format!("{} is larger than 64 MiB", path.display());
        return Err(Failure::usage(problem, "split the file; what is there already is left alone"));
    }
    Ok(text)
}

/// A row of CSV. Absent columns are empty.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CsvRow {
    #[serde(default)]
    name: String,
    #[serde(default)]
    identifier: String,
    #[serde(default)]
    certificate: String,
}

fn csv(path: &Path, text: &[u8]) -> Result<Vec<Row>, Failure> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
    let header =
        reader.headers().map_err(|error| Failure::local(format!("{}: {error}", path.display()), CSV_REMEDY))?;
    if !header.iter().any(|column| matches!(column, "identifier" | "certificate")) {
        let problem = format!("{} has neither a column identifier nor a column certificate", path.display());
        return Err(Failure::usage(problem, CSV_REMEDY));
    }
    Ok(reader.deserialize::<CsvRow>().map(|row| row_of_csv(row)).collect())
}

const CSV_REMEDY: &str = "begin the file with a header line of certificate, identifier, name";

fn row_of_csv(row: Result<CsvRow, csv::Error>) -> Row {
    let CsvRow { name, identifier, certificate } =
        row.map_err(|error| ("row", error.to_string(), "give each row the columns of the header"))?;
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let chain_pem = if certificate.is_empty() || certificate.starts_with("-----BEGIN ") {
        some(certificate)
    } else {
        let der = STANDARD.decode(certificate.as_bytes()).map_err(|_not_base64| {
            ("certificate", "is neither PEM nor base64".to_owned(), "give PEM in quotes, or base64 of DER")
        })?;
        Some(kf_pki::pem::certificate(&der))
    };
    Ok(VendorRow { name: some(name), identifier: some(identifier), chain_pem })
}

fn microchip(path: &Path, text: &[u8], signer: &Path) -> Result<Vec<Row>, Failure> {
    let certificates = kf_pki::pem::decode_all("CERTIFICATE", &file::read_text(signer)?);
    let Some([signer]) = certificates.as_deref() else {
        let problem = format!("{} holds no single certificate", signer.display());
        return Err(Failure::usage(problem, "give the PEM of the certificate that signed the manifest"));
    };
    let elements = manifest::read(text, signer).map_err(|error| {
        Failure::usage(
            format!("{}: {error}", path.display()),
            "check that these are the manifest and the certificate of who signed it",
        )
    })?;
    Ok(elements
        .into_iter()
        .map(|element| match element {
            Ok(element) => Ok(VendorRow {
                name: Some(element.unique_id.clone()),
                identifier: Some(element.unique_id),
                chain_pem: Some(element.chain.iter().map(|der| kf_pki::pem::certificate(der)).collect()),
            }),
            Err(error) => Err(("entry", error.to_string(), remedy_of(error))),
        })
        .collect())
}

const fn remedy_of(error: EntryError) -> &'static str {
    match error {
        EntryError::Signature | EntryError::OtherSigner => {
            "get manifest and signer's certificate from the vendor again: do not trust this entry"
        }
        EntryError::NoCertificate => {
            "such parts have no certificate: import them as CSV with certificates of your own CA"
        }
        _ => "get the manifest from the vendor again",
    }
}

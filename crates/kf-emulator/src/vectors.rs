//! The published vectors, computed again by the microcontroller.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::machine::{Machine, MachineError};
use crate::report::Row;
use crate::request::{self, Request};

/// Why the vectors could not be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VectorsError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("{path} cannot be read")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is no file of vectors")]
    Form { path: PathBuf, source: serde_json::Error },
    #[error("vector {name:?}: {what}")]
    Vector { name: String, what: &'static str },
}

#[derive(Deserialize)]
struct Derivations {
    codes: Codes,
    vectors: Vec<Derivation>,
}

#[derive(Deserialize)]
struct Codes {
    level: std::collections::BTreeMap<String, u8>,
    algorithm: std::collections::BTreeMap<String, u8>,
}

#[derive(Deserialize)]
struct Derivation {
    name: String,
    operation: String,
    output: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    level: String,
    #[serde(default)]
    algorithm: String,
    #[serde(default)]
    purpose: String,
    #[serde(default)]
    inputs: Inputs,
    #[serde(default)]
    epoch: u32,
    #[serde(default)]
    info: String,
    #[serde(default)]
    salt: String,
    #[serde(default)]
    input: String,
}

/// The parts of a context, in their order.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Inputs {
    facility_id: String,
    device_id: String,
    device_salt: String,
    sender: String,
    boot_random: String,
    transcript_hash: String,
    label: String,
}

impl Inputs {
    fn context(&self) -> String {
        let Self { facility_id, device_id, device_salt, sender, boot_random, transcript_hash, label } = self;
        [facility_id, device_id, device_salt, sender, boot_random, transcript_hash, label].map(String::as_str).concat()
    }
}

#[derive(Deserialize)]
struct Seals {
    vectors: Vec<Seal>,
    refused: Vec<Refused>,
}

#[derive(Deserialize)]
struct Seal {
    name: String,
    device_key: String,
    device: String,
    facility_epoch: u32,
    device_epoch: u32,
    sender: String,
    service: String,
    alg: u8,
    boot_number: u32,
    boot_random: String,
    counter: u32,
    external_aad: String,
    plaintext: String,
    envelope: String,
}

#[derive(Deserialize)]
struct Refused {
    name: String,
    external_aad: String,
    envelope: String,
}

/// Runs every vector of both files in `folder` on the machine that `image` is for.
///
/// # Errors
/// [`VectorsError`] when something could not be run; a vector that comes out differently is a row that does not hold.
pub(crate) fn run(image: &Path, folder: &Path) -> Result<Vec<Row>, VectorsError> {
    let mut machine = Machine::start(image)?;
    let derivations: Derivations = read(&folder.join("derive.json"))?;
    let seals: Seals = read(&folder.join("seal.json"))?;
    Ok(vec![derive(&mut machine, &derivations)?, seal(&mut machine, &seals)?, open(&mut machine, &seals)?])
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, VectorsError> {
    let text = std::fs::read_to_string(path).map_err(|source| VectorsError::Read { path: path.to_owned(), source })?;
    serde_json::from_str(&text).map_err(|source| VectorsError::Form { path: path.to_owned(), source })
}

/// Counts what agrees; the first that does not is named.
struct Tally {
    what: &'static str,
    agree: usize,
    differ: Vec<String>,
}

impl Tally {
    const fn new(what: &'static str) -> Self {
        Self { what, agree: 0, differ: Vec::new() }
    }

    fn add(&mut self, name: &str, agrees: bool) {
        if agrees {
            self.agree += 1;
        } else {
            self.differ.push(name.to_owned());
        }
    }

    fn row(self) -> Row {
        let Self { what, agree, differ } = self;
        let found = match differ.first() {
            None => format!("{agree} agree"),
            Some(first) => format!("{agree} agree, {} differ, the first is {first:?}", differ.len()),
        };
        Row {
            what: what.to_owned(),
            found,
            limit: "all".to_owned(),
            holds: differ.is_empty() && agree > 0,
            target: None,
        }
    }
}

fn derive(machine: &mut Machine, file: &Derivations) -> Result<Row, VectorsError> {
    let mut tally = Tally::new("vectors/derive.json");
    for vector in file.vectors.iter().filter(|vector| vector.operation != "given") {
        let answer = match vector.operation.as_str() {
            "step" => step(machine, &file.codes, vector, request::STEP)?,
            "counter-step" => step(machine, &file.codes, vector, request::COUNTER_STEP)?,
            "extract" => Request::new(request::EXTRACT).hex(&vector.salt).hex(&vector.input).ask(machine)?,
            "rfc-5869" => rfc_5869(machine, vector)?,
            _ => return Err(vector.bad("its operation is unknown")),
        };
        let expected = match vector.operation.as_str() {
            "step" | "counter-step" => format!("{:02x}{}{}", vector.info.len() / 2, vector.info, vector.output),
            _ => vector.output.clone(),
        };
        tally.add(&vector.name, answer.is_some_and(|answer| hex::encode(answer) == expected));
    }
    Ok(tally.row())
}

impl Derivation {
    fn bad(&self, what: &'static str) -> VectorsError {
        VectorsError::Vector { name: self.name.clone(), what }
    }
}

fn step(
    machine: &mut Machine,
    codes: &Codes,
    vector: &Derivation,
    operation: u8,
) -> Result<Option<Vec<u8>>, VectorsError> {
    let level = codes.level.get(&vector.level).ok_or_else(|| vector.bad("its level is unknown"))?;
    let algorithm = codes.algorithm.get(&vector.algorithm).ok_or_else(|| vector.bad("its algorithm is unknown"))?;
    let request = Request::new(operation).hex(&vector.key).octet(*level).octet(*algorithm).text(&vector.purpose);
    Ok(request.hex(&vector.inputs.context()).number(vector.epoch).ask(machine)?)
}

/// Extract, then one HMAC over `info || 01`.
fn rfc_5869(machine: &mut Machine, vector: &Derivation) -> Result<Option<Vec<u8>>, VectorsError> {
    let extracted = Request::new(request::EXTRACT).hex(&vector.salt).hex(&vector.input).ask(machine)?;
    let Some(prk) = extracted else { return Ok(None) };
    let message = format!("{}01", vector.info);
    Ok(Request::new(request::HMAC).octets(&prk).hex(&message).ask(machine)?)
}

/// Up to the service: where the application key is.
fn place(operation: u8, vector: &Seal) -> Request {
    let sender = if vector.sender == "server" { 2 } else { 1 };
    let request = Request::new(operation).hex(&vector.device_key).hex(&vector.device).number(vector.facility_epoch);
    request.number(vector.device_epoch).octet(sender).text(&vector.service)
}

fn seal(machine: &mut Machine, file: &Seals) -> Result<Row, VectorsError> {
    let mut tally = Tally::new("vectors/seal.json, sealed");
    for vector in &file.vectors {
        let request = place(request::SEAL, vector).octet(vector.alg).number(vector.boot_number);
        let request = request.hex(&vector.boot_random).number(vector.counter).hex(&vector.external_aad);
        let envelope = request.hex(&vector.plaintext).ask(machine)?;
        tally.add(&vector.name, envelope.is_some_and(|envelope| hex::encode(envelope) == vector.envelope));
    }
    Ok(tally.row())
}

fn open(machine: &mut Machine, file: &Seals) -> Result<Row, VectorsError> {
    let mut tally = Tally::new("vectors/seal.json, opened and refused");
    for vector in &file.vectors {
        let request = place(request::OPEN, vector).hex(&vector.external_aad).hex(&vector.envelope);
        let plaintext = request.ask(machine)?;
        tally.add(&vector.name, plaintext.is_some_and(|plaintext| hex::encode(plaintext) == vector.plaintext));
    }
    // The envelopes to refuse are variations of the first vector's.
    if let Some(first) = file.vectors.first() {
        for vector in &file.refused {
            let request = place(request::OPEN, first).hex(&vector.external_aad).hex(&vector.envelope);
            tally.add(&vector.name, request.ask(machine)?.is_none());
        }
    }
    Ok(tally.row())
}

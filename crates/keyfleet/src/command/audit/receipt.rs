//! `keyfleet audit verify-receipt`: a receipt, or the report of an incident, checked by whoever has the log's public key, without
//! asking anybody.

use std::path::PathBuf;

use clap::Args;
use kf_log::hash::leaf_hash;
use kf_log::proof::verify_inclusion;
use kf_log::{AuditEntry, Checkpoint, VerifierKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::Context;
use crate::failure::Failure;
use crate::file;
use crate::output::{Format, Listing, Names, object, printable, say};

/// The most entries of one document, and hashes of one proof.
const MAX_ENTRIES: usize = 100_000;
const MAX_PROOF: usize = 64;
const COLUMNS: [&str; 6] = ["index", "at", "who", "act", "subjects", "why"];

/// What to check.
#[derive(Debug, Args)]
pub(crate) struct VerifyReceipt {
    /// A customer's receipt, or an incident's report, as JSON
    file: PathBuf,
    /// The log's public key, `name+hash+key`, or a file that holds it: your own copy, not one that came with the receipt
    #[arg(long, value_name = "KEY|FILE")]
    verifier_key: String,
}

/// The parts that are checked; the others are for reading.
#[derive(Deserialize)]
struct Document {
    checkpoint: String,
    tree_size: u64,
    timeline: Vec<Entry>,
    #[serde(default)]
    record: Option<Value>,
    #[serde(default)]
    wipe: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    index: u64,
    leaf: String,
    leaf_sha256: String,
    proof: Vec<String>,
}

#[derive(Serialize)]
struct Verdict {
    holds: bool,
    origin: String,
    size: u64,
    statements: Vec<Value>,
    findings: Vec<String>,
}

pub(super) fn run(context: &Context, wanted: &VerifyReceipt) -> Result<(), Failure> {
    let key = key_of(&wanted.verifier_key)?;
    let text = file::read(&wanted.file)?;
    let name = wanted.file.display();
    let document: Document = serde_json::from_slice(&text).map_err(|error| {
        Failure::usage(format!("{name} is no receipt: {error}"), "give the JSON form; the printed page proves nothing")
    })?;
    let checkpoint = Checkpoint::open(&document.checkpoint, &key).map_err(|error| Failure::LogFault {
        problem: format!("the checkpoint in {name} is not signed by this key: {error}"),
    })?;
    let verdict = check(&document, &checkpoint);
    show(context, &verdict)?;
    match verdict.findings.first() {
        None => Ok(()),
        Some(first) => Err(Failure::LogFault { problem: printable(first) }),
    }
}

fn key_of(given: &str) -> Result<VerifierKey, Failure> {
    let text = if given.contains('+') { given.to_owned() } else { file::read_text(std::path::Path::new(given))? };
    VerifierKey::from_text(text.trim()).map_err(|error| {
        Failure::usage(error.to_string(), "give what the fleet's operator published, name+hash+key, or a file with it")
    })
}

fn check(document: &Document, checkpoint: &Checkpoint) -> Verdict {
    let (mut findings, mut statements, mut proven) = (Vec::new(), Vec::new(), Vec::new());
    if document.tree_size != checkpoint.size {
        let problem = format!("it says {} entries, the checkpoint {}", document.tree_size, checkpoint.size);
        findings.push(problem);
    }
    if document.timeline.is_empty() || document.timeline.len() > MAX_ENTRIES {
        findings.push(format!("{} entries are in it", document.timeline.len()));
    }
    for entry in document.timeline.iter().take(MAX_ENTRIES) {
        match prove(entry, checkpoint) {
            Ok(found) => {
                statements.push(statement(entry.index, &found));
                proven.push((entry.index, found));
            }
            Err(problem) => findings.push(format!("entry {}: {problem}", entry.index)),
        }
    }
    if let Some(record) = &document.record {
        findings.extend(unsupported(record, document.wipe.as_deref(), &proven));
    }
    Verdict {
        holds: findings.is_empty(),
        origin: checkpoint.origin.clone(),
        size: checkpoint.size,
        statements,
        findings,
    }
}

/// The entry, if it is in the tree that was signed.
fn prove(entry: &Entry, checkpoint: &Checkpoint) -> Result<AuditEntry, String> {
    let leaf = entry.leaf.as_bytes();
    if hex::encode(leaf_hash(leaf)) != entry.leaf_sha256 {
        return Err("its text is not what its hash is of: it was edited".to_owned());
    }
    if entry.proof.len() > MAX_PROOF {
        return Err("its proof is longer than any".to_owned());
    }
    let mut proof = Vec::with_capacity(entry.proof.len());
    for hash in &entry.proof {
        let mut octets = [0; 32];
        hex::decode_to_slice(hash, &mut octets).map_err(|_detail| "its proof is not hexadecimal".to_owned())?;
        proof.push(octets);
    }
    verify_inclusion(leaf, entry.index, checkpoint.size, &checkpoint.root, &proof)
        .map_err(|_fails| "it does not stand there in the log that was signed".to_owned())?;
    serde_json::from_slice(leaf).map_err(|_detail| "it is no entry of a known version".to_owned())
}

fn statement(index: u64, entry: &AuditEntry) -> Value {
    json!({
        "index": index, "at": entry.at, "who": entry.who.name, "act": entry.act, "subjects": entry.subjects, "why": entry.why,
        "detail": entry.detail,
    })
}

/// What the readable part says and no entry does.
fn unsupported(record: &Value, wipe: Option<&str>, proven: &[(u64, AuditEntry)]) -> Vec<String> {
    let text = |field: &str| record.get(field).and_then(Value::as_str);
    let index = record.get("log_index").and_then(Value::as_u64);
    let Some((_, entry)) = proven.iter().find(|(at, entry)| Some(*at) == index && entry.act == "ownership.end") else {
        return vec!["the record names no entry that says what it says".to_owned()];
    };
    let mut findings = Vec::new();
    let mut compare = |field: &str, said: Option<&str>, signed: Option<&str>| {
        if said.unwrap_or_default() != signed.unwrap_or_default() {
            findings.push(format!("{field}: the receipt says {said:?}, the signed entry {signed:?}"));
        }
    };
    let signed = |field: &str| entry.detail.get(field).map(String::as_str);
    for (field, detail) in [
        ("device_name", "device"),
        ("end", "end"),
        ("idevid", "idevid"),
        ("device_keys", "device_keys"),
        ("customer", "customer"),
        ("proposed_by", "proposed_by"),
        ("approved_by", "approved_by"),
        ("destruction", "destruction"),
        ("order", "order"),
        ("order_act", "order_act"),
        ("replacement", "replacement"),
    ] {
        compare(field, text(field), signed(detail));
    }
    compare("device", text("device"), entry.subjects.first().map(String::as_str));
    compare("why", text("why"), Some(&entry.why));
    let list = |field: &str, between: &str| {
        let items = record.get(field).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).collect::<Vec<_>>().join(between)
    };
    compare("ldevids", Some(&list("ldevids", ", ")), signed("ldevids_revoked"));
    compare("exceptions", Some(&list("exceptions", "; ")), signed("exceptions"));
    let is_answered = proven.iter().any(|(_, entry)| {
        let says = |field: &str, value| entry.detail.get(field).map(String::as_str) == value;
        entry.act == "order.answer" && says("outcome", Some("done")) && says("act", text("order_act"))
    });
    if wipe == Some("executed") && !is_answered {
        findings
            .push("wipe: the receipt says that the device has obeyed its order, and no signed entry does".to_owned());
    }
    findings
}

fn show(context: &Context, verdict: &Verdict) -> Result<(), Failure> {
    if context.format != Format::Table {
        return object(context.format, verdict, &Names::new());
    }
    let mut listing = Listing::new(context.format, &COLUMNS);
    listing.rows(&verdict.statements, &Names::new())?;
    listing.end(None)?;
    for finding in &verdict.findings {
        say(&format!("fault: {}", printable(finding)));
    }
    if verdict.holds {
        let Verdict { origin, size, statements, .. } = verdict;
        say(&format!("holds: {} entries of the log {} ({size} entries) say so", statements.len(), printable(origin)));
    }
    Ok(())
}

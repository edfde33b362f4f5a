//! The published vectors, computed inside a back end.

use std::collections::BTreeMap;

use kf_derive::{Info, Level};
use kf_key::SecretArray;
use serde::Deserialize;

use super::Nonconformance;
use crate::{BackendError, KeyBackend, RootUse};

const PUBLISHED: &str = include_str!("../../../../vectors/derive.json");

#[derive(Deserialize)]
struct Document {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    operation: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    info: String,
    output: String,
}

/// What [`check_vectors`] covered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Steps computed inside the back end, equal to the published output.
    pub steps: usize,
    /// Steps that a back end that only wraps refused.
    pub refused: usize,
    /// Keys that the back end hosted, one for each parent in the tree.
    pub hosts: usize,
}

/// Puts a key into the back end in the role of its root.
pub type Host<'a> = dyn FnMut(&SecretArray<32>) -> Result<Box<dyn KeyBackend>, BackendError> + 'a;

/// Puts every parent of the published tree, at whatever level, into a back end by `host`, and compares what is derived
/// there with `vectors/derive.json`. The one before is dropped before the next is hosted.
///
/// # Errors
/// The first [`Nonconformance`].
pub fn check_vectors(host: &mut Host<'_>) -> Result<Covered, Nonconformance> {
    let unreadable = || Nonconformance::Rule { rule: "the published vectors can be read", algorithm: None };
    let document: Document = serde_json::from_str(PUBLISHED).map_err(|_malformed| unreadable())?;
    let mut by_key: BTreeMap<String, Vec<(String, Info, Vec<u8>)>> = BTreeMap::new();
    for vector in document.vectors.into_iter().filter(|vector| vector.operation == "step") {
        let info = hex::decode(&vector.info).ok().and_then(|octets| Info::decode(&octets)).ok_or_else(unreadable)?;
        let output = hex::decode(&vector.output).map_err(|_not_hex| unreadable())?;
        by_key.entry(vector.key).or_default().push((vector.name, info, output));
    }
    let mut covered = Covered { steps: 0, refused: 0, hosts: 0 };
    for (key, steps) in by_key {
        let key =
            SecretArray::try_fill(|octets| hex::decode_to_slice(&key, octets)).map_err(|_not_hex| unreadable())?;
        let backend = host(&key)?;
        covered.hosts += 1;
        for (name, info, output) in steps {
            check_step(&*backend, name, &info, &output, &mut covered)?;
        }
    }
    Ok(covered)
}

fn check_step(
    backend: &dyn KeyBackend,
    name: String,
    info: &Info,
    output: &[u8],
    covered: &mut Covered,
) -> Result<(), Nonconformance> {
    let derived = backend.expand_root(info);
    if backend.capabilities().root_use == RootUse::OnlyWraps && info.level() != Level::Wrapping {
        covered.refused += 1;
        return if derived.err() == Some(BackendError::OnlyWraps) { Ok(()) } else { Err(Nonconformance::Vector(name)) };
    }
    // Exposed to be compared with what is published.
    let is_published = derived?.expose().get(..usize::from(info.key_octets())) == Some(output);
    covered.steps += 1;
    if is_published { Ok(()) } else { Err(Nonconformance::Vector(name)) }
}

//! The suite that every back end passes, and the comparison of two back ends over the same root.

mod vectors;

use kf_derive::{Algorithm, Info, Level, Purpose};
use kf_key::{KeyAlgorithm, KeyId};

use crate::{BackendError, KeyBackend, KeyHandle, RootUse};

pub use vectors::{Covered, Host, check_vectors};

/// What a back end did not do as every back end must.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nonconformance {
    /// A rule that does not hold, for this algorithm if the rule is about one.
    #[error("{rule} (algorithm: {algorithm:?})")]
    Rule {
        /// The rule.
        rule: &'static str,
        /// Algorithm of the key pair in question.
        algorithm: Option<KeyAlgorithm>,
    },
    /// What it derived at the place of this vector is not what is published, or it derived where it must refuse.
    #[error("not the published key, or not the right refusal: {0}")]
    Vector(String),
    /// A call failed that must succeed.
    #[error("a call failed")]
    Call(#[from] BackendError),
}

/// Runs the whole suite. `keys` are two fresh identifiers; the key pairs made under them are destroyed again.
///
/// # Errors
/// The first [`Nonconformance`].
pub fn check(backend: &dyn KeyBackend, keys: [KeyId; 2]) -> Result<(), Nonconformance> {
    backend.health()?;
    check_expansion(backend)?;
    for algorithm in KeyAlgorithm::ALL {
        if backend.capabilities().holds(algorithm) {
            check_key_pair(backend, keys, algorithm)?;
        } else {
            let refused = backend.generate_key_pair(keys[0], algorithm) == Err(BackendError::Algorithm(algorithm));
            hold(refused, "an algorithm that is not declared is refused as such", Some(algorithm))?;
        }
    }
    let foreign = [
        KeyHandle::Wrapped { algorithm: KeyAlgorithm::P256, sealed: vec![0; 64] },
        KeyHandle::Token { algorithm: KeyAlgorithm::P256, label: "some other key".to_owned() },
    ];
    for handle in foreign {
        hold(backend.open_key(keys[0], &handle).is_err(), "a handle that it did not make does not open", None)?;
    }
    Ok(())
}

/// Compares what two back ends over the same root derive at every place that they are asked for.
///
/// # Errors
/// [`Nonconformance`] at the first difference.
pub fn check_same_root(one: &dyn KeyBackend, other: &dyn KeyBackend) -> Result<(), Nonconformance> {
    let only_wraps = [one, other].iter().any(|backend| backend.capabilities().root_use == RootUse::OnlyWraps);
    for info in places(if only_wraps { Level::Wrapping } else { Level::Facility }) {
        let equal = one.expand_root(&info)?.equals(&other.expand_root(&info)?);
        hold(equal, "back ends over one root derive the same keys", None)?;
    }
    Ok(())
}

fn hold(holds: bool, rule: &'static str, algorithm: Option<KeyAlgorithm>) -> Result<(), Nonconformance> {
    if holds { Ok(()) } else { Err(Nonconformance::Rule { rule, algorithm }) }
}

fn places(level: Level) -> Vec<Info> {
    let contexts: [&[u8]; 3] = [b"", b"facility", &[0xff; kf_derive::MAX_CONTEXT_OCTETS]];
    contexts
        .iter()
        .flat_map(|context| Purpose::ALL.map(|purpose| (purpose, *context)))
        .flat_map(|(purpose, context)| [0, 1, u32::MAX].map(|epoch| (purpose, context, epoch)))
        .filter_map(|(purpose, context, epoch)| Info::new(level, Algorithm::HkdfSha256, purpose, context, epoch).ok())
        .collect()
}

fn check_expansion(backend: &dyn KeyBackend) -> Result<(), Nonconformance> {
    check_levels(backend)?;
    let places = places(Level::Wrapping);
    hold(places.len() == 72, "the suite covers every purpose, context and epoch", None)?;
    let mut seen = Vec::with_capacity(places.len());
    for info in &places {
        let derived = backend.expand_root(info)?;
        hold(derived.equals(&backend.expand_root(info)?), "one place yields one key", None)?;
        hold(!seen.iter().any(|other| derived.equals(other)), "two places yield two keys", None)?;
        seen.push(derived);
    }
    Ok(())
}

/// A root that can be replaced derives at every level; one that cannot refuses all but wrapping keys.
fn check_levels(backend: &dyn KeyBackend) -> Result<(), Nonconformance> {
    for level in Level::ALL {
        let info = Info::new(level, Algorithm::HkdfSha256, Purpose::Derive, b"level", 1);
        let info = info.map_err(|_too_long| BackendError::Bug("info of a level"))?;
        let derived = backend.expand_root(&info);
        if backend.capabilities().root_use == RootUse::OnlyWraps && level != Level::Wrapping {
            let is_refused = derived.err() == Some(BackendError::OnlyWraps);
            hold(is_refused, "a key that cannot be replaced derives nothing but wrapping keys", None)?;
        } else {
            derived?;
        }
    }
    Ok(())
}

fn check_key_pair(
    backend: &dyn KeyBackend,
    [key, other_key]: [KeyId; 2],
    algorithm: KeyAlgorithm,
) -> Result<(), Nonconformance> {
    let rule = |holds, rule| hold(holds, rule, Some(algorithm));
    let pair = backend.generate_key_pair(key, algorithm)?;
    rule(KeyHandle::from_bytes(&pair.handle.to_bytes()).as_ref() == Ok(&pair.handle), "a handle survives storage")?;
    rule(pair.handle.algorithm() == algorithm, "a handle names its algorithm")?;
    rule(
        pair.handle.is_hardware() == backend.capabilities().is_hardware,
        "hardware makes hardware keys, software wrapped ones",
    )?;
    let opened = backend.open_key(key, &pair.handle)?;
    rule(opened.spki() == pair.spki && opened.algorithm() == algorithm, "an opened key is the generated one")?;
    let public = kf_crypto::public_key_of_spki(&pair.spki);
    let Ok((found, public_key)) = public else {
        return rule(false, "the public key is a canonical SubjectPublicKeyInfo");
    };
    rule(found == algorithm, "the public key is of the algorithm asked for")?;
    for message in [b"".as_slice(), b"message", &[0x5a; 10_000]] {
        let signature = opened.sign(message)?;
        let verifies = |message| kf_crypto::verify(algorithm, public_key, message, &signature).is_ok();
        rule(verifies(message), "a signature verifies under the public key")?;
        rule(!verifies(b"another message"), "a signature verifies for its message only")?;
    }
    rule(backend.open_key(other_key, &pair.handle).is_err(), "a handle opens under its own identifier only")?;
    let relabelled = relabel(&pair.handle);
    rule(backend.open_key(key, &relabelled).is_err(), "a handle opens under its own algorithm only")?;
    let second = backend.generate_key_pair(other_key, algorithm)?;
    rule(second.spki != pair.spki, "two keys are two keys")?;
    backend.destroy_key(other_key, &second.handle)?;
    backend.destroy_key(key, &pair.handle)?;
    if backend.capabilities().is_hardware {
        let gone = matches!(backend.open_key(key, &pair.handle), Err(BackendError::MissingKey { .. }));
        rule(gone, "a destroyed key is gone")?;
        rule(opened.sign(b"message").is_err(), "a key destroyed while open signs no more")?;
    }
    Ok(())
}

/// The same handle claiming another algorithm.
fn relabel(handle: &KeyHandle) -> KeyHandle {
    let other = |algorithm| if algorithm == KeyAlgorithm::P256 { KeyAlgorithm::P384 } else { KeyAlgorithm::P256 };
    match handle.clone() {
        KeyHandle::Wrapped { algorithm, sealed } => KeyHandle::Wrapped { algorithm: other(algorithm), sealed },
        KeyHandle::Token { algorithm, label } => KeyHandle::Token { algorithm: other(algorithm), label },
    }
}

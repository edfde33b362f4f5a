//! Which crate may use which, and what rules must never see. An arrow only ever points down.

use std::path::Path;

use super::source::Source;
use super::{Metadata, Violation};

const VOCABULARY: &[&str] = &["kf-key", "kf-derive", "kf-crypto", "kf-api"];

/// The crates of this workspace that a crate may use in what it ships, from the lowest layer up. Put new code in the
/// lowest layer that can hold it; a new arrow is a decision, and is added here. `dev-dependencies` are free, except for
/// the vocabulary.
const ARROWS: &[(&str, &[&str])] = &[
    // Vocabulary and primitives.
    ("kf-key", &[]),
    ("kf-derive", &["kf-key"]),
    ("kf-seal", &["kf-key", "kf-derive"]),
    ("kf-exchange", &["kf-key", "kf-derive"]),
    ("kf-crypto", &["kf-key"]),
    ("kf-api", &["kf-key"]),
    // Rules: decisions from arguments.
    ("kf-pki", &["kf-key", "kf-crypto"]),
    ("kf-log", &["kf-key", "kf-crypto"]),
    ("kf-entropy", &[]),
    ("kf-rotation", &["kf-key"]),
    ("kf-flash", &["kf-key"]),
    ("kf-escrow", &["kf-key", "kf-crypto"]),
    ("kf-access", &["kf-key", "kf-api"]),
    ("kf-incident", &["kf-key", "kf-crypto", "kf-api", "kf-access", "kf-rotation"]),
    ("kf-enrol", &["kf-key", "kf-crypto", "kf-api", "kf-pki"]),
    ("kf-batch", &["kf-key", "kf-crypto", "kf-api", "kf-pki"]),
    // Back ends: what keys, rows and brokers live in.
    ("kf-backend", &["kf-key", "kf-derive", "kf-crypto"]),
    ("kf-age", &["kf-key"]),
    ("kf-pkcs11", &["kf-key", "kf-derive", "kf-crypto", "kf-backend"]),
    ("kf-tpm", &["kf-key", "kf-derive", "kf-crypto", "kf-backend"]),
    ("kf-secure-element", &["kf-key", "kf-derive", "kf-exchange", "kf-crypto", "kf-backend"]),
    ("kf-store", &["kf-key", "kf-seal", "kf-api", "kf-log", "kf-access", "kf-batch"]),
    ("kf-mqtt", &[]),
    ("kf-broker", &["kf-key", "kf-crypto", "kf-api", "kf-mqtt"]),
    // Services.
    ("kf-device", &["kf-key", "kf-derive", "kf-seal", "kf-exchange", "kf-entropy", "kf-flash"]),
    (
        "kf-signer",
        &[
            "kf-key",
            "kf-derive",
            "kf-exchange",
            "kf-crypto",
            "kf-pki",
            "kf-log",
            "kf-batch",
            "kf-backend",
            "kf-pkcs11",
            "kf-tpm",
        ],
    ),
    (
        "kf-fleet",
        &[
            "kf-rotation",
            "kf-key",
            "kf-derive",
            "kf-exchange",
            "kf-seal",
            "kf-crypto",
            "kf-api",
            "kf-age",
            "kf-pki",
            "kf-log",
            "kf-access",
            "kf-enrol",
            "kf-batch",
            "kf-rotation",
            "kf-incident",
            "kf-backend",
            "kf-store",
            "kf-broker",
            "kf-signer",
        ],
    ),
    // Works offline: it never sees the server's store or its use cases, and what it made leaves as signed records.
    (
        "kf-station",
        &[
            "kf-key",
            "kf-derive",
            "kf-crypto",
            "kf-api",
            "kf-pki",
            "kf-enrol",
            "kf-batch",
            "kf-exchange",
            "kf-entropy",
            "kf-flash",
            "kf-backend",
            "kf-pkcs11",
            "kf-tpm",
            "kf-secure-element",
        ],
    ),
    // Surfaces: none of them sees the store or a back end.
    ("kf-server", &["kf-key", "kf-crypto", "kf-api", "kf-pki", "kf-log", "kf-access", "kf-enrol", "kf-fleet"]),
    ("kf-client", &["kf-key", "kf-crypto", "kf-api", "kf-pki"]),
    ("kf-ffi", &["kf-key", "kf-derive", "kf-seal", "kf-entropy", "kf-device"]),
    (
        "kf-agent",
        &[
            "kf-key",
            "kf-derive",
            "kf-seal",
            "kf-exchange",
            "kf-entropy",
            "kf-crypto",
            "kf-api",
            "kf-pki",
            "kf-backend",
            "kf-pkcs11",
            "kf-tpm",
            "kf-secure-element",
            "kf-mqtt",
            "kf-device",
            "kf-client",
        ],
    ),
    (
        "keyfleet",
        &[
            "kf-key",
            "kf-derive",
            "kf-crypto",
            "kf-api",
            "kf-age",
            "kf-pki",
            "kf-log",
            "kf-access",
            "kf-enrol",
            "kf-escrow",
            "kf-batch",
            "kf-flash",
            "kf-rotation",
            "kf-incident",
            "kf-broker",
            "kf-mqtt",
            "kf-signer",
            "kf-fleet",
            "kf-server",
            "kf-client",
            "kf-agent",
            "kf-station",
        ],
    ),
    // Tools.
    ("kf-testkit", VOCABULARY),
    ("xtask", &[]),
];

/// Tools that may use anything, and that nothing shipped uses.
const TOOLS: &[&str] = &["kf-bench", "kf-emulator"];

/// Crates whose code decides from its arguments: vocabulary and rules. `kf-crypto` is their primitive: it draws
/// random numbers where a caller from above asks for a key.
const PURE: &[&str] = &[
    "kf-key",
    "kf-derive",
    "kf-seal",
    "kf-exchange",
    "kf-api",
    "kf-pki",
    "kf-log",
    "kf-flash",
    "kf-access",
    "kf-enrol",
    "kf-rotation",
    "kf-batch",
    "kf-escrow",
    "kf-incident",
];

/// Crates from elsewhere that bring a clock, a socket, a file or a run time, and so never stand below the back ends.
const IMPURE_CRATES: &[&str] = &[
    "tokio",
    "tokio-rustls",
    "async-trait",
    "rusqlite",
    "rustls",
    "hyper",
    "hyper-util",
    "axum",
    "tower",
    "rustix",
    "cryptoki",
    "tss-esapi",
    "rumqttc",
    "tracing-subscriber",
    "metrics",
    "getrandom",
    "rand",
    "jiff",
];

/// What the code of a pure crate never names.
const IMPURE_NAMES: &[&str] = &[
    "std::fs",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "std::env",
    "std::process",
    "std::thread",
    "std::io::stdin",
    "SystemTime",
    "Instant::now",
    "kf_crypto::random",
    "SystemRandom",
];

/// Compares the dependencies of every crate with [`ARROWS`].
pub(crate) fn check_edges(metadata: &Metadata) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in &metadata.packages {
        let manifest = Path::new("crates").join(&package.name).join("Cargo.toml");
        let arrows = ARROWS.iter().find(|(name, _)| *name == package.name).map(|(_, allowed)| *allowed);
        if arrows.is_none() && !TOOLS.contains(&package.name.as_str()) {
            let remedy = "add the crate to the table of crates/xtask/src/tidy/layers.rs and to ARCHITECTURE.md";
            violations.push(Violation::new(&manifest, 1, "layers", remedy));
        }
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev")) {
            let name = dependency.name.as_str();
            let is_ours = dependency.path.is_some();
            if is_ours && arrows.is_some_and(|allowed| !allowed.contains(&name)) {
                let remedy = format!("{} must not use {name}: move the code to the layer it belongs to", package.name);
                violations.push(Violation::new(&manifest, 1, "layers", remedy));
            }
            if PURE.contains(&package.name.as_str()) && IMPURE_CRATES.contains(&name) {
                let remedy = format!("{} decides from its arguments: do what needs {name} above it", package.name);
                violations.push(Violation::new(&manifest, 1, "purity", remedy));
            }
        }
    }
    violations
}

/// Looks for clocks, files, sockets and random numbers in pure crates.
pub(crate) fn check_purity(source: &Source) -> Vec<Violation> {
    if !source.crate_name().is_some_and(|name| PURE.contains(&name)) {
        return Vec::new();
    }
    let mut violations = Vec::new();
    for (number, line) in source.shipped() {
        for name in IMPURE_NAMES.iter().filter(|name| line.contains(**name)) {
            let remedy = format!("{name} in a rule: take the time, the randomness or the bytes as an argument");
            violations.push(Violation::new(&source.path, number, "purity", remedy));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(name: &str, dependency: &str, kind: &str, path: &str) -> Vec<Violation> {
        let text = format!(
            "{{\"packages\":[{{\"name\":\"{name}\",\"dependencies\":\
             [{{\"name\":\"{dependency}\",\"kind\":{kind},\"path\":{path}}}]}}]}}"
        );
        check_edges(&serde_json::from_str(&text).expect("metadata"))
    }

    #[test]
    fn the_store_never_uses_a_back_end_for_keys() {
        assert_eq!(edges("kf-store", "kf-backend", "null", "\"x\"").len(), 1);
        assert_eq!(edges("kf-store", "kf-pkcs11", "null", "\"x\"").len(), 1);
        assert_eq!(edges("kf-store", "kf-log", "null", "\"x\"").len(), 0);
    }

    #[test]
    fn back_ends_never_use_the_store_a_service_or_the_pki() {
        for above in ["kf-store", "kf-pki", "kf-fleet", "kf-signer"] {
            assert_eq!(edges("kf-backend", above, "null", "\"x\"").len(), 1, "{above}");
            assert_eq!(edges("kf-pkcs11", above, "null", "\"x\"").len(), 1, "{above}");
        }
    }

    #[test]
    fn surfaces_never_reach_the_store() {
        for surface in ["kf-server", "kf-client", "kf-agent", "keyfleet"] {
            assert_eq!(edges(surface, "kf-store", "null", "\"x\"").len(), 1, "{surface}");
            assert_eq!(edges(surface, "kf-store", "\"dev\"", "\"x\"").len(), 0, "{surface}");
        }
    }

    #[test]
    fn an_arrow_of_the_table_points_down() {
        for (index, (name, allowed)) in ARROWS.iter().enumerate() {
            for below in *allowed {
                let place = ARROWS.iter().position(|(other, _)| other == below);
                assert!(place.is_some_and(|place| place < index), "{name} -> {below}");
            }
        }
    }

    #[test]
    fn rules_never_bring_a_run_time_and_unknown_crates_are_asked_about() {
        assert_eq!(edges("kf-pki", "tokio", "null", "null").len(), 1);
        assert_eq!(edges("kf-pki", "tokio", "\"dev\"", "null").len(), 0);
        assert_eq!(edges("kf-surprise", "serde", "null", "null").len(), 1);
    }

    #[test]
    fn a_clock_or_a_file_in_a_rule_is_found_but_not_in_its_tests() {
        let text = "fn f() { std::fs::read(x); }\n// std::fs\n#[cfg(test)]\nmod tests { use std::fs; }\n";
        assert_eq!(check_purity(&Source::new("crates/kf-pki/src/a.rs".into(), text)).len(), 1);
        assert_eq!(check_purity(&Source::new("crates/kf-store/src/a.rs".into(), text)).len(), 0);
    }
}

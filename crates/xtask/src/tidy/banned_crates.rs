//! Crates that must not come in, by whatever way.

use std::collections::BTreeSet;
use std::path::Path;

use super::Violation;

const BANNED: &[(&str, &str)] = &[
    ("ring", "aws-lc-rs is the one provider; a second one doubles what has to be watched"),
    ("openssl", "links a system library; aws-lc-rs is the one provider"),
    ("openssl-sys", "links a system library; aws-lc-rs is the one provider"),
    ("native-tls", "links a system library; rustls is the one TLS"),
    ("sharks", "advisory RUSTSEC-2024-0398: biased coefficients"),
    ("shamir", "advisory RUSTSEC-2020-0160 and no maintenance"),
    ("hpke-rs", "use hpke"),
    ("serde_cbor", "advisory RUSTSEC-2021-0127: no maintenance"),
    ("sled", "no stable file format"),
];

/// Looks through every crate that some build of the workspace compiles, tests and other systems included. The lock file
/// would be the wrong place: it also lists what optional features of others could bring and nobody asks for.
pub(crate) fn check(compiled: &str) -> Vec<Violation> {
    let names: BTreeSet<&str> = compiled.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let banned = BANNED.iter().filter(|(name, _)| names.contains(name));
    let violation = |(name, reason): &(&str, &str)| {
        let remedy = format!(
            "{name} is banned: {reason}; `cargo tree --workspace --all-features --target all --invert {name}` shows \
             who brings it"
        );
        Violation::new(Path::new("Cargo.toml"), 1, "banned-crate", remedy)
    };
    banned.map(violation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banned_crate_is_found_by_its_exact_name() {
        let compiled = "tokio v1.0.0\n\nring v0.17.14 (*)\nring-buffer v1.0.0\nring v0.17.14\n";
        let found = check(compiled);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found.iter().all(|violation| !violation.is_warning && violation.remedy.starts_with("ring is banned")));
        assert_eq!(check("ring-buffer v1.0.0\n"), []);
    }
}

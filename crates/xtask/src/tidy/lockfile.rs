//! Crates that must not come in, by whatever way.

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

/// Bans that cannot be kept yet: tolerated, with a warning, as long as the crate that brings the banned one is there.
/// This list only shrinks.
const TOLERATED: &[(&str, &str, &str)] = &[(
    "ring",
    "rumqttc",
    "its TLS feature links rustls-webpki 0.102 with ring for error types; our handshakes run on aws-lc-rs",
)];

pub(crate) fn check(lockfile: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (index, line) in lockfile.lines().enumerate() {
        let name = line.strip_prefix("name = ").map(|name| name.trim_matches('"'));
        if let Some((name, reason)) = BANNED.iter().find(|(banned, _)| Some(*banned) == name) {
            let remedy = format!("{name} is banned: {reason}; `cargo tree --invert {name}` shows who brings it");
            let tolerated = TOLERATED
                .iter()
                .find(|(banned, bringer, _)| banned == name && lockfile.contains(&format!("name = \"{bringer}\"\n")));
            violations.push(match tolerated {
                None => Violation::new(Path::new("Cargo.lock"), index + 1, "banned-crate", remedy),
                Some((_, bringer, why)) => {
                    let remedy = format!("{name} is banned and comes with {bringer}: {why}");
                    Violation::warning(Path::new("Cargo.lock"), index + 1, "banned-crate", remedy)
                }
            });
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banned_crate_is_found_by_its_exact_name() {
        let lock = "[[package]]\nname = \"ring\"\nversion = \"1\"\n[[package]]\nname = \"ring-buffer\"\n";
        let found = check(lock);
        assert_eq!(found.iter().map(|violation| violation.line).collect::<Vec<_>>(), [2]);
        assert!(found.iter().all(|violation| !violation.is_warning));
    }

    #[test]
    fn a_tolerated_crate_is_a_warning_only_while_its_bringer_is_there() {
        let lock = "[[package]]\nname = \"ring\"\n[[package]]\nname = \"rumqttc\"\n[[package]]\nname = \"sled\"\n";
        assert_eq!(check(lock).iter().map(|violation| violation.is_warning).collect::<Vec<_>>(), [true, false]);
    }
}

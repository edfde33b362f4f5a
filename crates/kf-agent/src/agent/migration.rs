//! Which algorithm the next identity key is of: what an order asks for, what an earlier one asked for, or what is configured.

use kf_key::KeyAlgorithm;

use super::Agent;
use super::duties::{ROTATING, Rotating};
use crate::disk::{Disk as _, replace};

/// The file of a change of algorithm that was made by order: the configured one at that time, and the one since.
const MIGRATED: &str = "algorithm";

impl Agent {
    pub(super) fn wanted_algorithm(&mut self) -> KeyAlgorithm {
        let configured = self.config.key.algorithm;
        let ordered =
            self.slots.disk().read(ROTATING).ok().flatten().and_then(|note| Rotating::parse(&note)?.algorithm);
        let kept = self.slots.disk().read(MIGRATED).ok().flatten().and_then(|text| since(&text, configured));
        ordered.or(kept).filter(|algorithm| self.keys.can_make(*algorithm)).unwrap_or(configured)
    }

    /// Renewals go on with the algorithm that was ordered, until somebody configures another one.
    pub(super) fn keep_algorithm(&mut self, algorithm: KeyAlgorithm) -> std::io::Result<()> {
        let line = format!("{} {algorithm}\n", self.config.key.algorithm);
        if self.slots.disk().read(MIGRATED)?.as_deref() == Some(line.as_bytes()) {
            return Ok(());
        }
        replace(self.slots.disk(), MIGRATED, line.as_bytes())
    }
}

fn since(text: &[u8], configured: KeyAlgorithm) -> Option<KeyAlgorithm> {
    let (before, after) = std::str::from_utf8(text).ok()?.trim().split_once(' ')?;
    after.parse().ok().filter(|_| before == configured.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordered_algorithm_stays_until_another_one_is_configured() {
        let line = b"p-256 ml-dsa-44\n";
        assert_eq!(since(line, KeyAlgorithm::P256), Some(KeyAlgorithm::MlDsa44));
        assert_eq!(since(line, KeyAlgorithm::P384), None);
        for broken in [b"".as_slice(), b"p-256", b"p-256 des", &[0xff]] {
            assert_eq!(since(broken, KeyAlgorithm::P256), None);
        }
    }
}

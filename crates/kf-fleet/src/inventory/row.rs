//! One key on its way into the inventory.

use kf_api::inventory::{InventoryKey, KeyPlace};
use kf_key::{DeviceId, FacilityId, KeyAlgorithm, KeyProtection, KeyState, ProductLineId, SerialNumber, UnixMillis};
use kf_rotation::sweep::{KeyFacts, Successor, due_at};
use kf_rotation::verdict::{Verdict, algorithm_fault, verdict};
use kf_rotation::{KeyClass, Scope};

use super::Names;
use crate::{Fleet, FleetError};

/// What is known of a key before the policy is asked.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) name: String,
    pub(super) class: KeyClass,
    pub(super) state: KeyState,
    pub(super) algorithm: Algorithm,
    pub(super) place: KeyPlace,
    pub(super) protection: KeyProtection,
    pub(super) created: Option<UnixMillis>,
    pub(super) activated: Option<UnixMillis>,
    pub(super) expires: Option<UnixMillis>,
    pub(super) succeeded: bool,
    pub(super) facility: Option<FacilityId>,
    pub(super) product_line: Option<ProductLineId>,
    pub(super) device: Option<DeviceId>,
    pub(super) certificate: Option<SerialNumber>,
    pub(super) spki_sha256: Option<String>,
    /// Encryptions, for keys whose uses are counted.
    pub(super) uses: Option<u64>,
    /// What lies under it, where that is counted.
    pub(super) protects: Option<u64>,
}

/// What a key is used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// A key of the hierarchy: 256 bits, used with HMAC-SHA-256 to derive.
    Hmac,
    /// A wrapping key: 256 bits, used with AES-GCM.
    Aes,
    /// A key pair.
    Pair(KeyAlgorithm),
    /// A key pair whose algorithm is none of ours.
    Foreign,
}

impl Algorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::Hmac => "hmac-sha-256",
            Self::Aes => "aes-256-gcm",
            Self::Pair(algorithm) => algorithm.name(),
            Self::Foreign => "unknown",
        }
    }

    const fn size_bits(self) -> u16 {
        match self {
            Self::Hmac | Self::Aes | Self::Pair(KeyAlgorithm::P256 | KeyAlgorithm::Ed25519) => 256,
            Self::Pair(KeyAlgorithm::P384) => 384,
            Self::Pair(KeyAlgorithm::Rsa2048) => 2_048,
            Self::Pair(KeyAlgorithm::Rsa3072) => 3_072,
            Self::Pair(KeyAlgorithm::Rsa4096) => 4_096,
            // The public key.
            Self::Pair(KeyAlgorithm::MlDsa44) => 8 * 1_312,
            Self::Pair(KeyAlgorithm::MlDsa65) => 8 * 1_952,
            Self::Pair(KeyAlgorithm::MlDsa87) => 8 * 2_592,
            Self::Foreign => 0,
        }
    }

    const fn strength_bits(self) -> u16 {
        match self {
            Self::Hmac | Self::Aes => 256,
            Self::Pair(algorithm) => algorithm.strength_bits(),
            Self::Foreign => 0,
        }
    }
}

impl Row {
    /// A row of which nothing is known but what every key has.
    pub(super) fn new(key: String, name: String, class: KeyClass, state: KeyState, algorithm: Algorithm) -> Self {
        Self {
            key,
            name,
            class,
            state,
            algorithm,
            place: KeyPlace::Derived,
            protection: KeyProtection::Unknown,
            created: None,
            activated: None,
            expires: None,
            succeeded: false,
            facility: None,
            product_line: None,
            device: None,
            certificate: None,
            spki_sha256: None,
            uses: None,
            protects: None,
        }
    }
}

impl Fleet {
    /// The row with what the policy says of it.
    pub(super) fn judged(&self, row: Row, names: &mut Names) -> Result<InventoryKey, FleetError> {
        let now = self.now();
        let facility = row.facility.map(|id| self.facility_name(id, names)).transpose()?;
        let product_line = row.product_line.map(|id| self.product_line_name(id, names)).transpose()?;
        let scope = Scope { facility: facility.as_deref(), product_line: product_line.as_deref() };
        let rule = self.policy.rule(row.class, scope);
        let facts = row.facts();
        let fault = algorithm_fault(self.policy.preset(), row.algorithm.name(), row.algorithm.strength_bits(), now);
        let verdict = match (verdict(&facts, &rule, now), fault) {
            (Verdict::Good | Verdict::Due(_), Some(fault)) => Verdict::Algorithm(fault),
            (verdict, _) => verdict,
        };
        let rotate_at = due_at(&facts, &rule).filter(|_| row.state == KeyState::Active && !row.succeeded);
        let begun = row.activated.or(row.created);
        Ok(InventoryKey {
            class: row.class.name().to_owned(),
            key_type: row.class.key_type(),
            algorithm: row.algorithm.name().to_owned(),
            size_bits: row.algorithm.size_bits(),
            strength_bits: row.algorithm.strength_bits(),
            age_days: begun.map(|begun| now.since(begun) / UnixMillis::DAY),
            rotate_at,
            uses: row.uses,
            protects: row.protects,
            verdict: verdict.name().to_owned(),
            because: verdict.to_string(),
            key: row.key,
            name: row.name,
            state: row.state,
            place: row.place,
            protection: row.protection,
            created: row.created,
            activated: row.activated,
            expires: row.expires,
            succeeded: row.succeeded,
            facility: row.facility,
            product_line: row.product_line,
            device: row.device,
            certificate: row.certificate,
            spki_sha256: row.spki_sha256,
        })
    }

    fn facility_name(&self, id: FacilityId, names: &mut Names) -> Result<String, FleetError> {
        if let Some(name) = names.facilities.get(&id) {
            return Ok(name.clone());
        }
        let found = self.store.facility(id, &kf_access::Visibility::Fleet)?;
        let name = found.ok_or(FleetError::Bug("a key of no facility"))?.name;
        names.facilities.insert(id, name.clone());
        Ok(name)
    }

    fn product_line_name(&self, id: ProductLineId, names: &mut Names) -> Result<String, FleetError> {
        if let Some(name) = names.product_lines.get(&id) {
            return Ok(name.clone());
        }
        let name = self.store.product_line(id)?.ok_or(FleetError::Bug("a device of no product line"))?.name;
        names.product_lines.insert(id, name.clone());
        Ok(name)
    }
}

impl Row {
    fn facts(&self) -> KeyFacts<'static> {
        KeyFacts {
            class: self.class,
            state: self.state,
            activated: self.activated,
            uses: self.uses.unwrap_or(0),
            octets: 0,
            events: &[],
            successor: if self.succeeded { Successor::Active } else { Successor::None },
            protected: 0,
        }
    }
}

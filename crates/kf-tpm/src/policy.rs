//! Keys that are released only on a platform that booted what it should: policies over the platform configuration
//! registers (PCRs), fixed or approved by a policy authority (TPM 2.0 Part 1 section 19.7, Part 3 section 23).
//!
//! A fixed policy names the values of the moment in which the object is made: an update of the firmware locks it. An
//! authorised policy names an authority's key instead; whichever boot state that key has signed is accepted, so an
//! update is shipped together with its [`Approval`]. What is signed is [`PcrState::approval_message`]; the private key
//! stays with whoever builds the firmware.
//!
//! An approval has no end: an old firmware whose approval was once signed can be booted again. Where that matters, make
//! a new authority key and a new object.

use kf_crypto::{public_key_of_spki, sha256};
use kf_key::KeyAlgorithm;

/// TPM_ALG_ID and TPM_CC values (TPM 2.0 Part 2 sections 6.3 and 6.5.2).
const ALG_ECC: u16 = 0x0023;
const ALG_SHA256: u16 = 0x000b;
const ALG_NULL: u16 = 0x0010;
const ALG_ECDSA: u16 = 0x0018;
const CURVE_P256: u16 = 0x0003;
const CC_POLICY_PCR: u32 = 0x0000_017f;
const CC_POLICY_AUTHORIZE: u32 = 0x0000_016a;
const CC_POLICY_AUTH_VALUE: u32 = 0x0000_016b;
/// TPMA_OBJECT of a verification key: userWithAuth and sign.
const VERIFICATION_ATTRIBUTES: u32 = 0x0004_0040;

/// Registers of the SHA-256 bank that every PC client platform has.
const REGISTERS: u8 = 24;

/// What an approval is for, so that the authority's key can sign other things too (TPM2_PolicyAuthorize policyRef).
pub(crate) const POLICY_REF: &[u8] = b"keyfleet boot state v1";

/// Why a policy cannot be formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// No register, one twice, or one that does not exist.
    #[error("name 1 to 24 different registers, each 0 to 23")]
    Selection,
    /// Not a P-256 public key.
    #[error("the policy authority's key is a P-256 SubjectPublicKeyInfo")]
    Authority,
}

/// Which registers of the SHA-256 bank count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrSelection(Vec<u8>);

impl PcrSelection {
    /// These registers, in any order.
    ///
    /// # Errors
    /// [`PolicyError::Selection`].
    pub fn new(registers: &[u8]) -> Result<Self, PolicyError> {
        let mut sorted = registers.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let is_valid = !sorted.is_empty() && sorted.len() == registers.len() && sorted.iter().all(|r| *r < REGISTERS);
        if is_valid { Ok(Self(sorted)) } else { Err(PolicyError::Selection) }
    }

    /// The registers, ascending.
    #[must_use]
    pub fn registers(&self) -> &[u8] {
        &self.0
    }

    /// TPML_PCR_SELECTION: one bank, three octets of bits.
    fn marshal(&self) -> Vec<u8> {
        let mut bits = [0_u8; 3];
        for (octet, bits) in (0_u8..).zip(bits.iter_mut()) {
            for register in self.0.iter().filter(|register| **register / 8 == octet) {
                *bits |= 1 << (register % 8);
            }
        }
        let mut out = 1_u32.to_be_bytes().to_vec();
        out.extend_from_slice(&ALG_SHA256.to_be_bytes());
        out.push(3);
        out.extend_from_slice(&bits);
        out
    }
}

/// What the selected registers hold, as one digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrState {
    /// Which registers.
    pub selection: PcrSelection,
    /// SHA-256 of their values, one after the other.
    pub digest: [u8; 32],
}

impl PcrState {
    /// The state in which the selected registers hold `values`, in ascending order of the registers.
    ///
    /// # Errors
    /// [`PolicyError::Selection`] when there is not one value per register.
    pub fn of_values(selection: PcrSelection, values: &[[u8; 32]]) -> Result<Self, PolicyError> {
        if values.len() != selection.0.len() {
            return Err(PolicyError::Selection);
        }
        Ok(Self { digest: sha256(values.as_flattened()), selection })
    }

    /// policyDigest after TPM2_PolicyPCR in this state.
    #[must_use]
    pub fn policy(&self) -> [u8; 32] {
        extend(&[0; 32], CC_POLICY_PCR, &[&self.selection.marshal(), &self.digest])
    }

    /// What the policy authority signs (ECDSA over its SHA-256) to approve this state.
    #[must_use]
    pub fn approval_message(&self) -> Vec<u8> {
        [self.policy().as_slice(), POLICY_REF].concat()
    }
}

/// A boot state that the policy authority approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// The state.
    pub state: PcrState,
    /// ECDSA P-256 with SHA-256 over [`PcrState::approval_message`], DER.
    pub signature: Vec<u8>,
}

/// The P-256 key that approves boot states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyAuthority {
    pub(crate) x: [u8; 32],
    pub(crate) y: [u8; 32],
}

impl PolicyAuthority {
    /// The holder of this key (SubjectPublicKeyInfo, DER).
    ///
    /// # Errors
    /// [`PolicyError::Authority`].
    pub fn from_spki(spki: &[u8]) -> Result<Self, PolicyError> {
        let refused = PolicyError::Authority;
        let (algorithm, point) = public_key_of_spki(spki).map_err(|_not_spki| refused)?;
        let [0x04, coordinates @ ..] = point else { return Err(refused) };
        let (x, y) = coordinates.split_first_chunk::<32>().ok_or(refused)?;
        let y: &[u8; 32] = y.try_into().map_err(|_length| refused)?;
        if algorithm != KeyAlgorithm::P256 || !kf_crypto::is_public_key(algorithm, point) {
            return Err(refused);
        }
        Ok(Self { x: *x, y: *y })
    }

    /// The TPM's name of the key: algorithm and SHA-256 of its public area (TPM 2.0 Part 1 section 16).
    fn name(&self) -> Vec<u8> {
        let mut area = Vec::with_capacity(96);
        for number in [ALG_ECC, ALG_SHA256] {
            area.extend_from_slice(&number.to_be_bytes());
        }
        area.extend_from_slice(&VERIFICATION_ATTRIBUTES.to_be_bytes());
        // No policy, no symmetric algorithm, ECDSA with SHA-256, P-256, no key derivation.
        for number in [0, ALG_NULL, ALG_ECDSA, ALG_SHA256, CURVE_P256, ALG_NULL] {
            area.extend_from_slice(&number.to_be_bytes());
        }
        for coordinate in [&self.x, &self.y] {
            area.extend_from_slice(&32_u16.to_be_bytes());
            area.extend_from_slice(coordinate);
        }
        [ALG_SHA256.to_be_bytes().as_slice(), &sha256(&area)].concat()
    }

    /// policyDigest after TPM2_PolicyAuthorize of a state that this authority approved.
    fn policy(&self) -> [u8; 32] {
        // TPM 2.0 Part 3 section 23.16: starts from zeros, whatever was approved.
        let named = extend(&[0; 32], CC_POLICY_AUTHORIZE, &[&self.name()]);
        sha256(&[named.as_slice(), POLICY_REF].concat())
    }
}

/// On which boot an object may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootPolicy {
    /// While the registers hold what they held when the object was made.
    Fixed(PcrState),
    /// In any state that the authority approved.
    Authorised {
        /// Who approves.
        authority: PolicyAuthority,
        /// Which registers count.
        selection: PcrSelection,
        /// What was approved so far.
        approvals: Vec<Approval>,
    },
}

impl BootPolicy {
    /// authPolicy of an object, with or without an authorisation value on top.
    #[must_use]
    pub fn digest(&self, has_auth: bool) -> [u8; 32] {
        let policy = match self {
            Self::Fixed(state) => state.policy(),
            Self::Authorised { authority, .. } => authority.policy(),
        };
        if has_auth { extend(&policy, CC_POLICY_AUTH_VALUE, &[]) } else { policy }
    }
}

fn extend(policy: &[u8; 32], command: u32, parts: &[&[u8]]) -> [u8; 32] {
    let mut input = policy.to_vec();
    input.extend_from_slice(&command.to_be_bytes());
    parts.iter().for_each(|part| input.extend_from_slice(part));
    sha256(&input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_sorted_and_takes_each_register_once() {
        assert_eq!(PcrSelection::new(&[7, 0, 23]).unwrap().registers(), [0, 7, 23]);
        assert_eq!(PcrSelection::new(&[7, 0, 23]).unwrap().marshal(), [0, 0, 0, 1, 0, 11, 3, 0x81, 0, 0x80]);
        for refused in [&[][..], &[24], &[1, 1], &[255]] {
            assert_eq!(PcrSelection::new(refused), Err(PolicyError::Selection));
        }
    }

    #[test]
    fn a_state_needs_one_value_per_register() {
        let selection = PcrSelection::new(&[0, 7]).unwrap();
        assert!(PcrState::of_values(selection.clone(), &[[0; 32]]).is_err());
        let one = PcrState::of_values(selection.clone(), &[[0; 32], [1; 32]]).unwrap();
        let other = PcrState::of_values(selection, &[[1; 32], [0; 32]]).unwrap();
        assert_ne!(one.policy(), other.policy());
    }

    #[test]
    fn an_authority_is_a_point_on_p256() {
        let key = kf_crypto::PrivateKey::generate(KeyAlgorithm::P256).unwrap();
        assert!(PolicyAuthority::from_spki(&key.spki()).is_ok());
        let other = kf_crypto::PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
        assert_eq!(PolicyAuthority::from_spki(&other.spki()), Err(PolicyError::Authority));
        assert_eq!(PolicyAuthority::from_spki(b"key"), Err(PolicyError::Authority));
    }
}

//! Key states and key types of SP 800-57 Part 1 Rev 5, sections 5.1.1 and 7.

use core::fmt;

/// The state of a key (SP 800-57 Part 1 section 7). A compromise found after destruction is recorded as a time on the
/// key, not as a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum KeyState {
    /// Generated, not yet available: proof of possession or key confirmation only.
    PreActivation,
    /// May protect, process, or both, by key type.
    Active,
    /// Must not protect; may process what was protected before the suspension.
    Suspended,
    /// May process what was protected earlier, nothing else.
    Deactivated,
    /// Integrity or confidentiality is suspect; process under controlled conditions only.
    Compromised,
    /// The key is gone; its metadata stays.
    Destroyed,
}

/// The 19 key types of SP 800-57 Part 1 section 5.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[allow(missing_docs, reason = "the names are the standard's own")]
pub enum KeyType {
    PrivateSignature,
    PublicSignatureVerification,
    SymmetricAuthentication,
    PrivateAuthentication,
    PublicAuthentication,
    SymmetricDataEncryption,
    SymmetricKeyWrapping,
    SymmetricRandomBitGeneration,
    SymmetricMaster,
    PrivateKeyTransport,
    PublicKeyTransport,
    SymmetricKeyAgreement,
    PrivateStaticKeyAgreement,
    PublicStaticKeyAgreement,
    PrivateEphemeralKeyAgreement,
    PublicEphemeralKeyAgreement,
    SymmetricAuthorization,
    PrivateAuthorization,
    PublicAuthorization,
}

/// A change of key state that SP 800-57 does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IllegalTransition {
    /// The state the key is in.
    pub from: KeyState,
    /// The state asked for.
    pub to: KeyState,
    /// The type of the key, which decides what may follow `Active`.
    pub key_type: KeyType,
}

impl fmt::Display for IllegalTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {:?} key that is {} cannot become {}", self.key_type, self.from, self.to)
    }
}

impl core::error::Error for IllegalTransition {}

impl KeyType {
    /// Every type, in the order of section 5.1.1.
    pub const ALL: [Self; 19] = [
        Self::PrivateSignature,
        Self::PublicSignatureVerification,
        Self::SymmetricAuthentication,
        Self::PrivateAuthentication,
        Self::PublicAuthentication,
        Self::SymmetricDataEncryption,
        Self::SymmetricKeyWrapping,
        Self::SymmetricRandomBitGeneration,
        Self::SymmetricMaster,
        Self::PrivateKeyTransport,
        Self::PublicKeyTransport,
        Self::SymmetricKeyAgreement,
        Self::PrivateStaticKeyAgreement,
        Self::PublicStaticKeyAgreement,
        Self::PrivateEphemeralKeyAgreement,
        Self::PublicEphemeralKeyAgreement,
        Self::SymmetricAuthorization,
        Self::PrivateAuthorization,
        Self::PublicAuthorization,
    ];

    /// Whether a key of this type goes from `Active` straight to `Destroyed` at the end of its cryptoperiod, because
    /// nothing it protected earlier needs it again (section 7.2, transition 5); the others are deactivated first.
    #[must_use]
    pub const fn ends_in_destruction(self) -> bool {
        matches!(
            self,
            Self::PrivateSignature
                | Self::PrivateAuthentication
                | Self::SymmetricRandomBitGeneration
                | Self::SymmetricMaster
                | Self::PrivateEphemeralKeyAgreement
                | Self::SymmetricAuthorization
                | Self::PrivateAuthorization
        )
    }
}

impl KeyState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::PreActivation, Self::Active, Self::Suspended, Self::Deactivated, Self::Compromised, Self::Destroyed];

    /// The name used in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PreActivation => "pre-activation",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deactivated => "deactivated",
            Self::Compromised => "compromised",
            Self::Destroyed => "destroyed",
        }
    }

    /// The one transition function of keys (SP 800-57 Part 1 section 7, transitions 2 to 15).
    ///
    /// # Errors
    /// [`IllegalTransition`] for every pair that the standard does not draw for this key type.
    pub const fn transition(self, to: Self, key_type: KeyType) -> Result<Self, IllegalTransition> {
        use KeyState::{Active, Compromised, Deactivated, Destroyed, PreActivation, Suspended};
        let direct = key_type.ends_in_destruction();
        let allowed = match (self, to) {
            (PreActivation, Destroyed | Compromised | Active)
            | (Active, Compromised | Suspended)
            | (Suspended, Active | Compromised)
            | (Deactivated, Destroyed | Compromised)
            | (Compromised, Destroyed) => true,
            (Active | Suspended, Destroyed) => direct,
            (Active | Suspended, Deactivated) => !direct,
            _ => false,
        };
        if allowed { Ok(to) } else { Err(IllegalTransition { from: self, to, key_type }) }
    }

    /// Whether a key in this state may apply protection (sign, encrypt, wrap, derive).
    #[must_use]
    pub const fn may_protect(self) -> bool {
        matches!(self, Self::Active)
    }

    /// Whether a key in this state may process what was protected earlier (verify, decrypt, unwrap). `Compromised` is
    /// for controlled recovery only and is therefore not in this list.
    #[must_use]
    pub const fn may_process(self) -> bool {
        matches!(self, Self::Active | Self::Suspended | Self::Deactivated)
    }
}

/// A name of no key state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownKeyState;

impl fmt::Display for UnknownKeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected pre-activation, active, suspended, deactivated, compromised or destroyed")
    }
}

impl core::error::Error for UnknownKeyState {}

impl core::str::FromStr for KeyState {
    type Err = UnknownKeyState;

    fn from_str(text: &str) -> Result<Self, UnknownKeyState> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or(UnknownKeyState)
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use KeyState::{Active, Compromised, Deactivated, Destroyed, PreActivation, Suspended};

    /// The drawing of section 7 written down a second time, as pairs, independent of the function under test.
    const DRAWN: [(KeyState, KeyState); 14] = [
        (PreActivation, Destroyed),
        (PreActivation, Compromised),
        (PreActivation, Active),
        (Active, Destroyed),
        (Active, Compromised),
        (Active, Suspended),
        (Active, Deactivated),
        (Suspended, Destroyed),
        (Suspended, Active),
        (Suspended, Compromised),
        (Suspended, Deactivated),
        (Deactivated, Destroyed),
        (Deactivated, Compromised),
        (Compromised, Destroyed),
    ];

    const DIRECT: [KeyType; 7] = [
        KeyType::PrivateSignature,
        KeyType::PrivateAuthentication,
        KeyType::SymmetricRandomBitGeneration,
        KeyType::SymmetricMaster,
        KeyType::PrivateEphemeralKeyAgreement,
        KeyType::SymmetricAuthorization,
        KeyType::PrivateAuthorization,
    ];

    #[test]
    fn exactly_the_drawn_transitions_are_allowed_for_every_type() {
        let mut checked = 0;
        for key_type in KeyType::ALL {
            for from in KeyState::ALL {
                for to in KeyState::ALL {
                    let by_type = match (from, to) {
                        (Active | Suspended, Destroyed) => DIRECT.contains(&key_type),
                        (Active | Suspended, Deactivated) => !DIRECT.contains(&key_type),
                        _ => true,
                    };
                    let expected = DRAWN.contains(&(from, to)) && by_type;
                    assert_eq!(from.transition(to, key_type).is_ok(), expected, "{from} -> {to} for {key_type:?}");
                    checked += 1;
                }
            }
        }
        assert_eq!(checked, 684);
    }

    #[test]
    fn only_an_active_key_protects_and_a_destroyed_one_does_nothing() {
        for state in KeyState::ALL {
            assert_eq!(state.may_protect(), state == Active);
        }
        assert!(!Destroyed.may_process());
        assert!(!Compromised.may_process());
        assert!(!PreActivation.may_process());
    }
}

//! A change of the algorithm of identity keys: who is asked, and what an answer comes to. The server asks here, and so does the
//! simulated year.

use kf_key::{KeyAlgorithm, MemberState};

/// What is known of a device before it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// The algorithm of the newest key that it is certified for.
    pub newest: Option<KeyAlgorithm>,
    /// Whether its product line allows the new algorithm.
    pub allowed: bool,
    /// Whether it was ever sent a device key.
    pub has_device_key: bool,
}

/// Why a device is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Keeps {
    /// There is nothing to change.
    #[error("has such a key")]
    HasIt,
    /// A request would be refused.
    #[error("its product line does not allow the algorithm")]
    NotAllowed,
    /// Key exchanges, and the receipt of a wipe, are signed by P-256 identities.
    #[error("has a device key, which goes to P-256 identities")]
    DeviceKey,
}

/// Whether a device is asked for a key of this algorithm.
///
/// # Errors
/// [`Keeps`]: why it is not.
pub fn may_ask(facts: &DeviceFacts, algorithm: KeyAlgorithm) -> Result<(), Keeps> {
    if facts.newest == Some(algorithm) {
        return Err(Keeps::HasIt);
    }
    if !facts.allowed {
        return Err(Keeps::NotAllowed);
    }
    if facts.has_device_key && algorithm != KeyAlgorithm::P256 {
        return Err(Keeps::DeviceKey);
    }
    Ok(())
}

/// What a device has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has a new key and certificate.
    Rotated,
    /// It could not.
    Failed,
    /// It would not.
    Declined,
}

/// What an answer comes to, with the algorithm of the newest key that the device is certified for. Who rotated without changing,
/// because its program is older, and who declined, because its hardware cannot, has not failed: it keeps what it has.
#[must_use]
pub fn comes_to(answer: Answer, newest: Option<KeyAlgorithm>, algorithm: KeyAlgorithm) -> MemberState {
    match answer {
        Answer::Rotated if newest == Some(algorithm) => MemberState::Done,
        Answer::Rotated | Answer::Declined => MemberState::Skipped,
        Answer::Failed => MemberState::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: DeviceFacts = DeviceFacts { newest: Some(KeyAlgorithm::P256), allowed: true, has_device_key: false };

    #[test]
    fn who_has_it_may_not_have_it_or_would_lose_its_device_key_is_not_asked() {
        assert_eq!(may_ask(&ASKED, KeyAlgorithm::MlDsa44), Ok(()));
        assert_eq!(may_ask(&ASKED, KeyAlgorithm::P256), Err(Keeps::HasIt));
        let forbidden = DeviceFacts { allowed: false, ..ASKED };
        assert_eq!(may_ask(&forbidden, KeyAlgorithm::MlDsa44), Err(Keeps::NotAllowed));
        let keyed = DeviceFacts { has_device_key: true, ..ASKED };
        assert_eq!(may_ask(&keyed, KeyAlgorithm::P384), Err(Keeps::DeviceKey));
        let back = DeviceFacts { newest: Some(KeyAlgorithm::P384), ..keyed };
        assert_eq!(may_ask(&back, KeyAlgorithm::P256), Ok(()), "back to where device keys go");
    }

    #[test]
    fn done_is_who_has_the_certificate_and_not_who_says_so() {
        let target = KeyAlgorithm::MlDsa65;
        assert_eq!(comes_to(Answer::Rotated, Some(target), target), MemberState::Done);
        assert_eq!(comes_to(Answer::Rotated, Some(KeyAlgorithm::P256), target), MemberState::Skipped);
        assert_eq!(comes_to(Answer::Rotated, None, target), MemberState::Skipped);
        assert_eq!(comes_to(Answer::Declined, Some(KeyAlgorithm::P256), target), MemberState::Skipped);
        assert_eq!(comes_to(Answer::Failed, Some(KeyAlgorithm::P256), target), MemberState::Failed);
    }
}

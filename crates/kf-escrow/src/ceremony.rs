//! A ceremony as a reviewed file: what is split, into how many shares, for whom. Rules only.

use std::collections::BTreeSet;

use crate::{MAX_SHARES, Quorum, QuorumError};

/// What may be escrowed. Nobody may have a second copy of a private signature or identity key (SP 800-57 Part 1 section 5.3.5), so
/// there is no class for them, and asking for one is refused by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The root of the fleet: derivation and wrapping.
    Root,
    /// The private half of a backup key.
    BackupKey,
}

/// Why a class is not escrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClassError {
    /// A key that signs or identifies.
    #[error("class: a signature or identity key is never escrowed; nobody must have a second copy of it")]
    Refused,
    /// Nothing that is known.
    #[error("class: `root` or `backup-key`")]
    Unknown,
}

impl Class {
    /// Reads the name of a class.
    ///
    /// # Errors
    /// [`ClassError`].
    pub fn parse(name: &str) -> Result<Self, ClassError> {
        match name {
            "root" => Ok(Self::Root),
            "backup-key" => Ok(Self::BackupKey),
            "identity" | "signature" | "signing" | "authority" | "ca" | "idevid" | "ldevid" | "device" | "log"
            | "order" | "delivery" => Err(ClassError::Refused),
            _ => Err(ClassError::Unknown),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::BackupKey => "backup-key",
        }
    }
}

/// Why people are no custodians of a quorum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CustodianError {
    /// No quorum.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// One person twice, by name: with two tokens, a person is still one.
    #[error("custodian `{0}` is named twice; one person counts once, with however many tokens")]
    SamePerson(String),
    /// Two people with one key.
    #[error("custodian `{0}` has the key of another; whoever opens one share would open both")]
    SameKey(String),
    /// Without a name, or with one that cannot be written on a share.
    #[error("custodian: a name of 1 to 64 letters, digits, `-`, `.` or `_`")]
    Name,
    /// The words of a name that is no custodian.
    #[error("`{0}` is no custodian of this ceremony")]
    Stranger(String),
}

fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// The quorum of distinct people: by name, case aside, and by key where they have one.
///
/// # Errors
/// [`CustodianError`].
pub fn check_custodians<'a>(
    threshold: u8,
    custodians: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<Quorum, CustodianError> {
    let (mut people, mut keys, mut count) = (BTreeSet::new(), BTreeSet::new(), 0_u8);
    for (person, key) in custodians {
        let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_');
        if person.is_empty() || person.len() > 64 || person.starts_with('.') || !person.chars().all(is_plain) {
            return Err(CustodianError::Name);
        }
        if !people.insert(folded(person)) {
            return Err(CustodianError::SamePerson(person.to_owned()));
        }
        if let Some(key) = key
            && !keys.insert(key)
        {
            return Err(CustodianError::SameKey(person.to_owned()));
        }
        count = count.checked_add(1).filter(|count| *count <= MAX_SHARES).ok_or(QuorumError::TooManyShares)?;
    }
    Ok(Quorum::new(threshold, count)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(threshold: u8, people: &[(&str, Option<&str>)]) -> Result<Quorum, CustodianError> {
        check_custodians(threshold, people.iter().copied())
    }

    #[test]
    fn keys_that_sign_or_identify_are_refused_by_name() {
        for name in ["identity", "signature", "ca", "ldevid", "log"] {
            assert_eq!(Class::parse(name), Err(ClassError::Refused));
        }
        assert_eq!(Class::parse("Root"), Err(ClassError::Unknown));
        for class in [Class::Root, Class::BackupKey] {
            assert_eq!(Class::parse(class.name()), Ok(class));
        }
    }

    #[test]
    fn a_person_with_two_tokens_counts_once() {
        let quorum = check(2, &[("alice", Some("a")), ("bob", Some("b")), ("carol", None)]).unwrap();
        assert_eq!((quorum.threshold(), quorum.shares()), (2, 3));
        let twice = check(2, &[("alice", Some("a")), ("Alice", Some("b"))]);
        assert_eq!(twice, Err(CustodianError::SamePerson("Alice".into())));
        let shared = check(2, &[("alice", Some("a")), ("bob", Some("a"))]);
        assert_eq!(shared, Err(CustodianError::SameKey("bob".into())));
    }

    #[test]
    fn a_quorum_is_of_at_least_two_and_at_most_all() {
        assert_eq!(check(1, &[("a", None), ("b", None)]), Err(QuorumError::Threshold.into()));
        assert_eq!(
            check(3, &[("a", None), ("b", None)]),
            Err(QuorumError::TooFewShares { threshold: 3, shares: 2 }.into())
        );
        let many: Vec<String> = (0..17).map(|number| format!("p{number}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), None)).collect();
        assert_eq!(check(2, &many), Err(QuorumError::TooManyShares.into()));
        for name in ["", "../x", ".x", "a b", "é"] {
            assert_eq!(check(2, &[(name, None), ("b", None)]), Err(CustodianError::Name));
        }
    }
}

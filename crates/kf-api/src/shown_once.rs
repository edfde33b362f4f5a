//! A bearer secret that an answer carries exactly once.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize as _;

/// A bearer secret on its way to the person who asked for it. Debug prints its name; there is no Clone, no Display and
/// no comparison; it is wiped when dropped. Unlike other secrets it serialises: its whole purpose is to be shown once, in one answer.
pub struct ShownOnce(String);

impl ShownOnce {
    /// Wraps the text of a bearer secret.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text. Every call is an exposure: give the reason beside it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for ShownOnce {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for ShownOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShownOnce")
    }
}

impl Serialize for ShownOnce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ShownOnce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

//! Why something failed, as text for a person.

use core::error::Error;
use core::fmt::{Display, Write};

/// A short text; what does not fit is cut.
#[derive(Clone, Copy)]
pub(crate) struct Text {
    octets: [u8; 160],
    length: usize,
}

impl Text {
    pub(crate) fn of(text: &str) -> Self {
        let mut made = Self { octets: [0; 160], length: 0 };
        let _cut = made.write_str(text);
        made
    }

    /// An error and what is behind it.
    pub(crate) fn because(what: &str, error: &dyn Display) -> Self {
        let mut made = Self::of(what);
        let _cut = write!(made, ": {error}");
        made
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for (place, octet) in self.octets.iter_mut().skip(self.length).zip(text.bytes()) {
            *place = octet;
            self.length += 1;
        }
        Ok(())
    }
}

/// `result.or_text("doing so")?` for every error that can be shown.
pub(crate) trait OrText<T> {
    fn or_text(self, what: &str) -> Result<T, Text>;
}

impl<T, E: Error> OrText<T> for Result<T, E> {
    fn or_text(self, what: &str) -> Result<T, Text> {
        self.map_err(|error| Text::because(what, &error))
    }
}

//! What the keys of the server that others pin are for.

/// What a pinned key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyRole {
    /// The server's half of key exchanges.
    Delivery,
    /// Orders to devices.
    Order,
    /// Quotas of factory stations.
    Batch,
}

impl KeyRole {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Delivery, Self::Order, Self::Batch];

    /// The number in a link; zero is reserved.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Delivery => 1,
            Self::Order => 2,
            Self::Batch => 3,
        }
    }

    /// The role of a number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.code() == code)
    }

    /// The name in answers and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Order => "order",
            Self::Batch => "batch",
        }
    }
}

//! The nouns and requests of `/v1`: what the registry keeps, what the server answers and what the command line prints
//! are the same types, so that there is one spelling of each field.
//!
//! Nothing here decides anything, and nothing here holds a long-lived secret: the answers that carry a secret once
//! ([`enrolment::NewCode`], [`operator::NewToken`], [`encryption_key::DataKey`]) hold it in a type that Debug does not print.
#![forbid(unsafe_code)]

pub mod access;
pub mod audit;
pub mod authority;
pub mod backup;
pub mod batch;
pub mod break_glass;
pub mod campaign;
pub mod certificate;
pub mod ciphertext;
pub mod destruction;
pub mod device;
pub mod drill;
pub mod encryption_key;
pub mod endorsement;
pub mod enrolment;
pub mod epoch;
pub mod escrow;
pub mod facility;
pub mod incident;
pub mod inventory;
pub mod label;
pub mod object;
pub mod operator;
pub mod order;
pub mod ownership;
pub mod page;
pub mod problem;
pub mod product_line;
pub mod proposal;
pub mod revocation;
pub mod rotation;
pub mod sealed;
pub mod status;
pub mod succession;
pub mod vendor;

mod shown_once;

pub use page::{Page, PageRequest};
pub use problem::Problem;
pub use shown_once::ShownOnce;

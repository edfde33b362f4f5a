//! The factory station: from a recipe and a quota to finished devices, offline, with nothing duplicated and nothing lost.
//!
//! The station is no part of the server and never sees its registry. It holds a batch key and a short-lived issuing CA in
//! its own token; what it made leaves as signed records, whenever the line is next online.
//!
//! [`recipe`] says what is made, [`line`](mod@line) what happens to one device, [`journal`] what is durable, [`ledger`] keeps
//! them in step, [`station`] does the work through a [`fixture`] and a [`token`].
#![forbid(unsafe_code)]

pub mod clock;
pub mod disk;
mod draft;
pub mod ending;
pub mod fixture;
pub mod generation;
pub mod image;
pub mod journal;
pub mod label;
pub mod ledger;
pub mod line;
mod noise;
pub mod quota_key;
pub mod recipe;
pub mod rehearsal;
pub mod request;
pub mod station;
pub mod target;
pub mod token;

pub use draft::{CODE_SLOT, KEY_DESTROYED, PLAIN_KEY_MARK};

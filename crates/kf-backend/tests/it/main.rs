//! The software back end and the sealed file.
#![allow(clippy::unwrap_used)]

mod handle;
mod seal;
mod software;

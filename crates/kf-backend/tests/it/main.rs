//! The software back end and the sealed file.

mod handle;
mod seal;
mod software;

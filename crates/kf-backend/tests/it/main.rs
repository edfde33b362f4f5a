//! The software back end and the sealed file.
#![allow(clippy::unwrap_used)]

mod deadline;
mod fault;
mod fused;
mod handle;
mod seal;
mod software;

//! The published vectors: the file, the code and an independent program agree.
#![allow(clippy::unwrap_used)]

#[path = "../../examples/vectors/document.rs"]
mod document;
mod vectors;

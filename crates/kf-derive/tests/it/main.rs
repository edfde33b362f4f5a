//! The published vectors: the file, the code and an independent program agree.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../../examples/vectors/document.rs"]
mod document;
mod manual;
mod vectors;

//! Sealed payloads against the published vectors and an implementation of COSE that we did not write.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod vectors;

//! The client against a server whose answers the tests write.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod calls;
mod enrolment;
mod trust;

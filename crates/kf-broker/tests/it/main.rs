//! The connectors against real sessions: Mosquitto as Debian ships it, and the built-in echo server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod echo;
mod fleet;
mod mosquitto;

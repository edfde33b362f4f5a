//! The built-in broker: a mutual-TLS server that sends every line back, for machines without Mosquitto. It admits
//! certificates of the fleet's CAs that are not revoked, knows its live sessions by common name, and cuts on demand.

mod server;
mod session_table;

pub use server::{EchoBroker, EchoSettings};

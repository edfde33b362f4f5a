//! Authenticated ECDHE between device and server: epochs, sessions, orders.
#![no_std]
#![warn(missing_docs)]

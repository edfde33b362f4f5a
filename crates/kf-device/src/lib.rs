//! The SDK of a device: keys, sealed payloads, enrolment, rotation, destruction without a socket or an allocator.
#![no_std]
#![warn(missing_docs)]

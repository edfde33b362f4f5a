//! The C interface of the device SDK.
#![no_std]
#![warn(missing_docs)]

//! Health tests of a noise source (SP 800-90B section 4.4).
#![no_std]
#![warn(missing_docs)]

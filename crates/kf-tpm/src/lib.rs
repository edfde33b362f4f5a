//! TPM 2.0 key back end.
#![warn(missing_docs)]

//! Certificates on an operator's request, and look-ups.

mod issue;
mod look_up;

//! What kf-pki makes is read by programs that we did not write, and what they make is read here.

mod certificate;
mod fleet;

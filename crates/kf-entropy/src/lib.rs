//! Health tests of a noise source: SP 800-90B section 4.4, and one more.
//!
//! A noise source that breaks must stop making keys. These tests see *raw noise*, sample by sample, before any
//! conditioning: a hash of a constant looks perfect. They catch a source that sticks ([`Fault::Repetition`], section
//! 4.4.1), one that loses entropy ([`Fault::Proportion`], section 4.4.2) and one that goes round in a short circle
//! ([`Fault::Period`], a developer-defined test as section 4.4 allows). They cannot see that noise is predictable: a
//! pseudo-random generator passes them all. Whether the noise source is physical and switched on is therefore *told*,
//! as a [`NoiseState`], and stands in the [`Evidence`].
//!
//! Cut-offs follow from the assessed min-entropy and from the false-positive probability that is accepted. Let them be
//! computed by the compiler:
//!
//! ```
//! use kf_entropy::{Alphabet, Assessment, Cutoffs};
//! const CUTOFFS: Cutoffs = match Cutoffs::new(Assessment { alphabet: Alphabet::Octet, millibits: 4_000, alpha: 30 }) {
//!     Ok(cutoffs) => cutoffs,
//!     Err(_) => panic!("the assessment is out of range"),
//! };
//! assert_eq!((CUTOFFS.repetition(), CUTOFFS.proportion()), (9, 71));
//! ```
//! The crate is `no_std`, allocates nothing, and reads nothing: the caller passes samples in.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod assessment;
mod evidence;
mod health;

pub use assessment::{Alphabet, Assessment, AssessmentError, Cutoffs};
pub use evidence::{Counts, Evidence, EvidenceError, NoiseState, SourceId};
pub use health::{Fault, HealthTests, MAX_PERIOD, Progress, START_UP_SAMPLES};

#[cfg(test)]
extern crate std;

//! Use cases, against a real registry, a real signer thread and a clock that the tests move.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod approvals;
mod authority_destruction;
mod backup;
mod batch;
mod break_glass;
mod broker;
mod campaign;
mod campaign_change;
mod crash;
mod destruction;
mod drill;
mod encryption_key;
mod enrolment;
mod escrow;
mod exchange;
mod incident;
mod increment;
mod inventory;
mod log_key;
mod memory;
mod object;
mod order;
mod ownership;
mod registry;
mod revocation;
mod rollback;
mod rotation;
mod scope;
mod scratch;
mod sealed;
mod session;
mod stopped;
mod storage_campaign;
mod succession;
mod wrapping;

//! The use cases of Keyfleet. Every surface (EST, OCSP, CRL, REST, the demo) comes through here, so nothing passes
//! access control and the log by: a method takes a [`Principal`], asks `kf_access` for a permit, does the act, and the
//! act and its log entry become durable together before it returns.
//!
//! Facts live in `kf_store`, private keys behind `kf_signer`, rules in the crates below; this crate joins them.
#![forbid(unsafe_code)]

mod access;
mod alarm;
mod audit;
mod authority;
mod background;
mod backup;
mod batch;
mod break_glass;
mod broker;
mod campaign;
mod certificate;
mod claim;
mod clock;
mod code;
mod config;
mod crl;
mod destruction;
mod device;
mod drill;
mod drill_record;
mod encryption_key;
mod endorsement;
mod enrolment;
mod entry;
mod epoch;
mod error;
mod escrow;
mod exchange;
mod facility;
mod fence;
mod fleet;
mod incident;
mod init;
mod inventory;
mod issuance;
mod label;
mod log_publisher;
mod lookup;
mod naming;
mod news;
mod ocsp;
mod operator;
mod order;
mod ownership;
mod pinned_key;
mod policy;
mod product_line;
mod proposal;
mod reconcile;
mod recovery;
mod restore;
mod revocation;
mod rotation;
mod sealed;
mod session;
mod signature_count;
mod status;
mod store_error;
mod tls;
mod vendor;
mod wrapping;

pub use clock::{Clock, SystemClock, TestClock};
pub use config::{BrokerConfig, DataDir, FleetConfig, ListenConfig};
pub use crl::CurrentCrl;
pub use drill::{DrillOptions, drill};
pub use endorsement::EndorsementClaim;
pub use enrolment::{EnrolCredential, EnrolOutcome, EstLabel, ServerKey, TlsClient};
pub use error::FleetError;
pub use fleet::Fleet;
pub use init::{InitOptions, Initialised, init};
pub use kf_access::Principal;
pub use news::{Knows, News};
pub use ocsp::{OcspAnswer, Standing};
pub use restore::{
    BackupKeys, Restoration, RestoreOptions, RestorePoint, Verified, check_seal, read_manifest, restore, verify_backup,
    verify_backups,
};
pub use status::Gauge;
pub use tls::{ClientCertificate, IdentityPlan, ProvedRoot, ServerIdentity};
pub use wrapping::Rewrapped;

//! Tests of the registry through its public operations.
mod crash;
mod device;
mod enrolment;
mod fixture;
mod full_disk;
mod group_commit;
mod issuance;
mod key;
mod listing;
mod log;
mod model;
mod operator;
mod revocation;
mod schema;
mod speed;

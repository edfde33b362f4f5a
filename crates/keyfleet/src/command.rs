//! The nouns, one file each.

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod authority;
pub(crate) mod certificate;
pub(crate) mod code;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod derive;
pub(crate) mod device;
pub(crate) mod doctor;
pub(crate) mod enrolment;
pub(crate) mod facility;
pub(crate) mod init;
pub(crate) mod issuance;
pub(crate) mod key;
pub(crate) mod man;
pub(crate) mod operator;
pub(crate) mod product_line;
pub(crate) mod profile;
pub(crate) mod proposal;
pub(crate) mod revoke;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod voucher;

//! X.509 rules: what a certification request must prove, what each certificate profile contains, CRLs, OCSP answers,
//! certs-only CMS. Pure: time, randomness and signatures are arguments.
#![forbid(unsafe_code)]
#![allow(clippy::todo)]

pub mod certificate;
pub mod chain;
pub mod cms;
pub mod crl;
pub mod issuer;
pub mod ocsp;
pub mod pem;
pub mod request;
pub mod weak_key;

//! X.509 rules: what a certification request must prove, what each certificate profile contains, CRLs, OCSP answers,
//! certs-only CMS. Pure: time, randomness and signatures are arguments.
#![forbid(unsafe_code)]

mod asn1;
pub mod certificate;
pub mod chain;
pub mod cms;
pub mod crl;
pub mod issuer;
pub mod name;
pub mod ocsp;
pub mod pem;
mod public_key;
pub mod request;
pub mod succession;
pub mod weak_key;

//! Refusals of the rules as errors of the use cases.

use kf_enrol::{Refusal, RefusalClass};
use kf_pki::request::RequestError;

use crate::FleetError;

/// A refusal by an enrolment rule.
pub(crate) fn of_rule(refused: Refusal) -> FleetError {
    match refused.class() {
        RefusalClass::Request => FleetError::invalid(refused.field(), refused.to_string(), refused.remedy()),
        RefusalClass::Credential => FleetError::Unauthenticated,
        RefusalClass::Forbidden => forbidden(refused.field(), refused.to_string(), refused.remedy()),
    }
}

/// A certification request that cannot be accepted.
pub(crate) fn of_request(error: RequestError) -> FleetError {
    let remedy = match &error {
        RequestError::TooLarge => "send a request below 16 KiB",
        RequestError::ProofOfPossession => "sign the request with the private key that belongs to its public key",
        RequestError::OffCurve => "generate a fresh key and ask again",
        RequestError::Unsupported(_) => "use P-256, P-384 or Ed25519 with SHA-256 or better",
        _ => "make the request with `openssl req -new`, send it as base64 of DER",
    };
    FleetError::invalid("csr", error.to_string(), remedy)
}

pub(super) fn no_server_keygen() -> FleetError {
    forbidden(
        "serverkeygen",
        "this product line does not let the server make keys".to_owned(),
        "make the key on the device and use simpleenroll, or have the product line's policy changed",
    )
}

pub(super) fn keygen_waits() -> FleetError {
    forbidden(
        "serverkeygen",
        "this product line asks for manual approval, which binds a key that the device holds".to_owned(),
        "make the key on the device and use simpleenroll",
    )
}

pub(super) fn by_a_person() -> FleetError {
    forbidden(
        "enrolment",
        "an operator refused this enrolment".to_owned(),
        "ask an operator; a fresh key is a fresh enrolment",
    )
}

fn forbidden(field: &str, problem: String, remedy: &str) -> FleetError {
    FleetError::Forbidden { field: field.to_owned(), problem, remedy: remedy.to_owned() }
}

//! CA certificates at the address in AIA (RFC 5280 section 4.2.2.1).

use http::{HeaderMap, HeaderValue, StatusCode};

use crate::app::App;
use crate::conditional::Validator;
use crate::failure::Failure;
use crate::reply::{Reply, reply};

/// GET `/ca/<ca>.cer`. A CA certificate never changes under its address.
pub(crate) fn certificate(app: &App, rest: &str, headers: &HeaderMap) -> Reply {
    let authority = rest.strip_suffix(".cer").and_then(|id| id.parse().ok());
    match authority.and_then(|authority| app.fleet.authority_certificate(authority)) {
        Some(der) => {
            let validator = Validator { etag: "\"1\"".into(), modified: None };
            validator.stamp(
                headers,
                reply(StatusCode::OK, "application/pkix-cert", der),
                HeaderValue::from_static("public, max-age=86400"),
            )
        }
        None => Failure::not_found().into_problem(),
    }
}

//! CRLs over HTTP (RFC 5280 section 4.2.1.13, RFC 2585).

use http::{HeaderMap, HeaderValue, StatusCode};
use kf_key::AuthorityId;
use kf_pki::crl::CrlScope;

use crate::app::App;
use crate::conditional::Validator;
use crate::failure::Failure;
use crate::reply::{Reply, reply, shared};

/// GET `/crl/<ca>/<shard>.crl` or `/crl/<ca>/full.crl`.
pub(crate) async fn get(app: &App, rest: &str, headers: &HeaderMap) -> Reply {
    let Some((authority, scope)) = parse(rest) else { return Failure::not_found().into_problem() };
    match app.fleet.crl(authority, scope).await {
        Ok(Some(crl)) => {
            // cRLNumber only grows, and every signed CRL has its own.
            let etag = format!("\"{}-{}\"", crl.number, crl.this_update.seconds());
            let validator = Validator { etag, modified: Some(crl.this_update) };
            let answer = reply(StatusCode::OK, "application/pkix-crl", shared(crl.der));
            // A revocation is in the CRL within a second, so caches ask each time and mostly hear 304.
            validator.stamp(headers, answer, HeaderValue::from_static("no-cache"))
        }
        Ok(None) => Failure::not_found().into_problem(),
        Err(error) => Failure::from(error).into_problem(),
    }
}

fn parse(rest: &str) -> Option<(AuthorityId, CrlScope)> {
    let (authority, file) = rest.split_once('/')?;
    let authority = authority.parse().ok()?;
    let scope = match file.strip_suffix(".crl")? {
        "full" => CrlScope::Full,
        // One spelling per shard: no sign, no leading zero.
        shard if shard.bytes().all(|octet| octet.is_ascii_digit()) && (shard == "0" || !shard.starts_with('0')) => {
            CrlScope::Shard(shard.parse().ok()?)
        }
        _ => return None,
    };
    Some((authority, scope))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_has_exactly_one_address() {
        let id = AuthorityId::from_bytes([7; 16]);
        assert_eq!(parse(&format!("{id}/full.crl")), Some((id, CrlScope::Full)));
        assert_eq!(parse(&format!("{id}/0.crl")), Some((id, CrlScope::Shard(0))));
        assert_eq!(parse(&format!("{id}/255.crl")), Some((id, CrlScope::Shard(255))));
        for wrong in
            ["00.crl", "+1.crl", "01.crl", "-1.crl", ".crl", "1", "1.crl/", "70000.crl", "FULL.crl", "../1.crl"]
        {
            assert_eq!(parse(&format!("{id}/{wrong}")), None, "{wrong}");
        }
        assert_eq!(parse("full.crl"), None);
    }
}

use super::*;
use crate::reply::reply;

fn headers(rows: &[(http::HeaderName, &str)]) -> HeaderMap {
    rows.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
}

fn validator() -> Validator {
    Validator { etag: "\"7-1800000000\"".into(), modified: Some(UnixMillis(1_800_000_000_500)) }
}

#[test]
fn a_client_that_holds_this_version_hears_304_without_a_body() {
    for tags in ["\"7-1800000000\"", "\"6\", \"7-1800000000\"", "W/\"7-1800000000\"", "*"] {
        let stamped = validator().stamp(
            &headers(&[(IF_NONE_MATCH, tags)]),
            reply(StatusCode::OK, "a/b", "body"),
            HeaderValue::from_static("no-cache"),
        );
        assert_eq!(stamped.status(), StatusCode::NOT_MODIFIED, "{tags}");
        assert_eq!(stamped.headers()[ETAG], "\"7-1800000000\"");
        assert!(!stamped.headers().contains_key(http::header::CONTENT_TYPE));
    }
}

#[test]
fn the_entity_tag_goes_before_the_date() {
    let date = httpdate::fmt_http_date(moment(UnixMillis(1_800_000_000_000)));
    assert!(validator().is_held_by(&headers(&[(IF_MODIFIED_SINCE, &date)])));
    assert!(!validator().is_held_by(&headers(&[(IF_MODIFIED_SINCE, &date), (IF_NONE_MATCH, "\"6\"")])));
    assert!(!validator().is_held_by(&headers(&[(IF_MODIFIED_SINCE, "yesterday")])));
    assert!(!validator().is_held_by(&headers(&[])));
}

#[test]
fn no_date_makes_the_formatter_panic() {
    for moment in [0, 1_800_000_000_000, u64::MAX] {
        assert!(http_date(UnixMillis(moment)).ends_with("GMT"));
    }
}

use super::*;

fn headers(values: &[&str]) -> HeaderMap {
    values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
}

fn basic_of(text: &[u8]) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

#[test]
fn a_device_name_and_a_code_are_read_and_the_code_may_hold_colons() {
    let Ok(EnrolCredential::Basic { user, password }) = enrolment(&headers(&[&basic_of(b"pump-1:AB:CD")]), false)
    else {
        panic!("not basic")
    };
    assert_eq!(user, "pump-1");
    assert!(password.equals(b"AB:CD"));
}

#[test]
fn without_a_header_the_certificate_speaks_or_nobody() {
    assert!(matches!(enrolment(&headers(&[]), true), Ok(EnrolCredential::Certificate)));
    assert!(matches!(enrolment(&headers(&[]), false), Ok(EnrolCredential::Nothing)));
    assert!(matches!(enrolment(&headers(&["Digest abc"]), false), Ok(EnrolCredential::Nothing)));
}

#[test]
fn a_broken_credential_is_refused_and_never_falls_back_to_another() {
    let long_name = [vec![b'a'; 65], b":code".to_vec()].concat();
    let broken = [
        "Basic".to_owned(),
        "Basic ***".to_owned(),
        basic_of(b"no colon"),
        basic_of(b":code"),
        basic_of(b"pump:"),
        basic_of(b"\xff\xfe:code"),
        basic_of(&long_name),
        basic_of(&vec![b'a'; 9_000]),
    ];
    for value in broken {
        assert!(enrolment(&headers(&[&value]), true).is_err(), "{}", &value[..value.len().min(40)]);
    }
}

#[test]
fn two_authorization_headers_are_refused() {
    assert!(enrolment(&headers(&[&basic_of(b"a:b"), &basic_of(b"a:c")]), false).is_err());
    assert!(bearer(&headers(&["Bearer kft_a", "Bearer kft_b"])).is_err());
}

#[test]
fn a_bearer_token_is_read_and_another_scheme_is_not_taken_for_none() {
    assert!(bearer(&headers(&["Bearer kft_abc"])).unwrap().unwrap().equals(b"kft_abc"));
    assert!(bearer(&headers(&["bearer kft_abc"])).unwrap().is_some());
    assert!(bearer(&headers(&[])).unwrap().is_none());
    for value in ["Basic YTpi", "Bearer", "Bearer  ", "kft_abc", &format!("Bearer {}", "a".repeat(129))] {
        assert!(bearer(&headers(&[value])).is_err(), "{value}");
    }
}

proptest::proptest! {
    #[test]
    fn no_header_panics_and_only_a_named_user_is_a_credential(value: Vec<u8>, decoded: Vec<u8>) {
        for value in [value, basic_of(&decoded).into_bytes()] {
            let Ok(value) = http::HeaderValue::from_bytes(&value) else { continue };
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            drop(bearer(&headers));
            if let Ok(EnrolCredential::Basic { user, password }) = enrolment(&headers, false) {
                proptest::prop_assert!(!user.is_empty() && user.len() <= MAX_USER_OCTETS && !password.is_empty());
            }
        }
    }
}

use super::*;

#[test]
fn the_spellings_that_clients_send_all_mean_the_same() {
    let der = [0x30, 0x03, 0xfb, 0xef, 0xff];
    // MAP77/8= holds a slash; the next one a plus.
    assert_eq!(request_of("MAP77/8="), Some(der.to_vec()));
    for spelling in ["MAP77%2F8%3D", "MAP77%2f8%3d", "/MAP77/8=", "%2FMAP77/8%3D", "MAP77/8", "//MAP77/8="] {
        assert_eq!(request_of(spelling), Some(der.to_vec()), "{spelling}");
    }
    let plus = [0x30, 0x01, 0xf8, 0xfb, 0xee];
    for spelling in ["MAH4++4=", "MAH4%2B%2b4=", "MAH4%20%204="] {
        assert_eq!(request_of(spelling), Some(plus.to_vec()), "{spelling}");
    }
}

#[test]
fn what_is_not_base64_or_too_long_is_no_request() {
    for wrong in ["%", "%4", "%zz", "MAP*", "\u{e9}"] {
        assert_eq!(request_of(wrong), None, "{wrong}");
    }
    assert_eq!(request_of(&"A".repeat(4 * MAX_REQUEST_OCTETS + 1)), None);
    assert_eq!(request_of(&"A".repeat(3 * MAX_REQUEST_OCTETS)), None);
}

proptest::proptest! {
    #[test]
    fn every_request_is_found_again_under_every_escaping(der: Vec<u8>, escape: bool) {
        // A SEQUENCE, as every request is: its base64 begins with M, never with a slash.
        let der = [vec![0x30], der].concat();
        let plain = base64::engine::general_purpose::STANDARD.encode(&der);
        let path = if escape { plain.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D") } else { plain };
        proptest::prop_assert_eq!(request_of(&path), Some(der));
    }

    #[test]
    fn no_text_panics(text: String) {
        drop(request_of(&text));
    }
}

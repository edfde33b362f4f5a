//! The figures of docs/manual/derivation.md.

use std::fs;
use std::path::Path;

use kf_derive::{KeyedHmac, extract};

fn manual() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/manual/derivation.md")).unwrap()
}

#[test]
fn the_chain_and_rfc_5869_give_the_outputs_that_the_manual_shows() {
    let input: Vec<u8> = (0..32).collect();
    let prk = extract(&[], &input);
    let hmac = |message: &[u8]| {
        let mut tag = [0; 32];
        let Ok(()) = prk.hmac_sha256(message, &mut tag);
        tag
    };
    let (manual, mut last) = (manual(), Vec::new());
    for (counter, purpose) in (1_u8..).zip(["encryption", "signing", "auth"]) {
        let info = format!("session_{purpose}_key").into_bytes();
        let chain = hmac(&[last.as_slice(), &info, &[counter]].concat());
        let expand = hmac(&[info.as_slice(), &[1]].concat());
        for (kind, output) in [("chain     ", chain), ("RFC 5869  ", expand)] {
            let line = format!("# prints: {purpose:10}  {kind}{}\n", hex::encode(output));
            assert!(manual.contains(&line), "{line}");
        }
        assert_eq!(chain == expand, purpose == "encryption");
        last = chain.to_vec();
    }
}

#[test]
fn the_manual_names_every_code_and_purpose() {
    let manual = manual();
    for level in kf_derive::Level::ALL {
        assert!(manual.contains(&level.name().replace('-', " ")), "{level:?}");
    }
    for purpose in kf_derive::Purpose::ALL {
        assert!(manual.contains(&format!("`{}`", purpose.name())), "{purpose:?}");
    }
}

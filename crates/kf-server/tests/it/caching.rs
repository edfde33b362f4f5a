//! CRLs and CA certificates over plain HTTP.

use crate::ocsp::distribution_point;
use crate::rig::{Rig, openssl};

#[tokio::test(flavor = "multi_thread")]
async fn a_crl_is_sent_once_and_then_answered_with_304() {
    let rig = Rig::start().await;
    let (_, certificate) = rig.enrolled("pump-1").await;
    let url = distribution_point(&certificate);
    let full = format!("{}/full.crl", url.rsplit_once('/').unwrap().0);
    for url in [&url, &full] {
        let first = rig.curl(&[url]);
        first.expect(200);
        let modified = format!("If-Modified-Since: {}", first.header("last-modified").unwrap());
        let etag = format!("If-None-Match: {}", first.header("etag").unwrap());
        for condition in [&modified, &etag] {
            assert!(rig.curl(&["-H", condition, url]).expect(304).body.is_empty());
        }
        rig.curl(&["-H", "If-None-Match: \"other\"", url]).expect(200);
        let head = rig.curl(&["-I", url]);
        assert_eq!(head.expect(200).header("content-length"), first.header("content-length"));
    }
    rig.curl(&[&format!("{}/9999.crl", url.rsplit_once('/').unwrap().0)]).expect(404);
    rig.curl(&["-d", "x", &url]).expect(405);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_is_at_the_address_that_its_certificates_name() {
    let rig = Rig::start().await;
    let (_, certificate) = rig.enrolled("pump-1").await;
    let arguments = ["x509", "-noout", "-ext", "authorityInfoAccess", "-in", certificate.to_str().unwrap()];
    let text = openssl(&arguments).expect_success().stdout_text();
    let url = text.lines().find_map(|line| line.trim().strip_prefix("CA Issuers - URI:")).unwrap();
    let answer = rig.curl(&[url]);
    assert_eq!(answer.expect(200).header("content-type"), Some("application/pkix-cert"));
    let issuer = std::fs::read(rig.issuer().await).unwrap();
    let der = openssl_der(&rig, &issuer);
    assert_eq!(answer.body, der);
    rig.curl(&[&rig.http_url("/ca/ca_00000000000000000000000000000000.cer")]).expect(404);
    rig.curl(&[&rig.http_url("/ca/rubbish.cer")]).expect(404);
}

fn openssl_der(rig: &Rig, pem: &[u8]) -> Vec<u8> {
    let path = rig.file("to-der.pem");
    std::fs::write(&path, pem).unwrap();
    openssl(&["x509", "-outform", "DER", "-in", path.to_str().unwrap()]).expect_success().stdout
}

//! OCSP and CRLs, with openssl, GnuTLS and curl as the clients.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kf_testkit::{Output, Tool};

use crate::rig::{Ends as _, Rig, openssl};

struct Asked<'a> {
    rig: &'a Rig,
    issuer: PathBuf,
    root: PathBuf,
}

impl<'a> Asked<'a> {
    async fn of(rig: &'a Rig) -> Self {
        Self { rig, issuer: rig.issuer().await, root: rig.root() }
    }

    /// `openssl ocsp` about a certificate file or `-serial`.
    fn openssl(&self, about: &[&str], more: &[&str]) -> Output {
        let url = self.rig.http_url("/ocsp");
        let mut arguments =
            vec!["ocsp", "-issuer", self.issuer.to_str().unwrap(), "-CAfile", self.root.to_str().unwrap()];
        arguments.extend(["-verify_other", self.issuer.to_str().unwrap(), "-url", &url]);
        arguments.extend(more);
        arguments.extend(about);
        openssl(&arguments)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_hears_good_then_revoked_with_both_hashes_with_and_without_nonce() {
    let rig = Rig::start().await;
    let (_, certificate) = rig.enrolled("pump-1").await;
    let asked = Asked::of(&rig).await;
    let about = ["-cert", certificate.to_str().unwrap()];
    for more in [&["-sha1"][..], &["-sha256"], &["-sha1", "-no_nonce"], &["-sha256", "-no_nonce"]] {
        asked.openssl(&about, more).expect_success().expect_text("Response verify OK").expect_text(": good");
    }
    rig.revoke(rig.serial(&certificate)).await;
    for more in [&["-sha1"][..], &["-sha256"], &["-sha1", "-no_nonce"], &["-sha256", "-no_nonce"]] {
        asked
            .openssl(&about, more)
            .expect_success()
            .expect_text("Response verify OK")
            .expect_text(": revoked")
            .expect_text("keyCompromise");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_that_was_never_issued_is_never_good() {
    let rig = Rig::start().await;
    let asked = Asked::of(&rig).await;
    for serial in ["0x4000000000000000000000000000000000000001", "0x01"] {
        let answer = asked.openssl(&["-serial", serial], &["-no_nonce"]);
        assert!(!answer.text().contains(": good"), "{}", answer.text());
        assert!(answer.text().contains(": revoked") || answer.text().contains(": unknown"), "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gnutls_hears_the_same() {
    let rig = Rig::start().await;
    let (_, certificate) = rig.enrolled("pump-1").await;
    let issuer = rig.issuer().await;
    let url = rig.http_url("/ocsp");
    let ask = format!("--ask={url}");
    let arguments =
        [&ask, "--nonce", "--load-cert", certificate.to_str().unwrap(), "--load-issuer", issuer.to_str().unwrap()];
    Tool::new("ocsptool").run(&arguments).expect_text("Certificate Status: good");
    rig.revoke(rig.serial(&certificate)).await;
    Tool::new("ocsptool").run(&arguments).expect_text("Certificate Status: revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_is_answered_in_every_spelling_and_may_be_cached() {
    let rig = Rig::start().await;
    let (_, certificate) = rig.enrolled("pump-1").await;
    let asked = Asked::of(&rig).await;
    let (file, about) = (rig.file("request.der"), certificate.to_str().unwrap());
    let write = ["-reqout", file.to_str().unwrap(), "-no_nonce"];
    asked.openssl(&["-cert", about], &write).succeeds();
    let plain = STANDARD.encode(std::fs::read(&file).unwrap());
    let escaped = plain.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    for path in [format!("/ocsp/{plain}"), format!("/ocsp/{escaped}"), format!("/ocsp//{plain}")] {
        for url in [rig.http_url(&path), rig.https_url(&path)] {
            let answer = rig.curl(&["--path-as-is", &url]);
            assert_eq!(answer.expect(200).header("content-type"), Some("application/ocsp-response"), "{url}");
            expect_status(&rig, &answer.body, "good");
            assert!(answer.header("cache-control").unwrap().contains("max-age="));
            for header in ["etag", "last-modified", "expires", "content-length"] {
                assert!(answer.header(header).is_some(), "{header}: {}", answer.head);
            }
        }
    }
    let url = rig.http_url(&format!("/ocsp/{escaped}"));
    let etag = format!("If-None-Match: {}", rig.curl(&[&url]).header("etag").unwrap());
    assert!(rig.curl(&["-H", &etag, &url]).expect(304).body.is_empty());
    // A revocation is in the next answer, cached or not.
    rig.revoke(rig.serial(&certificate)).await;
    let answer = rig.curl(&["-H", &etag, &url]);
    expect_status(&rig, &answer.expect(200).body, "revoked");
    // Paths that were answered before, and are answered from memory again.
    for url in [&rig.http_url(&format!("/ocsp/{plain}")), &url, &url] {
        expect_status(&rig, &rig.curl(&["--path-as-is", url]).expect(200).body, "revoked");
    }
}

fn expect_status(rig: &Rig, answer: &[u8], status: &str) {
    let file = rig.file("answer.ocsp");
    std::fs::write(&file, answer).unwrap();
    let arguments = ["ocsp", "-respin", file.to_str().unwrap(), "-resp_text", "-noverify"];
    openssl(&arguments).expect_success().expect_text(&format!("Cert Status: {status}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_gets_200_with_malformed_request_inside() {
    let rig = Rig::start().await;
    let (large, file) = (rig.file("large"), rig.file("rubbish"));
    std::fs::write(&large, vec![0x30; 10_000]).unwrap();
    std::fs::write(&file, b"rubbish").unwrap();
    let (large, file) = (format!("@{}", large.display()), format!("@{}", file.display()));
    let kind = ["-H", "Content-Type: application/ocsp-request", "--data-binary"];
    let url = rig.http_url("/ocsp");
    for answer in [
        rig.curl(&[&kind[..], &[&file, &url]].concat()),
        rig.curl(&[&kind[..], &[&large, &url]].concat()),
        rig.curl(&[&rig.http_url("/ocsp/rubbish***")]),
        rig.curl(&[&rig.http_url("/ocsp/%")]),
    ] {
        answer.expect(200);
        // OCSPResponse with responseStatus malformedRequest (1) and nothing else.
        assert_eq!(answer.body, [0x30, 0x03, 0x0a, 0x01, 0x01]);
    }
    assert_eq!(rig.curl(&[&url]).expect(405).header("allow"), Some("POST"));
}

/// The distribution point in a certificate, as openssl prints it.
pub(crate) fn distribution_point(certificate: &Path) -> String {
    let arguments = ["x509", "-noout", "-ext", "crlDistributionPoints", "-in", certificate.to_str().unwrap()];
    let text = openssl(&arguments).expect_success().stdout_text();
    text.lines().find_map(|line| line.trim().strip_prefix("URI:")).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_refuses_a_revoked_certificate_by_the_shard_named_in_it() {
    let rig = Rig::start().await;
    let (_, certificate) = rig.enrolled("pump-1").await;
    let url = distribution_point(&certificate);
    let before = rig.curl(&[&url]);
    assert_eq!(before.expect(200).header("content-type"), Some("application/pkix-crl"));
    let (root, issuer) = (rig.root(), rig.issuer().await);
    let verify = |crl: &[u8]| {
        let (der, pem) = (rig.file("crl.der"), rig.file("crl.pem"));
        std::fs::write(&der, crl).unwrap();
        openssl(&["crl", "-inform", "DER", "-in", der.to_str().unwrap(), "-out", pem.to_str().unwrap()]).succeeds();
        openssl(&[
            "verify",
            "-crl_check",
            "-CRLfile",
            pem.to_str().unwrap(),
            "-CAfile",
            root.to_str().unwrap(),
            "-untrusted",
            issuer.to_str().unwrap(),
            certificate.to_str().unwrap(),
        ])
    };
    verify(&before.body).succeeds();
    rig.revoke(rig.serial(&certificate)).await;
    let etag = format!("If-None-Match: {}", before.header("etag").unwrap());
    let after = loop {
        let answer = rig.curl(&["-H", &etag, &url]);
        if answer.status == 200 {
            break answer;
        }
        answer.expect(304);
    };
    verify(&after.body).expect_failure().expect_text("certificate revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_crl_of_another_shard_proves_nothing_to_openssl() {
    let rig = Rig::start().await;
    let (_, certificate) = rig.enrolled("pump-1").await;
    let own = distribution_point(&certificate);
    let base = own.rsplit_once('/').unwrap().0;
    let other = (0..8).map(|shard| format!("{base}/{shard}.crl")).find(|url| *url != own).unwrap();
    let answer = rig.curl(&[&other]);
    let (der, pem) = (rig.file("other.der"), rig.file("other.pem"));
    std::fs::write(&der, &answer.expect(200).body).unwrap();
    openssl(&["crl", "-inform", "DER", "-in", der.to_str().unwrap(), "-out", pem.to_str().unwrap()]).succeeds();
    let (root, issuer) = (rig.root(), rig.issuer().await);
    let (root, issuer, crl) = (root.to_str().unwrap(), issuer.to_str().unwrap(), pem.to_str().unwrap());
    let certificate = certificate.to_str().unwrap();
    let arguments = ["verify", "-crl_check", "-CRLfile", crl, "-CAfile", root, "-untrusted", issuer, certificate];
    drop(openssl(&arguments).expect_failure().expect_text("ifferent CRL scope"));
}

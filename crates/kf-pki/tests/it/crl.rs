//! CRLs, full and sharded, before openssl, certtool and strongSwan.

use kf_key::{CertificateProfile, KeyAlgorithm, RevocationReason, SerialNumber, UnixMillis};
use kf_pki::crl::{CrlEntry, CrlScope, EncodedEntry, VerifiedCrl, check_crl};
use kf_pki::pem;

use crate::fleet::{Authority, Files, Fleet, NOW, SHARDS, SIGNING, serial, tool};

pub(crate) fn entry(serial: SerialNumber, reason: RevocationReason) -> EncodedEntry {
    CrlEntry { serial, revoked: NOW.minus(UnixMillis::HOUR), reason }.encode()
}

/// One entry for every reason.
pub(crate) fn all_reasons() -> Vec<EncodedEntry> {
    RevocationReason::ALL.into_iter().map(|reason| entry(serial(), reason)).collect()
}

pub(crate) fn signed_crl(authority: &Authority, scope: CrlScope, entries: &[EncodedEntry]) -> Vec<u8> {
    signed_crl_until(authority, scope, entries, NOW.plus(UnixMillis::DAY))
}

fn signed_crl_until(
    authority: &Authority,
    scope: CrlScope,
    entries: &[EncodedEntry],
    next_update: UnixMillis,
) -> Vec<u8> {
    let this_update = NOW.minus(UnixMillis::HOUR);
    let checked = check_crl(&authority.issuer, scope, 4711, this_update, next_update, entries.iter()).unwrap();
    let signature = authority.key.sign(checked.tbs()).unwrap();
    checked.complete(&signature)
}

/// `openssl verify -crl_check` of a leaf with this CRL: what it prints, and whether it accepts.
fn openssl_verify(fleet: &Fleet, leaf: &[u8], crl: &[u8]) -> (bool, String) {
    let files = Files::new();
    let root = files.put("root.pem", fleet.root.pem());
    let ca = files.put("ca.pem", fleet.ca.pem());
    let leaf = files.put("leaf.pem", pem::certificate(leaf));
    let crl = files.put("crl.pem", pem::encode("X509 CRL", crl));
    let arguments =
        ["verify", "-x509_strict", "-crl_check", "-CAfile", &root, "-untrusted", &ca, "-CRLfile", &crl, &leaf];
    let output = tool("openssl").run(&arguments);
    (output.success(), output.text())
}

#[test]
fn openssl_takes_the_shard_of_a_certificate_and_refuses_every_other_shard() {
    for algorithm in SIGNING {
        let fleet = Fleet::new(algorithm);
        let (issued, _) = fleet.device_in(2);
        for shard in 0..SHARDS {
            let crl = signed_crl(&fleet.ca, CrlScope::Shard(shard), &[entry(serial(), RevocationReason::Superseded)]);
            let (accepted, shown) = openssl_verify(&fleet, &issued.der, &crl);
            assert_eq!(accepted, shard == 2, "{shown}");
            // X509_V_ERR_DIFFERENT_CRL_SCOPE
            assert_eq!(shown.contains("error 44 "), shard != 2, "{shown}");
        }
    }
}

#[test]
fn openssl_refuses_a_revoked_or_held_certificate_by_its_shard_and_by_the_full_list() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let (issued, _) = fleet.device_in(1);
    for reason in [RevocationReason::KeyCompromise, RevocationReason::CertificateHold, RevocationReason::Unspecified] {
        for scope in [CrlScope::Shard(1), CrlScope::Full] {
            let crl = signed_crl(&fleet.ca, scope, &[entry(issued.facts.serial, reason)]);
            let (accepted, shown) = openssl_verify(&fleet, &issued.der, &crl);
            assert!(!accepted && shown.contains("certificate revoked"), "{shown}");
        }
    }
    let (accepted, shown) = openssl_verify(&fleet, &issued.der, &signed_crl(&fleet.ca, CrlScope::Full, &[]));
    assert!(accepted, "{shown}");
}

#[test]
fn openssl_refuses_a_list_past_its_next_update() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let (issued, _) = fleet.device_in(0);
    let stale = signed_crl_until(&fleet.ca, CrlScope::Shard(0), &[], NOW.minus(UnixMillis::SECOND));
    let (accepted, shown) = openssl_verify(&fleet, &issued.der, &stale);
    assert!(!accepted && shown.contains("CRL has expired"), "{shown}");
}

#[test]
fn a_list_by_another_ca_says_nothing() {
    let (fleet, other) = (Fleet::new(KeyAlgorithm::P256), Fleet::new(KeyAlgorithm::P256));
    let (issued, _) = fleet.device_in(0);
    let (accepted, shown) = openssl_verify(&fleet, &issued.der, &signed_crl(&other.ca, CrlScope::Shard(0), &[]));
    assert!(!accepted, "{shown}");
}

#[test]
fn the_roots_full_list_covers_issuing_cas() {
    let fleet = Fleet::new(KeyAlgorithm::P384);
    let (issued, _) = fleet.device_in(0);
    let files = Files::new();
    let root = files.put("root.pem", fleet.root.pem());
    let ca = files.put("ca.pem", fleet.ca.pem());
    let leaf = files.put("leaf.pem", pem::certificate(&issued.der));
    let leaf_crl = pem::encode("X509 CRL", &signed_crl(&fleet.ca, CrlScope::Shard(0), &[]));
    let ca_serial = kf_pki::certificate::PresentedCertificate::from_der(&fleet.ca.issuer.certificate).unwrap().serial;
    let revoked = [entry(ca_serial.unwrap(), RevocationReason::CaCompromise)];
    for (entries, accepted) in [(&[][..], true), (&revoked[..], false)] {
        let crls = leaf_crl.clone() + &pem::encode("X509 CRL", &signed_crl(&fleet.root, CrlScope::Full, entries));
        let crls = files.put("crls.pem", crls);
        let arguments = ["verify", "-crl_check_all", "-CAfile", &root, "-untrusted", &ca, "-CRLfile", &crls, &leaf];
        let output = tool("openssl").run(&arguments);
        assert_eq!(output.success(), accepted, "{}", output.text());
    }
}

#[test]
fn openssl_shows_number_scope_and_every_reason() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let crl = signed_crl(&fleet.ca, CrlScope::Shard(3), &all_reasons());
    let arguments = ["crl", "-inform", "DER", "-noout", "-text"];
    let shown = tool("openssl").run_with_input(&arguments, &crl).expect_success().stdout_text();
    assert!(shown.contains("X509v3 Issuing Distribution Point: critical"), "{shown}");
    assert!(shown.contains(&format!("URI:{}", fleet.ca.issuer.shard_url(3))), "{shown}");
    assert!(
        shown.contains("Only User Certificates") && shown.contains("CRL Number: \n                4711"),
        "{shown}"
    );
    assert_eq!(shown.matches("Serial Number: ").count(), 10);
    for reason in [
        "Key Compromise",
        "CA Compromise",
        "Affiliation Changed",
        "Superseded",
        "Cessation Of Operation",
        "Certificate Hold",
        "Privilege Withdrawn",
        "AA Compromise",
    ] {
        assert_eq!(shown.matches(reason).count(), 1, "{reason}: {shown}");
    }
    // Unspecified is left out, and removeFromCRL belongs to delta lists: the entry stays, without a reason.
    assert_eq!(shown.matches("CRL Reason Code").count(), 8, "{shown}");
}

#[test]
fn certtool_and_strongswan_read_and_verify_both_kinds() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let files = Files::new();
    let ca = files.put("ca.pem", fleet.ca.pem());
    for scope in [CrlScope::Full, CrlScope::Shard(0)] {
        let crl = signed_crl(&fleet.ca, scope, &all_reasons());
        let pem_file = files.put("crl.pem", pem::encode("X509 CRL", &crl));
        let der_file = files.put("crl.der", &crl);
        let info = tool("certtool").run(&["--crl-info", "--infile", &pem_file]).expect_success().stdout_text();
        assert!(info.contains("Revoked certificates (10)"), "{info}");
        assert!(info.contains("CRL Number (not critical): 1267"), "{info}");
        let arguments = ["--verify-crl", "--load-ca-certificate", &ca, "--infile", &pem_file];
        drop(tool("certtool").run(&arguments).expect_success().expect_text("Verified"));
        let shown = tool("pki").run(&["--print", "--type", "crl", "--in", &der_file]).expect_success().stdout_text();
        assert!(shown.contains("10 revoked certificates") && shown.contains("serial:    12:67"), "{shown}");
    }
}

#[test]
fn certtool_and_strongswan_refuse_a_revoked_device() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let (issued, _) = fleet.device_in(0);
    let files = Files::new();
    let crl = signed_crl(&fleet.ca, CrlScope::Shard(0), &[entry(issued.facts.serial, RevocationReason::KeyCompromise)]);
    let ca = files.put("ca.pem", fleet.ca.pem());
    let crl_pem = files.put("crl.pem", pem::encode("X509 CRL", &crl));
    let leaf = files.put("leaf.pem", pem::certificate(&issued.der));
    let arguments = ["--verify", "--load-ca-certificate", &ca, "--load-crl", &crl_pem, "--infile", &leaf];
    drop(tool("certtool").run(&arguments).expect_failure().expect_text("revoked"));
    let (ca, root) =
        (files.put("ca.der", &fleet.ca.issuer.certificate), files.put("root.der", &fleet.root.issuer.certificate));
    let (crl, leaf) = (files.put("crl.der", &crl), files.put("leaf.der", &issued.der));
    let arguments = ["--verify", "--in", &leaf, "--cacert", &ca, "--cacert", &root, "--crl", &crl];
    drop(tool("pki").run(&arguments).expect_failure().expect_text("revoked"));
}

#[test]
fn a_shard_that_does_not_exist_and_a_list_without_a_future_are_refused() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let none = || std::iter::empty::<&EncodedEntry>();
    let check = |scope, next| check_crl(&fleet.ca.issuer, scope, 1, NOW, next, none()).map(drop);
    assert!(check(CrlScope::Shard(SHARDS), NOW.plus(UnixMillis::DAY)).is_err());
    assert!(check(CrlScope::Full, NOW).is_err());
    assert!(check(CrlScope::Full, NOW.plus(UnixMillis::SECOND)).is_ok());
}

#[test]
fn an_ocsp_signer_carries_no_list_and_needs_none() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let (issued, _) = fleet.issue(CertificateProfile::OcspSigner);
    let (accepted, shown) = openssl_verify(&fleet, &issued.der, &signed_crl(&fleet.ca, CrlScope::Full, &[]));
    assert!(accepted, "{shown}");
}

/// The trap that makes devices check the scope themselves. Should a later version of these programs refuse, this test
/// says so and the warning in the manual can go.
#[test]
fn certtool_and_strongswan_take_a_list_of_the_wrong_shard_and_our_own_reader_does_not() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let (issued, _) = fleet.device_in(1);
    let crl = signed_crl(&fleet.ca, CrlScope::Shard(0), &[]);
    let files = Files::new();
    let ca = files.put("ca.pem", fleet.ca.pem());
    let (leaf, crl_pem) =
        (files.put("leaf.pem", pem::certificate(&issued.der)), files.put("crl.pem", pem::encode("X509 CRL", &crl)));
    let arguments = ["--verify", "--load-ca-certificate", &ca, "--load-crl", &crl_pem, "--infile", &leaf];
    assert!(tool("certtool").run(&arguments).success());
    let (ca, root) =
        (files.put("ca.der", &fleet.ca.issuer.certificate), files.put("root.der", &fleet.root.issuer.certificate));
    let (leaf, crl_der) = (files.put("leaf.der", &issued.der), files.put("crl.der", &crl));
    let arguments = ["--verify", "--in", &leaf, "--cacert", &ca, "--cacert", &root, "--crl", &crl_der];
    assert!(tool("pki").run(&arguments).success());
    assert!(VerifiedCrl::from_der(&crl, &fleet.ca.issuer, CrlScope::Shard(1), NOW).is_err());
    assert!(VerifiedCrl::from_der(&crl, &fleet.ca.issuer, CrlScope::Full, NOW).is_err());
    assert!(VerifiedCrl::from_der(&crl, &fleet.ca.issuer, CrlScope::Shard(0), NOW).is_ok());
}

#[test]
fn our_own_reader_finds_every_entry_with_its_reason() {
    for algorithm in SIGNING {
        let fleet = Fleet::new(algorithm);
        let serials: Vec<_> = RevocationReason::ALL.into_iter().map(|reason| (serial(), reason)).collect();
        let entries: Vec<_> = serials.iter().map(|(serial, reason)| entry(*serial, *reason)).collect();
        let crl = signed_crl(&fleet.ca, CrlScope::Full, &entries);
        let read = VerifiedCrl::from_der(&crl, &fleet.ca.issuer, CrlScope::Full, NOW).unwrap();
        assert_eq!((read.number(), read.len()), (4711, serials.len()));
        for (serial, reason) in serials {
            let shown = if reason == RevocationReason::RemoveFromCrl { RevocationReason::Unspecified } else { reason };
            assert_eq!(read.revocation(&serial), Some((NOW.minus(UnixMillis::HOUR), shown)));
        }
        assert_eq!(read.revocation(&serial()), None);
        assert!(!read.revokes(serial()) && read.next_update() > NOW && read.this_update() < NOW);
        let empty = signed_crl(&fleet.ca, CrlScope::Shard(2), &[]);
        assert!(VerifiedCrl::from_der(&empty, &fleet.ca.issuer, CrlScope::Shard(2), NOW).unwrap().is_empty());
    }
}

#[test]
fn our_own_reader_refuses_lists_that_are_stale_foreign_or_changed() {
    let (fleet, other) = (Fleet::new(KeyAlgorithm::P256), Fleet::new(KeyAlgorithm::P256));
    let crl = signed_crl(&fleet.ca, CrlScope::Full, &[entry(serial(), RevocationReason::KeyCompromise)]);
    let read = |der: &[u8], issuer, now| VerifiedCrl::from_der(der, issuer, CrlScope::Full, now).map(drop);
    assert!(read(&crl, &fleet.ca.issuer, NOW.plus(2 * UnixMillis::DAY)).is_err());
    assert!(read(&crl, &fleet.ca.issuer, NOW.minus(2 * UnixMillis::HOUR)).is_err());
    assert!(read(&crl, &other.ca.issuer, NOW).is_err());
    assert!(read(&crl, &fleet.root.issuer, NOW).is_err());
    for position in 0..crl.len() {
        let mut changed = crl.clone();
        changed[position] ^= 1;
        assert!(read(&changed, &fleet.ca.issuer, NOW).is_err(), "octet {position}");
    }
}

//! One root after another: link certificates before openssl, and what a device that knows one root believes of the other.

use kf_crypto::PrivateKey;
use kf_key::{CertificateProfile, KeyAlgorithm, UnixMillis};
use kf_pki::certificate::{IssueRefusal, check_link, check_root};
use kf_pki::chain::{Currency, PathError, verify_client};
use kf_pki::pem;
use kf_pki::succession::{MAX_ANCHORS, remaining, vouched};

use crate::fleet::{Authority, Files, Fleet, NOW, authority, request, serial, sign, tool};

/// Two generations of one fleet, with both link certificates, DER.
struct Generations {
    old: Fleet,
    new: Fleet,
    new_with_old: Vec<u8>,
    old_with_new: Vec<u8>,
}

fn generation(name: &str, algorithm: KeyAlgorithm) -> Fleet {
    let key = PrivateKey::generate(algorithm).unwrap();
    let mut root = request(CertificateProfile::Root, &key);
    root.subject = authority(name);
    let root = sign(&key, check_root(root).unwrap());
    let root = Authority::new(key, &root.der);
    let ca_key = PrivateKey::generate(algorithm).unwrap();
    let mut below = request(CertificateProfile::IssuingCa, &ca_key);
    below.subject = authority(&format!("{name} issuing"));
    let ca = root.issue(below).unwrap();
    Fleet { root, ca: Authority::new(ca_key, &ca.der) }
}

fn link(by: &Authority, of: &Authority) -> Vec<u8> {
    sign(&by.key, check_link(&by.issuer, &of.issuer, serial(), NOW.minus(UnixMillis::HOUR)).unwrap()).der
}

impl Generations {
    fn new(before: KeyAlgorithm, after: KeyAlgorithm) -> Self {
        let (old, new) = (generation("Acme root", before), generation("Acme root-2", after));
        let (new_with_old, old_with_new) = (link(&old.root, &new.root), link(&new.root, &old.root));
        Self { old, new, new_with_old, old_with_new }
    }

    fn anchor(fleet: &Fleet) -> Vec<u8> {
        fleet.root.issuer.certificate.to_vec()
    }

    /// What `cacerts` hands out.
    fn offer(&self) -> Vec<Vec<u8>> {
        let of = |fleet: &Fleet| vec![Self::anchor(fleet), fleet.ca.issuer.certificate.to_vec()];
        [of(&self.old), of(&self.new), vec![self.new_with_old.clone(), self.old_with_new.clone()]].concat()
    }
}

#[test]
fn openssl_and_webpki_take_paths_under_the_old_root_the_new_one_and_across_in_both_directions() {
    let generations = Generations::new(KeyAlgorithm::P256, KeyAlgorithm::P384);
    let files = Files::new();
    let anchor = |fleet: &Fleet| pem::certificate(&Generations::anchor(fleet));
    let links = [&generations.new_with_old, &generations.old_with_new].map(|der| pem::certificate(der)).concat();
    for (name, of) in [("old", &generations.old), ("new", &generations.new)] {
        let (leaf, _) = of.issue(CertificateProfile::LDevId);
        let file = files.put(&format!("{name}.pem"), pem::certificate(&leaf.der));
        for (trusted, anchors) in [("old", &generations.old), ("new", &generations.new)] {
            let root = files.put("root.pem", anchor(anchors));
            let untrusted = files.put("chain.pem", of.ca.pem() + &links);
            let arguments =
                ["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", &root, "-untrusted", &untrusted, &file];
            drop(tool("openssl").run(&arguments).expect_success());
            let alone = files.put("alone.pem", of.ca.pem());
            let arguments = ["verify", "-x509_strict", "-CAfile", &root, "-untrusted", &alone, &file];
            assert_eq!(
                tool("openssl").run(&arguments).success(),
                name == trusted,
                "{name} by {trusted} without a link"
            );
            let root = Generations::anchor(anchors);
            let chain: [&[u8]; 3] = [&of.ca.issuer.certificate, &generations.new_with_old, &generations.old_with_new];
            assert_eq!(verify_client(&leaf.der, &chain, &[&root], NOW), Ok(Currency::Current));
            let found = verify_client(&leaf.der, &chain[..1], &[&root], NOW);
            assert_eq!(found, if name == trusted { Ok(Currency::Current) } else { Err(PathError::Untrusted) });
        }
    }
}

#[test]
fn a_link_joins_two_roots_only_and_ends_with_the_first_of_them() {
    let generations = Generations::new(KeyAlgorithm::P256, KeyAlgorithm::P256);
    let (old, new) = (&generations.old, &generations.new);
    let refused = |by: &Authority, of: &Authority| check_link(&by.issuer, &of.issuer, serial(), NOW).unwrap_err();
    assert_eq!(refused(&old.ca, &new.root), IssueRefusal::PathLength);
    assert_eq!(refused(&old.root, &new.ca), IssueRefusal::PathLength);
    assert_eq!(refused(&old.root, &old.root), IssueRefusal::Name { field: "subject of a link certificate" });
    let after = old.root.issuer.not_after.plus(UnixMillis::DAY);
    let late = check_link(&old.root.issuer, &new.root.issuer, serial(), after).unwrap_err();
    assert_eq!(late, IssueRefusal::Lifetime(CertificateProfile::LinkCa));
    let checked = check_link(&old.root.issuer, &new.root.issuer, serial(), NOW).unwrap();
    assert_eq!(checked.facts().profile, CertificateProfile::LinkCa);
    assert_eq!(checked.facts().not_after, old.root.issuer.not_after.min(new.root.issuer.not_after));
    assert_eq!(kf_pki::certificate::facts_of_tbs(checked.tbs()).as_ref(), Some(checked.facts()));
}

#[test]
fn a_new_root_is_believed_when_the_old_one_vouches_for_it_and_never_for_being_offered() {
    for (before, after) in [(KeyAlgorithm::P256, KeyAlgorithm::P256), (KeyAlgorithm::P256, KeyAlgorithm::MlDsa65)] {
        let generations = Generations::new(before, after);
        let (old, new) = (Generations::anchor(&generations.old), Generations::anchor(&generations.new));
        let offer = generations.offer();
        assert_eq!(vouched(std::slice::from_ref(&old), &offer, NOW), std::slice::from_ref(&new));
        assert_eq!(
            vouched(std::slice::from_ref(&new), &offer, NOW),
            std::slice::from_ref(&old),
            "the other link, for the way back"
        );
        assert!(vouched(&[old.clone(), new.clone()], &offer, NOW).is_empty(), "it is held already");
        let without =
            |left_out: &[u8]| -> Vec<Vec<u8>> { offer.iter().filter(|der| *der != left_out).cloned().collect() };
        assert!(vouched(std::slice::from_ref(&old), &without(&generations.new_with_old), NOW).is_empty());
        let stranger = Generations::new(before, after);
        assert!(vouched(&[Generations::anchor(&stranger.old)], &offer, NOW).is_empty());
        // An issuing CA cannot vouch, whatever it signs.
        assert!(vouched(&[generations.old.ca.issuer.certificate.to_vec()], &offer, NOW).is_empty());
        let ended = generations.old.root.issuer.not_after.plus(UnixMillis::DAY);
        assert!(
            vouched(std::slice::from_ref(&old), &offer, ended).is_empty(),
            "an anchor that has ended vouches no more"
        );
        let full = vec![old.clone(); MAX_ANCHORS];
        assert!(vouched(&full, &offer, NOW).is_empty(), "there is a limit");
    }
}

#[test]
fn a_link_with_any_octet_changed_vouches_for_nothing() {
    let generations = Generations::new(KeyAlgorithm::P256, KeyAlgorithm::P256);
    let (old, new) = (Generations::anchor(&generations.old), Generations::anchor(&generations.new));
    for position in 0..generations.new_with_old.len() {
        let mut link = generations.new_with_old.clone();
        link[position] ^= 1;
        assert!(vouched(std::slice::from_ref(&old), &[new.clone(), link], NOW).is_empty(), "octet {position}");
    }
}

#[test]
fn a_root_that_is_handed_out_no_more_is_let_go_unless_it_is_the_last() {
    let generations = Generations::new(KeyAlgorithm::P256, KeyAlgorithm::P256);
    let (old, new) = (Generations::anchor(&generations.old), Generations::anchor(&generations.new));
    let both = [old.clone(), new.clone()];
    assert_eq!(remaining(&both, &generations.offer()), None);
    let retired = [new.clone(), generations.new.ca.issuer.certificate.to_vec()];
    assert_eq!(remaining(&both, &retired), Some(vec![new.clone()]));
    assert_eq!(remaining(&[old], &retired), None, "who knows the old one alone keeps it, and is stranded");
    assert_eq!(remaining(&[new], &[]), None);
}

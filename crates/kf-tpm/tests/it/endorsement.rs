//! Credential activation: made by the server's rules, answered by the TPM; the TCG's own tools as judges.

use kf_api::product_line::EndorsementPolicy;
use kf_enrol::Refusal;
use kf_enrol::endorsement::{AttestedKey, EndorsementKey, make_credential};
use kf_key::{SecretArray, SecretBytes, UnixMillis};
use kf_pki::certificate::PresentedCertificate;
use kf_testkit::SoftwareTpm;
use kf_tpm::{EndorsementKind, Protection, TpmError};

use crate::open;

fn secret(octet: u8) -> SecretArray<32> {
    SecretArray::fill(|secret| secret.fill(octet))
}

fn now() -> UnixMillis {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    UnixMillis(u64::try_from(since.as_millis()).unwrap())
}

/// The endorsement key of a kind, as tpm2-tools exports it.
fn exported(emulator: &SoftwareTpm, handle: &str) -> Vec<u8> {
    let file = format!("{handle}.der");
    let output = emulator.tool("tpm2_readpublic").run(&["-c", handle, "-f", "der", "-o", &file, "-Q"]);
    assert!(output.success(), "{}", output.text());
    std::fs::read(emulator.file(&file)).unwrap()
}

#[test]
fn the_tpm_answers_a_challenge_to_each_of_its_endorsement_keys() {
    let emulator = SoftwareTpm::with_endorsement();
    let keys = [(EndorsementKind::Rsa2048, "0x81010001"), (EndorsementKind::P384, "0x81010016")]
        .map(|(kind, handle)| (kind, exported(&emulator, handle)));
    let tpm = open(&emulator);
    for protection in
        [Protection::default(), Protection { auth: Some(SecretBytes::from_vec(b"pin".to_vec())), policy: None }]
    {
        let key = tpm.generate_signature_key(&protection).unwrap();
        let attested = AttestedKey::from_public_area(key.public_area()).unwrap();
        assert_eq!(attested.spki, key.spki().unwrap());
        for (kind, spki) in &keys {
            let endorsement = EndorsementKey::from_spki(spki).unwrap();
            let made = make_credential(&endorsement, &attested, &secret(7), secret(9)).unwrap();
            let answer = tpm.activate_credential(*kind, &key, &protection, &made.blob, &made.encrypted_seed).unwrap();
            assert!(answer.equals(&secret(7)), "{kind:?}");
        }
    }
}

#[test]
fn a_p256_endorsement_key_is_made_from_its_template() {
    let emulator = SoftwareTpm::new();
    // tpm2_createek makes the key of template L-2, which this TPM does not keep.
    let output = emulator.tool("tpm2_createek").run(&["-G", "ecc", "-c", "ek.ctx", "-u", "ek.der", "-f", "der", "-Q"]);
    assert!(output.success(), "{}", output.text());
    let spki = std::fs::read(emulator.file("ek.der")).unwrap();
    let tpm = open(&emulator);
    let key = tpm.generate_signature_key(&Protection::default()).unwrap();
    let attested = AttestedKey::from_public_area(key.public_area()).unwrap();
    let endorsement = EndorsementKey::from_spki(&spki).unwrap();
    let made = make_credential(&endorsement, &attested, &secret(7), secret(9)).unwrap();
    let answer = tpm
        .activate_credential(EndorsementKind::P256, &key, &Protection::default(), &made.blob, &made.encrypted_seed)
        .unwrap();
    assert!(answer.equals(&secret(7)));
}

#[test]
fn another_key_another_tpm_and_an_altered_challenge_get_no_secret() {
    let (emulator, other) = (SoftwareTpm::with_endorsement(), SoftwareTpm::with_endorsement());
    let none = Protection::default();
    let tpm = open(&emulator);
    let certificate = tpm.endorsement_certificate().unwrap();
    let spki = PresentedCertificate::from_der(&certificate.certificate).unwrap().spki;
    let endorsement = EndorsementKey::from_spki(&spki).unwrap();
    let (key, second) = (tpm.generate_signature_key(&none).unwrap(), tpm.generate_signature_key(&none).unwrap());
    let attested = AttestedKey::from_public_area(key.public_area()).unwrap();
    let made = make_credential(&endorsement, &attested, &secret(7), secret(9)).unwrap();
    let kind = certificate.kind;
    // Another key of the same TPM.
    let refused = tpm.activate_credential(kind, &second, &none, &made.blob, &made.encrypted_seed);
    assert_eq!(refused.err(), Some(TpmError::Credential));
    // Another TPM of the same maker.
    let thief = open(&other);
    let own = thief.generate_signature_key(&none).unwrap();
    let refused = thief.activate_credential(kind, &own, &none, &made.blob, &made.encrypted_seed);
    assert_eq!(refused.err(), Some(TpmError::Credential));
    for position in 0..made.blob.len() {
        let mut altered = made.blob.clone();
        altered[position] ^= 1;
        let refused = tpm.activate_credential(kind, &key, &none, &altered, &made.encrypted_seed);
        assert_eq!(refused.err(), Some(TpmError::Credential), "octet {position}");
    }
    for length in [0, 1, made.blob.len() - 1] {
        let refused = tpm.activate_credential(kind, &key, &none, &made.blob[..length], &made.encrypted_seed);
        assert_eq!(refused.err(), Some(TpmError::Credential), "{length} octets");
    }
    let mut altered = made.encrypted_seed.clone();
    altered[10] ^= 1;
    assert_eq!(tpm.activate_credential(kind, &key, &none, &made.blob, &altered).err(), Some(TpmError::Credential));
    assert!(tpm.activate_credential(kind, &key, &none, &made.blob, &made.encrypted_seed).is_ok());
}

#[test]
fn the_tools_of_the_tcg_activate_what_we_make() {
    let emulator = SoftwareTpm::with_endorsement();
    let spki = exported(&emulator, "0x81010001");
    let run = |program: &str, arguments: &[&str]| {
        let output = emulator.tool(program).run(arguments);
        assert!(output.success(), "{program}: {}", output.text());
    };
    run("tpm2_createprimary", &["-C", "o", "-G", "ecc256", "-c", "parent.ctx", "-Q"]);
    run(
        "tpm2_create",
        &[
            "-C",
            "parent.ctx",
            "-G",
            "ecc256:ecdsa-sha256:null",
            "-u",
            "key.pub",
            "-r",
            "key.priv",
            "-a",
            "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign",
            "-Q",
        ],
    );
    run("tpm2_flushcontext", &["-t"]);
    run("tpm2_load", &["-C", "parent.ctx", "-u", "key.pub", "-r", "key.priv", "-c", "key.ctx", "-Q"]);
    run("tpm2_flushcontext", &["-t"]);
    // TPM2B_PUBLIC: two octets of length, then the area.
    let area = std::fs::read(emulator.file("key.pub")).unwrap();
    let attested = AttestedKey::from_public_area(&area[2..]).unwrap();
    let made = make_credential(&EndorsementKey::from_spki(&spki).unwrap(), &attested, &secret(7), secret(9)).unwrap();
    let sized = |octets: &[u8]| [&u16::try_from(octets.len()).unwrap().to_be_bytes(), octets].concat();
    // The header of tpm2-tools, then both parts with their lengths.
    let file = [&[0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1][..], &sized(&made.blob), &sized(&made.encrypted_seed)].concat();
    std::fs::write(emulator.file("credential"), file).unwrap();
    run("tpm2_startauthsession", &["--policy-session", "-S", "session.ctx"]);
    run("tpm2_policysecret", &["-S", "session.ctx", "-c", "e", "-Q"]);
    run(
        "tpm2_activatecredential",
        &["-c", "key.ctx", "-C", "0x81010001", "-i", "credential", "-o", "secret", "-P", "session:session.ctx", "-Q"],
    );
    assert_eq!(std::fs::read(emulator.file("secret")).unwrap(), [7; 32]);
}

#[test]
fn an_endorsement_certificate_is_believed_under_its_makers_ca_and_no_other() {
    let (emulator, other) = (SoftwareTpm::with_endorsement(), SoftwareTpm::with_endorsement());
    let certificate = open(&emulator).endorsement_certificate().unwrap().certificate;
    let accept = |policy: &EndorsementPolicy, registered, bound| {
        EndorsementKey::accept(policy, registered, bound, &certificate, &[], now())
    };
    let [issuing, _root] = emulator.authority_certificates();
    let maker = EndorsementPolicy { bind_first: true, authorities: vec![issuing.clone()], keys: Vec::new() };
    let key = accept(&maker, None, None).unwrap();
    // By the root, with the issuing CA sent along.
    let [issuing, root] = emulator.authority_certificates();
    let from_root = EndorsementPolicy { authorities: vec![root], ..maker.clone() };
    let issuing = kf_pki::pem::decode_all("CERTIFICATE", &issuing).unwrap();
    assert!(accept(&from_root, None, None).is_err());
    assert!(EndorsementKey::accept(&from_root, None, None, &certificate, &[&issuing[0]], now()).is_ok());
    // Another maker.
    let [stranger, _] = other.authority_certificates();
    let other_maker = EndorsementPolicy { authorities: vec![stranger], ..maker.clone() };
    assert!(matches!(accept(&other_maker, None, None), Err(Refusal::EndorsementKey(_))));
    // By its hash.
    let listed = EndorsementPolicy { bind_first: true, authorities: Vec::new(), keys: vec![hex::encode(key.sha256())] };
    assert!(accept(&listed, None, None).is_ok());
    // Not bound first unless the line says so; registered or bound to another one; registered to this one.
    let strict = EndorsementPolicy { bind_first: false, ..maker.clone() };
    assert!(matches!(accept(&strict, None, None), Err(Refusal::EndorsementKey(_))));
    assert!(matches!(accept(&maker, Some([1; 32]), None), Err(Refusal::EndorsementKey(_))));
    assert!(matches!(accept(&maker, None, Some([1; 32])), Err(Refusal::EndorsementKey(_))));
    assert!(accept(&EndorsementPolicy::default(), Some(key.sha256()), None).is_ok());
}

#[test]
fn a_key_that_could_leave_its_tpm_is_refused() {
    let emulator = SoftwareTpm::new();
    let run = |program: &str, arguments: &[&str]| {
        let output = emulator.tool(program).run(arguments);
        assert!(output.success(), "{program}: {}", output.text());
    };
    run("tpm2_createprimary", &["-C", "o", "-G", "ecc256", "-c", "parent.ctx", "-Q"]);
    for (attributes, scheme) in [
        ("sensitivedataorigin|userwithauth|sign", "ecc256:ecdsa-sha256:null"),
        ("fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|decrypt", "ecc256:null:null"),
        ("fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign", "ecc384:ecdsa-sha384:null"),
    ] {
        run("tpm2_create", &["-C", "parent.ctx", "-G", scheme, "-u", "key.pub", "-a", attributes, "-Q"]);
        run("tpm2_flushcontext", &["-t"]);
        let area = std::fs::read(emulator.file("key.pub")).unwrap();
        let refused = AttestedKey::from_public_area(&area[2..]);
        assert!(matches!(refused, Err(Refusal::PublicArea(_))), "{attributes} {scheme}: {refused:?}");
    }
}

#[test]
fn a_public_area_is_refused_at_every_cut_and_with_more_behind_it() {
    let emulator = SoftwareTpm::new();
    let key = open(&emulator).generate_signature_key(&Protection::default()).unwrap();
    let area = key.public_area();
    assert!(AttestedKey::from_public_area(area).is_ok());
    for length in 0..area.len() {
        assert!(AttestedKey::from_public_area(&area[..length]).is_err(), "{length}");
    }
    assert!(AttestedKey::from_public_area(&[area, &[0]].concat()).is_err());
    for position in 0..area.len() {
        let mut altered = area.to_vec();
        altered[position] ^= 0x10;
        let read = AttestedKey::from_public_area(&altered);
        assert_ne!(read, AttestedKey::from_public_area(area), "octet {position}");
    }
}

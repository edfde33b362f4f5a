use std::path::{Path, PathBuf};

use kf_signer::{BackendKind, RateCeilings, SecretSource, SignerConfig};

const BOTH: &str = r#"
backend = "sealed-file"
unlock = { credential = "root" }

[sealed_file]
path = "keys/root.seal"

[pkcs11]
module = "/usr/lib/softhsm/libsofthsm2.so"
token = "fleet"

[ceilings]
root_ca_per_minute = 5
"#;

fn parse(text: &str) -> SignerConfig {
    toml::from_str(text).unwrap()
}

#[test]
fn an_empty_table_is_a_sealed_file_unlocked_at_a_prompt() {
    assert_eq!(parse(""), SignerConfig::default());
    assert_eq!(parse("").below(Path::new("/data")).sealed_file.path, PathBuf::from("/data/root.seal"));
}

#[test]
fn switching_to_a_token_is_one_line() {
    let file = parse(BOTH);
    let token = parse(&BOTH.replace("backend = \"sealed-file\"", "backend = \"pkcs11\""));
    assert_eq!(token, SignerConfig { backend: BackendKind::Pkcs11, ..file });
    assert_eq!(token.pkcs11.as_ref().unwrap().root_label, "keyfleet root");
}

#[test]
fn what_is_left_out_keeps_its_default_and_what_is_written_is_read_back() {
    let config = parse(BOTH);
    assert_eq!(config.ceilings, RateCeilings { root_ca_per_minute: 5, ..RateCeilings::default() });
    assert_eq!(toml::from_str::<SignerConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
}

#[test]
fn every_source_of_a_secret_has_its_spelling() {
    for (text, expected) in [
        ("\"prompt\"", SecretSource::Prompt),
        ("{ descriptor = 5 }", SecretSource::Descriptor(5)),
        ("{ file = \"/run/pin\" }", SecretSource::File("/run/pin".into())),
        ("{ credential = \"pin\" }", SecretSource::Credential("pin".to_owned())),
    ] {
        assert_eq!(parse(&format!("unlock = {text}")).unlock, expected);
    }
}

#[test]
fn unknown_fields_and_secrets_in_the_file_are_refused() {
    for text in [
        "passphrase = \"secret\"",
        "unlock = { passphrase = \"secret\" }",
        "backend = \"hsm\"",
        "[pkcs11]\nmodule = \"m\"\ntoken = \"t\"\npin = \"1234\"",
        "[pkcs11]\nmodule = \"m\"",
        "[sealed_file]\nfile = \"x\"",
        "[ceilings]\nper_minute = 1",
    ] {
        assert!(toml::from_str::<SignerConfig>(text).is_err(), "{text}");
    }
}

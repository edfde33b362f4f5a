use super::*;
use crate::command::doctor::Severity;

fn fleet(extra: &str) -> FleetConfig {
    toml::from_str(&format!("fleet = \"acme\"\n{extra}\n[listen]\n[signer]\n")).unwrap()
}

fn directory() -> (tempfile::TempDir, DataDir) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = DataDir::new(scratch.path());
    (scratch, dir)
}

fn severity_of(findings: &[Finding], check: &str) -> Option<Severity> {
    findings.iter().find(|finding| finding.check == check).map(|finding| finding.severity)
}

#[test]
fn an_unknown_field_in_the_configuration_is_critical_and_named() {
    let (_scratch, dir) = directory();
    let mut findings = Vec::new();
    assert!(config(&dir, &mut findings).is_none());
    fs::write(dir.config_file(), "fleet = \"acme\"\nwitness = \"/mnt\"\n[listen]\n[signer]\n").unwrap();
    assert!(config(&dir, &mut findings).is_none());
    assert_eq!(findings.iter().map(|finding| finding.severity).collect::<Vec<_>>(), [Severity::Critical; 2]);
    assert!(findings[1].says.contains("witness"), "{findings:?}");
}

#[test]
fn a_file_that_others_may_read_is_an_error() {
    let (scratch, dir) = directory();
    let seal = scratch.path().join("root.seal");
    fs::write(&seal, "").unwrap();
    fs::set_permissions(&seal, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let mut findings = Vec::new();
    permissions(&dir, &mut findings);
    assert_eq!(severity_of(&findings, "permissions"), Some(Severity::Success), "{findings:?}");
    fs::set_permissions(&seal, fs::Permissions::from_mode(0o640)).unwrap();
    findings.clear();
    permissions(&dir, &mut findings);
    assert_eq!(severity_of(&findings, "permissions"), Some(Severity::Error));
    assert!(findings[0].says.contains("root.seal (640)") && findings[0].fix.starts_with("chmod"), "{findings:?}");
}

#[test]
fn a_token_left_on_the_server_is_a_warning() {
    let (_scratch, dir) = directory();
    assert_eq!(owner_token(&dir).severity, Severity::Success);
    fs::write(dir.owner_token(), "x").unwrap();
    assert_eq!(owner_token(&dir).severity, Severity::Warning);
}

#[test]
fn a_missing_unwritable_or_local_witness_is_found() {
    let (scratch, dir) = directory();
    assert_eq!(witness(&dir, &fleet("")).severity, Severity::Warning);
    assert_eq!(witness(&dir, &fleet("witness_dir = \"/nonexistent/witness\"")).severity, Severity::Critical);
    let same = witness(&dir, &fleet(&format!("witness_dir = {:?}", scratch.path())));
    assert!(same.severity == Severity::Warning && same.says.contains("same file system"), "{same:?}");
}

#[test]
fn a_secret_file_that_others_may_read_is_critical() {
    let (scratch, _dir) = directory();
    let path = scratch.path().join("pin");
    let mut config = fleet("");
    assert_eq!(secret_file(&config), None);
    assert_eq!(restart(&config).severity, Severity::Warning);
    config.signer.unlock = SecretSource::File(path.clone());
    assert_eq!(secret_file(&config).unwrap().severity, Severity::Critical);
    fs::write(&path, "1234").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(secret_file(&config).unwrap().severity, Severity::Critical);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(secret_file(&config).unwrap().severity, Severity::Success);
    assert_eq!(restart(&config).severity, Severity::Success);
}

#[test]
fn a_missing_token_module_is_critical() {
    let mut config = fleet("");
    assert_eq!(token_module(&config), None);
    config.signer.backend = BackendKind::Pkcs11;
    assert_eq!(token_module(&config).unwrap().severity, Severity::Critical);
}

#[test]
fn certificates_that_point_to_this_host_only_are_an_error_once_the_server_listens_outside() {
    let mut config = fleet("");
    assert_eq!(public_address(&config).severity, Severity::Success);
    assert_eq!(names(&config).severity, Severity::Success);
    config.listen.https = "0.0.0.0:8443".to_owned();
    assert_eq!(public_address(&config).severity, Severity::Error);
    assert_eq!(names(&config).severity, Severity::Error);
    config.listen.public_http = "http://pki.example:8080".to_owned();
    config.listen.names.push("pki.example".to_owned());
    assert_eq!(public_address(&config).severity, Severity::Success);
    assert_eq!(names(&config).severity, Severity::Success);
    config.listen.public_http = "https://pki.example".to_owned();
    assert_eq!(public_address(&config).severity, Severity::Warning);
    assert!(is_loopback(host_of("http://[::1]:8080/x")) && !is_loopback(host_of("http://pki.example/")));
}

#[test]
fn the_nearer_the_end_of_a_ca_the_worse_the_finding() {
    let now = UnixMillis(1_800_000_000_000);
    let after = |days: u64| expiry("root-expiry", "the root", now.plus(days * UnixMillis::DAY), now).severity;
    assert_eq!(
        [after(0), after(30), after(200), after(4_000)],
        [Severity::Critical, Severity::Error, Severity::Warning, Severity::Success]
    );
}

#[test]
fn a_root_certificate_that_is_gone_is_an_error() {
    let (_scratch, dir) = directory();
    assert_eq!(root_expiry(&dir, UnixMillis(1_800_000_000_000)).severity, Severity::Error);
}

#[test]
fn a_checkpoint_by_another_key_is_critical() {
    let (_scratch, dir) = directory();
    assert_eq!(checkpoint(&dir).severity, Severity::Error);
    let key = VerifierKey::new("log.example", [7; 32]).unwrap();
    fs::write(dir.verifier_key(), key.to_string()).unwrap();
    assert_eq!(checkpoint(&dir).severity, Severity::Skipped);
    fs::create_dir_all(dir.log_dir()).unwrap();
    fs::write(dir.log_dir().join("checkpoint"), "log.example\n0\nAAAA\n\n— other AAAA\n").unwrap();
    assert_eq!(checkpoint(&dir).severity, Severity::Critical);
}

#[test]
fn demonstration_data_is_critical() {
    assert_eq!(demo_data(&fleet("demo = true")).severity, Severity::Critical);
    assert_eq!(demo_data(&fleet("")).severity, Severity::Success);
}

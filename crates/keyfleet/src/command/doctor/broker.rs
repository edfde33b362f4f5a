//! The brokers' own configuration, where it lies on this host.

use std::fs;
use std::path::{Path, PathBuf};

use kf_fleet::{BrokerConfig, FleetConfig};

use super::Finding;

const CHECK: &str = "broker-config";
/// The most files that one configuration may include.
const MAX_INCLUDED: usize = 64;

pub(super) fn look(config: &FleetConfig, findings: &mut Vec<Finding>) {
    if config.broker.is_empty() {
        findings.push(Finding::good(CHECK, "no broker is configured"));
    }
    for broker in &config.broker {
        let BrokerConfig::Mosquitto { name, crl_file, pid_file, .. } = broker;
        match configuration_file(pid_file, Path::new("/proc")) {
            None => findings.push(Finding::skipped(
                CHECK,
                format!("{name}: no running Mosquitto with a configuration file behind {}", pid_file.display()),
                "start it with `-c FILE`, set `pid_file` in it, and let the doctor's user read both",
            )),
            Some(file) => {
                let before = findings.len();
                judge(name, crl_file, &lines_of(&file), findings);
                if findings.len() == before {
                    findings.push(Finding::good(CHECK, format!("{name}: {}", file.display())));
                }
            }
        }
    }
}

/// The file after `-c` on the command line of the process.
fn configuration_file(pid_file: &Path, proc: &Path) -> Option<PathBuf> {
    let pid: u32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let command = fs::read(proc.join(pid.to_string()).join("cmdline")).ok()?;
    let mut words = command.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    words.find(|word| word == "-c" || word == "--config-file")?;
    let file = words.next()?.into_owned();
    // A relative path is relative to where the broker was started.
    let directory = fs::read_link(proc.join(pid.to_string()).join("cwd")).unwrap_or_default();
    Some(directory.join(file))
}

/// The lines that count, with those of included directories in place.
fn lines_of(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut lines = Vec::new();
    for line in significant(&text) {
        let Some(directory) = line.strip_prefix("include_dir ") else {
            lines.push(line);
            continue;
        };
        let entries = fs::read_dir(directory.trim()).into_iter().flatten().flatten();
        let mut included: Vec<PathBuf> = entries.map(|entry| entry.path()).take(MAX_INCLUDED).collect();
        included.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
        included.sort();
        for path in included {
            lines.extend(significant(&fs::read_to_string(path).unwrap_or_default()));
        }
    }
    lines
}

fn significant(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// What one listener says.
#[derive(Debug, Default)]
struct Listener {
    port: String,
    on_loopback: bool,
    websockets: bool,
    asks_certificate: bool,
    crl_file: Option<PathBuf>,
    names_by_certificate: bool,
}

fn listeners_of(lines: &[String]) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for line in lines {
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim();
        if matches!(key, "listener" | "port") {
            let mut words = value.split_whitespace();
            let port = words.next().unwrap_or_default().to_owned();
            let on_loopback = words.next().is_some_and(|host| matches!(host, "127.0.0.1" | "::1" | "localhost"));
            // A listener with port 0 is a Unix socket.
            let on_loopback = on_loopback || port == "0";
            listeners.push(Listener { port, on_loopback, ..Listener::default() });
        }
        let Some(listener) = listeners.last_mut() else { continue };
        match key {
            "protocol" => listener.websockets = value == "websockets",
            "require_certificate" => listener.asks_certificate = value == "true",
            "crlfile" => listener.crl_file = Some(PathBuf::from(value)),
            "use_identity_as_username" | "use_subject_as_username" => listener.names_by_certificate = value == "true",
            _ => {}
        }
    }
    listeners
}

fn judge(name: &str, crl_file: &Path, lines: &[String], findings: &mut Vec<Finding>) {
    let listeners = listeners_of(lines);
    if listeners.is_empty() {
        let says = format!("{name}: the configuration has no listener");
        findings.push(Finding::error(CHECK, says, "see the manual's chapter on Mosquitto"));
    }
    for listener in listeners {
        let place = format!("{name}, listener {}", listener.port);
        if listener.websockets {
            findings.push(Finding::error(
                CHECK,
                format!("{place}: websocket listeners of Mosquitto 2.0 check no CRL, so revoked devices come in"),
                "remove `protocol websockets`, or let websockets through a proxy that checks the CRL",
            ));
        } else if !listener.asks_certificate {
            if !listener.on_loopback {
                findings.push(Finding::error(
                    CHECK,
                    format!("{place}: clients need no certificate"),
                    "set `require_certificate true`, or bind the listener to 127.0.0.1",
                ));
            }
        } else if listener.crl_file.as_deref() != Some(crl_file) {
            findings.push(Finding::error(
                CHECK,
                format!("{place}: it does not read {}", crl_file.display()),
                format!("set `crlfile {}`", crl_file.display()),
            ));
        } else if !listener.names_by_certificate {
            findings.push(Finding::warning(
                CHECK,
                format!("{place}: a device may call itself what it likes"),
                "set `use_identity_as_username true`",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::Severity;

    const GOOD: &str = "listener 8883\nrequire_certificate true\ncrlfile /run/crl.pem\nuse_identity_as_username true\n";

    fn check(text: &str) -> Vec<Severity> {
        let mut findings = Vec::new();
        judge("mosquitto", Path::new("/run/crl.pem"), &significant(text), &mut findings);
        assert!(findings.iter().all(|finding| !finding.fix.is_empty()));
        findings.iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn a_sound_listener_gives_no_finding() {
        assert_eq!(check(GOOD), []);
        assert_eq!(check(&format!("{GOOD}listener 1883 127.0.0.1\n")), []);
    }

    #[test]
    fn a_websocket_listener_is_an_error_because_it_checks_no_crl() {
        assert_eq!(check(&format!("{GOOD}listener 8884\nprotocol websockets\n")), [Severity::Error]);
    }

    #[test]
    fn a_listener_without_certificates_crl_or_names_is_found() {
        assert_eq!(check("listener 1883\n"), [Severity::Error]);
        assert_eq!(check("listener 8883\nrequire_certificate true\ncrlfile /old.pem\n"), [Severity::Error]);
        assert_eq!(check(&GOOD.replace("use_identity_as_username true", "")), [Severity::Warning]);
        assert_eq!(check(""), [Severity::Error]);
    }

    #[test]
    fn the_configuration_file_is_found_through_the_process() {
        let scratch = tempfile::tempdir().unwrap();
        let process = scratch.path().join("42");
        fs::create_dir(&process).unwrap();
        fs::write(process.join("cmdline"), b"/usr/sbin/mosquitto\0-c\0/etc/mosquitto/mosquitto.conf\0").unwrap();
        let pid_file = scratch.path().join("pid");
        assert_eq!(configuration_file(&pid_file, scratch.path()), None);
        fs::write(&pid_file, "42\n").unwrap();
        let expected = PathBuf::from("/etc/mosquitto/mosquitto.conf");
        assert_eq!(configuration_file(&pid_file, scratch.path()), Some(expected));
    }

    #[test]
    fn included_files_count_in_their_place() {
        let scratch = tempfile::tempdir().unwrap();
        let included = scratch.path().join("conf.d");
        fs::create_dir(&included).unwrap();
        fs::write(included.join("a.conf"), "# comment\nlistener 8883\n").unwrap();
        fs::write(included.join("b.txt"), "listener 1\n").unwrap();
        let main = scratch.path().join("mosquitto.conf");
        fs::write(&main, format!("include_dir {}\nrequire_certificate true\n", included.display())).unwrap();
        assert_eq!(lines_of(&main), ["listener 8883", "require_certificate true"]);
    }
}

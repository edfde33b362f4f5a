//! The host: memory, limits, clock, disk.

use std::fs;
use std::path::{Path, PathBuf};

use kf_fleet::{Clock as _, SystemClock};
use kf_key::UnixMillis;
use rustix::process::{Resource, getrlimit};

use super::Finding;

/// Room below which the store refuses to issue soon.
const LITTLE_OCTETS: u64 = 1024 * 1024 * 1024;
/// Room below which revocations are about to fail.
const NO_OCTETS: u64 = 64 * 1024 * 1024;
/// The signer locks its keys and a stack for each worker.
const LOCKED_OCTETS: u64 = 8 * 1024 * 1024;
/// Two listeners of 4,096 connections.
const OPEN_FILES: u64 = 8_192;
/// 2026-01-01: no clock that is right is before the program itself.
const BUILT: UnixMillis = UnixMillis(1_767_225_600_000);
/// statfs(2) types of file systems on which SQLite's locks or write-ahead log do not hold.
const REMOTE: [(i64, &str); 5] =
    [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0xfe53_4d42, "SMB2"), (0x517b, "SMB"), (0x0102_1997, "9p")];

/// Where the kernel tells about itself, and what time it is: tests plant faults here.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) proc: PathBuf,
    pub(super) now: UnixMillis,
}

impl Host {
    pub(super) fn this() -> Self {
        Self { proc: PathBuf::from("/proc"), now: SystemClock.now() }
    }
}

pub(super) fn look(host: &Host, data: &Path, findings: &mut Vec<Finding>) {
    findings.push(swap(host));
    findings.push(core_dumps(host));
    findings.push(limit("locked-memory", Resource::Memlock, LOCKED_OCTETS, "LimitMEMLOCK=64M"));
    findings.push(limit("open-files", Resource::Nofile, OPEN_FILES, "LimitNOFILE=16384"));
    findings.push(clock(host, data));
    findings.push(disk_space(data));
    findings.push(file_system(data));
}

fn swap(host: &Host) -> Finding {
    let Ok(table) = fs::read_to_string(host.proc.join("swaps")) else {
        return Finding::skipped("swap", "the kernel does not say", "look with `swapon --show`");
    };
    // Compressed memory is still memory.
    let areas: Vec<&str> = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .filter(|area| !area.contains("zram"))
        .collect();
    if areas.is_empty() {
        return Finding::good("swap", "no swap on disk");
    }
    Finding::warning(
        "swap",
        format!("memory may be written to {}", areas.join(", ")),
        "swapoff -a, or encrypt it with a random key at each start (crypttab: `swap DEVICE /dev/urandom swap`)",
    )
}

fn core_dumps(host: &Host) -> Finding {
    let pattern = fs::read_to_string(host.proc.join("sys/kernel/core_pattern")).unwrap_or_default();
    let pattern = pattern.trim();
    let limit = getrlimit(Resource::Core).current;
    // With a pipe the limit does not count: core(5).
    let writes = pattern.starts_with('|') || (!pattern.is_empty() && limit != Some(0));
    if !writes || pattern == "|/bin/false" {
        return Finding::good("core-dumps", "none are written");
    }
    Finding::warning(
        "core-dumps",
        format!("a crash of the server writes its memory to `{pattern}`; the signer excludes itself"),
        "run it with `LimitCORE=0`, and with a pipe set kernel.core_pattern to `|/bin/false`",
    )
}

fn limit(check: &'static str, resource: Resource, wanted: u64, unit_line: &str) -> Finding {
    match getrlimit(resource).current {
        Some(current) if current < wanted => Finding::warning(
            check,
            format!("the limit is {current}, {wanted} are needed"),
            format!("write `{unit_line}` in the systemd unit, or raise it with ulimit"),
        ),
        Some(current) => Finding::good(check, format!("the limit is {current}")),
        None => Finding::good(check, "no limit"),
    }
}

fn clock(host: &Host, data: &Path) -> Finding {
    let fix = "set the clock and keep it with chrony or systemd-timesyncd";
    let newest = ["registry.sqlite", "registry.sqlite-wal", "log/checkpoint"].iter().filter_map(|name| {
        let modified = fs::metadata(data.join(name)).and_then(|metadata| metadata.modified()).ok()?;
        let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    });
    if host.now < BUILT {
        return Finding::critical("clock", format!("it is {}", crate::moment::text(host.now)), fix);
    }
    match newest.max() {
        Some(newest) if newest > host.now.plus(10 * UnixMillis::SECOND).0 => Finding::critical(
            "clock",
            format!("the registry was written at {}, later than now", crate::moment::text(UnixMillis(newest))),
            fix,
        ),
        _ => Finding::good("clock", crate::moment::text(host.now)),
    }
}

fn disk_space(data: &Path) -> Finding {
    let fix = "make room, or move the data directory to a larger file system while the server is stopped";
    match rustix::fs::statvfs(data) {
        Err(error) => Finding::skipped("disk-space", format!("{}: {error}", data.display()), "check --data"),
        Ok(room) => {
            let octets = room.f_bavail.saturating_mul(room.f_frsize);
            let says = format!("{} MiB free", octets / (1024 * 1024));
            if octets < NO_OCTETS {
                Finding::critical("disk-space", says, fix)
            } else if octets < LITTLE_OCTETS {
                Finding::warning("disk-space", says, fix)
            } else {
                Finding::good("disk-space", says)
            }
        }
    }
}

fn file_system(data: &Path) -> Finding {
    match rustix::fs::statfs(data) {
        Err(error) => Finding::skipped("file-system", format!("{}: {error}", data.display()), "check --data"),
        Ok(facts) => match REMOTE.iter().find(|(kind, _)| *kind == facts.f_type) {
            Some((_, name)) => Finding::error(
                "file-system",
                format!("the registry lies on {name}, where its locks and its log do not hold"),
                "move the data directory to a local disk",
            ),
            None => Finding::good("file-system", "local"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::Severity;

    fn host(swaps: &str, core_pattern: &str) -> (tempfile::TempDir, Host) {
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir_all(proc.path().join("sys/kernel")).unwrap();
        fs::write(proc.path().join("swaps"), swaps).unwrap();
        fs::write(proc.path().join("sys/kernel/core_pattern"), core_pattern).unwrap();
        let host = Host { proc: proc.path().to_owned(), now: UnixMillis(4_000_000_000_000) };
        (proc, host)
    }

    #[test]
    fn swap_on_disk_is_a_warning_and_compressed_memory_is_not() {
        let header = "Filename Type Size Used Priority\n";
        let (_proc, with_disk) = host(&format!("{header}/dev/sda2 partition 1 0 -2\n"), "");
        assert_eq!(swap(&with_disk).severity, Severity::Warning);
        assert!(swap(&with_disk).says.contains("/dev/sda2"));
        let (_proc, with_zram) = host(&format!("{header}/dev/zram0 partition 1 0 -2\n"), "");
        assert_eq!(swap(&with_zram).severity, Severity::Success);
    }

    #[test]
    fn a_core_dump_handler_is_a_warning() {
        let (_proc, piped) = host("", "|/usr/share/apport/apport %p");
        assert_eq!(core_dumps(&piped).severity, Severity::Warning);
        let (_proc, none) = host("", "|/bin/false\n");
        assert_eq!(core_dumps(&none).severity, Severity::Success);
    }

    #[test]
    fn a_clock_behind_the_registry_is_critical() {
        let data = tempfile::tempdir().unwrap();
        let (_proc, mut host) = host("", "");
        fs::write(data.path().join("registry.sqlite"), "").unwrap();
        assert_eq!(clock(&host, data.path()).severity, Severity::Success);
        host.now = UnixMillis(BUILT.0 + 1);
        assert_eq!(clock(&host, data.path()).severity, Severity::Critical);
        host.now = UnixMillis(1);
        assert_eq!(clock(&host, data.path()).severity, Severity::Critical);
    }

    #[test]
    fn a_limit_that_is_too_low_names_the_line_to_write() {
        let current = getrlimit(Resource::Nofile).current.unwrap();
        let finding = limit("open-files", Resource::Nofile, current + 1, "LimitNOFILE=16384");
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.fix.contains("LimitNOFILE=16384"), "{finding:?}");
    }
}

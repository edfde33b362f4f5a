//! The server, asked from outside.

use std::time::Duration;

use kf_api::Page;
use kf_api::authority::{Authority, AuthorityKind};
use kf_api::certificate::{Certificate, CertificateFilter};
use kf_api::status::{FleetStatus, Issuance};
use kf_client::{HeaderValue, Method};
use kf_fleet::{Clock as _, SystemClock};
use kf_key::{CertificateStatus, UnixMillis};
use kf_pki::issuer::Issuer;
use kf_pki::ocsp::{CertStatus, make_request, verify_response};

use super::data::expiry;
use super::{Finding, Severity};
use crate::api::{Api, Context};
use crate::failure::Failure;

/// How far the two clocks may differ.
const CLOCK_TOLERANCE: u64 = 30 * UnixMillis::SECOND;
/// What needs an answer of the server.
const DEPENDENT: [&str; 7] =
    ["issuance", "signer", "authority-expiry", "crl-freshness", "ocsp", "server-clock", "tls-groups"];
/// The hybrid group that both sides prefer (draft-ietf-tls-ecdhe-mlkem).
const HYBRID: &str = "X25519MLKEM768";

/// Looks at the server. From its own host a server that is down is a warning, from elsewhere an error.
pub(super) async fn look(context: &Context, from_outside: bool, findings: &mut Vec<Finding>) {
    if let Err(failure) = ask(context, findings).await {
        let fix = "start it with `keyfleet serve --data DIR`, or correct the profile";
        let severity = if from_outside { Severity::Error } else { Severity::Warning };
        let says = failure.text().replace('\n', ";");
        findings.push(Finding { severity, check: "server", says, fix: fix.to_owned() });
        let missing = |check: &&&'static str| !findings.iter().any(|finding| finding.check == **check);
        let skipped: Vec<Finding> = DEPENDENT
            .iter()
            .filter(missing)
            .map(|check| Finding::skipped(check, "the server was not asked", "see `server`"))
            .collect();
        findings.extend(skipped);
    }
}

async fn ask(context: &Context, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let deadline = Duration::from_secs(20);
    let profile = context.profile_source()?.load()?;
    let client = profile.anonymous_client(context.timeout.unwrap_or(deadline))?;
    let url = format!("{}/readyz", profile.server.trim_end_matches('/'));
    let answer = client.request(Method::GET, &url, &[], Vec::new()).await?;
    let date = answer.headers.get(kf_client::header::DATE).and_then(|date| date.to_str().ok());
    findings.push(server_clock(date, SystemClock.now()));
    findings.push(if answer.status.is_success() {
        Finding::good("server", format!("{} is ready", profile.server))
    } else {
        let why: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
        Finding::error("server", format!("{} is not ready: {why}", profile.server), "see what it names, and its log")
    });
    let mut api = context.api_within(deadline)?;
    let status: FleetStatus = api.get("/v1/status").await?;
    judge_status(&status, SystemClock.now(), findings);
    let authorities: Page<Authority> = api.get("/v1/authorities?limit=1000").await?;
    for authority in &authorities.items {
        if authority.kind == AuthorityKind::Issuing && authority.status == CertificateStatus::Good {
            let who = format!("issuing CA {}", authority.name);
            findings.push(expiry("authority-expiry", &who, authority.not_after, SystemClock.now()));
        }
    }
    findings.push(ocsp(&mut api, &authorities.items).await?);
    findings.push(match api.get_raw("/metrics").await {
        Ok(metrics) => tls_groups(&String::from_utf8_lossy(&metrics)),
        Err(failure) => Finding::skipped("tls-groups", failure.text(), "ask as an operator who may read metrics"),
    });
    Ok(())
}

/// What the server has counted since its start, this connection included.
fn tls_groups(metrics: &str) -> Finding {
    let count = |line: &str| {
        let rest = line.strip_prefix("keyfleet_tls_handshakes_total{group=\"")?;
        let (group, number) = rest.split_once("\"} ")?;
        Some((group.to_owned(), number.trim().parse::<u64>().ok()?))
    };
    let groups: Vec<(String, u64)> = metrics.lines().filter_map(count).collect();
    let total: u64 = groups.iter().map(|(_, number)| number).sum();
    let says = groups.iter().map(|(group, number)| format!("{group} {number}")).collect::<Vec<_>>().join(", ");
    match groups.iter().find(|(group, _)| group == HYBRID) {
        _ if total == 0 => Finding::skipped("tls-groups", "the server has counted no connection", "look again"),
        Some((_, hybrid)) => Finding::good(
            "tls-groups",
            format!("{hybrid} of {total} connections since the server's start by {HYBRID} ({says})"),
        ),
        None => Finding::warning(
            "tls-groups",
            format!("none of {total} connections by {HYBRID} ({says}), not even this one"),
            "something between here and the server takes TLS apart, or strips what it does not know: connect directly",
        ),
    }
}

fn server_clock(date: Option<&str>, now: UnixMillis) -> Finding {
    let theirs = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let Some(theirs) = theirs.and_then(|date| u64::try_from(date.timestamp().as_millisecond()).ok()) else {
        return Finding::skipped("server-clock", "the answer has no date", "ask the server itself, not a proxy");
    };
    let apart = theirs.abs_diff(now.0);
    if apart <= CLOCK_TOLERANCE {
        return Finding::good("server-clock", "both agree");
    }
    Finding::error(
        "server-clock",
        format!("they are {} seconds apart", apart / UnixMillis::SECOND),
        "keep both with NTP: a wrong clock makes good certificates expired and revoked ones current",
    )
}

fn judge_status(status: &FleetStatus, now: UnixMillis, findings: &mut Vec<Finding>) {
    findings.push(match &status.issuance {
        Issuance::Running => Finding::good("issuance", "running"),
        Issuance::Stopped(why) => Finding::warning(
            "issuance",
            format!("stopped: {why}"),
            "`keyfleet issuance start` once the reason is gone; devices cannot renew meanwhile",
        ),
        Issuance::StoreFull => Finding::critical("issuance", "stopped: the store is full", "make room on its disk"),
        Issuance::Fenced(why) => Finding::critical(
            "issuance",
            format!("fenced: {why}"),
            "the database is older than its witness: restore the newest copy, or follow the runbook for a rollback",
        ),
    });
    findings.push(if status.signer_up {
        Finding::good("signer", "up")
    } else {
        Finding::critical(
            "signer",
            "it does not answer",
            "look at the server's log; with a token, see that it is there",
        )
    });
    findings.push(match status.crl_next_update {
        None => Finding::skipped("crl-freshness", "there is no CRL yet", "issue a certificate, look again"),
        Some(next) if next <= now => Finding::critical(
            "crl-freshness",
            format!("a CRL ended at {}: strict clients refuse every device", crate::moment::text(next)),
            "look at the server's log for why it signs none; see `signer`",
        ),
        Some(next) if next.since(now) < UnixMillis::HOUR => Finding::warning(
            "crl-freshness",
            format!("a CRL ends at {}", crate::moment::text(next)),
            "CRLs are renewed at half of their life: look at the server's log",
        ),
        Some(next) => Finding::good("crl-freshness", format!("current until {} at least", crate::moment::text(next))),
    });
    let told = findings.iter().any(|finding| finding.check == "witness");
    // On the server's own host the check `witness` has said more already.
    for warning in status.warnings.iter().filter(|warning| !(told && warning.contains("witness"))) {
        findings.push(Finding::warning("server", warning.clone(), "see `keyfleet status`"));
    }
}

/// Asks for the status of a certificate that an issuing CA issued, and compares the verified answer with the registry's.
async fn ocsp(api: &mut Api, authorities: &[Authority]) -> Result<Finding, Failure> {
    let filter = CertificateFilter { limit: Some(50), ..CertificateFilter::default() };
    let issued: Page<Certificate> = api.query("/v1/certificates", &filter).await?;
    let pair = issued.items.iter().find_map(|certificate| {
        let authority = authorities.iter().find(|authority| authority.id == certificate.authority)?;
        (authority.kind == AuthorityKind::Issuing).then_some((certificate, authority))
    });
    let Some((certificate, authority)) = pair else {
        return Ok(Finding::skipped("ocsp", "no certificate was issued yet", "issue one, look again"));
    };
    let der = kf_pki::pem::decode_all("CERTIFICATE", &authority.certificate_pem).unwrap_or_default();
    let der = der.first().map(Vec::as_slice).unwrap_or_default();
    let Ok(issuer) = Issuer::from_certificate(authority.id, der, authority.shard_count, "") else {
        return Ok(Finding::error(
            "ocsp",
            format!("the certificate of {} cannot be read", authority.name),
            "report this",
        ));
    };
    let nonce: [u8; 16] = kf_crypto::random_array()
        .map_err(|error| Failure::local(format!("no random octets: {error}"), "look at the host"))?;
    let request = make_request(&issuer, certificate.serial, Some(&nonce));
    let answer = api.post_raw("/ocsp", HeaderValue::from_static("application/ocsp-request"), request).await?;
    let said = verify_response(&answer, &issuer, certificate.serial, Some(&nonce), SystemClock.now());
    Ok(compare(certificate, said))
}

fn compare(certificate: &Certificate, said: Result<CertStatus, &'static str>) -> Finding {
    let fix = "look at the server's log; do not trust OCSP until this is explained";
    match said {
        Err(why) => {
            Finding::critical("ocsp", format!("the answer about {} does not verify: {why}", certificate.serial), fix)
        }
        Ok(status) => {
            let agrees = matches!(
                (certificate.status, &status),
                (CertificateStatus::Good, CertStatus::Good)
                    | (CertificateStatus::Held | CertificateStatus::Revoked, CertStatus::Revoked { .. })
            );
            if agrees {
                Finding::good("ocsp", format!("agrees with the registry about {}", certificate.serial))
            } else {
                let says =
                    format!("says {status:?} about {}, the registry {:?}", certificate.serial, certificate.status);
                Finding::critical("ocsp", says, fix)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> FleetStatus {
        FleetStatus {
            fleet: "acme".to_owned(),
            version: "1".to_owned(),
            issuance: Issuance::Running,
            devices: Vec::new(),
            certificates: (0, 0, 0),
            log_size: 0,
            witness: true,
            single_control: false,
            signer_up: true,
            delivery_key_sha256: String::new(),
            order_key_sha256: String::new(),
            crl_next_update: Some(UnixMillis(1_800_000_000_000 + UnixMillis::DAY)),
            warnings: Vec::new(),
        }
    }

    fn severity_of(status: &FleetStatus, check: &str) -> Severity {
        let mut findings = Vec::new();
        judge_status(status, UnixMillis(1_800_000_000_000), &mut findings);
        findings.iter().find(|finding| finding.check == check).unwrap().severity
    }

    #[test]
    fn a_healthy_status_gives_only_success() {
        for check in ["issuance", "signer", "crl-freshness"] {
            assert_eq!(severity_of(&status(), check), Severity::Success);
        }
    }

    #[test]
    fn a_stop_a_fence_a_full_store_and_a_dead_signer_are_told_apart() {
        let issuance = |issuance| severity_of(&FleetStatus { issuance, ..status() }, "issuance");
        assert_eq!(issuance(Issuance::Stopped("audit".to_owned())), Severity::Warning);
        assert_eq!(issuance(Issuance::StoreFull), Severity::Critical);
        assert_eq!(issuance(Issuance::Fenced("old".to_owned())), Severity::Critical);
        assert_eq!(severity_of(&FleetStatus { signer_up: false, ..status() }, "signer"), Severity::Critical);
    }

    #[test]
    fn an_ended_crl_is_critical_and_one_about_to_end_a_warning() {
        let with = |millis| FleetStatus { crl_next_update: Some(UnixMillis(millis)), ..status() };
        assert_eq!(severity_of(&with(1_800_000_000_000), "crl-freshness"), Severity::Critical);
        assert_eq!(severity_of(&with(1_800_000_600_000), "crl-freshness"), Severity::Warning);
    }

    #[test]
    fn the_groups_of_connections_are_told_and_none_by_the_hybrid_one_is_a_warning() {
        let line = |group: &str, number: u64| format!("keyfleet_tls_handshakes_total{{group=\"{group}\"}} {number}\n");
        let both = tls_groups(&[line("X25519", 3), "# HELP other\n".to_owned(), line(HYBRID, 12)].concat());
        assert_eq!((both.severity, both.says.contains("12 of 15")), (Severity::Success, true), "{both:?}");
        let none = tls_groups(&line("X25519", 3));
        assert_eq!((none.severity, none.says.contains("X25519 3")), (Severity::Warning, true), "{none:?}");
        assert_eq!(tls_groups("keyfleet_other 1\n").severity, Severity::Skipped);
    }

    #[test]
    fn clocks_that_differ_are_an_error() {
        let now = UnixMillis(1_700_000_000_000);
        assert_eq!(server_clock(Some("Tue, 14 Nov 2023 22:13:21 GMT"), now).severity, Severity::Success);
        assert_eq!(server_clock(Some("Tue, 14 Nov 2023 22:23:21 GMT"), now).severity, Severity::Error);
        assert_eq!(server_clock(None, now).severity, Severity::Skipped);
    }
}

//! Revoking certificates one by one, durable and in effect in OCSP when the call returns; a CRL of 100,000; and a whole facility at once.

mod mass;

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use kf_api::revocation::{RevocationTarget, RevokeRequest};
use kf_crypto::{PrivateKey, random_array};
use kf_key::{KeyAlgorithm, RevocationReason, SerialNumber, UnixMillis};
use kf_pki::crl::{CrlEntry, CrlScope, EncodedEntry, check_crl};

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::{Effort, alternate, cpu_per_operation, cpu_time_of_ended_children, micros};
use crate::peers::run_quietly;
use crate::primitives::Bare;
use crate::scratch_fleet::{IN_FLIGHT, ScratchFleet, fleet_error, in_flight, issue_request};
use crate::status::issuer;
use crate::trivial_server::runtime;

/// Entries of the large CRL.
const ENTRIES: u32 = 100_000;

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let runtime = runtime()?;
    let fleet = ScratchFleet::create(&runtime)?;
    let bare = Bare::new()?;
    let count = 250 * effort.scale;
    let (mut round, mut rates) = (0_u32, Vec::new());
    let costs = alternate(
        effort.rounds,
        &mut [&mut || bare.sign_and_verify(count), &mut || {
            round += 1;
            let devices = fleet.register(&runtime, &format!("revoke-{round}"), count)?;
            let requests = devices.iter().map(|device| issue_request(device)).collect::<Result<_, _>>()?;
            let serials = fleet.issue(&runtime, IN_FLIGHT, requests)?;
            let start = Instant::now();
            let cost = cpu_per_operation(count, || revoke(&fleet, &runtime, serials));
            rates.push(f64::from(count) / start.elapsed().as_secs_f64());
            cost
        }],
    )?;
    let [unit, cost] = costs[..] else { return Ok(Vec::new()) };
    let rate = crate::measure::median(rates);
    let mut figures = vec![
        Figure::ratio("revocation, durable", micros(cost), "us CPU", cost / unit, "U", Aim::None),
        Figure::value("revocations, 64 in flight", rate, "per second", Aim::None),
    ];
    figures.extend(large_crl(effort, &fleet, &runtime)?);
    figures.extend(mass::measure(effort, &runtime)?);
    Ok(figures)
}

fn revoke(
    fleet: &ScratchFleet,
    runtime: &tokio::runtime::Runtime,
    serials: Vec<SerialNumber>,
) -> Result<(), BenchError> {
    let (fleet, owner) = (Arc::clone(&fleet.fleet), fleet.owner.clone());
    let all = in_flight(IN_FLIGHT, serials, move |serial| {
        let (fleet, owner) = (Arc::clone(&fleet), owner.clone());
        async move {
            let request = RevokeRequest {
                target: RevocationTarget::Certificate(serial),
                reason: RevocationReason::Superseded,
                why: "benchmark".to_owned(),
                verify: false,
                dry_run: false,
            };
            let outcome = fleet.revoke(&owner, request).await.map_err(fleet_error)?;
            match (outcome.done, outcome.certificates) {
                (true, 1) => Ok(()),
                _ => Err(BenchError::Failed { what: "a revocation", why: format!("{outcome:?}") }),
            }
        }
    });
    runtime.block_on(all).map(drop)
}

/// A CRL signed from entries in memory, beside `openssl ca -gencrl` on as many.
fn large_crl(
    effort: &Effort,
    fleet: &ScratchFleet,
    runtime: &tokio::runtime::Runtime,
) -> Result<Vec<Figure>, BenchError> {
    let issuer = issuer(fleet, runtime)?;
    let key = PrivateKey::generate(KeyAlgorithm::P256).map_err(BenchError::failed("a key"))?;
    let now = fleet.fleet.clock().now();
    let entries = entries(now)?;
    let peer = OpensslCa::prepare(&entries)?;
    let mut octets = 0;
    let sign_ours = || {
        let encoded: Vec<EncodedEntry> = entries.iter().map(CrlEntry::encode).collect();
        let next = now.plus(UnixMillis::DAY);
        let crl = check_crl(&issuer, CrlScope::Full, 1, now, next, encoded.iter())
            .map_err(BenchError::failed("a large CRL"))?;
        let signature = key.sign(crl.tbs()).map_err(BenchError::failed("signing"))?;
        octets = crl.complete(&signature).len();
        Ok(())
    };
    let mut sign_ours = sign_ours;
    let costs = alternate(effort.rounds, &mut [&mut || peer.generate(), &mut || cpu_per_operation(1, &mut sign_ours)])?;
    let [openssl, ours] = costs[..] else { return Ok(Vec::new()) };
    let note = format!("{octets} octets, every entry encoded anew; openssl ca -gencrl: {:.0} ms", openssl * 1e3);
    Ok(vec![
        Figure::ratio("CRL of 100,000 entries", ours * 1e3, "ms CPU", ours / openssl, "openssl ca", Aim::AtMost(0.02))
            .with_note(note),
    ])
}

fn entries(now: UnixMillis) -> Result<Vec<CrlEntry>, BenchError> {
    (0..ENTRIES)
        .map(|_| {
            let random = random_array::<16>().map_err(BenchError::failed("a serial number"))?;
            let reason = RevocationReason::KeyCompromise;
            Ok(CrlEntry { serial: SerialNumber::from_parts(now, random), revoked: now, reason })
        })
        .collect()
}

/// A CA of openssl with an index of revoked certificates.
struct OpensslCa {
    folder: tempfile::TempDir,
}

impl OpensslCa {
    fn prepare(entries: &[CrlEntry]) -> Result<Self, BenchError> {
        let folder = tempfile::tempdir().map_err(BenchError::io("a scratch folder"))?;
        let this = Self { folder };
        let index: String = entries
            .iter()
            .map(|entry| {
                format!(
                    "R\t361231235959Z\t261101000000Z,keyCompromise\t{}\tunknown\t/CN=x\n",
                    hexadecimal(entry.serial)
                )
            })
            .collect();
        this.write("index.txt", &index)?;
        this.write("crlnumber", "01\n")?;
        this.write(
            "ca.cnf",
            "[ca]\ndefault_ca=a\n[a]\ndatabase=index.txt\ncrlnumber=crlnumber\ncertificate=ca.pem\nprivate_key=ca.key\n\
             default_md=sha256\ndefault_crl_days=1\n",
        )?;
        let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem \
                         -subj /CN=peer -days 30";
        this.openssl(arguments)?;
        Ok(this)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), BenchError> {
        fs::write(self.folder.path().join(name), text).map_err(BenchError::io(name))
    }

    fn openssl(&self, arguments: &str) -> Result<(), BenchError> {
        run_quietly("openssl", arguments, self.folder.path())
    }

    /// CPU seconds of one `openssl ca -gencrl`.
    fn generate(&self) -> Result<f64, BenchError> {
        let before = cpu_time_of_ended_children()?;
        self.openssl("ca -config ca.cnf -gencrl -out crl.pem")?;
        Ok((cpu_time_of_ended_children()? - before).as_secs_f64())
    }
}

fn hexadecimal(serial: SerialNumber) -> String {
    serial.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect()
}

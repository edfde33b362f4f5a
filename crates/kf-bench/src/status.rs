//! OCSP in process: live answers (with a nonce, signed each time) and pre-signed ones.

use kf_api::PageRequest;
use kf_crypto::random_array;
use kf_key::SerialNumber;
use kf_pki::issuer::Issuer;
use kf_pki::ocsp::{CertStatus, make_request, verify_response};

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::{Effort, alternate, cpu_per_operation, micros};
use crate::primitives::Bare;
use crate::scratch_fleet::{IN_FLIGHT, ScratchFleet, fleet_error, issue_request};
use crate::trivial_server::runtime;

/// The issuing CA that devices get their certificates from.
pub(crate) fn issuer(fleet: &ScratchFleet, runtime: &tokio::runtime::Runtime) -> Result<Issuer, BenchError> {
    let authorities =
        runtime.block_on(fleet.fleet.authority_list(&fleet.owner, PageRequest::default())).map_err(fleet_error)?;
    let authority = authorities
        .items
        .into_iter()
        .find(|authority| authority.is_default)
        .ok_or_else(|| BenchError::Failed { what: "the issuing CA", why: "there is no default".to_owned() })?;
    let der = kf_pki::pem::decode_all("CERTIFICATE", &authority.certificate_pem)
        .and_then(|found| found.into_iter().next())
        .ok_or_else(|| BenchError::Failed { what: "the issuing CA", why: "no certificate".to_owned() })?;
    Issuer::from_certificate(authority.id, &der, authority.shard_count, &fleet.fleet.config().listen.public_http)
        .map_err(BenchError::failed("the issuing CA"))
}

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let runtime = runtime()?;
    let fleet = ScratchFleet::create(&runtime)?;
    let devices = fleet.register(&runtime, "status", 200)?;
    let requests = devices.iter().map(|device| issue_request(device)).collect::<Result<_, _>>()?;
    let serials = fleet.issue(&runtime, IN_FLIGHT, requests)?;
    let issuer = issuer(&fleet, &runtime)?;
    let bare = Bare::new()?;
    check_one(&fleet, &runtime, &issuer, &serials)?;
    let count = 1_000 * effort.scale;
    let costs = alternate(
        effort.rounds,
        &mut [
            &mut || bare.sign(count),
            &mut || ask(&fleet, &runtime, &prepare(&issuer, &serials, count, true)?),
            &mut || ask(&fleet, &runtime, &prepare(&issuer, &serials, count, false)?),
        ],
    )?;
    let [sign, live, ready] = costs[..] else { return Ok(Vec::new()) };
    Ok(vec![
        Figure::ratio(
            "OCSP answer, live, in process",
            micros(live),
            "us CPU",
            sign / live,
            "S rate",
            Aim::AtLeast(0.7),
        ),
        Figure::ratio(
            "OCSP answer, pre-signed, in process",
            micros(ready),
            "us CPU",
            sign / ready,
            "S rate",
            Aim::None,
        ),
    ])
}

/// That what is timed is right: one live answer says "good" under the issuer's name.
fn check_one(
    fleet: &ScratchFleet,
    runtime: &tokio::runtime::Runtime,
    issuer: &Issuer,
    serials: &[SerialNumber],
) -> Result<(), BenchError> {
    let nonce = random_array::<16>().map_err(BenchError::failed("a nonce"))?;
    let Some(serial) = serials.first() else { return Ok(()) };
    let answer = runtime.block_on(fleet.fleet.ocsp(&make_request(issuer, *serial, Some(&nonce))));
    let now = fleet.fleet.clock().now();
    match verify_response(&answer.der, issuer, *serial, Some(&nonce), now) {
        Ok(CertStatus::Good) => Ok(()),
        other => Err(BenchError::Failed { what: "an OCSP answer", why: format!("{other:?}") }),
    }
}

fn prepare(
    issuer: &Issuer,
    serials: &[SerialNumber],
    count: u32,
    with_nonce: bool,
) -> Result<Vec<Vec<u8>>, BenchError> {
    let mut requests = Vec::new();
    for (serial, _) in serials.iter().cycle().zip(0..count) {
        let nonce = random_array::<16>().map_err(BenchError::failed("a nonce"))?;
        requests.push(make_request(issuer, *serial, with_nonce.then_some(nonce.as_slice())));
    }
    Ok(requests)
}

fn ask(fleet: &ScratchFleet, runtime: &tokio::runtime::Runtime, requests: &[Vec<u8>]) -> Result<f64, BenchError> {
    let count = u32::try_from(requests.len()).map_err(BenchError::failed("counting"))?;
    cpu_per_operation(count, || {
        runtime.block_on(async {
            for request in requests {
                std::hint::black_box(fleet.fleet.ocsp(request).await);
            }
        });
        Ok(())
    })
}

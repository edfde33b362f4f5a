//! The server process over the network, beside the yardstick server: EST over fresh mutual TLS, OCSP over HTTP.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kf_crypto::random_array;
use kf_key::SerialNumber;
use kf_pki::issuer::Issuer;
use kf_pki::ocsp::make_request;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::load::{Call, Connections, get, post, send_all};
use crate::measure::{Effort, alternate, micros};
use crate::primitives::Bare;
use crate::real_server::{EnrolledDevice, RealFleet, RealServer, est_request};
use crate::scratch_fleet::request;
use crate::trivial_server::{LANES, TrivialServer, runtime, server_cpu};

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let runtime = runtime()?;
    let fleet = RealFleet::create()?;
    let server = fleet.serve()?;
    server.prepare(&runtime)?;
    let (renewals, answers) = (100 * effort.scale, 2_000 * effort.scale);
    // Each renews once a round, so that none has more certificates than rounds and one.
    let devices = (0..renewals)
        .map(|number| server.enrol(&runtime, &format!("device-{number}")))
        .collect::<Result<Vec<_>, _>>()?;
    let issuer = default_issuer(&server, &runtime)?;
    let serials = serials(&server, &runtime)?;
    let yardstick = TrivialServer::start()?;
    let bare = Bare::new()?;
    let costs = alternate(
        effort.rounds,
        &mut [
            &mut || yardstick.handshakes(&runtime, renewals),
            &mut || renew(&server, &runtime, &devices, renewals),
            &mut || yardstick.plain_gets(&runtime, answers),
            &mut || ready_answers(&server, &runtime, &issuer, &serials, answers),
            &mut || live_answers(&server, &runtime, &issuer, &serials, answers),
            &mut || bare.sign(answers),
        ],
    )?;
    let [handshake, renewal, trivial, ready, live, sign] = costs[..] else { return Ok(Vec::new()) };
    let unit = "us server CPU";
    Ok(vec![
        Figure::ratio(
            "EST renewal, fresh mutual TLS",
            micros(renewal),
            unit,
            handshake / renewal,
            "H rate",
            Aim::AtLeast(0.5),
        )
        .with_note("signer included; every certificate on disk before it is answered; none superseded"),
        Figure::ratio("OCSP over HTTP, pre-signed", micros(ready), unit, trivial / ready, "G rate", Aim::AtLeast(0.6)),
        Figure::ratio("OCSP over HTTP, live", micros(live), unit, (sign + trivial) / live, "S+G rate", Aim::None),
    ])
}

/// The CA that devices get their certificates from, as the API tells it.
pub(crate) fn default_issuer(server: &RealServer, runtime: &Runtime) -> Result<Issuer, BenchError> {
    let missing = || BenchError::Failed { what: "the issuing CA", why: "the API names no default".to_owned() };
    let list = server.get(runtime, "/v1/authorities")?;
    let authority: kf_api::authority::Authority = list
        .get("items")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|item| serde_json::from_value(item.clone()).ok())
        .find(|authority: &kf_api::authority::Authority| authority.is_default)
        .ok_or_else(missing)?;
    let der = kf_pki::pem::decode_all("CERTIFICATE", &authority.certificate_pem)
        .and_then(|found| found.into_iter().next())
        .ok_or_else(missing)?;
    Issuer::from_certificate(authority.id, &der, authority.shard_count, "http://127.0.0.1:8080")
        .map_err(BenchError::failed("the issuing CA"))
}

fn serials(server: &RealServer, runtime: &Runtime) -> Result<Vec<SerialNumber>, BenchError> {
    let list = server.get(runtime, "/v1/certificates?profile=ldevid&limit=100")?;
    let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let serials: Vec<SerialNumber> = items
        .into_iter()
        .filter_map(|item| serde_json::from_value::<kf_api::certificate::Certificate>(item).ok())
        .map(|certificate| certificate.serial)
        .collect();
    if serials.is_empty() {
        return Err(BenchError::Failed { what: "the certificates", why: "the API lists none".to_owned() });
    }
    Ok(serials)
}

fn renew(server: &RealServer, runtime: &Runtime, devices: &[EnrolledDevice], count: u32) -> Result<f64, BenchError> {
    let calls = devices
        .iter()
        .cycle()
        .zip(0..count)
        .map(|(device, _)| {
            Ok(Call { target: device.target.clone(), request: est_request("simplereenroll", "", &request("")?) })
        })
        .collect::<Result<Vec<_>, BenchError>>()?;
    server_cpu(server.process(), count, || runtime.block_on(send_all(Arc::new(calls), LANES, Connections::Fresh)))
}

fn ready_answers(
    server: &RealServer,
    runtime: &Runtime,
    issuer: &Issuer,
    serials: &[SerialNumber],
    count: u32,
) -> Result<f64, BenchError> {
    let requests = serials
        .iter()
        .cycle()
        .zip(0..count)
        .map(|(serial, _)| {
            let text = STANDARD.encode(make_request(issuer, *serial, None));
            let escaped = text.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
            get(&format!("/ocsp/{escaped}"))
        })
        .collect();
    answers(server, runtime, requests, count)
}

fn live_answers(
    server: &RealServer,
    runtime: &Runtime,
    issuer: &Issuer,
    serials: &[SerialNumber],
    count: u32,
) -> Result<f64, BenchError> {
    let mut requests = Vec::new();
    for (serial, _) in serials.iter().cycle().zip(0..count) {
        let nonce = random_array::<16>().map_err(BenchError::failed("a nonce"))?;
        requests.push(post("/ocsp", "application/ocsp-request", "", &make_request(issuer, *serial, Some(&nonce))));
    }
    answers(server, runtime, requests, count)
}

fn answers(server: &RealServer, runtime: &Runtime, requests: Vec<Vec<u8>>, count: u32) -> Result<f64, BenchError> {
    let calls: Vec<Call> = requests.into_iter().map(|request| Call { target: server.http.clone(), request }).collect();
    server_cpu(server.process(), count, || runtime.block_on(send_all(Arc::new(calls), LANES, Connections::Kept)))
}

//! `keyfleet voucher`: what a station signs so that a device with a key that the station saw may enrol once.

use std::path::PathBuf;

use clap::Subcommand;
use kf_enrol::voucher::{Voucher, make};
use kf_fleet::{Clock, SystemClock};
use kf_key::{OperatorId, UnixMillis};
use kf_pki::request::CertificationRequest;

use crate::failure::Failure;
use crate::output::say;
use crate::{file, moment, profile};

/// What can be done with vouchers. The station's key never leaves the station, so nothing here talks to the server.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Sign a voucher for a device and the key in its request; the device sends `voucher.` and it as EST password
    Make {
        /// Name of the device
        device: String,
        /// The device's request, PEM or DER, whose key is vouched for
        #[arg(long, value_name = "FILE")]
        csr: PathBuf,
        /// The station's identifier, `op_...`
        #[arg(long)]
        station: OperatorId,
        /// The station's private key, P-256, PKCS#8 PEM, readable by its owner only
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Lifetime in hours
        #[arg(long, default_value_t = 168, value_parser = clap::value_parser!(u32).range(1..=2_160))]
        lifetime_hours: u32,
        /// Where to write it (mode 0600): whoever holds it can enrol this key, and no other
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

pub(crate) fn run(verb: Verb) -> Result<(), Failure> {
    let Verb::Make { device, csr, station, key, lifetime_hours, out } = verb;
    file::must_be_free(Some(&out))?;
    let request = CertificationRequest::from_body(&file::read(&csr)?).map_err(|error| {
        Failure::local(format!("{}: {error}", csr.display()), "make the request with `openssl req -new`")
    })?;
    let station_key = profile::private_key(&key)?;
    let random: [u8; 16] = kf_crypto::random_array()
        .map_err(|error| Failure::local(error.to_string(), "the system gives no randomness: try again"))?;
    let issued = SystemClock.now();
    let expires = issued.plus(u64::from(lifetime_hours) * UnixMillis::HOUR);
    let voucher =
        Voucher { device, spki_sha256: request.key.spki_sha256, station, issued, expires, id: hex::encode(random) };
    let text = make(&voucher, &station_key).map_err(|error| {
        Failure::local(error.to_string(), "use the P-256 key whose public half the station registered")
    })?;
    file::write_private(&out, format!("voucher.{text}").as_bytes())?;
    say(&format!("voucher for {} written to {}, valid until {}", voucher.device, out.display(), moment::text(expires)));
    Ok(())
}

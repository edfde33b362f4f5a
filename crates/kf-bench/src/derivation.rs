//! Keys of devices from a facility key, against a bare HKDF-Expand under a cached parent.

use hkdf::Hkdf;
use kf_derive::{Algorithm, FacilityKey, Info, KeyDerivationKey, Level, Purpose, SoftwareKey};
use kf_key::{DeviceId, SecretArray};
use sha2::Sha256;

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::{Effort, alternate, cpu_per_operation, resident_octets};

/// Device keys of a whole fleet are derived in the full run.
const FLEET: u32 = 10_000_000;
const QUICK_FLEET: u32 = 500_000;

struct ExpandOctets;

impl aws_lc_rs::hkdf::KeyType for ExpandOctets {
    fn len(&self) -> usize {
        32
    }
}

fn secret() -> SecretArray<32> {
    SecretArray::fill(|key| key.fill(0x5a))
}

fn facility() -> FacilityKey {
    FacilityKey::from_keyed_hmac(SoftwareKey::new(secret()))
}

/// A device of a fleet: both parts change from key to key.
fn device(number: u32) -> (DeviceId, [u8; 16]) {
    let mut octets = [0x70; 16];
    octets.iter_mut().zip(number.to_be_bytes()).for_each(|(octet, value)| *octet = value);
    (DeviceId::from_bytes(octets), octets)
}

fn info(number: u32) -> Result<Info, BenchError> {
    let (id, salt) = device(number);
    let context = [id.as_bytes().as_slice(), &salt].concat();
    Info::new(Level::Device, Algorithm::HkdfSha256, Purpose::Derive, &context, 1).map_err(BenchError::failed("an info"))
}

/// RustCrypto's `hkdf` under a cached pseudorandom key, seconds per key. The info is as long as ours.
fn bare_rust_crypto(count: u32) -> Result<f64, BenchError> {
    let info = info(0)?;
    let parent = Hkdf::<Sha256>::from_prk(secret().expose()).map_err(BenchError::failed("hkdf"))?;
    cpu_per_operation(count, || {
        let mut key = [0; 32];
        for _ in 0..count {
            parent.expand(std::hint::black_box(info.as_bytes()), &mut key).map_err(BenchError::failed("hkdf"))?;
            std::hint::black_box(&key);
        }
        Ok(())
    })
}

/// The same of aws-lc-rs.
fn bare_aws_lc(count: u32) -> Result<f64, BenchError> {
    let info = info(0)?;
    let parent = aws_lc_rs::hkdf::Prk::new_less_safe(aws_lc_rs::hkdf::HKDF_SHA256, secret().expose());
    cpu_per_operation(count, || {
        let mut key = [0; 32];
        for _ in 0..count {
            let parts = [std::hint::black_box(info.as_bytes())];
            let okm = parent.expand(&parts, ExpandOctets).map_err(BenchError::failed("aws-lc"))?;
            okm.fill(&mut key).map_err(BenchError::failed("aws-lc"))?;
            std::hint::black_box(&key);
        }
        Ok(())
    })
}

/// Device keys, each of another device, typed and wiped: everything that a caller has to do.
fn device_keys<K>(parent: &FacilityKey<K>, count: u32) -> Result<f64, BenchError>
where
    K: KeyDerivationKey,
    K::Error: std::fmt::Debug,
{
    cpu_per_operation(count, || {
        for number in 0..count {
            let (id, salt) = device(number);
            let key = parent
                .device(id, &salt, 1)
                .map_err(|error| BenchError::Failed { what: "a device key", why: format!("{error:?}") })?;
            drop(std::hint::black_box(key));
        }
        Ok(())
    })
}

fn nanos(seconds: f64) -> f64 {
    seconds * 1e9
}

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let count = 50_000 * effort.scale;
    let (prepared, plain) = (facility().prepare(), facility());
    let costs = alternate(
        effort.rounds,
        &mut [
            &mut || bare_rust_crypto(count),
            &mut || bare_aws_lc(count),
            &mut || device_keys(&prepared, count),
            &mut || device_keys(&plain, count),
        ],
    )?;
    let [rust_crypto, aws_lc, ours, unprepared] = costs[..] else { return Ok(Vec::new()) };
    let bare = rust_crypto.min(aws_lc);
    let rate = |name: &str, cost: f64, aim| Figure::ratio(name, nanos(cost), "ns CPU", bare / cost, "bare HKDF", aim);
    let mut figures = vec![
        Figure::value("bare expand, cached parent (hkdf)", nanos(rust_crypto), "ns CPU", Aim::None),
        Figure::value("bare expand, cached parent (aws-lc)", nanos(aws_lc), "ns CPU", Aim::None),
        rate("device key, prepared facility key", ours, Aim::AtLeast(0.85))
            .with_note("rate; every key typed and wiped"),
        rate("device key, facility key as it is", unprepared, Aim::None),
    ];
    figures.extend(whole_fleet(if effort.large == Effort::full().large { FLEET } else { QUICK_FLEET }, bare)?);
    Ok(figures)
}

/// Every device key of a fleet, one after the other.
fn whole_fleet(devices: u32, bare: f64) -> Result<[Figure; 2], BenchError> {
    let process = std::process::id();
    let before = resident_octets(process)?;
    let parent = facility().prepare();
    let cost = device_keys(&parent, devices)?;
    let grown = resident_octets(process)?.saturating_sub(before);
    let megabytes = f64::from(u32::try_from(grown >> 10).unwrap_or(u32::MAX)) / 1_024.0;
    let seconds = cost * f64::from(devices);
    let name = format!("all {devices} device keys of a fleet");
    let time = Figure::ratio(name, seconds, "s CPU", bare / cost, "bare HKDF", Aim::AtLeast(0.85));
    let memory = Figure::value("memory that they take on top", megabytes, "MiB", Aim::AtMost(4.0));
    Ok([time, memory.with_note("keys are derived when needed, not kept")])
}

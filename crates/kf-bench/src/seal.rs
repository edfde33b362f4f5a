//! Sealed payloads against the bare AEAD of the same crate, its key schedule done, over as much additional data.

use ccm::aead::{AeadInOut, KeyInit};
use kf_derive::{ApplicationKey, Sender, SoftwareKey};
use kf_key::{DeviceId, SecretArray};
use kf_seal::{Boot, KeyId, MAX_OVERHEAD_OCTETS, Opener, SealAlgorithm, Sealed, Sealer, Service};

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::{Effort, alternate, cpu_per_operation, micros};

type Aes128Ccm = ccm::Ccm<aes::Aes128, ccm::consts::U16, ccm::consts::U13>;

/// Octets of a plaintext: a reading, and a batch of them.
const SIZES: [usize; 2] = [64, 1_024];
/// Octets of the Enc_structure of the payloads below.
const AAD_OCTETS: usize = 78;

fn application() -> ApplicationKey {
    ApplicationKey::from_keyed_hmac(SoftwareKey::new(SecretArray::fill(|key| key.fill(0x5a))))
}

fn key_id() -> Result<KeyId, BenchError> {
    let service = Service::new("telemetry").map_err(BenchError::failed("a service"))?;
    let device = DeviceId::from_bytes([1; 16]);
    Ok(KeyId { device, facility_epoch: 1, device_epoch: 1, session: None, sender: Sender::Device, service })
}

fn sealer(algorithm: SealAlgorithm, number: u32) -> Result<Sealer, BenchError> {
    let mut random = [0x5a; 16];
    random.iter_mut().zip(number.to_be_bytes()).for_each(|(octet, value)| *octet = value);
    let boot = Boot::new(number, random).map_err(BenchError::failed("a boot"))?;
    Sealer::new(&application(), key_id()?, boot, algorithm).map_err(BenchError::failed("a sealer"))
}

/// What a caller of the bare cipher does: copy the plaintext where it is to be encrypted, and encrypt.
fn bare<A: AeadInOut + KeyInit>(size: usize, count: u32, decrypts: bool) -> Result<f64, BenchError> {
    let failed = || BenchError::Failed { what: "a bare cipher", why: "it refused".into() };
    let key = vec![0x5a; A::key_size()];
    let cipher = A::new_from_slice(&key).map_err(|_length| failed())?;
    let (plaintext, mut buffer, aad) = (vec![0x42; size], vec![0; size], [0; AAD_OCTETS]);
    let nonce = ccm::aead::Nonce::<A>::default();
    let mut ciphertext = plaintext.clone();
    let tag =
        cipher.encrypt_inout_detached(&nonce, &aad, ciphertext.as_mut_slice().into()).map_err(|_opaque| failed())?;
    cpu_per_operation(count, || {
        for _ in 0..count {
            buffer.copy_from_slice(std::hint::black_box(if decrypts { &ciphertext } else { &plaintext }));
            let buffer = buffer.as_mut_slice().into();
            if decrypts {
                cipher.decrypt_inout_detached(&nonce, &aad, buffer, &tag).map_err(|_opaque| failed())?;
            } else {
                std::hint::black_box(cipher.encrypt_inout_detached(&nonce, &aad, buffer).map_err(|_opaque| failed())?);
            }
        }
        Ok(())
    })
}

fn bare_of(algorithm: SealAlgorithm, size: usize, count: u32, decrypts: bool) -> Result<f64, BenchError> {
    match algorithm {
        SealAlgorithm::Aes128Ccm => bare::<Aes128Ccm>(size, count, decrypts),
        SealAlgorithm::Aes128Gcm => bare::<aes_gcm::Aes128Gcm>(size, count, decrypts),
        SealAlgorithm::ChaCha20Poly1305 => bare::<chacha20poly1305::ChaCha20Poly1305>(size, count, decrypts),
    }
}

fn seal(algorithm: SealAlgorithm, size: usize, count: u32) -> Result<f64, BenchError> {
    let (plaintext, mut out) = (vec![0x42; size], vec![0; size + MAX_OVERHEAD_OCTETS]);
    let mut sealer = sealer(algorithm, 1)?;
    cpu_per_operation(count, || {
        for _ in 0..count {
            let envelope = sealer.seal(std::hint::black_box(&plaintext), b"", &mut out);
            std::hint::black_box(envelope.map_err(BenchError::failed("sealing"))?);
        }
        Ok(())
    })
}

/// Takes an envelope apart and opens it, with the key of the boot at hand or derived for each.
fn open(algorithm: SealAlgorithm, size: usize, count: u32, derives: bool) -> Result<f64, BenchError> {
    let (plaintext, mut out) = (vec![0x42; size], vec![0; size + MAX_OVERHEAD_OCTETS]);
    let failed = || BenchError::failed("opening");
    let envelope =
        sealer(algorithm, 1)?.seal(&plaintext, b"", &mut out).map_err(BenchError::failed("sealing"))?.to_vec();
    let (application, key_id) = (application(), key_id()?);
    let opener = |sealed: &Sealed<'_>| Opener::new(&application, &key_id, sealed).map_err(failed());
    let mut kept = opener(&Sealed::parse(&envelope).map_err(BenchError::failed("parsing"))?)?;
    cpu_per_operation(count, || {
        for _ in 0..count {
            let sealed = Sealed::parse(std::hint::black_box(&envelope)).map_err(BenchError::failed("parsing"))?;
            if derives {
                kept = opener(&sealed)?;
            }
            std::hint::black_box(kept.open(&sealed, b"", &mut out).map_err(failed())?);
        }
        Ok(())
    })
}

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let count = 20_000 * effort.scale.min(50);
    let mut figures = Vec::new();
    for (algorithm, size) in SealAlgorithm::ALL.into_iter().flat_map(|algorithm| SIZES.map(|size| (algorithm, size))) {
        let costs = alternate(
            effort.rounds,
            &mut [
                &mut || bare_of(algorithm, size, count, false),
                &mut || seal(algorithm, size, count),
                &mut || bare_of(algorithm, size, count, true),
                &mut || open(algorithm, size, count, false),
                &mut || open(algorithm, size, count, true),
            ],
        )?;
        let [encrypt, seal, decrypt, open, derived] = costs[..] else { return Ok(Vec::new()) };
        let name = |what: &str| format!("{what} {size} octets, {}", algorithm.name());
        let ratio = |what: &str, cost: f64, bare: f64| {
            Figure::ratio(name(what), micros(cost), "us CPU", cost / bare, "bare AEAD", Aim::None)
        };
        figures.extend([
            ratio("seal", seal, encrypt),
            ratio("open", open, decrypt),
            ratio("derive and open", derived, decrypt),
        ]);
    }
    Ok(figures)
}

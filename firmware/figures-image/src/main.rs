//! Measures operations one by one and reports each as a frame: name, instructions and octets of stack as decimal text
//! between tabs. An empty frame ends the list.
#![no_std]
#![no_main]

use core::fmt::Write as _;
use core::hint::black_box;

use aes_gcm::Aes128Gcm;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use board::line::Line;
use ccm::Ccm;
use ccm::consts::{U13, U16};
use hmac::{Hmac, Mac};
use kf_derive::{FacilityKey, SoftwareKey};
use kf_key::{DeviceId, SecretArray};
use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use p256::ecdsa::{Signature, SigningKey};
use sha2::Sha256;

/// AES-CCM-16-128-128 (RFC 9053 section 4.2).
type Aes128Ccm = Ccm<aes::Aes128, U16, U13>;

const PAYLOAD_OCTETS: usize = 64;
/// The octets of an HMAC message when a device key is derived: `info` and the counter octet.
const DEVICE_MESSAGE_OCTETS: usize = 50;

struct Report(Line);

impl Report {
    fn measure(&mut self, name: &str, mut act: impl FnMut()) {
        // Once before, so that lazily built state counts for nobody.
        act();
        let instructions = board::ticks::instructions_of(&mut act);
        let stack = board::stack::used_by(&mut act);
        let mut text = Text { octets: [0; 96], length: 0 };
        if write!(text, "{name}\t{instructions}\t{stack}").is_ok() {
            self.0.send(&[text.octets.get(..text.length).unwrap_or_default()]);
        }
    }
}

struct Text {
    octets: [u8; 96],
    length: usize,
}

impl core::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.length + text.len();
        self.octets.get_mut(self.length..end).ok_or(core::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

fn secret<const N: usize>() -> SecretArray<N> {
    SecretArray::fill(|octets| octets.fill(black_box(7)))
}

#[board::entry]
fn main() -> ! {
    let mut report = Report(Line::open());
    derivation(&mut report);
    ciphers(&mut report);
    signatures(&mut report);
    report.0.send(&[]);
    board::semihosting::exit(0)
}

fn derivation(report: &mut Report) {
    let (key, message) = (black_box([7_u8; 32]), black_box([1_u8; DEVICE_MESSAGE_OCTETS]));
    report.measure("hmac", || {
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) {
            mac.update(&message);
            black_box(mac.finalize());
        }
    });
    let prk = hkdf::Hkdf::<Sha256>::from_prk(&key);
    report.measure("hkdf expand, parent kept", || {
        let mut okm = [0; 32];
        if let Ok(prk) = &prk {
            black_box(prk.expand(&message, &mut okm)).ok();
        }
        black_box(okm);
    });
    let facility = FacilityKey::from_keyed_hmac(SoftwareKey::new(secret()));
    let (device, salt) = (black_box(DeviceId::from_bytes([2; 16])), black_box([3; 16]));
    report.measure("derive a device key", || {
        black_box(facility.device(device, &salt, 1)).ok();
    });
}

fn ciphers(report: &mut Report) {
    let key = black_box([7_u8; 16]);
    let mut payload = black_box([5_u8; PAYLOAD_OCTETS]);
    let ccm = Aes128Ccm::new(&key.into());
    report.measure("aes-128-ccm, key kept", || {
        black_box(ccm.encrypt_inout_detached(&[1; 13].into(), b"header", InOutBuf::from(payload.as_mut_slice()))).ok();
    });
    report.measure("aes-128-ccm", || {
        let ccm = Aes128Ccm::new(&black_box(key).into());
        black_box(ccm.encrypt_inout_detached(&[1; 13].into(), b"header", InOutBuf::from(payload.as_mut_slice()))).ok();
    });
    report.measure("aes-128-gcm", || {
        let gcm = Aes128Gcm::new(&black_box(key).into());
        black_box(gcm.encrypt_inout_detached(&[1; 12].into(), b"header", InOutBuf::from(payload.as_mut_slice()))).ok();
    });
}

fn signatures(report: &mut Report) {
    let Ok(key) = SigningKey::from_slice(&black_box([9; 32])) else { return };
    let digest = black_box([4; 32]);
    let mut signature: Option<Signature> = None;
    report.measure("p-256 sign", || signature = black_box(key.sign_prehash(&digest).ok()));
    let public = *key.verifying_key();
    report.measure("p-256 verify", || {
        if let Some(signature) = &signature {
            black_box(public.verify_prehash(&digest, signature)).ok();
        }
    });
    report.measure("p-256 key pair", || {
        black_box(SigningKey::from_slice(&black_box([9; 32]))).ok();
    });
    let secret = key.as_nonzero_scalar();
    let peer = p256::PublicKey::from(&public);
    report.measure("p-256 ecdh", || {
        black_box(p256::ecdh::diffie_hellman(secret, peer.as_affine()));
    });
}

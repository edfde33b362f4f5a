//! U and S: bare signatures by the provider, without a line of ours.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::{Effort, alternate, cpu_per_operation, micros};

/// The message of every yardstick: as long as a TBSCertificate of a device.
const MESSAGE_OCTETS: usize = 500;

/// A key for bare operations.
pub(crate) struct Bare {
    key: EcdsaKeyPair,
    random: SystemRandom,
    message: Vec<u8>,
}

impl Bare {
    pub(crate) fn new() -> Result<Self, BenchError> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(BenchError::failed("a P-256 key"))?;
        Ok(Self { key, random: SystemRandom::new(), message: vec![0x5a; MESSAGE_OCTETS] })
    }

    fn sign_once(&self) -> Result<Vec<u8>, BenchError> {
        let signature = self.key.sign(&self.random, &self.message).map_err(BenchError::failed("signing"))?;
        Ok(signature.as_ref().to_vec())
    }

    /// S, seconds.
    pub(crate) fn sign(&self, operations: u32) -> Result<f64, BenchError> {
        cpu_per_operation(operations, || {
            for _ in 0..operations {
                std::hint::black_box(self.sign_once()?);
            }
            Ok(())
        })
    }

    /// U, seconds.
    pub(crate) fn sign_and_verify(&self, operations: u32) -> Result<f64, BenchError> {
        let public_key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.key.public_key().as_ref());
        cpu_per_operation(operations, || {
            for _ in 0..operations {
                let signature = self.sign_once()?;
                public_key.verify(&self.message, &signature).map_err(BenchError::failed("verifying"))?;
            }
            Ok(())
        })
    }
}

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let bare = Bare::new()?;
    let operations = 2_000 * effort.scale;
    let costs =
        alternate(effort.rounds, &mut [&mut || bare.sign(operations), &mut || bare.sign_and_verify(operations)])?;
    let names = ["bare P-256 signature (S)", "bare P-256 sign + verify (U)"];
    Ok(names
        .into_iter()
        .zip(costs)
        .map(|(name, cost)| Figure::value(name, micros(cost), "us CPU", Aim::None))
        .collect())
}

//! The identity key: two slots, made, certified and put into use step by step.

use kf_device::enrolment::{REQUEST_OCTETS, certification_request};
use kf_device::entropy::{Seed, Trial};
use kf_device::exchange::kf_exchange::{IdentityKey, PublicKey};
use kf_device::identity::{Candidate, Certified, Grade, InUse, SoftwareIdentity};
use kf_device::storage::Erasure;

use crate::device::{Device, told};
use crate::handle::{self, Held};
use crate::pointer;
use crate::status::Status;

/// Which identity key: `KF_IN_USE`, `KF_CERTIFIED`, `KF_CANDIDATE` of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    InUse = 1,
    Certified = 2,
    Candidate = 3,
}

impl Which {
    const fn of(code: u8) -> Result<Self, Status> {
        match code {
            1 => Ok(Self::InUse),
            2 => Ok(Self::Certified),
            3 => Ok(Self::Candidate),
            _ => Err(Status::Argument),
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::InUse => 1,
            Self::Certified => 2,
            Self::Candidate => 3,
        }
    }
}

/// The code of `KF_PRODUCTION` and `KF_TRIAL`.
const PRODUCTION: u8 = 1;
const TRIAL: u8 = 2;

/// What an erasure is worth, as the header numbers it.
pub(crate) const fn erasure_code(erasure: Erasure) -> u8 {
    match erasure {
        Erasure::Overwritten => 1,
        Erasure::Erased { read_back: false } => 2,
        Erasure::Erased { read_back: true } => 3,
        Erasure::CryptoErased => 4,
    }
}

impl Device {
    /// Makes a key in the spare slot.
    pub(crate) fn make_identity(&mut self, grade: u8) -> Result<Candidate<SoftwareIdentity>, Status> {
        match grade {
            PRODUCTION => {
                let seed = self.source.seed()?;
                self.generate(seed)
            }
            TRIAL => {
                let seed: Seed<Trial> = self.source.trial_seed()?;
                self.generate(seed)
            }
            _ => Err(Status::Argument),
        }
    }

    fn generate<G: Grade>(&mut self, seed: Seed<G>) -> Result<Candidate<SoftwareIdentity>, Status> {
        let nonce = self.source.nonce()?;
        Ok(Candidate::generate(&mut self.store, &self.chip, self.id, seed, nonce)?)
    }

    pub(crate) fn candidate(&mut self) -> Result<Candidate<SoftwareIdentity>, Status> {
        Candidate::<SoftwareIdentity>::load(&mut self.store, &self.chip, self.id)?.ok_or(Status::Missing)
    }

    pub(crate) fn certified(&mut self) -> Result<Certified<SoftwareIdentity>, Status> {
        Certified::<SoftwareIdentity>::load(&mut self.store, &self.chip, self.id)?.ok_or(Status::Missing)
    }

    pub(crate) fn in_use(&mut self) -> Result<InUse<SoftwareIdentity>, Status> {
        InUse::<SoftwareIdentity>::load(&mut self.store, &self.chip, self.id)?.ok_or(Status::Missing)
    }

    /// Does something with one of the keys.
    fn with_key<T>(&mut self, which: Which, act: impl FnOnce(&SoftwareIdentity) -> T) -> Result<T, Status> {
        match which {
            Which::InUse => self.in_use().map(|identity| act(identity.key())),
            Which::Certified => self.certified().map(|identity| act(identity.key())),
            Which::Candidate => self.candidate().map(|identity| act(identity.key())),
        }
    }
}

border! {
    /// `kf_identity_make` of the header.
    kf_identity_make(device: *mut Held<Device>, grade: u8)
    takes { device = handle::get(device) } {
        device.make_identity(grade)?;
        Ok(())
    }
}

border! {
    /// `kf_identity_request` of the header.
    kf_identity_request(device: *mut Held<Device>, request: *mut [u8; REQUEST_OCTETS], length: *mut usize)
    takes {
        device = handle::get(device),
        place = pointer::value_mut(request),
        length = pointer::value_mut(length),
    } {
        let candidate = device.candidate()?;
        let Ok(request) = certification_request(candidate.key(), place);
        *length = request.len();
        Ok(())
    }
}

border! {
    /// `kf_identity_certify` of the header.
    kf_identity_certify(device: *mut Held<Device>, certificate: *const u8, length: usize)
    takes { device = handle::get(device), certificate = pointer::octets(certificate, length) } {
        let candidate = device.candidate()?;
        candidate.certify(&mut device.store, certificate).map_err(|refused| Status::from(refused.error))?;
        Ok(())
    }
}

border! {
    /// `kf_identity_adopt` of the header.
    kf_identity_adopt(device: *mut Held<Device>, erasure: *mut u8)
    takes { device = handle::get(device), erasure = pointer::value_mut(erasure) } {
        let certified = device.certified()?;
        let (_in_use, done) = certified.adopt(&mut device.store)?;
        *erasure = erasure_code(done);
        Ok(())
    }
}

border! {
    /// `kf_identity_discard` of the header.
    kf_identity_discard(device: *mut Held<Device>, erasure: *mut u8)
    takes { device = handle::get(device), erasure = pointer::value_mut(erasure) } {
        let certified = device.certified()?;
        *erasure = erasure_code(certified.discard(&mut device.store)?);
        Ok(())
    }
}

border! {
    /// `kf_identity_public_key` of the header.
    kf_identity_public_key(device: *mut Held<Device>, which: u8, public_key: *mut [u8; 91])
    takes { device = handle::get(device), place = pointer::value_mut(public_key) } {
        let key: PublicKey = device.with_key(Which::of(which)?, IdentityKey::public_key)?;
        *place = key.to_spki();
        Ok(())
    }
}

border! {
    /// `kf_identity_grade` of the header.
    kf_identity_grade(device: *mut Held<Device>, which: u8, grade: *mut u8)
    takes { device = handle::get(device), grade = pointer::value_mut(grade) } {
        let is_for_production = device.with_key(Which::of(which)?, SoftwareIdentity::is_for_production)?;
        *grade = if is_for_production { PRODUCTION } else { TRIAL };
        Ok(())
    }
}

border! {
    /// `kf_identity_certificate` of the header.
    kf_identity_certificate(
        device: *mut Held<Device>,
        which: u8,
        certificate: *mut u8,
        capacity: usize,
        length: *mut usize,
    ) takes {
        device = handle::get(device),
        place = pointer::octets_mut(certificate, capacity),
        length = pointer::value_mut(length),
    } {
        let device = &mut *device;
        let found = match Which::of(which)? {
            Which::InUse => device.in_use()?.certificate(&mut device.store, place).map(<[u8]>::len),
            Which::Certified => device.certified()?.certificate(&mut device.store, place).map(<[u8]>::len),
            Which::Candidate => return Err(Status::Missing),
        };
        *length = found.map_err(|error| told(error, length))?;
        Ok(())
    }
}

border! {
    /// `kf_identity_sign` of the header.
    kf_identity_sign(
        device: *mut Held<Device>,
        which: u8,
        message: *const u8,
        length: usize,
        signature: *mut [u8; 64],
    ) takes {
        device = handle::get(device),
        message = pointer::octets(message, length),
        place = pointer::value_mut(signature),
    } {
        let Ok(signature) = device.with_key(Which::of(which)?, |key| key.sign(message))?;
        *place = signature;
        Ok(())
    }
}

border! {
    /// `kf_identity_sign_digest` of the header.
    kf_identity_sign_digest(device: *mut Held<Device>, which: u8, digest: *const [u8; 32], signature: *mut [u8; 64])
    takes {
        device = handle::get(device),
        digest = pointer::value(digest),
        place = pointer::value_mut(signature),
    } {
        *place = device.with_key(Which::of(which)?, |key| key.sign_digest(digest))??;
        Ok(())
    }
}

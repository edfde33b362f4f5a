//! Which places of the tree the options name, from the start downwards.

use kf_derive::{AeadAlgorithm, Algorithm, Info, Level, Purpose, Ratchet, SoftwareKey};

use super::{AboveDevice, BelowDevice, Derive, Sender, input};
use crate::failure::Failure;

/// One step.
pub(super) struct Place {
    pub(super) level: Level,
    pub(super) algorithm: Algorithm,
    pub(super) purpose: Purpose,
    pub(super) epoch: u32,
    context: Vec<u8>,
    option: &'static str,
}

impl Place {
    /// A key from which others are derived.
    fn parent(level: Level, option: &'static str, context: &[u8], epoch: u32) -> Self {
        let (algorithm, purpose) = (Algorithm::HkdfSha256, Purpose::Derive);
        Self { level, algorithm, purpose, epoch, context: context.to_vec(), option }
    }

    fn encrypting(self, algorithm: AeadAlgorithm) -> Self {
        Self { algorithm: algorithm.into(), purpose: Purpose::Encrypt, ..self }
    }

    fn encode(self) -> Result<(Self, Info), Failure> {
        let info = Info::new(self.level, self.algorithm, self.purpose, &self.context, self.epoch)
            .map_err(|error| Failure::usage(format!("{}: {error}", self.option), "shorten the label"))?;
        Ok((self, info))
    }
}

pub(super) fn nothing_named() -> Failure {
    Failure::usage("no level is named, so there is nothing to derive", "name at least --facility, see --help")
}

/// Every step, in order.
pub(super) fn places(derive: &Derive) -> Result<Vec<(Place, Info)>, Failure> {
    let mut places = above(&derive.above)?;
    let is_at_device = derive.above.device.is_some() || derive.device_key_file.is_some();
    let below = below(&derive.below)?;
    if !below.is_empty() && !is_at_device {
        return Err(Failure::usage(
            "storage, ratchet, session and service lie below a device, and none is named",
            "add --device with --salt-file, or start with --device-key-file",
        ));
    }
    places.extend(below);
    if places.is_empty() {
        return Err(nothing_named());
    }
    places.into_iter().map(Place::encode).collect()
}

fn above(above: &AboveDevice) -> Result<Vec<Place>, Failure> {
    let mut places = Vec::new();
    if let Some(facility) = above.facility {
        places.push(Place::parent(Level::Facility, "--facility", facility.as_bytes(), above.facility_epoch));
    }
    if let Some(batch) = &above.batch {
        places.push(Place::parent(Level::Batch, "--batch", batch.as_bytes(), above.batch_epoch));
    }
    if let (Some(device), Some(salt)) = (above.device, &above.salt_file) {
        let context = [device.as_bytes().as_slice(), &input::salt(salt)?].concat();
        places.push(Place::parent(Level::Device, "--device", &context, above.device_epoch));
    }
    Ok(places)
}

fn below(below: &BelowDevice) -> Result<Vec<Place>, Failure> {
    if let Some(label) = &below.storage {
        let place = Place::parent(Level::Storage, "--storage", label.as_bytes(), below.storage_epoch);
        return Ok(vec![place.encrypting(AeadAlgorithm::Aes256Gcm)]);
    }
    let mut places = Vec::new();
    if let Some(position) = below.ratchet {
        let most = Ratchet::<SoftwareKey>::MAX_STEPS;
        if position > most {
            return Err(Failure::usage(
                format!("--ratchet {position} is more than {most} steps"),
                "start from the device's stored ratchet key instead",
            ));
        }
        places.extend((0..=position).map(|passed| Place::parent(Level::Ratchet, "--ratchet", &[], passed)));
    }
    let session = below.session.as_deref().or(below.service.is_some().then_some("sealed"));
    if let Some(label) = session {
        let epoch = below.ratchet.or(below.session_epoch).unwrap_or(0);
        places.push(Place::parent(Level::Session, "--session", label.as_bytes(), epoch));
    }
    if let Some(label) = &below.service {
        places.extend(service(below, label));
    }
    Ok(places)
}

fn service(below: &BelowDevice, label: &str) -> Vec<Place> {
    let place = Place::parent(Level::Application, "--service", label.as_bytes(), below.service_epoch);
    match (below.boot_random, below.sender, below.algorithm) {
        (Some(random), Some(sender), Some(algorithm)) => {
            let sender = match sender {
                Sender::Device => kf_derive::Sender::Device,
                Sender::Server => kf_derive::Sender::Server,
            };
            let context = [[sender.code()].as_slice(), &random].concat();
            vec![place, Place::parent(Level::Boot, "--boot-random", &context, 0).encrypting(algorithm.into())]
        }
        (_, _, Some(algorithm)) => vec![place.encrypting(algorithm.into())],
        _ => vec![place],
    }
}

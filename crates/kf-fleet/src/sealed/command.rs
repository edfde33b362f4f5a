//! Sealing for a device.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kf_access::{Action, Principal, Target, authorize};
use kf_api::sealed::{SealAnswer, SealRequest};
use kf_derive::Sender;
use kf_key::UnixMillis;
use kf_seal::{
    Boot, KeyId, MAX_EXTERNAL_AAD_OCTETS, MAX_OVERHEAD_OCTETS, MAX_PLAINTEXT_OCTETS, SealAlgorithm, Sealer, Service,
};
use kf_store::sealed::SealedKey;

use super::{octets, on_a_wiped_stack};
use crate::entry::Entry;
use crate::naming::check_text;
use crate::{Fleet, FleetError};

const MAX_WHY: usize = 500;

/// 2024-01-01T00:00:00Z. The server's boot numbers are at least the seconds since then, so that a registry that was
/// restored from an older copy goes on above the numbers that devices have seen; 32 bits of them last until 2160.
const FIRST_BOOT_SECONDS: u64 = 1_704_067_200;

fn boot_floor(now: UnixMillis) -> u32 {
    u32::try_from(now.seconds().saturating_sub(FIRST_BOOT_SECONDS)).unwrap_or(u32::MAX)
}

fn algorithm(name: &str) -> Result<SealAlgorithm, FleetError> {
    let found = SealAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name);
    found.ok_or_else(|| {
        FleetError::invalid("algorithm", "is not known", "use aes-128-ccm, aes-128-gcm or chacha20-poly1305")
    })
}

impl Fleet {
    /// Seals a payload for a device, under a boot of its own: of the server's counter, with fresh random octets. The log
    /// says who sealed how much for which service, before the envelope leaves.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::NotFound`], [`FleetError::Denied`]; [`FleetError::Conflict`] when the device
    /// is barred or has acknowledged no key yet.
    pub async fn seal_payload(&self, who: &Principal, request: SealRequest) -> Result<SealAnswer, FleetError> {
        let SealRequest { device, service, plaintext, external_aad, algorithm: name, why } = request;
        let device = self.find_device(&device, &who.visibility())?;
        authorize(who, Action::PayloadSeal, Target::Facility(device.facility))?;
        check_text("why", &why, MAX_WHY)?;
        let algorithm = algorithm(&name)?;
        let service = Service::new(&service).map_err(|error| {
            FleetError::invalid("service", error.to_string(), "use the label that the device listens to")
        })?;
        let plaintext = octets("plaintext", &plaintext, MAX_PLAINTEXT_OCTETS)?;
        let external_aad = octets("external_aad", &external_aad, MAX_EXTERNAL_AAD_OCTETS)?;
        if !device.state.may_enrol() {
            let problem = format!("is {}", device.state.name());
            return Err(FleetError::conflict("device", problem, "resume the device first"));
        }
        let (place, salt) = self.store.newest_held_key(device.id)?.ok_or_else(|| {
            let remedy = "let the device fetch its key (an exchange) and acknowledge it, then seal again";
            FleetError::conflict("device", "has acknowledged no key yet", remedy)
        })?;
        let key_id = KeyId {
            device: device.id,
            facility_epoch: place.facility_epoch,
            device_epoch: place.device_epoch,
            session: None,
            sender: Sender::Server,
            service,
        };
        let key =
            SealedKey { device_name: device.name.clone(), owner: device.facility, facility: place.facility, salt };
        let application = self.application_key(&key_id, &key).await?;
        let now = self.now();
        let entry = Entry::done(who, "payload.seal", now)
            .about(device.id)
            .at_facility(Some(device.facility))
            .because(&why)
            .with("service", service)
            .with("octets", plaintext.len());
        let number = self.store.next_seal_boot(boot_floor(now), entry.build()).await?.value;
        let boot = Boot::new(number, kf_crypto::random_array()?).map_err(|_stuck| FleetError::Bug("random source"))?;
        let mut out = vec![0; plaintext.len() + MAX_OVERHEAD_OCTETS];
        let sealed = on_a_wiped_stack(|| {
            Sealer::new(&application, key_id, boot, algorithm).and_then(|mut sealer| {
                sealer.seal(&plaintext, &external_aad, &mut out).map(|octets| BASE64_STANDARD.encode(octets))
            })
        });
        let envelope = sealed.map_err(|_refused| FleetError::Bug("sealing"))?;
        Ok(SealAnswer { device: device.id, envelope })
    }
}

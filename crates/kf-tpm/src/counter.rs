//! Counters in the TPM's own memory, which only ever rise (TPM 2.0 Part 1 section 37.2.4), and ECDH with a key in the TPM.

use kf_key::{SecretArray, SecretBytes};
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::NvIndexType;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{EccParameter, EccPoint, NvPublicBuilder};

use crate::blob::Blob;
use crate::keys::{Protection, duplicate};
use crate::live::{Live, auth_value};
use crate::{Tpm, TpmError, template};

const COUNTER_OCTETS: u16 = 8;
/// The most steps that one call raises a counter by.
const MAX_STEPS: u64 = 1_024;

impl Tpm {
    /// Makes a counter at an index of the owner (`0x0180_0000` to `0x01bf_ffff`) under an authorisation value. Where there is one
    /// already under the same value, that is it. It begins no lower than any counter that the TPM ever had.
    ///
    /// # Errors
    /// [`TpmError::Authorization`] for one that is somebody else's, [`TpmError`].
    pub fn make_counter(&self, index: u32, auth: &SecretBytes) -> Result<u64, TpmError> {
        let auth = duplicate(auth);
        self.call(move |live| {
            if live.counter(index, &auth).is_err() {
                define(live, index, &auth)?;
            }
            let handle = live.counter(index, &auth)?;
            let session = live.plain_session()?;
            match read(live, handle, session) {
                Ok(number) => Ok(number),
                // One that was never raised has no value.
                Err(TpmError::Call { .. }) => {
                    increment(live, handle, session)?;
                    read(live, handle, session)
                }
                Err(error) => Err(error),
            }
        })
    }

    /// What a counter shows.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn counter(&self, index: u32, auth: &SecretBytes) -> Result<u64, TpmError> {
        let auth = duplicate(auth);
        self.call(move |live| {
            let handle = live.counter(index, &auth)?;
            let session = live.plain_session()?;
            read(live, handle, session)
        })
    }

    /// Raises a counter to `to`; one that is there already stays. At most 1,024 steps at once.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn raise_counter(&self, index: u32, auth: &SecretBytes, to: u64) -> Result<u64, TpmError> {
        let auth = duplicate(auth);
        self.call(move |live| {
            let handle = live.counter(index, &auth)?;
            // One session for all steps: a TPM has room for three.
            let session = live.plain_session()?;
            let mut number = read(live, handle, session)?;
            if to.saturating_sub(number) > MAX_STEPS {
                return Err(TpmError::Bug("steps of a counter"));
            }
            // Read after each step: a call that is done twice raises it once.
            while number < to {
                increment(live, handle, session)?;
                number = read(live, handle, session)?;
            }
            Ok(number)
        })
    }

    /// Makes a P-256 key for ECDH that cannot leave the TPM.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn generate_agreement_key(&self, protection: &Protection) -> Result<Blob, TpmError> {
        let protection = protection.duplicate();
        self.call(move |live| {
            live.create(template::agreement_key(&protection.guard())?, protection.auth.as_ref(), None)
        })
    }

    /// The x-coordinate of the ECDH between a key in the TPM and `peer`, an uncompressed point.
    ///
    /// # Errors
    /// [`TpmError`]; a point that is not on the curve is refused by the TPM.
    pub fn agree(&self, key: &Blob, protection: &Protection, peer: &[u8; 65]) -> Result<SecretArray<32>, TpmError> {
        let (key, protection, peer) = (key.clone(), protection.duplicate(), *peer);
        self.call(move |live| agree(live, &key, &protection, &peer))
    }
}

impl Live {
    fn counter(&mut self, index: u32, auth: &SecretBytes) -> Result<NvIndexHandle, TpmError> {
        let index = NvIndexTpmHandle::new(index).map_err(|_range| TpmError::Bug("index of a counter"))?;
        let object =
            self.context.tr_from_tpm_public(TpmHandle::NvIndex(index)).map_err(TpmError::of("TPM2_NV_ReadPublic"))?;
        self.context.tr_set_auth(object, auth_value(auth)?).map_err(|_refused| TpmError::Bug("authorisation value"))?;
        Ok(object.into())
    }
}

fn define(live: &mut Live, index: u32, auth: &SecretBytes) -> Result<(), TpmError> {
    let invalid = |_error| TpmError::Bug("index of a counter");
    let attributes = NvIndexAttributesBuilder::new()
        .with_auth_write(true)
        .with_auth_read(true)
        .with_nv_index_type(NvIndexType::Counter)
        .with_no_da(true)
        .build()
        .map_err(invalid)?;
    let public = NvPublicBuilder::new()
        .with_nv_index(NvIndexTpmHandle::new(index).map_err(invalid)?)
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_data_area_size(usize::from(COUNTER_OCTETS))
        .build()
        .map_err(invalid)?;
    let auth = auth_value(auth)?;
    live.context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.nv_define_space(Provision::Owner, Some(auth), public)
        })
        .map(drop)
        .map_err(TpmError::of("TPM2_NV_DefineSpace"))
}

fn increment(live: &mut Live, handle: NvIndexHandle, session: AuthSession) -> Result<(), TpmError> {
    live.context
        .execute_with_session(Some(session), |context| context.nv_increment(NvAuth::NvIndex(handle), handle))
        .map_err(TpmError::of("TPM2_NV_Increment"))
}

fn read(live: &mut Live, handle: NvIndexHandle, session: AuthSession) -> Result<u64, TpmError> {
    let octets = live
        .context
        .execute_with_session(Some(session), |context| {
            context.nv_read(NvAuth::NvIndex(handle), handle, COUNTER_OCTETS, 0)
        })
        .map_err(TpmError::of("TPM2_NV_Read"))?;
    octets.as_slice().try_into().map(u64::from_be_bytes).map_err(|_length| TpmError::Bug("length of a counter"))
}

fn agree(live: &mut Live, key: &Blob, protection: &Protection, peer: &[u8; 65]) -> Result<SecretArray<32>, TpmError> {
    let invalid = TpmError::Bug("point of ECDH");
    let [0x04, coordinates @ ..] = peer else { return Err(invalid) };
    let (x, y) = coordinates.split_at(32);
    let parameter =
        |octets: &[u8]| EccParameter::try_from(octets.to_vec()).map_err(|_length| TpmError::Bug("point of ECDH"));
    let point = EccPoint::new(parameter(x)?, parameter(y)?);
    let object = live.load(key, protection.auth.as_ref())?;
    let [first, second] = live.authorise(protection.policy.as_ref(), protection.auth.is_some())?;
    let shared = live
        .context
        .execute_with_sessions((first, second, None), |context| context.ecdh_z_gen(object, point))
        .map_err(TpmError::of("TPM2_ECDH_ZGen"))?;
    let x = shared.x().as_slice();
    // A TPM may leave leading zeros out.
    let start = 32_usize.checked_sub(x.len()).ok_or(TpmError::Bug("length of an answer"))?;
    Ok(SecretArray::fill(|out: &mut [u8; 32]| {
        out.iter_mut().skip(start).zip(x).for_each(|(out, octet)| *out = *octet);
    }))
}

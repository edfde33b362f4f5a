//! Reading the platform configuration registers, and satisfying a policy over them.

use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::PolicySession;
use tss_esapi::structures::{
    Digest, EccSignature, Nonce, PcrSelectionList, PcrSelectionListBuilder, PcrSlot, Signature, VerifiedTicket,
};

use crate::live::Live;
use crate::policy::{Approval, BootPolicy, PcrSelection, PcrState, PolicyAuthority};
use crate::{Tpm, TpmError, template};

impl Tpm {
    /// What the selected registers hold now.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn boot_state(&self, selection: PcrSelection) -> Result<PcrState, TpmError> {
        self.call(move |live| read(live, &selection))
    }
}

fn read(live: &mut Live, selection: &PcrSelection) -> Result<PcrState, TpmError> {
    let mut values = Vec::with_capacity(selection.registers().len());
    // One at a time: a TPM answers with as many as fit, which would have to be asked again anyway.
    for register in selection.registers() {
        let list = selection_list(&[*register])?;
        let (_counter, _selected, digests) = live
            .context
            .execute_without_session(|context| context.pcr_read(list))
            .map_err(TpmError::of("TPM2_PCR_Read"))?;
        let value = digests.value().first().ok_or(TpmError::Missing("SHA-256 bank of registers"))?;
        values.push(<[u8; 32]>::try_from(value.as_slice()).map_err(|_length| TpmError::Bug("PCR value"))?);
    }
    PcrState::of_values(selection.clone(), &values).map_err(|_count| TpmError::Bug("PCR values"))
}

impl BootPolicy {
    /// Gathers this policy in a session.
    pub(crate) fn satisfy(&self, live: &mut Live, session: PolicySession) -> Result<(), TpmError> {
        match self {
            Self::Fixed(state) => {
                if read(live, &state.selection)? != *state {
                    return Err(TpmError::BootState);
                }
                gather(live, session, &state.selection)
            }
            Self::Authorised { authority, selection, approvals } => {
                let now = read(live, selection)?;
                let approval = approvals.iter().find(|approval| approval.state == now).ok_or(TpmError::BootState)?;
                let (ticket, name) = verify(live, authority, approval)?;
                gather(live, session, selection)?;
                let approved = Digest::try_from(now.policy().as_slice()).map_err(|_length| TpmError::Bug("policy"))?;
                let policy_ref = Nonce::try_from(crate::policy::POLICY_REF.to_vec())
                    .map_err(|_length| TpmError::Bug("policy reference"))?;
                live.context
                    .policy_authorize(session, approved, policy_ref, &name, ticket)
                    .map_err(TpmError::of("TPM2_PolicyAuthorize"))
            }
        }
    }
}

/// The TPM itself compares: were the registers changed since they were read, the use of the object fails.
fn gather(live: &mut Live, session: PolicySession, selection: &PcrSelection) -> Result<(), TpmError> {
    let list = selection_list(selection.registers())?;
    live.context.policy_pcr(session, Digest::default(), list).map_err(TpmError::of("TPM2_PolicyPCR"))
}

/// Has the TPM verify an approval; the ticket says that it did.
fn verify(
    live: &mut Live,
    authority: &PolicyAuthority,
    approval: &Approval,
) -> Result<(VerifiedTicket, tss_esapi::structures::Name), TpmError> {
    let [r, s] = kf_crypto::ecdsa_p256_signature_from_der(&approval.signature).ok_or(TpmError::Approval)?;
    let number = |octets: [u8; 32]| octets.to_vec().try_into().map_err(|_length| TpmError::Bug("signature"));
    let signature = EccSignature::create(HashingAlgorithm::Sha256, number(r)?, number(s)?)
        .map_err(|_hash| TpmError::Bug("signature"))?;
    let public = template::verification_key(&authority.x, &authority.y)?;
    let digest = kf_crypto::sha256(&approval.state.approval_message());
    let digest = Digest::try_from(digest.as_slice()).map_err(|_length| TpmError::Bug("digest"))?;
    let key = live
        .context
        .execute_without_session(|context| context.load_external_public(public, Hierarchy::Owner))
        .map_err(TpmError::of("TPM2_LoadExternal"))?;
    live.flush_later(key.into());
    let name = live.context.tr_get_name(key.into()).map_err(TpmError::of("name"))?;
    let ticket = live
        .context
        .execute_without_session(|context| context.verify_signature(key, digest, Signature::EcDsa(signature)))
        .map_err(|_does_not_verify| TpmError::Approval)?;
    live.flush(key.into())?;
    Ok((ticket, name))
}

fn selection_list(registers: &[u8]) -> Result<PcrSelectionList, TpmError> {
    let invalid = || TpmError::Bug("PCR selection");
    let slots: Option<Vec<PcrSlot>> =
        registers.iter().map(|register| PcrSlot::try_from(1_u32.checked_shl(u32::from(*register))?).ok()).collect();
    PcrSelectionListBuilder::new()
        .with_selection(HashingAlgorithm::Sha256, &slots.ok_or_else(invalid)?)
        .build()
        .map_err(|_invalid| invalid())
}

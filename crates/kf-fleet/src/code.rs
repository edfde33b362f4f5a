//! One-time enrolment codes, and enrolments that wait for a person.

use kf_access::{Action, Principal, Target, authorize};
use kf_api::authority::AuthorityKind;
use kf_api::enrolment::{Code, CodeRequest, Enrolment, EnrolmentDecision, EnrolmentState, NewCode};
use kf_api::{Page, PageRequest};
use kf_enrol::claim::claim_uri;
use kf_enrol::code::EnrolmentCode;
use kf_key::{CodeId, DeviceId, EnrolmentId, UnixMillis};
use kf_store::StoreError;
use kf_store::enrolment::CodeRecord;

use crate::config::ListenConfig;
use crate::entry::Entry;
use crate::naming::check_why;
use crate::{Fleet, FleetError};

/// A week.
const DEFAULT_LIFETIME_HOURS: u32 = 168;
/// A year.
const MAX_LIFETIME_HOURS: u32 = 8_760;

impl Fleet {
    /// Makes a one-time enrolment code for a registered device. Earlier unused codes of the device are withdrawn.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`] when the device may not enrol, or not by code.
    pub async fn code_create(&self, who: &Principal, request: CodeRequest) -> Result<NewCode, FleetError> {
        let hours = request.lifetime_hours.unwrap_or(DEFAULT_LIFETIME_HOURS);
        if !(1..=MAX_LIFETIME_HOURS).contains(&hours) {
            return Err(FleetError::invalid(
                "lifetime_hours",
                format!("{hours} is out of range"),
                "use 1 to 8760 hours",
            ));
        }
        let device = self.find_device(&request.device, &who.visibility())?;
        authorize(who, Action::CodeManage, Target::Facility(device.facility))?;
        if !device.state.may_enrol() {
            let problem = format!("`{}` is {}: it may not enrol", device.name, device.state);
            return Err(FleetError::conflict("device", problem, "resume the device first"));
        }
        let line = self.store.product_line(device.product_line)?.ok_or(FleetError::NotFound("product line"))?;
        if !line.policy.bootstrap_by_code {
            let problem = format!("product line `{}` does not let codes bootstrap its devices", line.name);
            return Err(FleetError::conflict(
                "device",
                problem,
                "change the product line's policy, or use another way",
            ));
        }
        let root_sha256 = self.root_sha256()?;
        // Before the new one exists, so that a crash in between leaves no code instead of two.
        self.withdraw_open_codes(who, device.id, device.facility).await?;
        let now = self.now();
        let code = Code {
            id: CodeId::from_parts(now, kf_crypto::random_array()?),
            device: device.id,
            expires: now.plus(u64::from(hours).saturating_mul(UnixMillis::HOUR)),
            key_sha256: None,
            used: None,
            withdrawn: false,
        };
        let secret = EnrolmentCode::from_random(&kf_crypto::random_secret()?);
        let entry = Entry::done(who, "code.create", now)
            .about(code.id)
            .about(device.id)
            .at_facility(Some(device.facility))
            .with("lifetime_hours", hours);
        let record = CodeRecord { code: code.clone(), hash: secret.hash(), used_with: None };
        self.store.insert_code(record, entry.build()).await?;
        let text = secret.to_text();
        let claim_uri = claim_uri(&base_address(&self.config.listen), &device.name, &text, &root_sha256);
        Ok(NewCode {
            id: code.id,
            device: device.id,
            device_name: device.name,
            code: text,
            claim_uri,
            expires: code.expires,
        })
    }

    /// The codes of a device, newest first.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn code_list(&self, who: &Principal, device: &str) -> Result<Vec<Code>, FleetError> {
        let device = self.find_device(device, &who.visibility())?;
        authorize(who, Action::CodeManage, Target::Facility(device.facility))?;
        Ok(self.store.codes_of_device(device.id)?.into_iter().map(|record| record.code).collect())
    }

    /// Withdraws a code.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`] when it was used or withdrawn before.
    pub async fn code_withdraw(&self, who: &Principal, code: CodeId) -> Result<(), FleetError> {
        let record = self.store.code(code)?.ok_or(FleetError::NotFound("code"))?;
        let device = self.store.device(record.code.device, &who.visibility())?.ok_or(FleetError::NotFound("code"))?;
        authorize(who, Action::CodeManage, Target::Facility(device.facility))?;
        let entry = withdrawal_entry(who, code, device.id, self.now()).at_facility(Some(device.facility));
        self.store.withdraw_code(code, entry.build()).await?;
        Ok(())
    }

    /// Enrolments that wait for a person.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn enrolment_list(&self, who: &Principal, page: PageRequest) -> Result<Page<Enrolment>, FleetError> {
        let permit = authorize(who, Action::EnrolmentDecide, Target::Visible)?;
        Ok(self.store.enrolments(EnrolmentState::Waiting, permit.visibility(), &page)?)
    }

    /// Grants or refuses a waiting enrolment.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`] when it was decided before.
    pub async fn enrolment_decide(
        &self,
        who: &Principal,
        enrolment: EnrolmentId,
        decision: EnrolmentDecision,
    ) -> Result<Enrolment, FleetError> {
        check_why(&decision.why)?;
        let visibility = who.visibility();
        let found = self.store.enrolment(enrolment, &visibility)?.ok_or(FleetError::NotFound("enrolment"))?;
        let device = self.store.device(found.device, &visibility)?.ok_or(FleetError::NotFound("enrolment"))?;
        let permit = authorize(who, Action::EnrolmentDecide, Target::Facility(device.facility))?;
        let (act, to) = if decision.approve {
            ("enrolment.approve", EnrolmentState::Approved)
        } else {
            ("enrolment.refuse", EnrolmentState::Refused)
        };
        let entry = Entry::done(who, act, self.now())
            .about(enrolment)
            .about(device.id)
            .about(format!("spki:{}", found.spki_sha256))
            .at_facility(Some(device.facility))
            .because(&decision.why);
        let decided = self.store.decide_enrolment(enrolment, to, permit.visibility().clone(), entry.build()).await?;
        Ok(decided.value)
    }

    async fn withdraw_open_codes(
        &self,
        who: &Principal,
        device: DeviceId,
        facility: kf_key::FacilityId,
    ) -> Result<(), FleetError> {
        let now = self.now();
        let open = |code: &Code| code.used.is_none() && !code.withdrawn && code.expires >= now;
        for record in self.store.codes_of_device(device)?.into_iter().filter(|record| open(&record.code)) {
            let entry = withdrawal_entry(who, record.code.id, device, now).at_facility(Some(facility));
            match self.store.withdraw_code(record.code.id, entry.build()).await {
                // Used or withdrawn since it was read: then it is no longer open.
                Ok(_) | Err(StoreError::IllegalState { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// SHA-256 of the root certificate, which the claim pins.
    fn root_sha256(&self) -> Result<[u8; 32], FleetError> {
        let authorities = self.store.authorities()?;
        let root = authorities.iter().find(|authority| authority.kind == AuthorityKind::Root);
        let root = root.ok_or(FleetError::Bug("a fleet without root"))?;
        let stored = self.store.authority_certificate(root.id)?.ok_or(FleetError::Bug("a root without certificate"))?;
        Ok(kf_crypto::sha256(&stored.der))
    }
}

fn withdrawal_entry(who: &Principal, code: CodeId, device: DeviceId, at: UnixMillis) -> Entry {
    Entry::done(who, "code.withdraw", at).about(code).about(device)
}

/// Where devices reach the server: the first of its names, with the port it listens on.
fn base_address(listen: &ListenConfig) -> String {
    let name = listen.names.first().map_or("localhost", String::as_str);
    let host = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    match listen.https.rsplit_once(':').map(|(_, port)| port) {
        Some("443") | None => format!("https://{host}"),
        Some(port) => format!("https://{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_names_the_servers_first_name_and_its_port() {
        let listen = |name: &str, https: &str| ListenConfig {
            names: vec![name.into(), "other".into()],
            https: https.into(),
            ..ListenConfig::default()
        };
        assert_eq!(base_address(&ListenConfig::default()), "https://localhost:8443");
        assert_eq!(base_address(&listen("fleet.example", "0.0.0.0:443")), "https://fleet.example");
        assert_eq!(base_address(&listen("2001:db8::1", "[::]:8443")), "https://[2001:db8::1]:8443");
    }
}

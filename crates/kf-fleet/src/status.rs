//! The state of the server, and the issuance switch.

use kf_access::{Action, Principal, Target, authorize};
use kf_api::break_glass::BreakGlassState;
use kf_api::status::{FleetStatus, Issuance, IssuanceSwitch};
use kf_key::{KeyRole, UnixMillis};

use crate::entry::Entry;
use crate::fence::Line;
use crate::naming::check_why;
use crate::{Fleet, FleetError};

/// Name, labels and value of a gauge.
pub type Gauge = (&'static str, Vec<(&'static str, String)>, f64);

impl Fleet {
    /// The state of the server at a glance.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn status(&self, who: &Principal) -> Result<FleetStatus, FleetError> {
        let permit = authorize(who, Action::StatusRead, Target::Visible)?;
        let devices = self.store.device_counts(permit.visibility())?;
        let signer_up = self.signer.health().await.is_ok();
        Ok(FleetStatus {
            fleet: self.config.fleet.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            issuance: self.issuance(),
            devices: devices.into_iter().map(|(state, count)| (state.name().to_owned(), count)).collect(),
            certificates: self.store.certificate_counts(permit.visibility())?,
            log_size: self.store.tree().size,
            witness: self.log.has_witness(),
            single_control: self.config.single_control,
            signer_up,
            delivery_key_sha256: self.newest_fingerprint(KeyRole::Delivery),
            order_key_sha256: self.newest_fingerprint(KeyRole::Order),
            crl_next_update: self.crl_next_update(),
            warnings: self.warnings(signer_up),
        })
    }

    fn warnings(&self, signer_up: bool) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.log.has_witness() {
            warnings.push(
                "no witness outside this host: a registry that was rolled back cannot be noticed; set `witness_dir`"
                    .to_owned(),
            );
        }
        if self.config.single_control {
            warnings.push("single control: one person runs this fleet, and all evidence says so".to_owned());
        }
        if !signer_up {
            warnings.push("the signer does not answer: nothing can be signed".to_owned());
        }
        match self.issuance() {
            Issuance::Running => {}
            Issuance::Stopped(why) => warnings.push(format!("issuance is stopped: {why}")),
            Issuance::StoreFull => warnings.push("the store is full: reads and revocation only".to_owned()),
            Issuance::Fenced(why) => warnings.push(format!("fenced: {why}")),
        }
        if let Ok(held @ 1..) = self.store.issuance_holds() {
            warnings.push(format!(
                "nothing is issued for {held} facilities or CAs: see `keyfleet incident list`, and `keyfleet issuance start --facility`"
            ));
        }
        for key in self.log.lost_keys() {
            warnings.push(format!(
                "the log's key {key} was made after the backup that this registry is from, and is lost: once the registry is                  accepted, the key before it announces another; give who verifies by {key} the new `log.vkey`"
            ));
        }
        warnings.extend(self.break_glass_warnings());
        warnings.extend(self.drill_warning());
        warnings.extend(self.escrow_warnings());
        let soon = self.now().plus(90 * UnixMillis::DAY);
        for known in self.authorities().all().filter(|known| known.record.not_after < soon) {
            warnings.push(format!("CA `{}` expires within 90 days", known.record.name));
        }
        warnings
    }

    /// Whether certificates are being issued. Public, for readiness.
    #[must_use]
    pub fn issuance(&self) -> Issuance {
        self.store.issuance()
    }

    /// Stops or starts issuance, effective when this returns.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] without a reason to stop, [`FleetError::Denied`].
    pub async fn issuance_switch(&self, who: &Principal, switch: IssuanceSwitch) -> Result<Issuance, FleetError> {
        check_why(&switch.why)?;
        let (action, act) = if switch.run {
            (Action::IssuanceStart, "issuance.start")
        } else {
            (Action::IssuanceStop, "issuance.stop")
        };
        let facility = match &switch.facility {
            Some(facility) => Some(self.find_facility(facility, &who.visibility())?.id),
            None => None,
        };
        authorize(who, action, facility.map_or(Target::Fleet, Target::Facility))?;
        if !switch.run && switch.why.trim().is_empty() {
            return Err(FleetError::invalid("why", "is missing", "say why issuance is stopped"));
        }
        if let Some(facility) = facility {
            return self.switch_facility(who, facility, &switch).await;
        }
        let stopped = (!switch.run).then(|| switch.why.clone());
        let entry = self.evidence(Entry::done(who, act, self.now())).because(&switch.why);
        self.store.set_issuance(stopped.clone(), entry.build()).await?;
        self.tell_witness([Line::Issuance { facility: None, authority: None, stopped, at: self.now() }]);
        Ok(self.issuance())
    }

    /// As [`Fleet::issuance_switch`], for the devices of one facility; the others go on.
    async fn switch_facility(
        &self,
        who: &Principal,
        facility: kf_key::FacilityId,
        switch: &IssuanceSwitch,
    ) -> Result<Issuance, FleetError> {
        self.hold_facility_issuance(who, facility, !switch.run, &switch.why).await?;
        Ok(match (switch.run, self.issuance()) {
            (false, Issuance::Running) => Issuance::Stopped(switch.why.clone()),
            (_, issuance) => issuance,
        })
    }

    /// What keeps the server from serving: empty when ready.
    pub async fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.signer.health().await.is_err() {
            reasons.push("the signer does not answer".to_owned());
        }
        if let Some(why) = self.store.health().fenced {
            reasons.push(format!("fenced: {why}"));
        }
        if self.crl_next_update().is_some_and(|next| next <= self.now()) {
            reasons.push("a CRL is past its nextUpdate".to_owned());
        }
        reasons
    }

    /// Gauges in Prometheus' sense. Never one per device.
    pub async fn gauges(&self) -> Vec<Gauge> {
        let mut gauges: Vec<Gauge> = Vec::new();
        let fleet = kf_access::Visibility::Fleet;
        for (state, count) in self.store.device_counts(&fleet).unwrap_or_default() {
            gauges.push(("keyfleet_devices", vec![("state", state.name().to_owned())], float(count)));
        }
        for known in self.authorities().all() {
            let labels = vec![("authority", known.record.name.clone())];
            gauges.push(("keyfleet_cert_not_after_seconds", labels, float(known.record.not_after.seconds())));
        }
        if let Some(next) = self.crl_next_update() {
            gauges.push(("keyfleet_crl_next_update_seconds", Vec::new(), float(next.seconds())));
        }
        let up = self.signer.health().await.is_ok();
        gauges.push(("keyfleet_signer_up", Vec::new(), f64::from(u8::from(up))));
        gauges.push(("keyfleet_audit_head", Vec::new(), float(self.store.tree().size)));
        let used = self.store.used_break_glasses().unwrap_or_default();
        let open = used.iter().filter(|found| found.state_at(self.now()) == BreakGlassState::Open).count();
        gauges.push(("keyfleet_break_glass_open", Vec::new(), float(u64::try_from(open).unwrap_or(u64::MAX))));
        let unreviewed = u64::try_from(used.len().saturating_sub(open)).unwrap_or(u64::MAX);
        gauges.push(("keyfleet_break_glass_unreviewed", Vec::new(), float(unreviewed)));
        let running = matches!(self.issuance(), Issuance::Running);
        gauges.push(("keyfleet_issuance_running", Vec::new(), f64::from(u8::from(running))));
        gauges
    }
}

/// Gauges are floats in Prometheus; counts beyond 2^53 lose their last digits there.
#[allow(clippy::as_conversions, clippy::cast_precision_loss)]
const fn float(count: u64) -> f64 {
    count as f64
}

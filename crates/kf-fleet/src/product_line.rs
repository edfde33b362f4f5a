//! Product lines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kf_access::{Action, Principal, Target, authorize};
use kf_api::authority::AuthorityKind;
use kf_api::product_line::{EnrolmentPolicy, NewProductLine, ProductLine};
use kf_api::{Page, PageRequest};
use kf_key::{AuthorityId, CertificateStatus, ProductLineId};

use crate::entry::Entry;
use crate::naming::check_name;
use crate::{Fleet, FleetError};

/// Names of EST operations (RFC 7030 section 3.2.2): as a label they would make paths ambiguous.
const EST_OPERATIONS: [&str; 6] = ["cacerts", "simpleenroll", "simplereenroll", "fullcmc", "serverkeygen", "csrattrs"];
/// Ten years.
const MAX_LIFETIME_HOURS: u32 = 87_600;
const MAX_LIVE_LDEVIDS: u8 = 16;

/// Product lines as every enrolment needs them: read once, forgotten when a policy changes.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<KnownLines>);

#[derive(Debug, Default)]
struct KnownLines {
    by_id: BTreeMap<ProductLineId, Arc<ProductLine>>,
    /// A line keeps its name for ever.
    ids: BTreeMap<String, ProductLineId>,
}

impl KnownLines {
    fn remember(&mut self, line: ProductLine) -> Arc<ProductLine> {
        self.ids.insert(line.name.clone(), line.id);
        let line = Arc::new(line);
        self.by_id.insert(line.id, Arc::clone(&line));
        line
    }
}

impl Lines {
    // Held while the registry is read: a line read before a change is then remembered before `forget`, not after it.
    fn lock(&self) -> MutexGuard<'_, KnownLines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets one, after its change is committed.
    fn forget(&self, id: ProductLineId) {
        self.lock().by_id.remove(&id);
    }
}

impl Fleet {
    /// The product line of a device.
    pub(crate) fn line(&self, id: ProductLineId) -> Result<Arc<ProductLine>, FleetError> {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.by_id.get(&id) {
            return Ok(Arc::clone(line));
        }
        let line = self.store.product_line(id)?.ok_or(FleetError::Bug("a device without a product line"))?;
        Ok(lines.remember(line))
    }

    /// The product line of this name.
    pub(crate) fn line_named(&self, name: &str) -> Result<Option<Arc<ProductLine>>, FleetError> {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.ids.get(name).and_then(|id| lines.by_id.get(id)) {
            return Ok(Some(Arc::clone(line)));
        }
        Ok(self.store.product_line_by_name(name)?.map(|line| lines.remember(line)))
    }

    /// Creates a product line.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Conflict`] for a name in use, [`FleetError::Denied`].
    pub async fn product_line_create(&self, who: &Principal, new: NewProductLine) -> Result<ProductLine, FleetError> {
        check_label(&new.name)?;
        check_policy(&new.policy)?;
        authorize(who, Action::ProductLineCreate, Target::Fleet)?;
        let authority = match &new.authority {
            Some(reference) => Some(self.find_issuing(reference)?),
            None => None,
        };
        let now = self.now();
        let id = ProductLineId::from_parts(now, kf_crypto::random_array()?);
        let line = ProductLine { id, name: new.name, authority, policy: new.policy, created: now };
        let mut entry = Entry::done(who, "product-line.create", now)
            .about(id)
            .with("name", &line.name)
            .with("policy", policy_text(&line.policy)?);
        if let Some(authority) = authority {
            entry = entry.with("authority", authority);
        }
        self.store.insert_product_line(line.clone(), entry.build()).await?;
        Ok(line)
    }

    /// Replaces a product line's policy.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn product_line_set_policy(
        &self,
        who: &Principal,
        line: &str,
        policy: EnrolmentPolicy,
    ) -> Result<ProductLine, FleetError> {
        check_policy(&policy)?;
        authorize(who, Action::ProductLineCreate, Target::Fleet)?;
        let found = self.find_product_line(line)?;
        let entry = Entry::done(who, "product-line.set-policy", self.now())
            .about(found.id)
            .with("before", policy_text(&found.policy)?)
            .with("after", policy_text(&policy)?)
            .build();
        let updated = self.store.update_product_line(found.id, found.authority, policy.clone(), entry).await;
        // Also after an error: a commit whose flush failed may have reached the file.
        self.lines.forget(found.id);
        updated?;
        Ok(ProductLine { policy, ..found })
    }

    /// A product line by name or id.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn product_line_show(&self, who: &Principal, line: &str) -> Result<ProductLine, FleetError> {
        authorize(who, Action::ProductLineRead, Target::Fleet)?;
        self.find_product_line(line)
    }

    /// All product lines.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn product_line_list(&self, who: &Principal, page: PageRequest) -> Result<Page<ProductLine>, FleetError> {
        authorize(who, Action::ProductLineRead, Target::Fleet)?;
        Ok(self.store.product_lines(&page)?)
    }

    /// An issuing CA that can still issue.
    fn find_issuing(&self, reference: &str) -> Result<AuthorityId, FleetError> {
        let known = self.find_authority(reference)?;
        let found = &known.record;
        if found.kind != AuthorityKind::Issuing || found.status != CertificateStatus::Good {
            return Err(FleetError::conflict(
                "authority",
                format!("`{}` is a root, on hold or revoked", found.name),
                "name an issuing CA that is good: see `keyfleet authority list`",
            ));
        }
        Ok(found.id)
    }
}

/// A product line's name is its EST label.
fn check_label(name: &str) -> Result<(), FleetError> {
    check_name("name", name)?;
    if EST_OPERATIONS.contains(&name) {
        return Err(FleetError::invalid("name", format!("`{name}` is an EST operation"), "choose another name"));
    }
    Ok(())
}

/// Checks a policy against the limits that its fields document.
fn check_policy(policy: &EnrolmentPolicy) -> Result<(), FleetError> {
    // In full, so that a new field cannot be forgotten here.
    let EnrolmentPolicy {
        ldevid_lifetime_hours,
        renewal_grace_hours,
        approval: _,
        allowed_algorithms,
        server_keygen: _,
        bootstrap_by_idevid: _,
        bootstrap_by_code: _,
        bootstrap_by_voucher: _,
        accept_expired_idevid: _,
        max_live_ldevids,
        wrap_base64: _,
        endorsement,
    } = policy;
    let out_of_range = |field: &str, value: u32, remedy: &str| {
        Err(FleetError::invalid(format!("policy.{field}"), format!("{value} is out of range"), remedy))
    };
    if !(1..=MAX_LIFETIME_HOURS).contains(ldevid_lifetime_hours) {
        return out_of_range("ldevid_lifetime_hours", *ldevid_lifetime_hours, "use 1 to 87600 hours");
    }
    if *renewal_grace_hours > MAX_LIFETIME_HOURS {
        return out_of_range("renewal_grace_hours", *renewal_grace_hours, "use 0 to 87600 hours; 0 means no grace");
    }
    if !(1..=MAX_LIVE_LDEVIDS).contains(max_live_ldevids) {
        return out_of_range("max_live_ldevids", u32::from(*max_live_ldevids), "use 1 to 16");
    }
    if let Some(endorsement) = endorsement {
        crate::endorsement::check_policy(endorsement)?;
    }
    let distinct: BTreeSet<_> = allowed_algorithms.iter().collect();
    if allowed_algorithms.is_empty() || distinct.len() != allowed_algorithms.len() {
        return Err(FleetError::invalid(
            "policy.allowed_algorithms",
            "is empty or names an algorithm twice",
            "name each algorithm that devices may bring once: p-256, p-384, ed25519, rsa-2048, rsa-3072, rsa-4096",
        ));
    }
    Ok(())
}

fn policy_text(policy: &EnrolmentPolicy) -> Result<String, FleetError> {
    serde_json::to_string(policy).map_err(|_encoding| FleetError::Bug("policy encoding"))
}

#[cfg(test)]
mod tests {
    use kf_key::KeyAlgorithm;

    use super::*;

    fn refused_field(change: impl FnOnce(&mut EnrolmentPolicy)) -> Option<String> {
        let mut policy = EnrolmentPolicy::default();
        change(&mut policy);
        match check_policy(&policy) {
            Ok(()) => None,
            Err(FleetError::Invalid { field, .. }) => Some(field),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_default_policy_and_its_limits_are_accepted() {
        assert_eq!(refused_field(|_| ()), None);
        assert_eq!(refused_field(|p| p.ldevid_lifetime_hours = 87_600), None);
        assert_eq!(refused_field(|p| p.renewal_grace_hours = 0), None);
        assert_eq!(refused_field(|p| p.max_live_ldevids = 16), None);
        assert_eq!(refused_field(|p| p.allowed_algorithms = KeyAlgorithm::ALL.to_vec()), None);
    }

    #[test]
    fn a_policy_outside_the_limits_is_refused_by_field() {
        let field = |name: &str| Some(format!("policy.{name}"));
        assert_eq!(refused_field(|p| p.ldevid_lifetime_hours = 0), field("ldevid_lifetime_hours"));
        assert_eq!(refused_field(|p| p.ldevid_lifetime_hours = 87_601), field("ldevid_lifetime_hours"));
        assert_eq!(refused_field(|p| p.renewal_grace_hours = 87_601), field("renewal_grace_hours"));
        assert_eq!(refused_field(|p| p.max_live_ldevids = 0), field("max_live_ldevids"));
        assert_eq!(refused_field(|p| p.max_live_ldevids = 17), field("max_live_ldevids"));
        assert_eq!(refused_field(|p| p.allowed_algorithms.clear()), field("allowed_algorithms"));
        let twice = |p: &mut EnrolmentPolicy| p.allowed_algorithms = vec![KeyAlgorithm::P256; 2];
        assert_eq!(refused_field(twice), field("allowed_algorithms"));
    }

    #[test]
    fn an_est_operation_is_no_product_line() {
        for operation in EST_OPERATIONS {
            assert!(check_label(operation).is_err(), "{operation}");
        }
        assert!(check_label("pumps").is_ok());
    }
}

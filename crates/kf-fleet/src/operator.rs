//! Operators, their tokens, and who is calling.
//!
//! Nothing here is cached: a token that is withdrawn, a certificate that is revoked and an operator who is disabled are
//! refused from the next request on.

mod token;

use kf_access::{Action, Principal, Scope, Target, Visibility, authorize};
use kf_api::operator::{Credential, NewOperator, NewToken, Operator, Role, Token, TokenRequest, WhoAmI};
use kf_api::{Page, PageRequest};
use kf_key::{
    CertificateProfile, CertificateStatus, FacilityId, KeyAlgorithm, OperatorId, SecretBytes, TokenId, UnixMillis,
};
use kf_pki::chain::Currency;

use crate::entry::Entry;
use crate::fence::Line;
use crate::naming::{check_name, check_why};
use crate::{ClientCertificate, Fleet, FleetError};

pub(crate) use token::{fresh_token, hash_of};

const DEFAULT_TOKEN_DAYS: u32 = 90;
const MAX_TOKEN_DAYS: u32 = 366;
const MAX_FACILITIES: usize = 1_000;
/// The name under which the server itself stands in the log.
const SERVER: &str = "server";

/// Held while it is checked that another owner remains and one is then disabled, so that two owners who disable each
/// other at the same moment do not both succeed.
pub(crate) static OWNERS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl Fleet {
    /// Who holds this API token.
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`] for an unknown, expired or withdrawn token or a disabled operator.
    pub async fn authenticate_token(&self, token: &SecretBytes) -> Result<Principal, FleetError> {
        let hash = hash_of(token).ok_or(FleetError::Unauthenticated)?;
        let Some((token, operator)) = self.store.token_by_hash(&hash)? else {
            return self.authenticate_session(&hash);
        };
        if token.withdrawn || self.now() > token.expires || !operator.enabled {
            return Err(FleetError::Unauthenticated);
        }
        Ok(principal_of(operator, Credential::Token).by_token(token.id))
    }

    /// Who presents this client certificate: an operator (profile `operator`), current, not revoked, enabled.
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`].
    pub async fn authenticate_certificate(&self, certificate: &ClientCertificate) -> Result<Principal, FleetError> {
        let serial = certificate.serial.ok_or(FleetError::Unauthenticated)?;
        if certificate.currency != Currency::Current {
            return Err(FleetError::Unauthenticated);
        }
        let stored = self.store.certificate(serial, &Visibility::Fleet)?.ok_or(FleetError::Unauthenticated)?;
        let facts = &stored.certificate;
        // A connection may outlive the certificate that opened it, so its time is asked again here.
        let holds = stored.der == *certificate.der
            && facts.profile == CertificateProfile::Operator
            && facts.status == CertificateStatus::Good
            && (facts.not_before..=facts.not_after).contains(&self.now());
        let operator = facts.operator.filter(|_| holds).ok_or(FleetError::Unauthenticated)?;
        let operator = self.store.operator(operator)?.ok_or(FleetError::Unauthenticated)?;
        if !operator.enabled {
            return Err(FleetError::Unauthenticated);
        }
        Ok(principal_of(operator, Credential::Certificate))
    }

    /// What the server knows about the caller. The serial number of a certificate is the surface's to add.
    #[must_use]
    pub fn who_am_i(&self, who: &Principal) -> WhoAmI {
        let facilities = match &who.scope {
            Scope::Fleet => Vec::new(),
            Scope::Facilities(facilities) => facilities.iter().copied().collect(),
        };
        WhoAmI { name: who.name.clone(), role: who.role, facilities, credential: who.credential, certificate: None }
    }

    /// Adds an operator.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Conflict`] for a name in use, [`FleetError::NotFound`] for a facility,
    /// [`FleetError::Denied`].
    pub async fn operator_create(&self, who: &Principal, new: NewOperator) -> Result<Operator, FleetError> {
        check_new_operator(&new)?;
        let voucher_key_pem = new.voucher_key_pem.as_deref().map(canonical_voucher_key).transpose()?;
        let permit = authorize(who, Action::OperatorManage, Target::Fleet)?;
        let mut facilities = Vec::with_capacity(new.facilities.len());
        for reference in &new.facilities {
            let facility: FacilityId = self.find_facility(reference, permit.visibility())?.id;
            if !facilities.contains(&facility) {
                facilities.push(facility);
            }
        }
        let now = self.now();
        let id = OperatorId::from_parts(now, kf_crypto::random_array()?);
        let operator =
            Operator { id, name: new.name, role: new.role, facilities, enabled: true, voucher_key_pem, created: now };
        let mut entry = Entry::done(who, "operator.create", now)
            .about(id)
            .with("name", &operator.name)
            .with("role", operator.role.name());
        // What there is room for in an entry's subjects; the whole list stands in the registry.
        for facility in &operator.facilities {
            entry = entry.about(facility);
        }
        self.store.insert_operator(operator.clone(), entry.build()).await?;
        Ok(operator)
    }

    /// Enables or disables an operator; effective at the next request.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`] when it would leave no enabled owner.
    pub async fn operator_enable(
        &self,
        who: &Principal,
        operator: &str,
        enabled: bool,
        why: String,
    ) -> Result<Operator, FleetError> {
        check_why(&why)?;
        authorize(who, Action::OperatorManage, Target::Fleet)?;
        let _owners = OWNERS.lock().await;
        let found = self.find_operator(operator)?;
        if found.enabled == enabled {
            return Ok(found);
        }
        if !enabled && found.role == Role::Owner && !self.another_owner_is_enabled(found.id)? {
            return Err(FleetError::conflict(
                "operator",
                format!("`{}` is the last enabled owner", found.name),
                "enable or create another owner first",
            ));
        }
        let act = if enabled { "operator.enable" } else { "operator.disable" };
        let entry = Entry::done(who, act, self.now()).about(found.id).because(&why).with("name", &found.name);
        self.store.set_operator_enabled(found.id, enabled, entry.build()).await?;
        self.tell_witness([Line::Operator { operator: found.id, enabled, at: self.now() }]);
        Ok(Operator { enabled, ..found })
    }

    /// All operators.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn operator_list(&self, who: &Principal, page: PageRequest) -> Result<Page<Operator>, FleetError> {
        authorize(who, Action::OperatorRead, Target::Fleet)?;
        Ok(self.store.operators(&page)?)
    }

    /// Makes an API token for an operator.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`] for a disabled operator, [`FleetError::Denied`].
    pub async fn token_create(&self, who: &Principal, request: TokenRequest) -> Result<NewToken, FleetError> {
        let days = request.lifetime_days.unwrap_or(DEFAULT_TOKEN_DAYS);
        if !(1..=MAX_TOKEN_DAYS).contains(&days) {
            return Err(FleetError::invalid("lifetime_days", format!("{days} is out of range"), "use 1 to 366 days"));
        }
        authorize(who, Action::OperatorManage, Target::Fleet)?;
        let operator = self.find_operator(&request.operator)?;
        if !operator.enabled {
            return Err(FleetError::conflict("operator", "is disabled", "enable the operator first"));
        }
        let now = self.now();
        let token = Token {
            id: TokenId::from_parts(now, kf_crypto::random_array()?),
            operator: operator.id,
            created: now,
            expires: now.plus(u64::from(days).saturating_mul(UnixMillis::DAY)),
            withdrawn: false,
        };
        let (text, hash) = fresh_token()?;
        let entry = Entry::done(who, "token.create", now)
            .about(token.id)
            .about(operator.id)
            .with("operator", &operator.name)
            .with("lifetime_days", days);
        self.store.insert_token(token.clone(), hash, entry.build()).await?;
        Ok(NewToken { id: token.id, operator: operator.id, token: text, expires: token.expires })
    }

    /// The tokens of an operator.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn token_list(&self, who: &Principal, operator: &str) -> Result<Vec<Token>, FleetError> {
        authorize(who, Action::OperatorRead, Target::Fleet)?;
        Ok(self.store.tokens_of_operator(self.find_operator(operator)?.id)?)
    }

    /// Withdraws a token; effective at the next request.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn token_withdraw(&self, who: &Principal, token: TokenId) -> Result<(), FleetError> {
        authorize(who, Action::OperatorManage, Target::Fleet)?;
        let found = self.store.token(token)?.ok_or(FleetError::NotFound("token"))?;
        let entry = Entry::done(who, "token.withdraw", self.now()).about(token).about(found.operator);
        self.store.withdraw_token(token, entry.build()).await?;
        self.tell_witness([Line::TokenWithdrawn { token, at: self.now() }]);
        Ok(())
    }

    pub(crate) fn another_owner_is_enabled(&self, but: OperatorId) -> Result<bool, FleetError> {
        let mut page = PageRequest { after: None, limit: Some(kf_api::page::MAX_LIMIT) };
        loop {
            let found = self.store.operators(&page)?;
            if found.items.iter().any(|other| other.role == Role::Owner && other.enabled && other.id != but) {
                return Ok(true);
            }
            page.after = found.next;
            if page.after.is_none() {
                return Ok(false);
            }
        }
    }
}

fn principal_of(operator: Operator, credential: Credential) -> Principal {
    Principal::new(operator.id.to_string(), operator.name, operator.role, operator.facilities, credential)
}

fn check_new_operator(new: &NewOperator) -> Result<(), FleetError> {
    check_name("name", &new.name)?;
    if new.name == SERVER {
        return Err(FleetError::invalid(
            "name",
            "`server` is how the log names the server itself",
            "choose another name",
        ));
    }
    let scoped = match new.role {
        Role::Owner | Role::FleetOperator | Role::Auditor => false,
        Role::FacilityOperator | Role::Station | Role::Relay | Role::Application => true,
        Role::Device => {
            return Err(FleetError::invalid(
                "role",
                "devices are not operators",
                "use owner, fleet-operator, facility-operator, auditor, station, relay or application; devices are registered",
            ));
        }
    };
    let problem = match (scoped, new.facilities.len()) {
        (true, 0) => Some(("are missing", "name at least one facility that this operator may act on")),
        (true, 1..=MAX_FACILITIES) | (false, 0) => None,
        (true, _) => Some(("are more than 1000", "make the operator a fleet operator")),
        (false, _) => {
            Some(("do not limit this role", "leave facilities out, or choose facility-operator, station or relay"))
        }
    };
    if let Some((problem, remedy)) = problem {
        return Err(FleetError::invalid("facilities", problem, remedy));
    }
    if new.voucher_key_pem.is_some() && new.role != Role::Station {
        return Err(FleetError::invalid("voucher_key_pem", "only stations vouch", "leave it out, or choose station"));
    }
    Ok(())
}

/// A station's voucher key: one P-256 SubjectPublicKeyInfo in PEM, written again in one spelling.
fn canonical_voucher_key(pem: &str) -> Result<String, FleetError> {
    let invalid = |problem: &str| {
        FleetError::invalid(
            "voucher_key_pem",
            problem,
            "give one P-256 public key in PEM, as `openssl pkey -pubout` writes it",
        )
    };
    let keys = kf_pki::pem::decode_all("PUBLIC KEY", pem).ok_or_else(|| invalid("is not PEM"))?;
    let [spki] = keys.as_slice() else { return Err(invalid("is not exactly one PUBLIC KEY block")) };
    match kf_crypto::public_key_of_spki(spki) {
        Ok((KeyAlgorithm::P256, _)) => Ok(kf_pki::pem::encode("PUBLIC KEY", spki)),
        Ok(_) | Err(kf_crypto::SpkiError) => Err(invalid("is not a P-256 public key with an uncompressed point")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_field(role: Role, change: impl FnOnce(&mut NewOperator)) -> Option<String> {
        let mut new = NewOperator { name: "ada".into(), role, facilities: Vec::new(), voucher_key_pem: None };
        if matches!(role, Role::FacilityOperator | Role::Station | Role::Relay | Role::Application) {
            new.facilities.push("north".into());
        }
        change(&mut new);
        match check_new_operator(&new) {
            Ok(()) => None,
            Err(FleetError::Invalid { field, .. }) => Some(field),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_role_but_device_can_be_given_to_an_operator() {
        for role in Role::ALL {
            let expected = (role == Role::Device).then(|| "role".to_owned());
            assert_eq!(refused_field(role, |_| ()), expected, "{role:?}");
        }
    }

    #[test]
    fn facilities_are_required_where_they_limit_and_refused_where_they_do_not() {
        let facilities = Some("facilities".to_owned());
        for role in [Role::FacilityOperator, Role::Station, Role::Relay, Role::Application] {
            assert_eq!(refused_field(role, |new| new.facilities.clear()), facilities);
            assert_eq!(refused_field(role, |new| new.facilities = vec!["a".into(); 1_001]), facilities);
        }
        for role in [Role::Owner, Role::FleetOperator, Role::Auditor] {
            assert_eq!(refused_field(role, |new| new.facilities.push("north".into())), facilities);
        }
    }

    #[test]
    fn only_a_station_has_a_voucher_key_and_nobody_is_called_server() {
        let key = |new: &mut NewOperator| new.voucher_key_pem = Some(String::new());
        assert_eq!(refused_field(Role::Station, key), None);
        assert_eq!(refused_field(Role::FacilityOperator, key), Some("voucher_key_pem".into()));
        assert_eq!(refused_field(Role::Owner, |new| new.name = "server".into()), Some("name".into()));
    }
}

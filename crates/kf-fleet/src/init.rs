//! `keyfleet init`: a fleet from nothing.

use std::sync::Arc;

use kf_access::Principal;
use kf_api::ShownOnce;
use kf_api::authority::AuthorityKind;
use kf_api::operator::{Operator, Role, Token};
use kf_key::{AuthorityId, FleetId, KeyAlgorithm, KeyId, KeyRole, OperatorId, TokenId, UnixMillis};
use kf_pki::certificate::{check_issuance, check_root};
use kf_pki::issuer::Issuer;
use kf_signer::{KeyPurpose, SignerClient};
use kf_store::{Options, Store};

use crate::authority::{Plan, facts_of, key_record};
use crate::entry::Entry;
use crate::log_publisher::{LOG_KEY_FACT, LOG_ORIGIN_FACT, local, verifier_of, write_durably};
use crate::naming::check_name;
use crate::operator::fresh_token;
use crate::{Clock, DataDir, FleetConfig, FleetError};

/// Lifetime of the first owner's token.
const OWNER_TOKEN_LIFETIME: u64 = 90 * UnixMillis::DAY;

/// What to create.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The configuration to be written.
    pub config: FleetConfig,
    /// Name of the first owner.
    pub owner: String,
    /// Algorithm of root and issuing CA.
    pub algorithm: KeyAlgorithm,
    /// Lifetime of the root in hours; the issuing CA gets half. Demo: at most 24.
    pub root_lifetime_hours: u32,
}

/// What was created.
#[derive(Debug)]
pub struct Initialised {
    /// Root certificate, DER.
    pub root: Vec<u8>,
    /// SHA-256 of it, hexadecimal: what clients pin.
    pub root_fingerprint: String,
    /// The first owner's API token.
    pub owner_token: ShownOnce,
    /// The log's verifier key.
    pub verifier_key: String,
}

/// Creates a fleet in an empty directory: registry, root, default issuing CA, log key, delivery and order key, first owner, configuration. The
/// configuration is written last: a directory without it holds no fleet, and an init that was cut short can be run
/// again. The signer is given running, with its root created.
///
/// # Errors
/// [`FleetError::Conflict`] when there is a fleet, [`FleetError::Local`], [`FleetError::Signer`], [`FleetError::Store`].
pub async fn init(
    dir: &DataDir,
    signer: SignerClient,
    clock: Arc<dyn Clock>,
    options: InitOptions,
) -> Result<Initialised, FleetError> {
    check_options(dir, &options)?;
    let config_text = toml::to_string_pretty(&options.config).map_err(|_bug| FleetError::Bug("configuration"))?;
    remove_leftovers(dir)?;
    let store = Store::open(&dir.database(), Options::default())?;
    let founding = Founding { signer, store, now: clock.now(), options };
    let root = founding.found_authorities().await?;
    let verifier_key = founding.found_log().await?;
    founding.found_exchange_keys().await?;
    let owner_token = founding.found_owner().await?;
    founding.store.close().await;
    write_durably(&dir.root_certificate(), kf_pki::pem::certificate(&root).as_bytes())?;
    write_durably(&dir.verifier_key(), format!("{verifier_key}\n").as_bytes())?;
    write_durably(&dir.config_file(), config_text.as_bytes())?;
    Ok(Initialised { root_fingerprint: hex::encode(kf_crypto::sha256(&root)), root, owner_token, verifier_key })
}

fn check_options(dir: &DataDir, options: &InitOptions) -> Result<(), FleetError> {
    check_name("owner", &options.owner)?;
    let fleet = &options.config.fleet;
    if fleet.is_empty() || fleet.chars().count() > 64 || fleet.chars().any(char::is_control) {
        return Err(FleetError::invalid("fleet", "is not 1 to 64 plain characters", "choose a shorter plain name"));
    }
    if options.config.demo && options.root_lifetime_hours > 24 {
        return Err(FleetError::invalid("root_lifetime_hours", "a demo lives at most a day", "use 24 or less"));
    }
    if options.root_lifetime_hours < 2 {
        return Err(FleetError::invalid("root_lifetime_hours", "is too short", "use at least 2"));
    }
    if dir.config_file().exists() {
        return Err(FleetError::conflict(
            "data",
            format!("{} already holds a fleet", dir.path().display()),
            "choose another directory; nothing was changed",
        ));
    }
    Ok(())
}

/// A registry without configuration is what an init that was cut short left behind.
fn remove_leftovers(dir: &DataDir) -> Result<(), FleetError> {
    std::fs::create_dir_all(dir.path()).map_err(|error| local(dir.path(), &error))?;
    let database = dir.database();
    for suffix in ["", "-wal", "-shm"] {
        let mut path = database.clone().into_os_string();
        path.push(suffix);
        let path = std::path::PathBuf::from(path);
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(local(&path, &error)),
        }
    }
    Ok(())
}

struct Founding {
    signer: SignerClient,
    store: Store,
    now: UnixMillis,
    options: InitOptions,
}

impl Founding {
    fn founder(&self) -> Principal {
        let mut server = Principal::server();
        "init".clone_into(&mut server.name);
        server
    }

    fn plan(&self, kind: AuthorityKind) -> Result<Plan, FleetError> {
        let root_lifetime = u64::from(self.options.root_lifetime_hours) * UnixMillis::HOUR;
        let (name, lifetime, shard_count) = match kind {
            AuthorityKind::Root | AuthorityKind::Factory => ("root", root_lifetime, 1),
            AuthorityKind::Issuing => ("issuing", root_lifetime / 2, 8),
        };
        Ok(Plan {
            id: AuthorityId::from_parts(self.now, kf_crypto::random_array()?),
            name: name.to_owned(),
            kind,
            facility: None,
            algorithm: self.options.algorithm,
            lifetime,
            shard_count,
            is_default: kind == AuthorityKind::Issuing,
        })
    }

    /// Root and default issuing CA. Returns the root certificate.
    async fn found_authorities(&self) -> Result<Vec<u8>, FleetError> {
        let far = UnixMillis(u64::MAX);
        let fleet = &self.options.config.fleet;
        let plan = self.plan(AuthorityKind::Root)?;
        let root_id = plan.id;
        let key = self.signer.generate_key(self.fresh_key()?, KeyPurpose::RootCa, plan.algorithm).await?;
        let checked = check_root(plan.request(fleet, &key, self.now, far)?)
            .map_err(|refusal| FleetError::invalid("root", refusal.to_string(), "correct the options"))?;
        let root = self.signer.sign_root(key.key, checked).await?;
        let root_key = key.key;
        let handle = key.handle.clone();
        let issuer = Issuer::from_certificate(root_id, &root.der, 1, &self.options.config.listen.public_http)
            .map_err(|_not_an_issuer| FleetError::Bug("the new root is no CA"))?;
        self.keep(plan.record(None, &key, &root, self.now)).await?;
        self.signer.register_key(root_key, handle, facts_of(AuthorityKind::Root, &issuer.name));

        let plan = self.plan(AuthorityKind::Issuing)?;
        let key = self.signer.generate_key(self.fresh_key()?, KeyPurpose::IssuingCa, plan.algorithm).await?;
        let checked = check_issuance(&issuer, plan.request(fleet, &key, self.now, issuer.not_after)?)
            .map_err(|refusal| FleetError::invalid("issuing CA", refusal.to_string(), "correct the options"))?;
        let issuing = self.signer.sign_certificate(root_key, checked).await?;
        self.keep(plan.record(Some(root_id), &key, &issuing, self.now)).await?;
        Ok(root.der)
    }

    async fn keep(&self, record: kf_store::authority::AuthorityRecord) -> Result<(), FleetError> {
        let entry = Entry::done(&self.founder(), "authority.create", self.now)
            .about(record.authority.id)
            .about(format!("cert:{}", record.certificate.serial))
            .with("name", &record.authority.name)
            .with("algorithm", record.authority.algorithm);
        self.store.insert_authority(record, entry.build()).await?;
        Ok(())
    }

    /// The log key and the origin. Returns the verifier key.
    async fn found_log(&self) -> Result<String, FleetError> {
        let fleet_id = FleetId::from_parts(self.now, kf_crypto::random_array()?);
        let origin = format!("keyfleet.log/{fleet_id}");
        let key = self.signer.generate_key(self.fresh_key()?, KeyPurpose::LogCheckpoint, KeyAlgorithm::Ed25519).await?;
        let entry = |act: &str| Entry::done(&self.founder(), act, self.now).about(key.key);
        self.store.insert_key(key_record(&key, "log".to_owned(), self.now), entry("key.create").build()).await?;
        self.store.set_fact(LOG_KEY_FACT, key.key.to_string(), entry("log.found").build()).await?;
        self.store
            .set_fact(LOG_ORIGIN_FACT, origin.clone(), entry("log.found").with("origin", &origin).build())
            .await?;
        Ok(verifier_of(&origin, &key.spki)?.to_string())
    }

    /// The keys that devices pin: one for key exchanges, one for orders.
    async fn found_exchange_keys(&self) -> Result<(), FleetError> {
        for (purpose, role) in [(KeyPurpose::Delivery, KeyRole::Delivery), (KeyPurpose::Order, KeyRole::Order)] {
            let key = self.signer.generate_key(self.fresh_key()?, purpose, KeyAlgorithm::P256).await?;
            let entry =
                Entry::done(&self.founder(), "key.create", self.now).about(key.key).with("purpose", role.name());
            self.store.insert_key(key_record(&key, role.name().to_owned(), self.now), entry.build()).await?;
        }
        Ok(())
    }

    async fn found_owner(&self) -> Result<ShownOnce, FleetError> {
        let id = OperatorId::from_parts(self.now, kf_crypto::random_array()?);
        let operator = Operator {
            id,
            name: self.options.owner.clone(),
            role: Role::Owner,
            facilities: Vec::new(),
            enabled: true,
            voucher_key_pem: None,
            created: self.now,
        };
        let entry = Entry::done(&self.founder(), "operator.create", self.now).about(id).with("role", "owner");
        self.store.insert_operator(operator, entry.build()).await?;
        let (text, hash) = fresh_token()?;
        let token = Token {
            id: TokenId::from_parts(self.now, kf_crypto::random_array()?),
            operator: id,
            created: self.now,
            expires: self.now.plus(OWNER_TOKEN_LIFETIME),
            withdrawn: false,
        };
        let entry = Entry::done(&self.founder(), "token.create", self.now).about(token.id).about(id);
        self.store.insert_token(token, hash, entry.build()).await?;
        Ok(text)
    }

    fn fresh_key(&self) -> Result<KeyId, FleetError> {
        Ok(KeyId::from_parts(self.now, kf_crypto::random_array()?))
    }
}

impl FleetConfig {
    /// A configuration with the defaults.
    #[must_use]
    pub fn named(fleet: &str) -> Self {
        Self {
            fleet: fleet.to_owned(),
            listen: crate::ListenConfig::default(),
            signer: kf_signer::SignerConfig::default(),
            witness_dir: None,
            backup_dir: None,
            single_control: false,
            dual_control_above: 10,
            batch_dual_control_above: 1_000,
            crl_lifetime_seconds: 86_400,
            ocsp_lifetime_seconds: 3_600,
            rotation_policy_file: None,
            rotation_automatic: false,
            campaign_requests_per_second: None,
            campaign_signatures_per_second: None,
            drill_days: 180,
            alarm_command: None,
            broker: Vec::new(),
            demo: false,
        }
    }
}

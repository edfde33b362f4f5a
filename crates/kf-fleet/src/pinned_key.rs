//! Keys of the server that devices and stations pin: which are in use, by which one somebody is served, and who has proved to
//! hold which.
//!
//! A key is succeeded by one that it vouches for. Both are in use from then on: each holder is served by the newest key that it has
//! proved to hold, and the old one ends when nobody needs it, or when two people agree to a number of those who do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kf_access::{Action, Principal, Target, authorize};
use kf_api::batch::Batch;
use kf_api::device::Device;
use kf_api::epoch::DevicePins;
use kf_api::operator::Credential;
use kf_api::order::{Order, OrderAct};
use kf_api::succession::UnprovedDevice;
use kf_api::{Page, PageRequest};
use kf_exchange::PublicKey;
use kf_exchange::succession::MAX_LINKS;
use kf_key::{KeyAlgorithm, KeyId, KeyRole, KeyState, UnixMillis};
use kf_rotation::KeyClass;
use kf_signer::{KeyFacts, KeyPurpose, SignerClient};
use kf_store::key::KeyRecord;
use kf_store::pinned_key::Holder;
use kf_store::{Store, StoreError};

use crate::authority::{handle_of, key_record};
use crate::enrolment::device_principal;
use crate::entry::Entry;
use crate::{Fleet, FleetError};

/// The most keys of a role that are in use at a time: a device need not look at more.
const MAX_IN_USE: usize = 4;

/// One key of a role.
#[derive(Debug)]
pub(crate) struct PinnedKey {
    pub(crate) id: KeyId,
    pub(crate) state: KeyState,
    pub(crate) spki: Vec<u8>,
    sha256: [u8; 32],
    /// What the key before signed; the first has none, nor has one whose predecessor was lost.
    link: Option<Vec<u8>>,
}

impl PinnedKey {
    pub(crate) fn is_active(&self) -> bool {
        self.state == KeyState::Active
    }

    /// SHA-256 of the SubjectPublicKeyInfo, hexadecimal.
    pub(crate) fn fingerprint(&self) -> String {
        hex::encode(self.sha256)
    }
}

/// The keys of every role, oldest first.
#[derive(Debug, Default)]
pub(crate) struct PinnedKeys(BTreeMap<KeyRole, Vec<PinnedKey>>);

/// The name of a role in the purpose of a key, and its class.
pub(crate) const fn class_of(role: KeyRole) -> KeyClass {
    match role {
        KeyRole::Delivery => KeyClass::DeliveryKey,
        KeyRole::Order => KeyClass::OrderKey,
        KeyRole::Batch => KeyClass::BatchAuthorisationKey,
    }
}

const fn purpose_of(role: KeyRole) -> KeyPurpose {
    match role {
        KeyRole::Delivery => KeyPurpose::Delivery,
        KeyRole::Order => KeyPurpose::Order,
        KeyRole::Batch => KeyPurpose::BatchAuthorisation,
    }
}

/// The role of a key, if somebody pins it.
pub(crate) fn role_of(key: &KeyRecord) -> Option<KeyRole> {
    KeyRole::ALL.into_iter().find(|role| role.name() == key.purpose)
}

impl PinnedKeys {
    /// Reads them from the registry and tells the signer of those in use.
    pub(crate) fn open(store: &Store, signer: &SignerClient) -> Result<Self, FleetError> {
        let mut all = BTreeMap::new();
        for role in KeyRole::ALL {
            let mut links: BTreeMap<KeyId, Vec<u8>> =
                store.pinned_key_links(role)?.into_iter().map(|link| (link.successor, link.message)).collect();
            let mut keys = Vec::new();
            for key in store.keys(role.name())?.into_iter().filter(|key| key.purpose == role.name()).rev() {
                if key.state == KeyState::Active {
                    let facts = KeyFacts { purpose: purpose_of(role), issuer_name: Vec::new() };
                    signer.register_key(key.id, handle_of(&key)?, facts);
                }
                let sha256 = kf_crypto::sha256(&key.spki);
                keys.push(PinnedKey {
                    id: key.id,
                    state: key.state,
                    spki: key.spki,
                    sha256,
                    link: links.remove(&key.id),
                });
            }
            all.insert(role, keys);
        }
        Ok(Self(all))
    }

    /// Every key of a role, oldest first.
    pub(crate) fn of(&self, role: KeyRole) -> &[PinnedKey] {
        self.0.get(&role).map_or(&[], Vec::as_slice)
    }

    /// The key that is given to whoever pins one now.
    pub(crate) fn newest(&self, role: KeyRole) -> Option<&PinnedKey> {
        self.of(role).iter().rfind(|key| key.is_active())
    }

    /// The key that whoever has proved nothing is served by.
    fn oldest(&self, role: KeyRole) -> Option<&PinnedKey> {
        self.of(role).iter().find(|key| key.is_active())
    }

    /// The key by which a holder is served that has proved to hold `proved`.
    fn serving(&self, role: KeyRole, proved: Option<KeyId>) -> Result<&PinnedKey, FleetError> {
        let proved = proved.and_then(|id| self.of(role).iter().find(|key| key.id == id && key.is_active()));
        proved.or_else(|| self.oldest(role)).ok_or_else(|| no_key(role))
    }

    /// Whether a key is the first of its role, which everybody may hold: no proof of it is noted.
    fn is_first(&self, role: KeyRole, id: KeyId) -> bool {
        self.of(role).first().is_some_and(|first| first.id == id)
    }

    /// The links of a role as far as a key, at most 16: the last ones.
    pub(crate) fn links_to(&self, role: KeyRole, key: KeyId) -> Vec<u8> {
        let until = self.of(role).iter().rev().filter(|known| known.id <= key).take(MAX_LINKS);
        until.filter_map(|key| key.link.as_deref()).flatten().copied().collect()
    }

    /// The newest links of the roles that devices pin, as a CBOR sequence.
    fn links(&self, roles: &[KeyRole]) -> Vec<u8> {
        let newest = |role: &KeyRole| self.of(*role).iter().rev().take(MAX_LINKS).filter_map(|key| key.link.as_deref());
        roles.iter().flat_map(newest).flatten().copied().collect()
    }
}

fn no_key(role: KeyRole) -> FleetError {
    let class = class_of(role).name();
    FleetError::conflict(
        "key",
        format!(
            "no {class} is left: it was destroyed, and its successor was made after the backup that this registry is from"
        ),
        format!(
            "restore a newer backup; or make another one with `keyfleet rotate --class {class} --now` and give it by hand to \
             whoever pins one"
        ),
    )
}

/// Challenges that were signed by another key than the first: by which one.
#[derive(Default)]
pub(crate) struct ChallengedBy(Mutex<BTreeMap<[u8; 16], (KeyId, UnixMillis)>>);

/// The most challenges that are remembered: as many as the signer does.
const MAX_CHALLENGED: usize = 4_096;
/// For how long: as long as the signer does.
const CHALLENGED_FOR: u64 = 60 * UnixMillis::SECOND;

impl ChallengedBy {
    fn note(&self, session: [u8; 16], key: KeyId, now: UnixMillis) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_CHALLENGED {
            known.retain(|_, (_, since)| now.since(*since) < CHALLENGED_FOR);
        }
        // Beyond that a proof is not noted this time, and the device proves it again at its next exchange.
        if known.len() < MAX_CHALLENGED {
            known.insert(session, (key, now));
        }
    }

    fn take(&self, session: &[u8; 16]) -> Option<KeyId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(session).map(|(key, _)| key)
    }
}

impl Fleet {
    pub(crate) fn pinned_keys(&self) -> Arc<PinnedKeys> {
        Arc::clone(&self.pinned.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn reload_pinned_keys(&self) -> Result<(), FleetError> {
        let keys = Arc::new(PinnedKeys::open(&self.store, &self.signer)?);
        *self.pinned.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// The public keys that devices pin: the newest of each role.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] where none is left.
    pub fn device_pins(&self) -> Result<DevicePins, FleetError> {
        let keys = self.pinned_keys();
        let pem = |key: &PinnedKey| kf_pki::pem::encode("PUBLIC KEY", &key.spki);
        let newest = |role| keys.newest(role).ok_or_else(|| no_key(role));
        let (delivery, order) = (newest(KeyRole::Delivery)?, newest(KeyRole::Order)?);
        Ok(DevicePins {
            delivery_key_pem: pem(delivery),
            delivery_key_sha256: delivery.fingerprint(),
            order_key_pem: pem(order),
            order_key_sha256: order.fingerprint(),
        })
    }

    /// SHA-256 of the newest key of a role, hexadecimal; empty where none is left.
    pub(crate) fn newest_fingerprint(&self, role: KeyRole) -> String {
        self.pinned_keys().newest(role).map_or_else(String::new, PinnedKey::fingerprint)
    }

    /// How the keys that devices pin were succeeded: links as a CBOR sequence (RFC 8742), at most 16 of each role. They prove
    /// themselves.
    #[must_use]
    pub fn device_successions(&self) -> Vec<u8> {
        self.pinned_keys().links(&[KeyRole::Delivery, KeyRole::Order])
    }

    /// The key by which a hello is answered: the one that it names, or the oldest in use.
    pub(crate) fn challenging_key(&self, named: Option<[u8; 16]>) -> Result<KeyId, FleetError> {
        let keys = self.pinned_keys();
        let is_named = |key: &&PinnedKey| named.is_some_and(|named| key.sha256.starts_with(&named));
        let found = keys.of(KeyRole::Delivery).iter().filter(|key| key.is_active()).find(is_named);
        Ok(keys.serving(KeyRole::Delivery, found.map(|key| key.id))?.id)
    }

    /// Remembers by which key a challenge was signed, until it is answered.
    pub(crate) fn note_challenge(&self, challenge: &[u8], key: KeyId) {
        if !self.pinned_keys().is_first(KeyRole::Delivery, key)
            && let Ok(session) = kf_exchange::challenged_session(challenge)
        {
            self.challenged_by.note(session, key, self.now());
        }
    }

    /// A device has answered a challenge under its identity key: it has verified the key that signed it.
    pub(crate) async fn note_challenge_answered(&self, device: &Device, session: &[u8; 16]) -> Result<(), FleetError> {
        let Some(key) = self.challenged_by.take(session) else { return Ok(()) };
        self.note_holder(device, KeyRole::Delivery, key).await
    }

    async fn note_holder(&self, device: &Device, role: KeyRole, key: KeyId) -> Result<(), FleetError> {
        let holder = Holder::Device(device.id);
        if self.store.pinned_key_of(holder, role)?.is_some_and(|known| known >= key) {
            return Ok(());
        }
        let now = self.now();
        let entry = Entry::done(&device_principal(device, Credential::Certificate), "pinned-key.prove", now)
            .about(device.id)
            .about(key)
            .at_facility(Some(device.facility))
            .with("role", role.name());
        self.store.note_pinned_key(holder, (role, key), now, entry.build()).await?;
        Ok(())
    }

    /// A station has worked under a quota that this key signed: it has verified it.
    pub(crate) async fn note_quota_used(&self, who: &Principal, batch: &Batch, key: KeyId) -> Result<(), FleetError> {
        let holder = Holder::Station(batch.station);
        let is_known =
            || Ok::<_, FleetError>(self.store.pinned_key_of(holder, KeyRole::Batch)?.is_some_and(|at| at >= key));
        if self.pinned_keys().is_first(KeyRole::Batch, key) || is_known()? {
            return Ok(());
        }
        let now = self.now();
        let entry = Entry::done(who, "pinned-key.prove", now)
            .about(batch.station)
            .about(key)
            .about(batch.id)
            .at_facility(Some(batch.facility))
            .with("role", KeyRole::Batch.name());
        self.store.note_pinned_key(holder, (KeyRole::Batch, key), now, entry.build()).await?;
        Ok(())
    }

    /// The order key by which a device is given orders: the newest that it has said to obey, now or before.
    pub(crate) fn order_key_of(&self, device: &Device, obeyed: Option<KeyId>) -> Result<KeyId, FleetError> {
        let proved = self.store.pinned_key_of(Holder::Device(device.id), KeyRole::Order)?;
        Ok(self.pinned_keys().serving(KeyRole::Order, proved.max(obeyed))?.id)
    }

    /// The order key of ours that a device means by a fingerprint (SHA-256, hexadecimal); one that none of ours has counts for nothing.
    pub(crate) fn obeyed_order_key(&self, fingerprint: &str) -> Option<KeyId> {
        let keys = self.pinned_keys();
        let said = keys.of(KeyRole::Order).iter().find(|key| key.is_active() && key.fingerprint() == fingerprint);
        said.map(|key| key.id)
    }

    /// Notes which order key a device says that it obeys.
    pub(crate) async fn note_obeyed(&self, device: &Device, key: KeyId) -> Result<(), FleetError> {
        if self.pinned_keys().is_first(KeyRole::Order, key) {
            return Ok(());
        }
        self.note_holder(device, KeyRole::Order, key).await
    }

    /// The fingerprint of the newest order key.
    pub(crate) fn newest_order_key(&self) -> Option<String> {
        self.pinned_keys().newest(KeyRole::Order).map(PinnedKey::fingerprint)
    }

    /// An order as the device can verify it: signed again where it has said since, or just now, that it obeys a newer order key. Counter, act
    /// and expiry stay, so that it is obeyed once. `None` when it changed in between.
    pub(crate) async fn order_for(
        &self,
        device: &Device,
        order: &Order,
        message: Vec<u8>,
        obeyed: Option<KeyId>,
    ) -> Result<Option<Vec<u8>>, FleetError> {
        let keys = self.pinned_keys();
        if keys.of(KeyRole::Order).len() < 2 {
            return Ok(Some(message));
        }
        let key = self.order_key_of(device, obeyed)?;
        let is_by = |spki: &[u8]| PublicKey::from_spki(spki).is_ok_and(|key| kf_exchange::order::is_by(&message, &key));
        if keys.of(KeyRole::Order).iter().any(|known| known.id == key && is_by(&known.spki)) {
            return Ok(Some(message));
        }
        let again = self.sign_order(key, device.id, order).await?;
        let entry = Entry::done(&Self::server_principal(), "order.sign-again", self.now())
            .about(order.id)
            .about(device.id)
            .about(key)
            .at_facility(Some(device.facility));
        match self.store.sign_order_again(order.id, message, again.clone(), entry.build()).await {
            Ok(_) => Ok(Some(again)),
            // Withdrawn, or signed again by somebody else, in between: the next question finds it as it is then.
            Err(StoreError::IllegalState { .. }) => Ok(None),
            // Not even the reserve has room. It is the order that was agreed to, and is signed once more when the device asks again.
            Err(error @ StoreError::Full) if order.act != OrderAct::Rotate => {
                tracing::warn!(order = %order.id, %error, "an order was signed again without a note of it");
                Ok(Some(again))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the successor of the newest key of a role behind the one that the caller has seen; the index of its log entry.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] when there is a newer one by now, or too many are in use; [`FleetError::Denied`],
    /// [`FleetError::Signer`].
    pub(crate) async fn succeed_pinned_key(
        &self,
        who: &Principal,
        (role, seen): (KeyRole, Option<KeyId>),
        why: &str,
    ) -> Result<u64, FleetError> {
        if *who != Self::server_principal() {
            authorize(who, Action::ServerKeyManage, Target::Fleet)?;
        }
        let _turn = self.pinned_turn.lock().await;
        let keys = self.pinned_keys();
        let newest = keys.newest(role).map(|key| key.id);
        let class = class_of(role).name();
        if newest != seen {
            return Err(FleetError::conflict(
                "key",
                format!("there is a newer {class} by now"),
                format!("somebody made the successor already: look with `keyfleet inventory --class {class}`"),
            ));
        }
        if keys.of(role).iter().filter(|key| key.is_active()).count() >= MAX_IN_USE {
            return Err(FleetError::conflict(
                "key",
                format!("{MAX_IN_USE} versions of the {class} are in use"),
                format!(
                    "end the oldest first: `keyfleet rotate --class {class} --dry-run` says how many still need it, `keyfleet \
                     destroy pinned-key` ends it"
                ),
            ));
        }
        self.make_pinned_key(who, role, why).await
    }

    /// The next key of a role: behind the newest one, or the first. Whoever calls it has the turn.
    async fn make_pinned_key(&self, who: &Principal, role: KeyRole, why: &str) -> Result<u64, FleetError> {
        let keys = self.pinned_keys();
        let last = keys.of(role).last().map(|key| key.id);
        // Keys are told apart by their time: this one is the newer one whatever the clock says.
        let created = last.map(|last| self.store.key(last)).transpose()?.flatten().map(|last| last.created);
        let now = created.map_or(self.now(), |created| self.now().max(created.plus(1)));
        let id = KeyId::from_parts(now, kf_crypto::random_array()?);
        let key = self.signer.generate_key(id, purpose_of(role), KeyAlgorithm::P256).await?;
        let record = key_record(&key, role.name().to_owned(), now);
        let version = u32::try_from(keys.of(role).len().saturating_add(1)).unwrap_or(u32::MAX);
        let entry = |act| Entry::done(who, act, now).about(id).because(why).with("purpose", role.name());
        let logged = match keys.newest(role) {
            None => self.store.insert_key(record, entry("key.create").with("version", version).build()).await?,
            Some(before) => {
                let facts = KeyFacts { purpose: purpose_of(role), issuer_name: Vec::new() };
                self.signer.register_key(id, key.handle, facts);
                let link = self.signer.sign_succession(before.id, id, (version, now)).await?;
                let succeed = entry("pinned-key.succeed").about(before.id).with("version", version);
                let entries = vec![succeed.build(), entry("key.create").build()];
                self.store.succeed_pinned_key(record, before.id, link, entries).await?
            }
        };
        self.reload_pinned_keys()?;
        Ok(logged.index)
    }

    /// The newest key of a role; made when it is first needed, by the server.
    pub(crate) async fn pinned_key_or_first(&self, role: KeyRole) -> Result<(KeyId, Vec<u8>), FleetError> {
        let of_newest = |keys: &PinnedKeys| keys.newest(role).map(|key| (key.id, key.spki.clone()));
        if let Some(found) = of_newest(&self.pinned_keys()) {
            return Ok(found);
        }
        let _turn = self.pinned_turn.lock().await;
        if self.pinned_keys().of(role).is_empty() {
            self.make_pinned_key(&Self::server_principal(), role, "").await?;
        }
        of_newest(&self.pinned_keys()).ok_or_else(|| no_key(role))
    }

    /// Devices that have not proved to hold a newer key than this one, and need it as far as is known.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for what is no key that devices pin; [`FleetError::Denied`].
    pub async fn pinned_key_needed_by(
        &self,
        who: &Principal,
        key: &str,
        page: PageRequest,
    ) -> Result<Page<UnprovedDevice>, FleetError> {
        let permit = authorize(who, Action::EpochRead, Target::Visible)?;
        let (key, role) = self.find_pinned_key(key)?;
        if role == KeyRole::Batch {
            return Err(FleetError::NotFound("key that devices pin"));
        }
        Ok(self.store.devices_behind_pinned_key((key, role), permit.visibility(), &page)?)
    }

    /// A key that somebody pins, by its id.
    pub(crate) fn find_pinned_key(&self, key: &str) -> Result<(KeyId, KeyRole), FleetError> {
        let id: KeyId = key.parse().map_err(|_not_an_id| FleetError::NotFound("key that somebody pins"))?;
        let record = self.store.key(id)?.and_then(|record| role_of(&record));
        record.map(|role| (id, role)).ok_or(FleetError::NotFound("key that somebody pins"))
    }
}

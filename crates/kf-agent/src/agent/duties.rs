//! What the device does for its fleet beside keeping a certificate: it fetches its device key, agrees sessions, obeys
//! orders and answers them. Each is tried again with growing pauses; none of them stands in the way of a renewal.

use std::sync::Arc;

use kf_client::TlsKey;
use kf_crypto::CryptoError;
use kf_device::enrolment::schedule::wait_after_failure;
use kf_device::order::{Accepted, OrderKey, ResetOrder, RotateOrder, WipeOrder};
use kf_device::pin::Pin;
use kf_device::storage::Erasure;
use kf_exchange::order::{Order, OrderAct, OrderOutcome, OrderRefusal, OrderReport};
use kf_exchange::storage::{KeyErasure, StorageReport};
use kf_exchange::{IdentityKey, PublicKey, Purpose, signature_from_der};
use kf_key::{DeviceId, KeyAlgorithm, KeyRole, UnixMillis};
use kf_pki::certificate::PresentedCertificate;
use tokio::sync::mpsc;

use super::Agent;
use super::pin::fingerprint_of;
use crate::config::{Config, SealingSession};
use crate::device_api::{Knows, News, Refusal};
use crate::disk::{Disk as _, replace};
use crate::event::Event;
use crate::failure::{Failure, chain_of};
use crate::key_ring::{AgreedSession, KeyRing};
use crate::telemetry::Material;
use crate::vault::{Vault, VaultError, on_a_wiped_stack};

/// The file of an order to rotate that is under way: counter, expiry, certificate at its beginning.
pub(super) const ROTATING: &str = "rotating";
/// The file of a signed answer that the server does not have yet.
const ANSWER: &str = "answer";
/// The file of the wrapping key where keys may rest unwrapped.
pub(super) const PLAIN_WRAPPING_KEY: &str = "wrapping-key";
/// The most keys in a file of pins: agents that follow no succession try them all.
const MAX_PINS: usize = 4;
/// Orders from the broker that wait.
pub(super) const MAX_ARRIVALS: usize = 16;
/// In place of the counter of an order where none asks for the rotation: those of orders begin at 1.
const NO_ORDER: u64 = 0;
/// How long a renewal that was asked for by no order is tried, before the device asks what it is to do: three days.
const RENEWAL_SECONDS: u32 = 259_200;
/// When there is nothing to do.
pub(super) const NEVER: UnixMillis = UnixMillis(u64::MAX);

/// What the device does for its fleet.
pub(super) struct Duties {
    pub(super) ring: KeyRing,
    /// The delivery key, by which the server is verified.
    pub(super) delivery: Option<Pin>,
    /// The key whose orders are obeyed.
    pub(super) order: Option<Pin>,
    pub(super) inlet: mpsc::Sender<Vec<u8>>,
    pub(super) arrivals: mpsc::Receiver<Vec<u8>>,
    refresh_at: UnixMillis,
    poll_at: UnixMillis,
    session_at: UnixMillis,
    rest_until: UnixMillis,
    failures: u32,
}

/// Why a duty was not done.
pub(super) enum Trouble {
    Server(Refusal),
    Vault(VaultError),
    Disk(std::io::Error),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Server(refusal)
    }
}

impl From<VaultError> for Trouble {
    fn from(error: VaultError) -> Self {
        Self::Vault(error)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Disk(error)
    }
}

impl From<kf_exchange::ExchangeError<CryptoError>> for Trouble {
    fn from(error: kf_exchange::ExchangeError<CryptoError>) -> Self {
        Self::Vault(error.into())
    }
}

impl Trouble {
    fn words(&self) -> (String, u64) {
        match self {
            Self::Server(refusal) => (refusal.reason.clone(), refusal.retry_after),
            Self::Vault(error) => (chain_of(error), 0),
            Self::Disk(error) => (chain_of(error), 0),
        }
    }
}

/// The identity key as exchanges and orders want it.
struct Signer(Arc<dyn TlsKey>, PublicKey);

impl Signer {
    fn new(material: &Material) -> Option<Self> {
        let key = material.identity.key.clone();
        let public = PublicKey::from_spki(&key.spki()).ok()?;
        Some(Self(key, public))
    }
}

impl IdentityKey for Signer {
    type Error = CryptoError;

    fn public_key(&self) -> PublicKey {
        self.1
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], CryptoError> {
        signature_from_der(&self.0.sign(message)?).map_err(|_malformed| CryptoError)
    }
}

/// The identifier of the device, from its certificate: serialNumber in the subject, 32 hexadecimal digits.
pub(super) fn device_of(chain: &[Vec<u8>]) -> Option<DeviceId> {
    /// The attribute type, and a PrintableString of 32 octets.
    const BEFORE: [u8; 7] = [0x06, 0x03, 0x55, 0x04, 0x05, 0x13, 0x20];
    let subject = PresentedCertificate::from_der(chain.first()?)?.subject;
    let at = subject.windows(BEFORE.len()).position(|octets| octets == BEFORE)?;
    let digits = subject.get(at.checked_add(BEFORE.len())?..)?.first_chunk::<32>()?;
    let mut octets = [0; 16];
    for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
        *octet = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(DeviceId::from_bytes(octets))
}

/// The newest key in a file of pins, which is the last one.
fn pin(path: &std::path::Path, field: &'static str) -> Result<Option<PublicKey>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|source| Failure::Source { field, source })?;
    let keys = kf_pki::pem::decode_all("PUBLIC KEY", &text).unwrap_or_default();
    let keys: Option<Vec<_>> = keys.iter().map(|key| PublicKey::from_spki(key).ok()).collect();
    let expected = "one to four P-256 public keys in PEM, as `keyfleet epoch pins` prints them";
    let keys = keys.filter(|keys| (1..=MAX_PINS).contains(&keys.len())).ok_or(Failure::Content { field, expected })?;
    Ok(keys.last().copied())
}

impl Duties {
    /// `None` when the configuration asks for none.
    pub(super) fn open(
        config: &Config,
        vault: impl FnOnce() -> Result<Vault, Failure>,
    ) -> Result<Option<Self>, Failure> {
        if config.device_key.is_none() && config.orders.is_none() {
            return Ok(None);
        }
        let delivery = match &config.device_key {
            Some(settings) => pin(&settings.delivery_key_file, "device_key.delivery_key_file")?,
            None => None,
        };
        let order = match &config.orders {
            Some(settings) => pin(&settings.order_key_file, "orders.order_key_file")?,
            None => None,
        };
        let ring = KeyRing::new(vault()?);
        let held = |role, configured: Option<PublicKey>| {
            configured.map(|configured| ring.vault().pin(role, configured)).transpose()
        };
        let (delivery, order) = (held(KeyRole::Delivery, delivery)?, held(KeyRole::Order, order)?);
        let (inlet, arrivals) = mpsc::channel(MAX_ARRIVALS);
        let zero = UnixMillis(0);
        Ok(Some(Self {
            ring,
            delivery,
            order,
            inlet,
            arrivals,
            refresh_at: zero,
            poll_at: zero,
            session_at: zero,
            rest_until: zero,
            failures: 0,
        }))
    }
}

impl Duties {
    fn delivery_key(&self) -> Result<PublicKey, VaultError> {
        self.delivery.map(|pin| *pin.key()).ok_or(VaultError::State("no delivery key is pinned"))
    }
}

fn later(now: UnixMillis, seconds: u32) -> UnixMillis {
    now.plus(u64::from(seconds).saturating_mul(UnixMillis::SECOND))
}

impl Agent {
    /// Does what is due for the fleet; says when to come again.
    pub(super) async fn tend(&mut self) -> UnixMillis {
        if self.wiped.is_some() {
            return self.tell_wiped().await;
        }
        if self.reset.is_some() {
            return self.tell_reset().await;
        }
        let now = self.clock.now();
        let Some(duties) = &self.duties else { return NEVER };
        if now < duties.rest_until {
            return duties.rest_until;
        }
        let material = self.in_use.borrow().clone();
        let device = material.as_ref().and_then(|material| device_of(&material.identity.chain));
        let (Some(material), Some(device)) = (material, device) else { return NEVER };
        duties.ring.belongs_to(device);
        // An identity on another curve signs neither exchanges nor answers; orders to rotate it obeys all the same.
        let signer = Signer::new(&material);
        let outcome = self.tend_to(&material, device, signer.as_ref()).await;
        let random = kf_crypto::random_array().map(u64::from_be_bytes).unwrap_or_default();
        let Some(duties) = &mut self.duties else { return NEVER };
        match outcome {
            Ok(until) => {
                duties.failures = 0;
                until
            }
            Err(trouble) => {
                let (reason, retry_after) = trouble.words();
                duties.failures = duties.failures.saturating_add(1);
                let wait = wait_after_failure(duties.failures, random, retry_after);
                duties.rest_until = self.clock.now().plus(wait);
                let until = duties.rest_until;
                self.events.tell(&Event::Retry { step: "fleet", after_seconds: wait / UnixMillis::SECOND, reason });
                until
            }
        }
    }

    async fn tend_to(
        &mut self,
        material: &Material,
        device: DeviceId,
        signer: Option<&Signer>,
    ) -> Result<UnixMillis, Trouble> {
        self.resume_ending()?;
        if self.is_ending() {
            return Ok(UnixMillis(0));
        }
        if let Some(until) = self.go_on_rotating(material, device, signer).await? {
            return Ok(until);
        }
        self.send_answer().await?;
        let now = self.clock.now();
        if self.config.orders.is_some()
            && self.due(|duties| duties.poll_at, now)
            && self.poll(material, device, signer).await?
        {
            return Ok(UnixMillis(0));
        }
        let Some(signer) = signer else { return Ok(self.next_poll()) };
        if self.config.device_key.is_some() && self.due(|duties| duties.refresh_at, now) {
            self.fetch_key(device, signer).await?;
        }
        if self.wants_session() && self.due(|duties| duties.session_at, now) {
            self.agree_session(device, signer).await?;
        }
        Ok(self.next_duty())
    }

    fn poll_at_once(&mut self) {
        if let Some(duties) = &mut self.duties {
            duties.poll_at = UnixMillis(0);
        }
    }

    pub(super) fn ring(&self) -> Result<&KeyRing, VaultError> {
        self.duties.as_ref().map(|duties| &duties.ring).ok_or(VaultError::State("no duties"))
    }

    fn due(&self, at: impl Fn(&Duties) -> UnixMillis, now: UnixMillis) -> bool {
        self.duties.as_ref().is_some_and(|duties| now >= at(duties))
    }

    fn next_poll(&self) -> UnixMillis {
        let polls = self.duties.as_ref().filter(|_| self.config.orders.is_some());
        polls.map_or(NEVER, |duties| duties.poll_at)
    }

    fn next_duty(&self) -> UnixMillis {
        let Some(duties) = &self.duties else { return NEVER };
        let wanted = [
            (self.config.orders.is_some(), duties.poll_at),
            (self.config.device_key.is_some(), duties.refresh_at),
            (self.wants_session(), duties.session_at),
        ];
        wanted.into_iter().filter(|(wanted, _)| *wanted).map(|(_, at)| at).min().unwrap_or(NEVER)
    }

    fn wants_session(&self) -> bool {
        let sealed = self.config.telemetry.as_ref().and_then(|telemetry| telemetry.sealed.as_ref());
        sealed.is_some_and(|sealed| sealed.session == SealingSession::Mixed)
    }

    pub(super) fn no_server() -> Trouble {
        Trouble::Server(Refusal { status: 0, reason: "the server is not known yet".to_owned(), retry_after: 0 })
    }

    /// One exchange: the newest device key, stored, read back, acknowledged.
    async fn fetch_key(&mut self, device: DeviceId, signer: &Signer) -> Result<(), Trouble> {
        self.take_up_pins().await?;
        let server = self.server.as_ref().ok_or_else(Self::no_server)?;
        let duties = self.duties.as_ref().ok_or_else(Self::no_server)?;
        let ring = &duties.ring;
        let pin = duties.delivery_key()?;
        let (waiting, hello) = ring.vault().begin(Purpose::Delivery, &pin)?;
        let challenge = server.exchange(hello.as_bytes()).await?;
        let proved = on_a_wiped_stack(|| waiting.prove(&challenge, &[pin], device, signer));
        let (waiting, proof) = proved.map_err(|refused| VaultError::from(refused.error))?;
        let delivery = server.exchange(proof.as_bytes()).await?;
        let held = ring.vault().held(device)?.map(|held| held.place());
        let delivered = on_a_wiped_stack(|| waiting.open(&delivery, held.as_ref()));
        let delivered = delivered.map_err(|refused| VaultError::from(refused.error))?;
        let (kept, acknowledgement) = ring.vault().keep(delivered, device)?;
        let done = server.exchange(acknowledgement.as_bytes()).await?;
        let place = ring.vault().finish(kept, &done)?.place();
        if held != Some(place) {
            ring.key_changed(place);
            let (facility_epoch, device_epoch) = (place.facility_epoch, place.device_epoch);
            self.events.tell(&Event::DeviceKey { facility_epoch, device_epoch });
        }
        self.remember_contact();
        let refresh = self.config.device_key.as_ref().map_or(0, |settings| settings.refresh_seconds);
        let at = later(self.clock.now(), refresh);
        if let Some(duties) = &mut self.duties {
            duties.refresh_at = at;
            if held != Some(place) {
                duties.session_at = UnixMillis(0);
            }
        }
        Ok(())
    }

    /// One exchange for a mixed session.
    async fn agree_session(&mut self, device: DeviceId, signer: &Signer) -> Result<(), Trouble> {
        let server = self.server.as_ref().ok_or_else(Self::no_server)?;
        let duties = self.duties.as_ref().ok_or_else(Self::no_server)?;
        let ring = &duties.ring;
        let missing = VaultError::State("there is no device key yet");
        let held = ring.vault().held(device)?.ok_or(missing)?;
        let pin = duties.delivery_key()?;
        let (waiting, hello) = ring.vault().begin(Purpose::Session, &pin)?;
        let challenge = server.session(hello.as_bytes()).await?;
        let proved = on_a_wiped_stack(|| waiting.prove(&challenge, &[pin], device, signer));
        let (waiting, proof) = proved.map_err(|refused| VaultError::from(refused.error))?;
        let answer = server.session(proof.as_bytes()).await?;
        let place = held.place();
        let opened = on_a_wiped_stack(|| waiting.open_session(&answer, &place, held.key()));
        let (key, done, acknowledgement) = opened.map_err(|refused| VaultError::from(refused.error))?;
        let id = done.session();
        let answer = server.session(acknowledgement.as_bytes()).await?;
        done.finish(&answer).map_err(|refused| VaultError::from(refused.error))?;
        ring.agreed(AgreedSession { id, key, place });
        self.events.tell(&Event::SessionAgreed { session: id.iter().map(|octet| format!("{octet:02x}")).collect() });
        let sealed = self.config.telemetry.as_ref().and_then(|telemetry| telemetry.sealed.as_ref());
        let at = later(self.clock.now(), sealed.map_or(0, |sealed| sealed.session_seconds));
        if let Some(duties) = &mut self.duties {
            duties.session_at = at;
        }
        Ok(())
    }

    /// Asks the server for an order and obeys it; whether there was one.
    async fn poll(&mut self, material: &Material, device: DeviceId, signer: Option<&Signer>) -> Result<bool, Trouble> {
        let server = self.server.as_ref().ok_or_else(Self::no_server)?;
        let obeyed = self.duties.as_ref().and_then(|duties| duties.order).map(|pin| fingerprint_of(pin.key()));
        // Who may not rotate says nothing of renewals: it gets an order, and declines it by its signature.
        let renewal = self.config.orders.as_ref().is_some_and(|settings| settings.allow_rotate);
        let knows = Knows { keeps_records: signer.is_some(), renewal, order_key: obeyed.clone() };
        let News { order: found, anchor, gone_anchor, storage, renewal, algorithm, order_key } =
            server.news(&material.identity, knows).await?;
        self.remember_contact();
        let poll = self.config.orders.as_ref().map_or(0, |settings| settings.poll_seconds);
        let at = later(self.clock.now(), poll);
        if let Some(duties) = &mut self.duties {
            duties.poll_at = at;
        }
        if self.fetch_anchors(anchor.as_deref(), gone_anchor.as_deref()).await
            && let Some(duties) = &mut self.duties
        {
            // The next connection is the proof.
            duties.poll_at = UnixMillis(0);
            if found.is_none() {
                return Ok(true);
            }
        }
        // What came with this answer is signed by the key that it was asked by: it is asked for again by the new one.
        if order_key.is_some() && order_key != obeyed && self.take_up_pins().await? {
            if let Some(duties) = &mut self.duties {
                duties.poll_at = UnixMillis(0);
            }
            return Ok(true);
        }
        if let (Some(request), Some(signer)) = (storage, signer) {
            self.move_storage(device, request, signer).await?;
        }
        // What an order asks for already is done once.
        if renewal && found.is_none() && self.slots.disk().read(ROTATING)?.is_none() {
            self.events.tell(&Event::RenewalAsked);
            self.begin_renewal()?;
            return Ok(true);
        }
        let Some(message) = found else { return Ok(false) };
        match self.obey(&message, device, signer, algorithm).await {
            Ok(()) => {
                // Another one may wait behind it.
                if let Some(duties) = &mut self.duties {
                    duties.poll_at = UnixMillis(0);
                }
                Ok(true)
            }
            // The server waits for an answer that was lost, or for an act that a power cut prevented.
            Err(Trouble::Vault(VaultError::Order(OrderRefusal::Replayed))) => {
                self.confess(&message, device, signer)?;
                self.send_answer().await?;
                Ok(false)
            }
            // It is asked for again at the next turn, and what else is due must not wait for it.
            Err(Trouble::Vault(error @ VaultError::Order(_))) => {
                self.events.tell(&Event::OrderRefused { reason: chain_of(&error) });
                Ok(false)
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// Puts what the device keeps under a new storage key, and tells the server so. An answer that is lost is given again: the server
    /// asks until it has it.
    async fn move_storage(&mut self, device: DeviceId, request: [u8; 16], signer: &Signer) -> Result<(), Trouble> {
        let migrated = self.ring()?.vault().migrate(device, request)?;
        let report = StorageReport {
            device,
            request: migrated.request,
            version: migrated.version,
            records: migrated.records,
            erasure: match migrated.erasure {
                Erasure::Overwritten => KeyErasure::Overwritten,
                Erasure::Erased { read_back: false } => KeyErasure::Erased,
                Erasure::Erased { read_back: true } => KeyErasure::ReadBack,
                Erasure::CryptoErased => KeyErasure::CryptoErased,
            },
            at: self.clock.now(),
        };
        let message = report.sign(signer)?;
        let server = self.server.as_ref().ok_or_else(Self::no_server)?;
        server.tell_storage(message.as_bytes()).await?;
        self.events.tell(&Event::StorageMoved { version: migrated.version, records: migrated.records });
        Ok(())
    }

    /// Obeys an order that came by the broker. What is refused is told, and nothing else happens.
    pub(super) async fn hear(&mut self, message: &[u8]) {
        let material = self.in_use.borrow().clone();
        let device = material.as_ref().and_then(|material| device_of(&material.identity.chain));
        let signer = material.as_ref().and_then(|material| Signer::new(material));
        let (Some(device), false) = (device, self.is_ending()) else { return };
        if let Err(trouble) = self.obey(message, device, signer.as_ref(), None).await {
            let (reason, _) = trouble.words();
            self.events.tell(&Event::OrderRefused { reason });
        }
    }

    /// `algorithm` is what the new key is to be, where the server asks for another one.
    async fn obey(
        &mut self,
        message: &[u8],
        device: DeviceId,
        signer: Option<&Signer>,
        algorithm: Option<KeyAlgorithm>,
    ) -> Result<(), Trouble> {
        let (Some(settings), Some(pin)) = (&self.config.orders, self.duties.as_ref().and_then(|duties| duties.order))
        else {
            return Err(VaultError::State("no order key is pinned").into());
        };
        let (allow_rotate, allow_wipe) = (settings.allow_rotate, settings.allow_wipe);
        let allow_reset = settings.allow_factory_reset;
        let now = self.clock.now();
        // What cannot be answered is not begun: its counter would be spent.
        if signer.is_none()
            && Order::verify(message, pin.key(), device, 0, now).is_ok_and(|order| order.act != OrderAct::Rotate)
        {
            return Err(VaultError::State("this identity key signs no receipt of a wipe or a reset").into());
        }
        let key = OrderKey { key: *pin.key(), factory: *pin.factory(), device };
        let accepted = self.ring()?.vault().accept(&key, message, now)?;
        let (act, counter) = match &accepted {
            Accepted::Rotate(order) => (OrderAct::Rotate, order.counter()),
            Accepted::Wipe(order) => (OrderAct::Wipe, order.counter()),
            Accepted::FactoryReset(order) => (OrderAct::FactoryReset, order.counter()),
        };
        let name = match act {
            OrderAct::Rotate => "rotate",
            OrderAct::Wipe => "wipe",
            OrderAct::FactoryReset => "factory-reset",
        };
        self.events.tell(&Event::Order { act: name, counter });
        if let Some(signer) = signer {
            let report = OrderReport { act, device, counter, outcome: OrderOutcome::Received, at: now };
            self.tell_received(report, signer).await;
        }
        let can_make = algorithm.is_none_or(|algorithm| self.keys.can_make(algorithm));
        match accepted {
            Accepted::Rotate(order) if allow_rotate && can_make => self.begin_rotation(&order, algorithm),
            // Nobody waits for an answer that this identity cannot sign.
            Accepted::Rotate(_) if signer.is_none() => Ok(()),
            Accepted::Rotate(order) => {
                let signer = signer.ok_or(VaultError::State("no signer"))?;
                let answer = order.report(OrderOutcome::Declined, now, signer)?;
                self.store_answer(answer.as_bytes())
            }
            Accepted::Wipe(order) if allow_wipe => {
                self.carry_out_wipe(order, signer.ok_or(VaultError::State("no signer"))?)
            }
            Accepted::Wipe(order) => {
                let signer = signer.ok_or(VaultError::State("no signer"))?;
                let answer = self.ring()?.vault().decline(order, now, signer)?;
                self.store_answer(answer.as_bytes())
            }
            Accepted::FactoryReset(order) => {
                let signer = signer.ok_or(VaultError::State("no signer"))?;
                self.reset_or_decline(order, allow_reset, signer)
            }
        }
    }

    fn reset_or_decline(&mut self, order: ResetOrder, allowed: bool, signer: &Signer) -> Result<(), Trouble> {
        if allowed {
            return Ok(self.carry_out_reset(order, signer)?);
        }
        let now = self.clock.now();
        let answer = self.ring()?.vault().decline_reset(order, now, signer)?;
        self.store_answer(answer.as_bytes())
    }

    /// Says that the order is here. When that is lost, the answer to it says so too.
    async fn tell_received(&self, report: OrderReport, signer: &Signer) {
        let (Some(server), Ok(message)) = (&self.server, report.sign(signer)) else { return };
        if let Err(refusal) = server.answer_order(message.as_bytes()).await {
            tracing::warn!(reason = refusal.reason, "the server was not told that the order is here");
        }
    }

    fn carry_out_wipe(&mut self, order: WipeOrder, signer: &Signer) -> Result<(), Trouble> {
        let now = self.clock.now();
        let receipt = self.ring()?.vault().wipe(order, now, signer)?;
        self.destroy(receipt.as_bytes());
        Ok(())
    }

    /// The renewal becomes due, by no order: nothing is to be reported, the next poll is the proof.
    fn begin_renewal(&mut self) -> Result<(), Trouble> {
        let until = later(self.clock.now(), RENEWAL_SECONDS);
        self.note_rotation(NO_ORDER, until, None)
    }

    /// The renewal becomes due; what is to be reported afterwards is written down first.
    fn begin_rotation(&mut self, order: &RotateOrder, algorithm: Option<KeyAlgorithm>) -> Result<(), Trouble> {
        self.note_rotation(order.counter(), order.expires(), algorithm)
    }

    fn note_rotation(
        &mut self,
        counter: u64,
        expires: UnixMillis,
        algorithm: Option<KeyAlgorithm>,
    ) -> Result<(), Trouble> {
        let before = self.in_use.borrow().as_ref().map(|material| material.identity.fingerprint()).unwrap_or_default();
        let algorithm = algorithm.map_or("", KeyAlgorithm::name);
        let note = format!("{counter} {} {before} {algorithm}\n", expires.0);
        replace(self.slots.disk(), ROTATING, note.as_bytes())?;
        Ok(())
    }

    /// When to come again while a rotation is under way; `None` when there is none.
    async fn go_on_rotating(
        &mut self,
        material: &Material,
        device: DeviceId,
        signer: Option<&Signer>,
    ) -> Result<Option<UnixMillis>, Trouble> {
        let Some(note) = self.slots.disk().read(ROTATING)? else { return Ok(None) };
        let Some(Rotating { counter, expires, before, algorithm }) = Rotating::parse(&note) else {
            self.remove(ROTATING)?;
            return Ok(None);
        };
        let now = self.clock.now();
        let is_new = material.identity.fingerprint() != before;
        if let (true, Some(algorithm)) = (is_new, algorithm) {
            self.keep_algorithm(algorithm)?;
        }
        let outcome = match (is_new, now > expires) {
            (true, _) => {
                if let (Some(signer), true) = (signer, self.config.device_key.is_some()) {
                    self.fetch_key(device, signer).await?;
                }
                OrderOutcome::Done
            }
            (false, true) => OrderOutcome::Failed,
            (false, false) => return Ok(Some(self.renew_now(now))),
        };
        // Without a signer, or an order, the next poll, with the new certificate, is the answer.
        if counter == NO_ORDER || signer.is_none() {
            self.poll_at_once();
        } else if let Some(signer) = signer {
            let report = OrderReport { act: OrderAct::Rotate, device, counter, outcome, at: now };
            self.store_answer(report.sign(signer)?.as_bytes())?;
        }
        self.remove(ROTATING)?;
        Ok(None)
    }

    fn renew_now(&mut self, now: UnixMillis) -> UnixMillis {
        match &mut self.state.in_use {
            Some(in_use) if in_use.renew_at > now => {
                in_use.renew_at = now;
                UnixMillis(0)
            }
            // It is being renewed; its own pauses hold.
            _ => self.state.rest_until.max(later(now, 1)),
        }
    }

    /// Answers an order that was seen before and has no answer: it was begun and not completed.
    fn confess(&mut self, message: &[u8], device: DeviceId, signer: Option<&Signer>) -> Result<(), Trouble> {
        let known = self.slots.disk().read(ANSWER)?.is_some() || self.slots.disk().read(ROTATING)?.is_some();
        let key = self.duties.as_ref().and_then(|duties| duties.order).map(|pin| *pin.key()).filter(|_| !known);
        let (Some(key), Some(signer)) = (key, signer) else { return Ok(()) };
        let now = self.clock.now();
        let order = Order::verify(message, &key, device, 0, now).map_err(VaultError::Order)?;
        let Order { act, counter, .. } = order;
        let report = OrderReport { act, device, counter, outcome: OrderOutcome::Failed, at: now };
        self.store_answer(report.sign(signer)?.as_bytes())
    }

    fn store_answer(&mut self, answer: &[u8]) -> Result<(), Trouble> {
        Ok(replace(self.slots.disk(), ANSWER, answer)?)
    }

    fn remove(&mut self, file: &str) -> Result<(), Trouble> {
        self.slots.disk().remove(file)?;
        Ok(self.slots.disk().sync_directory("")?)
    }

    /// Sends the answer that waits. One that the server refuses for good is dropped: it has another, or none is wanted.
    async fn send_answer(&mut self) -> Result<(), Trouble> {
        let Some(answer) = self.slots.disk().read(ANSWER)? else { return Ok(()) };
        let server = self.server.as_ref().ok_or_else(Self::no_server)?;
        match server.answer_order(&answer).await {
            Ok(()) => {
                if let Ok(OrderReport { counter, outcome, .. }) = OrderReport::claimed(&answer) {
                    self.events.tell(&Event::OrderAnswered { counter, outcome: outcome_name(outcome) });
                }
            }
            Err(refusal) if refusal.is_final() => {
                self.events.tell(&Event::OrderRefused { reason: refusal.reason });
            }
            Err(refusal) => return Err(refusal.into()),
        }
        self.remove(ANSWER)
    }
}

pub(super) const fn outcome_name(outcome: OrderOutcome) -> &'static str {
    match outcome {
        OrderOutcome::Done => "done",
        OrderOutcome::Failed => "failed",
        OrderOutcome::Declined => "declined",
        OrderOutcome::Received => "received",
    }
}

/// An order to rotate that is under way.
pub(super) struct Rotating {
    counter: u64,
    expires: UnixMillis,
    /// Fingerprint of the certificate at its beginning.
    before: String,
    /// What the new key is to be, where that is another algorithm.
    pub(super) algorithm: Option<KeyAlgorithm>,
}

impl Rotating {
    pub(super) fn parse(note: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(note).ok()?.split_ascii_whitespace();
        let (counter, expires) = (words.next()?.parse().ok()?, UnixMillis(words.next()?.parse().ok()?));
        let before = words.next()?.to_owned();
        let algorithm = words.next().map(str::parse).transpose().ok()?;
        Some(Self { counter, expires, before, algorithm })
    }
}

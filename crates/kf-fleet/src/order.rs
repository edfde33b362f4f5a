//! Orders to devices. Never one person's act: signed when a second one has approved, or after the delay of single
//! control. The device answers under its identity key.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kf_access::{Action, Principal, Target, Visibility, authorize};
use kf_api::certificate::Certificate;
use kf_api::device::Device;
use kf_api::operator::Credential;
use kf_api::order::{Order, OrderAct, OrderFilter, OrderRequest, OrderState};
use kf_api::proposal::ProposedAct;
use kf_api::revocation::RevokeOutcome;
use kf_api::{Page, PageRequest};
use kf_exchange::PublicKey;
use kf_exchange::order::{OrderAct as SignedAct, OrderOutcome, OrderReport};
use kf_key::{CertificateStatus, DeviceId, KeyId, OrderId, UnixMillis};
use kf_pki::certificate::PresentedCertificate;
use kf_store::StoreError;
use kf_store::order::{Answered, OrderAnswer};

use crate::enrolment::device_principal;
use crate::entry::Entry;
use crate::exchange::{refused, unreadable};
use crate::naming::check_why;
use crate::news::Proved;
use crate::proposal::Consent;
use crate::revocation::nothing_done;
use crate::tls::ClientCertificate;
use crate::{Fleet, FleetError};

/// Lifetime of an order when none is asked for.
const DEFAULT_LIFETIME_HOURS: u32 = 168;
const MAX_LIFETIME_HOURS: u32 = 8_760;
/// Attempts to take the next counter, when others order the same device at the same time.
const MAX_ATTEMPTS: u32 = 4;

impl Fleet {
    /// Proposes an order. It is signed when a second person approves, or after the delay of single control.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn order_create(&self, who: &Principal, request: OrderRequest) -> Result<RevokeOutcome, FleetError> {
        check_why(&request.why)?;
        if request.why.trim().is_empty() {
            return Err(FleetError::invalid("why", "is missing", "say why the device is ordered to do this"));
        }
        let lifetime_hours = request.lifetime_hours.unwrap_or(DEFAULT_LIFETIME_HOURS);
        if !(1..=MAX_LIFETIME_HOURS).contains(&lifetime_hours) {
            return Err(FleetError::invalid("lifetime_hours", "is not 1 to 8,760", "use 1 to 8760 hours"));
        }
        if request.act == OrderAct::FactoryReset {
            let problem = "a device goes back to the state of the factory when its ownership ends";
            let remedy = "use `keyfleet device resell` or `rma`, which end the server's half as well, or act `wipe`";
            return Err(FleetError::invalid("act", problem, remedy));
        }
        let device = self.epoch_device(who, &request.device, Action::OrderCreate)?;
        let act = ProposedAct::OrderDevice {
            device: device.id.to_string(),
            order: request.act,
            lifetime_hours,
            why: request.why,
        };
        let control = self.dual_control().always(self.now());
        let waiting = self.propose(who, act, control, (1, 0), Some(device.facility)).await?;
        waiting.ok_or(FleetError::Bug("an order asked for no second person"))
    }

    /// Signs and records an approved order.
    pub(crate) async fn carry_out_order(
        &self,
        who: &Principal,
        device: &str,
        act: OrderAct,
        (lifetime_hours, why): (u32, &str),
        consent: &Consent,
    ) -> Result<RevokeOutcome, FleetError> {
        let device = self.epoch_device(who, device, Action::OrderCreate)?;
        let now = self.now();
        for _ in 0..MAX_ATTEMPTS {
            let (order, message) = self.signed_order(&device, act, lifetime_hours, why).await?;
            let (counter, expires) = (order.counter, order.expires);
            let entry = self
                .evidence(Entry::done(who, "order.create", now))
                .about(order.id)
                .about(device.id)
                .at_facility(Some(device.facility))
                .because(why)
                .with("act", act.name())
                .with("counter", counter)
                .with("expires", expires.0);
            match self.store.insert_order(order, message, consent.with(entry.build())).await {
                Ok(logged) => {
                    // A broker may have the device at hand.
                    self.wake.notify_one();
                    return Ok(RevokeOutcome {
                        done: true,
                        devices: 1,
                        log_index: Some(logged.index),
                        ..nothing_done()
                    });
                }
                // Another order to the device was signed meanwhile; this one was never sent.
                Err(StoreError::Conflict { field: "counter" }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(FleetError::TooMany { retry_after_seconds: 1 })
    }

    /// The next order to a device, signed and not recorded yet.
    pub(crate) async fn signed_order(
        &self,
        device: &Device,
        act: OrderAct,
        lifetime_hours: u32,
        why: &str,
    ) -> Result<(Order, Vec<u8>), FleetError> {
        let now = self.now();
        let expires = now.plus(u64::from(lifetime_hours) * UnixMillis::HOUR);
        let counter = self.store.next_order_counter(device.id)?;
        let order = Order {
            id: OrderId::from_parts(now, kf_crypto::random_array()?),
            device: device.id,
            act,
            counter,
            state: OrderState::Open,
            created: now,
            expires,
            progress: None,
            sent: None,
            delivered: None,
            acknowledged: None,
            ended: None,
            why: why.to_owned(),
        };
        let message = self.sign_order(self.order_key_of(device, None)?, device.id, &order).await?;
        Ok((order, message))
    }

    /// What a device is to verify, by one of the order keys.
    pub(crate) async fn sign_order(&self, key: KeyId, device: DeviceId, order: &Order) -> Result<Vec<u8>, FleetError> {
        let Order { act, counter, expires, .. } = *order;
        let signed = kf_exchange::order::Order { act: signed_act(act), device, counter, expires };
        Ok(self.signer.sign_order(key, &signed).await?)
    }

    /// Orders that the caller may see, newest first.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the device, [`FleetError::Denied`].
    pub async fn order_list(&self, who: &Principal, filter: OrderFilter) -> Result<Page<Order>, FleetError> {
        let permit = authorize(who, Action::OrderRead, Target::Visible)?;
        let device = match &filter.device {
            Some(reference) => Some(self.find_device(reference, permit.visibility())?.id),
            None => None,
        };
        let page = PageRequest { after: filter.after, limit: filter.limit };
        let page = self.store.orders(device, permit.visibility(), &page)?;
        let now = self.now();
        Ok(Page { items: page.items.into_iter().map(|order| order.judged(now)).collect(), next: page.next })
    }

    /// One order.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn order_show(&self, who: &Principal, order: OrderId) -> Result<Order, FleetError> {
        let permit = authorize(who, Action::OrderRead, Target::Visible)?;
        let found = self.store.order(order, permit.visibility())?.ok_or(FleetError::NotFound("order"))?;
        Ok(found.judged(self.now()))
    }

    /// Withdraws an open order. One person may: it stops something. A device that has fetched it may still obey.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`], [`FleetError::Conflict`] when it is not open.
    pub async fn order_cancel(&self, who: &Principal, order: OrderId, why: String) -> Result<Order, FleetError> {
        check_why(&why)?;
        let found = self.store.order(order, &who.visibility())?.ok_or(FleetError::NotFound("order"))?;
        let device = self.epoch_device(who, &found.device.to_string(), Action::OrderCancel)?;
        let entry = Entry::done(who, "order.cancel", self.now())
            .about(order)
            .about(device.id)
            .at_facility(Some(device.facility))
            .because(&why);
        Ok(self.store.cancel_order(order, self.now(), entry.build()).await?.value.judged(self.now()))
    }

    /// Takes note of whether a device's program says that it knows the order to reset.
    pub(crate) async fn note_reset_known(&self, device: &Device, knows: bool) -> Result<(), FleetError> {
        let now = self.now();
        let act = if knows { "order.known" } else { "order.unknown" };
        let entry = Entry::done(&device_principal(device, Credential::Certificate), act, now)
            .about(device.id)
            .at_facility(Some(device.facility))
            .with("act", OrderAct::FactoryReset.name());
        self.store.note_reset_known(device.id, knows, now, entry.build()).await?;
        Ok(())
    }

    /// The oldest order that a device is to obey, COSE_Sign1, signed by the key that it obeys, noted as delivered.
    pub(crate) async fn order_due(
        &self,
        proved: &Proved,
        due: Option<(Order, Vec<u8>)>,
        obeyed: Option<KeyId>,
    ) -> Result<Option<Vec<u8>>, FleetError> {
        let Proved { shown, certificate, device } = proved;
        let now = self.now();
        let Some((order, message)) = due else { return Ok(None) };
        let Some(message) = self.order_for(device, &order, message, obeyed).await? else { return Ok(None) };
        if is_answered_by(&order, shown, certificate) {
            self.take_certificate_as_answer(device, &order, certificate).await?;
            return Ok(None);
        }
        if order.delivered.is_none() {
            let who = device_principal(device, Credential::Certificate);
            let entry = Entry::done(&who, "order.deliver", now)
                .about(order.id)
                .about(device.id)
                .at_facility(Some(device.facility));
            match self.store.deliver_order(order.id, now, entry.build()).await {
                Ok(_) => {}
                // It was withdrawn in between: what was taken back is not handed out.
                Err(StoreError::IllegalState { .. }) => return Ok(None),
                // Not even the reserve has room. What was ordered, by whom and why is in the log; that it left is remembered, so
                // that its answer counts, and noted when the device asks again.
                Err(error @ StoreError::Full) if order.act != OrderAct::Rotate => {
                    self.order_attempts.begin(device.id, order.counter, now);
                    tracing::warn!(order = %order.id, %error, "an order was given out without a note of it");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(message))
    }

    async fn take_certificate_as_answer(
        &self,
        device: &Device,
        order: &Order,
        certificate: &Certificate,
    ) -> Result<(), FleetError> {
        let now = self.now();
        let entry = Entry::done(&device_principal(device, Credential::Certificate), "order.answer", now)
            .about(order.id)
            .about(device.id)
            .about(format!("cert:{}", certificate.serial))
            .at_facility(Some(device.facility))
            .with("counter", order.counter)
            .with("outcome", OrderState::Done.name())
            .with("by", "certificate");
        let answer = OrderAnswer {
            device: device.id,
            counter: order.counter,
            act: order.act,
            outcome: OrderState::Done,
            was_tried: true,
        };
        self.store.answer_order(answer, now, entry.build()).await?;
        Ok(())
    }

    /// Records a device's answer to an order, signed with an identity key that it was ever certified for.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] for what cannot be read; [`FleetError::Forbidden`], without a reason, for what the device
    /// did not sign; [`FleetError::NotFound`], [`FleetError::Conflict`] for an answer to another order.
    pub async fn device_order_outcome(&self, message: &[u8]) -> Result<(), FleetError> {
        let claimed = OrderReport::claimed(message).map_err(unreadable)?;
        let Some(device) = self.store.device(claimed.device, &Visibility::Fleet)? else { return Err(refused()) };
        // After a rotation the answer is signed with the new key; after a wipe with one whose certificate may be revoked.
        let signer = self.identity_key_that(device.id, |key| OrderReport::verify(message, key).is_ok())?;
        if !signer {
            tracing::info!(device = %device.id, "an answer to an order was refused: not signed by the device");
            return Err(refused());
        }
        let OrderReport { act, counter, outcome, at, .. } = claimed;
        let now = self.now();
        let who = device_principal(&device, Credential::Certificate);
        let entry = |what| {
            let entry = Entry::done(&who, what, now).about(device.id).at_facility(Some(device.facility));
            entry.with("counter", counter).with("device_time", at.0)
        };
        let Some(state) = state_of(outcome) else {
            let entry = entry("order.acknowledge").build();
            self.store.acknowledge_order(device.id, counter, act_of(act), now, entry).await?;
            return Ok(());
        };
        let entry = entry("order.answer").with("act", act_of(act).name()).with("outcome", state.name());
        let was_tried = self.order_attempts.is_known(device.id, counter);
        let answer = OrderAnswer { device: device.id, counter, act: act_of(act), outcome: state, was_tried };
        match self.store.answer_order(answer, now, entry.build()).await? {
            Answered::First(_) => {
                tracing::info!(device = %device.id, outcome = state.name(), "a device answered an order")
            }
            Answered::Again => {}
        }
        Ok(())
    }

    /// Whether one of the newest keys that a device was certified for fits.
    pub(crate) fn identity_key_that(
        &self,
        device: DeviceId,
        fits: impl Fn(&PublicKey) -> bool,
    ) -> Result<bool, FleetError> {
        let mut seen = Vec::new();
        for _ in 0..MAX_KEYS {
            let found = self.identity_key(device, |found| !seen.contains(&found.spki_sha256))?;
            let Some(spki) = found else { return Ok(false) };
            if PublicKey::from_spki(&spki).is_ok_and(|key| fits(&key)) {
                return Ok(true);
            }
            seen.push(hex::encode(kf_crypto::sha256(&spki)));
        }
        Ok(false)
    }
}

/// Orders that left in this life of the process before that could be noted: given to brokers, with the time when they are tried again, or
/// to a device when there was no room for a note.
#[derive(Default)]
pub(crate) struct OrderAttempts(Mutex<BTreeMap<(DeviceId, u64), UnixMillis>>);

/// How long a broker that did not take an order is left in peace.
const REST: u64 = 30 * UnixMillis::SECOND;
/// The most orders that are given to brokers in one turn.
const MAX_SENT: u32 = 64;
/// The most attempts that are remembered; the oldest are forgotten.
const MAX_REMEMBERED: usize = 4_096;

impl OrderAttempts {
    fn is_known(&self, device: DeviceId, counter: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&(device, counter))
    }

    /// Whether it is time to try; if so this counts as an attempt.
    fn begin(&self, device: DeviceId, counter: u64, now: UnixMillis) -> bool {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.get(&(device, counter)).is_some_and(|again| now < *again) {
            return false;
        }
        if attempts.len() >= MAX_REMEMBERED {
            let oldest = attempts.iter().min_by_key(|(_, again)| **again).map(|(order, _)| *order);
            oldest.and_then(|order| attempts.remove(&order));
        }
        attempts.insert((device, counter), now.plus(REST));
        true
    }
}

impl Fleet {
    /// Gives brokers the orders that none of them took yet. Only what a broker acknowledged counts as sent.
    pub(crate) async fn turn_orders(&self) -> Result<(), FleetError> {
        let brokers = self.attached_brokers();
        if brokers.is_empty() {
            return Ok(());
        }
        let now = self.now();
        for (order, device_name, message) in self.store.unsent_orders(now, MAX_SENT)? {
            if !self.order_attempts.begin(order.device, order.counter, now) {
                continue;
            }
            let Some(device) = self.store.device(order.device, &Visibility::Fleet)? else { continue };
            let Some(message) = self.order_for(&device, &order, message, None).await? else { continue };
            let mut took = Vec::new();
            for broker in &brokers {
                match broker.send_order(&device_name, &message).await {
                    Ok(true) => took.push(broker.name().to_owned()),
                    Ok(false) => {}
                    Err(error) => tracing::warn!(broker = broker.name(), %error, "a broker did not take an order"),
                }
            }
            if !took.is_empty() {
                let entry = Entry::done(&Self::server_principal(), "order.send", now)
                    .about(order.id)
                    .about(order.device)
                    .with("brokers", took.join(", "));
                self.store.send_order(order.id, now, entry.build()).await?;
            }
        }
        Ok(())
    }
}

/// Whether an order to rotate is answered by the certificate that the device shows: a later one, for a key that signs no
/// answers (kf-exchange knows P-256 only). The handshake has proved the key.
fn is_answered_by(order: &Order, shown: &ClientCertificate, certificate: &Certificate) -> bool {
    order.act == OrderAct::Rotate
        && order.delivered.or(order.acknowledged).is_some()
        && certificate.serial.issued() > order.created
        && certificate.status == CertificateStatus::Good
        && PresentedCertificate::from_der(&shown.der).is_some_and(|shown| PublicKey::from_spki(&shown.spki).is_err())
}

/// Keys of a device that are tried on an answer, newest first: before and after a rotation, with one to spare.
const MAX_KEYS: usize = 3;

const fn signed_act(act: OrderAct) -> SignedAct {
    match act {
        OrderAct::Rotate => SignedAct::Rotate,
        OrderAct::Wipe => SignedAct::Wipe,
        OrderAct::FactoryReset => SignedAct::FactoryReset,
    }
}

const fn act_of(act: SignedAct) -> OrderAct {
    match act {
        SignedAct::Rotate => OrderAct::Rotate,
        SignedAct::Wipe => OrderAct::Wipe,
        SignedAct::FactoryReset => OrderAct::FactoryReset,
    }
}

/// `None` for an acknowledgement, which is no outcome.
const fn state_of(outcome: OrderOutcome) -> Option<OrderState> {
    match outcome {
        OrderOutcome::Done => Some(OrderState::Done),
        OrderOutcome::Failed => Some(OrderState::Failed),
        OrderOutcome::Declined => Some(OrderState::Declined),
        OrderOutcome::Received => None,
    }
}

//! Orders to devices. Never one person's act: signed when a second one has approved, or after the delay of single
//! control. The device answers under its identity key.

use kf_access::{Action, Principal, Target, Visibility, authorize};
use kf_api::operator::Credential;
use kf_api::order::{Order, OrderAct, OrderFilter, OrderRequest, OrderState};
use kf_api::proposal::ProposedAct;
use kf_api::revocation::RevokeOutcome;
use kf_api::{Page, PageRequest};
use kf_exchange::PublicKey;
use kf_exchange::order::{OrderAct as SignedAct, OrderOutcome, OrderReport};
use kf_key::{OrderId, UnixMillis};
use kf_store::StoreError;
use kf_store::order::{Answered, OrderAnswer};

use crate::enrolment::device_principal;
use crate::entry::Entry;
use crate::exchange::{refused, unreadable};
use crate::naming::check_why;
use crate::revocation::nothing_done;
use crate::{Fleet, FleetError, TlsClient};

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
        lifetime_hours: u32,
        why: &str,
    ) -> Result<RevokeOutcome, FleetError> {
        let device = self.epoch_device(who, device, Action::OrderCreate)?;
        let now = self.now();
        let expires = now.plus(u64::from(lifetime_hours) * UnixMillis::HOUR);
        for _ in 0..MAX_ATTEMPTS {
            let counter = self.store.next_order_counter(device.id)?;
            let signed = kf_exchange::order::Order { act: signed_act(act), device: device.id, counter, expires };
            let message = self.signer.sign_order(self.exchange_keys.order, &signed).await?;
            let order = Order {
                id: OrderId::from_parts(now, kf_crypto::random_array()?),
                device: device.id,
                act,
                counter,
                state: OrderState::Open,
                created: now,
                expires,
                delivered: None,
                ended: None,
                why: why.to_owned(),
            };
            let entry = self
                .evidence(Entry::done(who, "order.create", now))
                .about(order.id)
                .about(device.id)
                .at_facility(Some(device.facility))
                .because(why)
                .with("act", act.name())
                .with("counter", counter)
                .with("expires", expires.0);
            match self.store.insert_order(order, message, entry.build()).await {
                Ok(logged) => {
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
        Ok(self.store.orders(device, permit.visibility(), &page)?)
    }

    /// One order.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn order_show(&self, who: &Principal, order: OrderId) -> Result<Order, FleetError> {
        let permit = authorize(who, Action::OrderRead, Target::Visible)?;
        self.store.order(order, permit.visibility())?.ok_or(FleetError::NotFound("order"))
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
        Ok(self.store.cancel_order(order, self.now(), entry.build()).await?.value)
    }

    /// The oldest order that the device of this TLS session is to obey: COSE_Sign1. The status of its certificate plays
    /// no part: a device whose certificate is on hold is the first that may have to be wiped, and an order is no secret.
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`] without a certificate of a device of ours.
    pub async fn device_order(&self, client: TlsClient<'_>) -> Result<Option<Vec<u8>>, FleetError> {
        let (_, _, device) = self.device_of_certificate(client)?;
        let now = self.now();
        let Some((order, message)) = self.store.due_order(device.id, now)? else { return Ok(None) };
        if order.delivered.is_none() {
            let who = device_principal(&device, Credential::Certificate);
            let entry = Entry::done(&who, "order.deliver", now)
                .about(order.id)
                .about(device.id)
                .at_facility(Some(device.facility));
            self.store.deliver_order(order.id, now, entry.build()).await?;
        }
        Ok(Some(message))
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
        let state = state_of(outcome);
        let who = device_principal(&device, Credential::Certificate);
        let entry = Entry::done(&who, "order.answer", now)
            .about(device.id)
            .at_facility(Some(device.facility))
            .with("counter", counter)
            .with("outcome", state.name())
            .with("device_time", at.0);
        let answer = OrderAnswer { device: device.id, counter, act: act_of(act), outcome: state };
        match self.store.answer_order(answer, now, entry.build()).await? {
            Answered::First(_) => {
                tracing::info!(device = %device.id, outcome = state.name(), "a device answered an order")
            }
            Answered::Again => {}
        }
        Ok(())
    }

    /// Whether one of the newest keys that a device was certified for fits.
    fn identity_key_that(
        &self,
        device: kf_key::DeviceId,
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

/// Keys of a device that are tried on an answer, newest first: before and after a rotation, with one to spare.
const MAX_KEYS: usize = 3;

const fn signed_act(act: OrderAct) -> SignedAct {
    match act {
        OrderAct::Rotate => SignedAct::Rotate,
        OrderAct::Wipe => SignedAct::Wipe,
    }
}

const fn act_of(act: SignedAct) -> OrderAct {
    match act {
        SignedAct::Rotate => OrderAct::Rotate,
        SignedAct::Wipe => OrderAct::Wipe,
    }
}

const fn state_of(outcome: OrderOutcome) -> OrderState {
    match outcome {
        OrderOutcome::Done => OrderState::Done,
        OrderOutcome::Failed => OrderState::Failed,
        OrderOutcome::Declined => OrderState::Declined,
    }
}

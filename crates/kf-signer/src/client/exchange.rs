//! Requests of key exchanges, orders, and the succession of the keys behind them.

use kf_exchange::MAX_MESSAGE_OCTETS;
use kf_exchange::order::Order;
use kf_key::{KeyId, UnixMillis};

use super::derivation::MAX_WRAPPED_SALT_OCTETS;
use super::{SignatureUse, SignerClient};
use crate::derivation::DeviceKeyPlace;
use crate::protocol::{RequestKind, prefix, too_large};
use crate::{SignerError, SignerRefusal};

/// More than a SubjectPublicKeyInfo on P-256 has.
const MAX_SPKI_OCTETS: usize = 256;

/// A proof in a key exchange, with what the registry knows of the device that it claims to be from.
#[derive(Clone, Copy, Debug)]
pub struct DeviceProof<'a> {
    /// The key that it is to be sent.
    pub place: DeviceKeyPlace,
    /// SubjectPublicKeyInfo of its identity key, DER.
    pub spki: &'a [u8],
    /// Its salt, wrapped.
    pub wrapped_salt: &'a [u8],
    /// The message.
    pub proof: &'a [u8],
}

fn check(message: &[u8]) -> Result<(), SignerError> {
    if message.len() > MAX_MESSAGE_OCTETS { Err(too_large(MAX_MESSAGE_OCTETS)) } else { Ok(()) }
}

impl SignerClient {
    /// Answers the first message of a key exchange with a challenge under the delivery key.
    ///
    /// # Errors
    /// [`SignerRefusal::Exchange`] for what is no hello; [`SignerError::Rate`]; [`SignerError`].
    pub async fn exchange_challenge(&self, delivery_key: KeyId, hello: &[u8]) -> Result<Vec<u8>, SignerError> {
        check(hello)?;
        self.count(delivery_key, SignatureUse::Issue).await?;
        self.link_with(delivery_key).await?.call(RequestKind::Challenge, &[delivery_key.as_bytes(), hello]).await
    }

    /// Checks a proof and answers it with the device's key, encrypted to the device. Record the delivery before it is sent.
    ///
    /// # Errors
    /// [`SignerRefusal::Exchange`] when the proof does not hold or its session is over: it may be a minute old, answered,
    /// or of an earlier life of the signer; [`SignerError::Wrapped`] for the salt of another device.
    pub async fn exchange_deliver(&self, given: DeviceProof<'_>) -> Result<Vec<u8>, SignerError> {
        self.prove(RequestKind::Deliver, given).await
    }

    /// Checks a proof and answers it with this side of a mixed session under the device's key at `given.place`. The
    /// session's key stays in the signer's memory, until it is acknowledged for a minute.
    ///
    /// # Errors
    /// As [`SignerClient::exchange_deliver`].
    pub async fn exchange_open_session(&self, given: DeviceProof<'_>) -> Result<Vec<u8>, SignerError> {
        self.prove(RequestKind::OpenSession, given).await
    }

    /// Checks the acknowledgement of a mixed session; returns the answer. From then on the session lives for
    /// [`SESSION_LIFETIME`](crate::SESSION_LIFETIME), and the one that the device had before is over.
    ///
    /// # Errors
    /// [`SignerRefusal::Exchange`].
    pub async fn acknowledge_session(
        &self,
        place: DeviceKeyPlace,
        acknowledgement: &[u8],
    ) -> Result<Vec<u8>, SignerError> {
        check(acknowledgement)?;
        self.ready().await?.call(RequestKind::AcknowledgeSession, &[&place.to_octets(), acknowledgement]).await
    }

    /// Forgets a mixed session; one that is not there is no error.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn end_session(&self, session: &[u8; 16]) -> Result<(), SignerError> {
        self.ready().await?.call(RequestKind::EndSession, &[session]).await.map(drop)
    }

    async fn prove(&self, kind: RequestKind, given: DeviceProof<'_>) -> Result<Vec<u8>, SignerError> {
        let DeviceProof { place, spki, wrapped_salt, proof } = given;
        check(proof)?;
        if wrapped_salt.len() > MAX_WRAPPED_SALT_OCTETS {
            return Err(SignerError::Wrapped);
        }
        if spki.len() > MAX_SPKI_OCTETS {
            return Err(SignerError::Refused(SignerRefusal::Algorithm));
        }
        let (place, spki_length, salt_length) = (place.to_octets(), prefix(spki)?, prefix(wrapped_salt)?);
        let request = [&place[..], &spki_length, spki, &salt_length, wrapped_salt, proof];
        self.ready().await?.call(kind, &request).await
    }

    /// Checks an acknowledgement of the key at `place`; returns the answer. Record it before the answer is sent.
    ///
    /// # Errors
    /// [`SignerRefusal::Exchange`]; [`SignerError::Wrapped`].
    pub async fn exchange_acknowledge(
        &self,
        place: DeviceKeyPlace,
        wrapped_salt: &[u8],
        acknowledgement: &[u8],
    ) -> Result<Vec<u8>, SignerError> {
        check(acknowledgement)?;
        if wrapped_salt.len() > MAX_WRAPPED_SALT_OCTETS {
            return Err(SignerError::Wrapped);
        }
        let (place, length) = (place.to_octets(), prefix(wrapped_salt)?);
        self.ready().await?.call(RequestKind::Acknowledge, &[&place, &length, wrapped_salt, acknowledgement]).await
    }

    /// Signs an order to a device (COSE_Sign1).
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn sign_order(&self, order_key: KeyId, order: &Order) -> Result<Vec<u8>, SignerError> {
        self.count(order_key, SignatureUse::Issue).await?;
        let Order { act, device, counter, expires } = order;
        let (counter, expires) = (counter.to_be_bytes(), expires.0.to_be_bytes());
        let request = [&order_key.as_bytes()[..], &[act.code()], device.as_bytes(), &counter, &expires];
        self.link_with(order_key).await?.call(RequestKind::SignOrder, &request).await
    }

    /// Has `before` sign that `after`, which this signer holds for the same purpose, succeeds it as number `version`.
    ///
    /// # Errors
    /// [`SignerRefusal::Purpose`] for keys that nobody pins, or of two purposes; [`SignerError`].
    pub async fn sign_succession(
        &self,
        before: KeyId,
        after: KeyId,
        (version, made): (u32, UnixMillis),
    ) -> Result<Vec<u8>, SignerError> {
        self.count(before, SignatureUse::GoOn).await?;
        self.link_with(after).await?;
        let (version, made) = (version.to_be_bytes(), made.0.to_be_bytes());
        let request = [&before.as_bytes()[..], after.as_bytes(), &version, &made];
        self.link_with(before).await?.call(RequestKind::SignSuccession, &request).await
    }
}

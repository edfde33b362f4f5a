//! Orders to devices. The message is built here, so that the order key can sign nothing else.

use kf_exchange::order::{Order, OrderAct};
use kf_key::{DeviceId, UnixMillis};

use super::exchange::{Held, refused_or_held};
use super::{Engine, malformed};
use crate::protocol::Fields;
use crate::{KeyPurpose, SignerError};

impl Engine {
    pub(super) fn sign_order(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let key = fields.key().ok_or_else(malformed)?;
        let code = fields.octet().ok_or_else(malformed)?;
        let act = OrderAct::ALL.into_iter().find(|act| act.code() == code).ok_or_else(malformed)?;
        let device = fields.array().map(DeviceId::from_bytes).ok_or_else(malformed)?;
        let counter = fields.array().map(u64::from_be_bytes).ok_or_else(malformed)?;
        let expires = fields.array().map(u64::from_be_bytes).map(UnixMillis).ok_or_else(malformed)?;
        fields.end().ok_or_else(malformed)?;
        let loaded = self.loaded(key)?;
        loaded.require(&[KeyPurpose::Order])?;
        let order = Order { act, device, counter, expires };
        let message = order.sign(&Held::new(key, &loaded)?).map_err(refused_or_held)?;
        Ok(message.as_bytes().to_vec())
    }
}

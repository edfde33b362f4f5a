//! The receipt for the customer: log entries, each with its proof. Nothing in it has to be believed that is not signed.

use kf_access::{Action, Permit, Principal, Target, Visibility, authorize};
use kf_api::audit::AuditRecord;
use kf_api::order::OrderProgress;
use kf_api::ownership::{CustomerReceipt, EndedOwnership};
use kf_api::{Page, PageRequest};
use kf_key::OrderId;

use crate::{Fleet, FleetError};

/// Pages of log entries that are looked through.
const MAX_PAGES: u32 = 20;

impl Fleet {
    /// What came of devices that left, oldest first.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn ownership_list(&self, who: &Principal, page: PageRequest) -> Result<Page<EndedOwnership>, FleetError> {
        let permit = authorize(who, Action::DestructionRead, Target::Visible)?;
        Ok(self.store.ownerships(permit.visibility(), &page)?)
    }

    /// The receipt for the newest time that a device left who had it, as of now: an order that was answered since, and keys that
    /// were barred and are destroyed by now, are in it.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for a device that did not leave, or is not yet through with it.
    pub async fn ownership_receipt(&self, who: &Principal, device: &str) -> Result<CustomerReceipt, FleetError> {
        let permit = authorize(who, Action::DestructionRead, Target::Visible)?;
        // Who sold it sees the receipt, although the device is another facility's by now.
        let none = || FleetError::NotFound("receipt");
        let found = self.find_device(device, &Visibility::Fleet).map_err(|_not_found| none())?;
        let record = self.store.ownerships_of(found.id, permit.visibility())?.into_iter().next().ok_or_else(none)?;
        self.log.publish(&self.store, &self.signer).await?;
        let checkpoint = self.store.checkpoint()?.ok_or(FleetError::NotFound("checkpoint"))?;
        let mut indices = self.entries_of(&record, &permit)?;
        indices.retain(|index| *index < checkpoint.size);
        let timeline = indices.into_iter().map(|index| self.timeline_entry(index, checkpoint.size));
        let timeline = timeline.collect::<Result<Vec<_>, FleetError>>()?;
        Ok(CustomerReceipt {
            v: 1,
            fleet: self.config.fleet.clone(),
            at: self.now(),
            wipe: record.order.map(|order| self.wipe_progress(order, &permit)).transpose()?,
            record,
            timeline,
            checkpoint: checkpoint.note,
            tree_size: checkpoint.size,
        })
    }

    /// Which entries are the customer's business: two people, the device, its keys, its answer. Nothing of another device.
    fn entries_of(&self, record: &EndedOwnership, permit: &Permit) -> Result<Vec<u64>, FleetError> {
        let (device, proposal) = (record.device.to_string(), record.proposal.to_string());
        let mut indices = Vec::new();
        for entry in self.entries_about(&proposal, permit)? {
            let is_other_device = subjects(&entry).any(|subject| subject.starts_with("dev_"))
                && !subjects(&entry).any(|subject| subject == device);
            if !is_other_device {
                indices.push(entry.index);
            }
        }
        let first = indices.first().copied().unwrap_or(0);
        for entry in self.entries_about(&device, permit)? {
            let act = entry.entry.get("act").and_then(serde_json::Value::as_str).unwrap_or_default();
            let is_of = ["order.", "device.", "certificate."].iter().any(|prefix| act.starts_with(prefix));
            // Until it left; what came of the order is the one thing that may come later.
            let until = record.log_index.unwrap_or(u64::MAX);
            if is_of && entry.index >= first && (entry.index <= until || act.starts_with("order.")) {
                indices.push(entry.index);
            }
        }
        indices.sort_unstable();
        indices.dedup();
        Ok(indices)
    }

    fn entries_about(&self, subject: &str, permit: &Permit) -> Result<Vec<AuditRecord>, FleetError> {
        let mut page = PageRequest { after: None, limit: Some(kf_api::page::MAX_LIMIT) };
        let mut records = Vec::new();
        for _ in 0..MAX_PAGES {
            let found = self.store.log_list(Some(subject), permit.visibility(), &page)?;
            records.extend(found.items);
            page.after = found.next;
            if page.after.is_none() {
                break;
            }
        }
        Ok(records)
    }

    fn wipe_progress(&self, order: OrderId, permit: &Permit) -> Result<String, FleetError> {
        let found = self.store.order(order, permit.visibility())?.map(|order| order.judged(self.now()));
        let progress = match found.and_then(|order| order.progress) {
            None => "unknown",
            Some(OrderProgress::Queued) => "queued",
            Some(OrderProgress::Sent) => "sent",
            Some(OrderProgress::Acknowledged) => "acknowledged",
            Some(OrderProgress::Executed) => "executed",
            Some(OrderProgress::Failed) => "failed",
            Some(OrderProgress::Declined) => "declined",
            Some(OrderProgress::Cancelled) => "cancelled",
            Some(OrderProgress::NeverAnswered) => "never-answered",
        };
        Ok(progress.to_owned())
    }
}

fn subjects(record: &AuditRecord) -> impl Iterator<Item = &str> {
    let subjects = record.entry.get("subjects").and_then(serde_json::Value::as_array);
    subjects.into_iter().flatten().filter_map(serde_json::Value::as_str)
}

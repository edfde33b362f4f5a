//! The device changes hands: a factory reset by order, the receipt for who bought it, and a life with the next owner.

use super::{Life, NAME, Outcome};
use crate::bridge::Command;
use crate::server::ServerError;

/// What the receipt and its verdict are in, in the fleet's folder.
const RECEIPT: &str = "receipt.json";
/// That the order to reset is demanded: a device that has not said that it knows it makes the server refuse.
const RESELL: [&str; 6] = ["device", "resell", NAME, "--factory-reset", "--why", "sold"];

impl Life {
    /// It has not polled yet, so it has not said which acts its program knows.
    pub(super) fn refuse_early_sale(&mut self) -> Outcome<()> {
        let refused = match self.fleet.run(&[&RESELL[..], &["--dry-run"]].concat()) {
            Err(ServerError::Failed { said, .. }) => said.contains(NAME),
            Ok(_) => false,
            Err(other) => return Err(other.into()),
        };
        self.hold("no reset of a device that has not said that it knows it", "refused, by name".to_owned(), refused);
        Ok(())
    }

    /// Two people agree; it obeys, signs, and is one that never enrolled. The next owner admits it by a new code.
    pub(super) fn be_sold(&mut self) -> Outcome<()> {
        self.hold_alive("the reset")?;
        let planned = self.fleet.json(&[&RESELL[..], &["--dry-run"]].concat())?;
        self.hold("its polls have said that it knows the reset", "planned".to_owned(), planned["plan"].is_object());
        let proposal = self.fleet.propose(&[&RESELL[..], &["--customer", "PO-4711", "--yes"]].concat())?;
        self.fleet.approve(&proposal)?;
        let waiting = self.progress()?;
        self.hold("the reset before the device has answered", waiting.clone(), waiting == "queued");
        let report = self.obey_and_forget("the reset")?;
        self.hold("the device signed that it was reset", format!("{} octets", report.len()), !report.is_empty());
        self.hold_receipt()?;

        let refused = self.despite_cuts(Command::Show, &[])?;
        let blank = refused.get(1..) == Some(&[0; 24]);
        self.hold("a device that was reset has no key and no certificate", "none".to_owned(), blank);
        self.begin_anew()
    }

    /// What the customer gets, checked as the customer does.
    fn hold_receipt(&mut self) -> Outcome<()> {
        self.fleet.run(&["device", "receipt", NAME, "--out", RECEIPT])?;
        let receipt: serde_json::Value = serde_json::from_slice(&std::fs::read(self.fleet.path(RECEIPT))?)?;
        let answered = receipt["wipe"].as_str().unwrap_or_default().to_owned();
        let key = std::fs::read_to_string(self.fleet.path("fleet/log.vkey"))?;
        let verdict = self.fleet.json(&["audit", "verify-receipt", RECEIPT, "--verifier-key", key.trim()])?;
        self.hold("the receipt for the customer", answered.clone(), answered == "executed" && verdict["holds"] == true);
        Ok(())
    }

    /// Readmitted, it enrols as it did the first time; its device key comes from another salt.
    fn begin_anew(&mut self) -> Outcome<()> {
        self.fleet.run(&["device", "resume", NAME, "--why", "it came back"])?;
        self.fleet.run(&["code", "create", NAME, "--out", "code-2"])?;
        self.enrol("code-2")?;
        let place = self.despite_cuts(Command::Exchange, &[])?;
        let moved = self.is_up_to_date()?;
        self.hold("enrolled and keyed by the next owner", super::epochs(&place), moved);
        let (_, path) = self.sealed.pop().ok_or("no message was kept back")?;
        let said = self.refusal_of(&path)?;
        let refused = said.is_some();
        self.hold("a message of before the sale is refused", said.unwrap_or_default(), refused);
        Ok(())
    }
}

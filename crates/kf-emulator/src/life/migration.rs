//! What the fleet asks of the device in campaigns: a new storage key, a new root, a new certificate.

use kf_device::certificate::Certificate;

use super::{Life, NAME, Outcome};
use crate::bridge::Command;

/// What the device keeps, by number.
const RECORDS: [&[u8]; 3] = [b"customer 4711", b"tariff: night", &[0x5a; 200]];
/// Asks of a campaign before the check gives up; each is a process and a TLS handshake.
const MOST_ASKED: usize = 300;

impl Life {
    /// Its records move below a new storage key, whatever the power does; nothing is left of the old one.
    pub(super) fn move_storage(&mut self) -> Outcome<()> {
        for (number, octets) in (0_u8..).zip(RECORDS) {
            self.despite_cuts(Command::Keep, &[&[number], octets])?;
        }
        self.hold_records(1)?;
        let before = self.remains.storage_key_in(1, self.board.flash.cells()).unwrap_or_default();
        self.hold("the search sees the storage key", format!("{before} fragments"), before > 0);
        self.begin("storage", "storage", false)?;
        self.despite_cuts(Command::Orders, &[])?;
        let done = self.done("storage")?;
        self.hold("records moved, and the statement verified", format!("{done} device"), done == 1);
        self.hold_records(2)?;
        let cells = self.board.flash.cells();
        let (old, new) = (self.remains.storage_key_in(1, cells), self.remains.storage_key_in(2, cells));
        let told = |found: Option<usize>| found.map_or("never stored".to_owned(), |found| found.to_string());
        self.hold("fragments of the old storage key", told(old), old == Some(0));
        self.hold("the search sees the new one", told(new), new > Some(0));
        Ok(())
    }

    fn hold_records(&mut self, version: u32) -> Outcome<()> {
        let mut found = 0;
        for (number, octets) in (0_u8..).zip(RECORDS) {
            let recalled = self.despite_cuts(Command::Recall, &[&[number]])?;
            found += usize::from(recalled == [&version.to_be_bytes(), octets].concat());
        }
        let all = RECORDS.len();
        self.hold(&format!("records under version {version}"), format!("{found} of {all}"), found == all);
        Ok(())
    }

    /// It takes up the root that succeeds its own, proves it by a handshake, and gets certificates below it.
    pub(super) fn take_up_root(&mut self) -> Outcome<()> {
        self.fleet.json(&["authority", "succeed", "root", "--why", "it ends next year"])?;
        self.begin("anchors", "trust-anchor", false)?;
        self.despite_cuts(Command::Orders, &[])?;
        let done = self.done("anchors")?;
        let proved = self.fleet.json(&["authority", "trust", "root"])?["trust"]["proved"].as_u64();
        let told = format!("{} device", proved.unwrap_or_default());
        self.hold("a new root taken up and proved", told, done == 1 && proved == Some(1));
        self.fleet.run(&["authority", "switch", "root"])?;
        Ok(())
    }

    /// It renews because it is asked when it polls; the certificate, of the CA below the new root, is the answer.
    pub(super) fn renew_by_campaign(&mut self) -> Outcome<()> {
        let before = self.despite_cuts(Command::Show, &[])?;
        self.begin("certificates", "certificate", true)?;
        self.despite_cuts(Command::Orders, &[])?;
        let done = self.done("certificates")?;
        let after = self.despite_cuts(Command::Show, &[])?;
        let certificate = after.get(25..).unwrap_or_default();
        let is_new = before.get(25..) != Some(certificate) && Certificate::from_der(certificate).is_ok();
        self.hold("renewed by campaign", format!("{done} device"), done == 1 && is_new);
        let listed = self.fleet.json(&["device", "show", NAME])?;
        let mut authorities: Vec<_> = listed["certificates"].as_array().into_iter().flatten().collect();
        authorities.sort_by_key(|one| one["not_before"].as_u64());
        authorities.dedup_by_key(|one| one["authority"].clone());
        let issuers = authorities.len();
        self.hold("issuers of its certificates", format!("{issuers}: one below each root"), issuers == 2);
        let orders = self.fleet.json(&["order", "list"])?;
        let none = orders["items"].as_array().is_some_and(Vec::is_empty);
        self.hold("orders signed for it", "none".to_owned(), none);
        Ok(())
    }

    /// Starts a campaign and waits until the device has its turn.
    fn begin(&mut self, name: &str, kind: &str, takes_two: bool) -> Outcome<()> {
        let plan = ["--canary", "1", "--jitter", "0s", "--soak", "0s", "--min-done", "0", "--why", "rehearsal"];
        let create = ["campaign", "create", name, "--kind", kind, "--facility", "lyon"];
        self.fleet.json(&[&create[..], &plan].concat())?;
        let start = ["campaign", "start", name, "--why", "rehearsal"];
        if takes_two {
            let proposal = self.fleet.propose(&start)?;
            self.fleet.approve(&proposal)?;
        } else {
            self.fleet.run(&start)?;
        }
        for _ in 0..MOST_ASKED {
            if self.fleet.json(&["campaign", "show", name])?["progress"]["offered"] == 1 {
                return Ok(());
            }
        }
        Err(format!("the campaign {name} did not ask the device").into())
    }

    /// Waits until a campaign is completed; how many devices it counts as done.
    fn done(&self, name: &str) -> Outcome<u64> {
        for _ in 0..MOST_ASKED {
            let shown = self.fleet.json(&["campaign", "show", name])?;
            if shown["state"] == "completed" {
                return Ok(shown["progress"]["done"].as_u64().unwrap_or_default());
            }
        }
        Err(format!("the campaign {name} was not completed: {}", self.fleet.json(&["campaign", "show", name])?).into())
    }
}

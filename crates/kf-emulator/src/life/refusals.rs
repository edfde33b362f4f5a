//! What a device and its server refuse.

use super::{COMMANDS, Life, NAME, Outcome, SERVICE, fuses};
use crate::bridge::{Board, BridgeError, Command};
use crate::fuses::NoiseState;
use crate::noise::Source;
use crate::server::ServerError;
use kf_key::DeviceId;

impl Life {
    /// Devices beside the one that lives, on boards whose noise source is broken or not declared.
    pub(super) fn refuse_bad_noise(&mut self, device: DeviceId) -> Outcome<()> {
        for (what, name, source) in [
            ("a stuck noise source", "stuck", Source::Stuck),
            ("a biased noise source", "biased", Source::Biased),
            ("noise that repeats after a start", "repeats", Source::Repeats),
        ] {
            let folder = self.fleet.path(name);
            fuses(&self.fleet, device, NoiseState::PhysicalOn)?.burn(&folder)?;
            let mut board = Board::new(&folder, None)?;
            board.source = source;
            // The first start has nothing to be compared with.
            let _first = board.start(&self.image).map(drop);
            let refused = matches!(board.start(&self.image), Err(BridgeError::Refused(_)));
            self.hold(&format!("{what} is refused"), "no start".to_owned(), refused);
        }
        let folder = self.fleet.path("pseudo-random");
        fuses(&self.fleet, device, NoiseState::PseudoRandomOnly)?.burn(&folder)?;
        let mut board = Board::new(&folder, Some(self.fleet.address()?))?;
        let code = std::fs::read(self.fleet.path("code"))?;
        let (mut running, _) = board.start(&self.image)?;
        let made = running.tell(Command::Enrol, &[code.trim_ascii(), &[0]]);
        let refused = matches!(&made, Err(BridgeError::Refused(reason)) if reason.contains("not declared as physical"));
        self.hold("pseudo-random noise makes no key", "no seed for production".to_owned(), refused);
        Ok(())
    }

    /// A command of the server is obeyed once, also when it comes again after a restart.
    pub(super) fn obey(&mut self) -> Outcome<()> {
        let (plain, sealed) = (self.fleet.path("command"), self.fleet.path("command.cose"));
        std::fs::write(&plain, "close the valve")?;
        let paths = [&plain, &sealed].map(|path| path.to_string_lossy().into_owned());
        let [plain, out] = &paths;
        self.fleet.run(&["seal", NAME, COMMANDS, plain, "--out", out])?;
        let envelope = std::fs::read(sealed)?;
        let service = COMMANDS.as_bytes();
        let mut changed = envelope.clone();
        changed.last_mut().into_iter().for_each(|octet| *octet ^= 1);
        let (mut running, _) = self.board.start(&self.image)?;
        let forged = running.tell(Command::Open, &[service, &changed]);
        let opened = running.tell(Command::Open, &[service, &envelope])?;
        let again = running.tell(Command::Open, &[service, &envelope]);
        drop(running);
        let (mut running, _) = self.board.start(&self.image)?;
        let restarted = running.tell(Command::Open, &[service, &envelope]);
        self.hold(
            "a command opens on the device",
            String::from_utf8_lossy(&opened).into_owned(),
            opened == b"close the valve",
        );
        let refused = |answer: &Result<Vec<u8>, BridgeError>, why: &str| matches!(answer, Err(BridgeError::Refused(reason)) if reason.contains(why));
        self.hold("a changed command is refused", "it does not open".to_owned(), refused(&forged, "does not open"));
        let once = [again, restarted].iter().all(|answer| refused(answer, "accepted before"));
        self.hold("a command is obeyed once", "also after a restart".to_owned(), once);
        Ok(())
    }

    /// The server's side of the same, with the message that was kept back: changed, cut, and after all of that opened.
    pub(super) fn refuse_bad_payloads(&mut self) -> Outcome<()> {
        let (text, path) = self.sealed.pop().ok_or("no message was kept back")?;
        let whole = std::fs::read(&path)?;
        let mut changed = whole.clone();
        changed.last_mut().into_iter().for_each(|octet| *octet ^= 1);
        let cut = whole.get(..whole.len() / 2).unwrap_or_default().to_vec();
        let long = [whole.clone(), vec![0; 20_000]].concat();
        for (what, octets) in
            [("a changed message is refused", changed), ("a cut one", cut), ("an oversized one", long)]
        {
            std::fs::write(&path, octets)?;
            let said = self.refusal_of(&path)?;
            self.hold(what, said.clone().unwrap_or_default(), said.is_some());
        }
        std::fs::write(&path, whole)?;
        let opened = self.fleet.run(&["open", &path.to_string_lossy()])? == text;
        self.hold("the true one opens after them", text, opened);
        let said = self.refusal_of(&path)?;
        let is_replay = said.as_ref().is_some_and(|said| said.contains("accepted before"));
        self.hold("a replayed one is refused", said.unwrap_or_default(), is_replay);
        // For the time after the rotation.
        let late = self.despite_cuts(Command::Seal, &[SERVICE, b"late"])?;
        let path = self.fleet.path("late.cose");
        std::fs::write(&path, late)?;
        self.late = Some(path);
        Ok(())
    }

    /// A message under a key that a newer one has superseded.
    pub(super) fn refuse_superseded(&mut self) -> Outcome<()> {
        let path = self.late.take().ok_or("no message was kept back")?;
        let said = self.refusal_of(&path)?;
        let refused = said.as_ref().is_some_and(|said| said.contains("newer key"));
        self.hold("a message under the former key is refused", said.unwrap_or_default(), refused);
        Ok(())
    }

    /// What `keyfleet open` says first when it refuses; `None` when it opens.
    pub(super) fn refusal_of(&self, path: &std::path::Path) -> Outcome<Option<String>> {
        match self.fleet.run(&["open", &path.to_string_lossy()]) {
            Ok(_) => Ok(None),
            Err(ServerError::Failed { said, .. }) => {
                let first = said.lines().next().unwrap_or_default();
                Ok(Some(first.trim_start_matches("error: ").to_owned()))
            }
            Err(other) => Err(other.into()),
        }
    }
}

//! `transcript.jsonl`: what happened in a ceremony, each line over the digest of the one before, durable before what it announces.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use kf_fleet::{Clock as _, SystemClock};
use kf_key::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

const FILE: &str = "transcript.jsonl";
/// The digest in front of the first line.
const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    v: u8,
    at: UnixMillis,
    event: String,
    detail: BTreeMap<String, String>,
    previous: String,
}

/// An open transcript.
pub(super) struct Transcript {
    path: PathBuf,
    last: String,
    events: Vec<Event>,
}

/// What a line says.
struct Event {
    event: String,
    detail: BTreeMap<String, String>,
}

impl Event {
    fn says(&self, event: &str, detail: (&str, &str)) -> bool {
        self.event == event && self.detail.get(detail.0).is_some_and(|found| found == detail.1)
    }
}

impl Transcript {
    /// Opens the transcript in a directory and checks its chain; a new one where there is none.
    ///
    /// # Errors
    /// [`Failure::Local`] naming the first line that does not follow.
    pub(super) fn open(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Failure::file("read", &path, error)),
        };
        let mut last = NOTHING.to_owned();
        let mut events = Vec::new();
        // A last line without its end was cut off while it was written, and announced nothing.
        let whole = text.rfind('\n').map_or("", |end| text.get(..=end).unwrap_or_default());
        for (line, number) in whole.lines().zip(1_u64..) {
            let parsed = serde_json::from_str::<Line>(line).ok().filter(|line| line.v == 1 && line.previous == last);
            let Some(Line { event, detail, .. }) = parsed else {
                return Err(Failure::local(
                    format!("{}: line {number} does not follow from the one before", path.display()),
                    "the transcript was changed; compare it with the copies of the witnesses of the ceremony",
                ));
            };
            events.push(Event { event, detail });
            last = digest(line);
        }
        if whole.len() < text.len() {
            let file =
                OpenOptions::new().write(true).open(&path).map_err(|error| Failure::file("write", &path, error))?;
            let length = u64::try_from(whole.len()).unwrap_or(u64::MAX);
            file.set_len(length).map_err(|error| Failure::file("write", &path, error))?;
        }
        Ok(Self { path, last, events })
    }

    /// Adds a line; durable when this returns.
    ///
    /// # Errors
    /// [`Failure::File`].
    pub(super) fn add(&mut self, event: &str, detail: &[(&str, &str)]) -> Result<(), Failure> {
        let line = Line {
            v: 1,
            at: SystemClock.now(),
            event: event.to_owned(),
            detail: detail.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            previous: self.last.clone(),
        };
        let text = serde_json::to_string(&line)
            .map_err(|error| Failure::local(format!("the transcript: {error}"), "please report this"))?;
        let failed = |error| Failure::file("write", &self.path, error);
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path).map_err(failed)?;
        file.write_all(format!("{text}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        if self.events.is_empty() {
            crate::file::sync_directory(self.path.parent().unwrap_or(Path::new(".")))?;
        }
        self.last = digest(&text);
        self.events.push(Event { event: line.event, detail: line.detail });
        Ok(())
    }

    /// Whether a ceremony has this line since it began.
    pub(super) fn has(&self, ceremony: &str, event: &str, detail: (&str, &str)) -> bool {
        let begin = self.events.iter().rposition(|found| found.says("begin", ("ceremony", ceremony)));
        let of = begin.and_then(|begin| self.events.get(begin..)).unwrap_or_default();
        of.iter().any(|found| found.says(event, detail))
    }

    /// The approval under which a release began that has not come to its end.
    pub(super) fn open_release(&self) -> Option<&str> {
        let begin = self.events.iter().rposition(|found| found.event == "release")?;
        let since = self.events.get(begin..)?;
        let is_over = since.iter().any(|found| found.event == "released");
        let approved = since.first().and_then(|found| found.detail.get("approved"));
        approved.map(String::as_str).filter(|_| !is_over)
    }

    /// The newest value that an event of the release that is under way has.
    pub(super) fn of_release(&self, event: &str, key: &str) -> Option<&str> {
        let begin = self.events.iter().rposition(|found| found.event == "release")?;
        let found = self.events.get(begin..)?.iter().rev().find(|found| found.event == event)?;
        found.detail.get(key).map(String::as_str)
    }
}

fn digest(line: &str) -> String {
    hex::encode(kf_crypto::sha256(line.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_goes_on_after_a_torn_line_and_finds_a_changed_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut transcript = Transcript::open(directory.path()).unwrap();
        for event in ["begin", "share", "end"] {
            transcript.add(event, &[("person", "alice")]).unwrap();
        }
        let path = directory.path().join(FILE);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        Transcript::open(directory.path()).unwrap().add("end", &[]).unwrap();
        assert!(Transcript::open(directory.path()).is_ok());
        let text = std::fs::read_to_string(&path).unwrap();
        for (changed, line) in [
            (text.replacen("alice", "mallory", 1), "line 2"),
            (text.lines().skip(1).map(|line| format!("{line}\n")).collect(), "line 1"),
            (text.lines().rev().map(|line| format!("{line}\n")).collect(), "line 1"),
        ] {
            std::fs::write(&path, changed).unwrap();
            let failure = Transcript::open(directory.path()).err().unwrap().to_string();
            assert!(failure.contains(line), "{failure}");
        }
    }
}

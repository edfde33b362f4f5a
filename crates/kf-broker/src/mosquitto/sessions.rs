//! Sessions of names under watch, as told by the broker's log. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::log_line::LogLine;

/// The most names under watch; beyond it a name is refused rather than another one forgotten.
pub(crate) const MAX_WATCHED: usize = 100_000;
/// The most sessions kept for one name; any more only repeat that it is connected.
const MAX_SESSIONS_PER_NAME: usize = 64;

/// Which of the watched user names hold sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    by_name: BTreeMap<String, BTreeSet<String>>,
}

impl Sessions {
    /// Begins to watch a name; `false` when too many are watched already. Sessions opened before are not known: cut
    /// them after this call.
    pub(crate) fn watch(&mut self, user_name: &str) -> bool {
        if self.by_name.contains_key(user_name) {
            return true;
        }
        if self.by_name.len() >= MAX_WATCHED {
            return false;
        }
        self.by_name.insert(user_name.to_owned(), BTreeSet::new());
        true
    }

    /// Ends the watch.
    pub(crate) fn forget(&mut self, user_name: &str) {
        self.by_name.remove(user_name);
    }

    /// Takes a line into account.
    pub(crate) fn observe(&mut self, line: &LogLine<'_>) {
        match line {
            LogLine::Connected { client_id, user_name } => {
                if let Some(clients) = self.by_name.get_mut(*user_name)
                    && clients.len() < MAX_SESSIONS_PER_NAME
                {
                    clients.insert((*client_id).to_owned());
                }
            }
            LogLine::Ended { client_id, .. } => {
                for clients in self.by_name.values_mut() {
                    clients.remove(*client_id);
                }
            }
            LogLine::Reloading | LogLine::Error(_) | LogLine::Other => {}
        }
    }

    /// Whether a watched name holds a session; `None` when it is not watched.
    pub(crate) fn is_connected(&self, user_name: &str) -> Option<bool> {
        self.by_name.get(user_name).map(|clients| !clients.is_empty())
    }

    /// The log was interrupted: what was known no longer counts.
    pub(crate) fn interrupted(&mut self) {
        self.by_name.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected<'a>(client_id: &'a str, user_name: &'a str) -> LogLine<'a> {
        LogLine::Connected { client_id, user_name }
    }

    #[test]
    fn a_name_is_gone_when_its_last_session_has_ended() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.is_connected("meter"), None);
        assert!(sessions.watch("meter"));
        assert_eq!(sessions.is_connected("meter"), Some(false));
        for line in [connected("a", "meter"), connected("b", "meter"), connected("c", "other")] {
            sessions.observe(&line);
        }
        sessions.observe(&LogLine::Ended { client_id: "a", by_command: true });
        assert_eq!(sessions.is_connected("meter"), Some(true));
        sessions.observe(&LogLine::Ended { client_id: "b", by_command: false });
        assert_eq!(sessions.is_connected("meter"), Some(false));
    }

    #[test]
    fn nothing_is_claimed_after_the_log_was_interrupted() {
        let mut sessions = Sessions::default();
        sessions.watch("meter");
        sessions.interrupted();
        assert_eq!(sessions.is_connected("meter"), None);
    }
}

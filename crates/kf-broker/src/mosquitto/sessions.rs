//! Sessions of names under watch, as told by the broker's log. Pure.

use std::collections::BTreeMap;

use super::log_line::LogLine;

/// The most names under watch; beyond it a name is refused rather than another one forgotten.
pub(crate) const MAX_WATCHED: usize = 100_000;
/// The most sessions kept; any more change nothing, because the names that hold the others are not gone.
const MAX_SESSIONS: usize = 100_000;

/// Which of the watched user names hold sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    watched: BTreeMap<String, usize>,
    user_name_by_client_id: BTreeMap<String, String>,
}

impl Sessions {
    /// Begins to watch a name; `false` when too many are watched already. Sessions opened before are not known: cut
    /// them after this call.
    pub(crate) fn watch(&mut self, user_name: &str) -> bool {
        if self.watched.contains_key(user_name) {
            return true;
        }
        if self.watched.len() >= MAX_WATCHED {
            return false;
        }
        self.watched.insert(user_name.to_owned(), 0);
        true
    }

    /// Ends the watch.
    pub(crate) fn forget(&mut self, user_name: &str) {
        if self.watched.remove(user_name).is_some_and(|sessions| sessions > 0) {
            self.user_name_by_client_id.retain(|_client_id, holder| holder != user_name);
        }
    }

    /// Takes a line into account.
    pub(crate) fn observe(&mut self, line: &LogLine<'_>) {
        match line {
            LogLine::Connected { client_id, user_name } => {
                // An identifier belongs to one session at a time (MQTT 3.1.1 section 3.1.4).
                self.end(client_id);
                if let Some(sessions) = self.watched.get_mut(*user_name)
                    && self.user_name_by_client_id.len() < MAX_SESSIONS
                {
                    *sessions = sessions.saturating_add(1);
                    self.user_name_by_client_id.insert((*client_id).to_owned(), (*user_name).to_owned());
                }
            }
            LogLine::Ended { client_id, .. } => self.end(client_id),
            LogLine::Reloading | LogLine::LoadError(_) | LogLine::Other => {}
        }
    }

    fn end(&mut self, client_id: &str) {
        if let Some(user_name) = self.user_name_by_client_id.remove(client_id)
            && let Some(sessions) = self.watched.get_mut(&user_name)
        {
            *sessions = sessions.saturating_sub(1);
        }
    }

    /// Whether a watched name holds a session; `None` when it is not watched.
    pub(crate) fn is_connected(&self, user_name: &str) -> Option<bool> {
        self.watched.get(user_name).map(|sessions| *sessions > 0)
    }

    /// The log was interrupted: what was known no longer counts.
    pub(crate) fn interrupted(&mut self) {
        *self = Self::default();
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

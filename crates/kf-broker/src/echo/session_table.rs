//! Who is connected, and who may not be.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

/// Live sessions by device name, and the names that are barred.
#[derive(Debug, Default)]
pub(crate) struct SessionTable {
    next: u64,
    live: BTreeMap<u64, Entry>,
    barred: BTreeSet<String>,
}

#[derive(Debug)]
struct Entry {
    device_name: String,
    /// Dropping it ends the session.
    _cut: watch::Sender<()>,
}

impl SessionTable {
    /// Enters a session; `None` when the name is barred or the table is full. The receiver fails once it is cut.
    pub(crate) fn enter(&mut self, device_name: &str, limit: usize) -> Option<(u64, watch::Receiver<()>)> {
        if self.barred.contains(device_name) || self.live.len() >= limit {
            return None;
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let (cut, is_cut) = watch::channel(());
        self.live.insert(number, Entry { device_name: device_name.to_owned(), _cut: cut });
        Some((number, is_cut))
    }

    /// A session has ended.
    pub(crate) fn leave(&mut self, number: u64) {
        self.live.remove(&number);
    }

    /// Cuts the sessions of a name and bars it; how many there were.
    pub(crate) fn cut(&mut self, device_name: &str) -> usize {
        self.barred.insert(device_name.to_owned());
        let before = self.live.len();
        self.live.retain(|_number, entry| entry.device_name != device_name);
        before.saturating_sub(self.live.len())
    }

    /// Lets a name in again.
    pub(crate) fn allow(&mut self, device_name: &str) {
        self.barred.remove(device_name);
    }

    pub(crate) fn is_connected(&self, device_name: &str) -> bool {
        self.live.values().any(|entry| entry.device_name == device_name)
    }

    /// Names of the live sessions, each once.
    pub(crate) fn names(&self) -> Vec<String> {
        self.live.values().map(|entry| entry.device_name.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_name_cannot_enter_until_it_is_allowed_again() {
        let mut table = SessionTable::default();
        let (_, is_cut) = table.enter("meter", 8).unwrap();
        table.enter("other", 8).unwrap();
        assert_eq!(table.cut("meter"), 1);
        assert!(is_cut.has_changed().is_err());
        assert!(table.enter("meter", 8).is_none());
        assert_eq!(table.names(), ["other"]);
        table.allow("meter");
        assert!(table.enter("meter", 8).is_some());
    }

    #[test]
    fn a_full_table_admits_nobody() {
        let mut table = SessionTable::default();
        assert!(table.enter("a", 1).is_some());
        assert!(table.enter("b", 1).is_none());
    }
}

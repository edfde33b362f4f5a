//! A journal whose station loses its power: after a number of writes and syncs this process is killed, in the middle of a write
//! or right after one. For the demonstration, which starts it again.

use std::io::{self, Read};

use kf_station::journal::{DirectoryFile, JournalFile};

/// A journal that may end.
pub(super) struct CutJournal {
    file: DirectoryFile,
    left: Option<u32>,
}

impl CutJournal {
    /// `after`: how many writes and syncs are done before the power is cut; `None`: it never is.
    pub(super) const fn new(file: DirectoryFile, after: Option<u32>) -> Self {
        Self { file, left: after }
    }

    /// Whether power goes now.
    fn goes(&mut self) -> bool {
        match &mut self.left {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }
}

/// As if the plug was pulled: no destructor, no flush, no answer.
fn power_off() -> io::Error {
    match rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL) {
        Ok(()) => io::Error::other("killed"),
        Err(error) => error.into(),
    }
}

impl JournalFile for CutJournal {
    fn reader(&mut self) -> io::Result<Box<dyn Read + '_>> {
        self.file.reader()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }

    fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        if self.goes() {
            let (torn, _) = octets.split_at(octets.len() / 2);
            self.file.append(torn)?;
            return Err(power_off());
        }
        self.file.append(octets)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        if self.goes() { Err(power_off()) } else { Ok(()) }
    }

    fn free_octets(&self) -> io::Result<Option<u64>> {
        self.file.free_octets()
    }
}

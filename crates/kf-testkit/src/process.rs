//! A program left running: a broker, a server.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ExitStatus};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::tool;

/// A running program; killed and reaped when dropped.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    lines: mpsc::Receiver<String>,
    seen: String,
    deadline: Duration,
    command: String,
}

impl Running {
    pub(crate) fn new(mut child: Child, deadline: Duration, command: String) -> Self {
        let (sender, lines) = mpsc::channel();
        forward_lines(child.stdout.take(), sender.clone());
        forward_lines(child.stderr.take(), sender);
        Self { child: Some(child), lines, seen: String::new(), deadline, command }
    }

    /// Waits for a line of standard output or standard error that `accept` takes, and returns it.
    ///
    /// # Panics
    /// When the program ends or its deadline passes first, with everything it printed.
    #[track_caller]
    pub fn wait_for_line(&mut self, accept: impl Fn(&str) -> bool) -> String {
        let started = Instant::now();
        loop {
            let left = self.deadline.saturating_sub(started.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                    if accept(&line) {
                        return line;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("{}: the expected line did not come within {:?}\n{}", self.command, self.deadline, self.seen)
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    panic!("{}: ended before the expected line\n{}", self.command, self.seen)
                }
            }
        }
    }

    /// What it has printed up to now.
    pub fn printed(&mut self) -> &str {
        while let Ok(line) = self.lines.try_recv() {
            self.seen.push_str(&line);
            self.seen.push('\n');
        }
        &self.seen
    }

    /// Its process id.
    ///
    /// # Panics
    /// Never while the value is held: the child is taken by [`Running::wait`] only, which consumes it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Sends a signal, for example HUP.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.id().cast_signed()).unwrap_or_else(|| panic!("{}: has ended", self.command));
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{}: {signal:?}: {error}", self.command));
    }

    /// Whether it runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When the deadline passes first.
    #[must_use]
    pub fn wait(mut self) -> ExitStatus {
        let child = self.child.take().unwrap_or_else(|| panic!("{}: has ended", self.command));
        tool::wait(child, self.deadline, &self.command)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Nothing is to be done in a destructor when the child is gone already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn forward_lines(stream: Option<impl Read + Send + 'static>, sender: mpsc::Sender<String>) {
    thread::spawn(move || {
        let Some(stream) = stream else { return };
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|octets| octets > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                // Nobody listens any more; go on reading, so that the program does not block on a full pipe.
                drop(std::io::copy(&mut reader, &mut std::io::sink()));
                return;
            }
        }
    });
}

//! The broker process: signalling one that runs, and running one of our own for demonstrations and tests.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::BrokerError;

/// Has the process read its configuration again. The process must be called `mosquitto`: a stale pid file must not end
/// in a SIGHUP to somebody else. The pidfd keeps the process the same one between the check and the signal.
pub(crate) fn signal_reload(pid: u32) -> Result<(), BrokerError> {
    let unknown = || BrokerError::Configuration { setting: "pid", reason: format!("{pid} is no process number") };
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(unknown)?;
    let signal_failed = |errno: rustix::io::Errno| BrokerError::Signal { source: errno.into() };
    let handle = pidfd_open(number, PidfdFlags::empty()).map_err(signal_failed)?;
    let name_path = format!("/proc/{pid}/comm");
    let name = std::fs::read_to_string(&name_path).map_err(|source| BrokerError::Signal { source })?;
    if name.trim_end() != "mosquitto" {
        let reason = format!("process {pid} is `{}`, not mosquitto: is the pid file stale?", name.trim_end());
        return Err(BrokerError::Configuration { setting: "pid", reason });
    }
    pidfd_send_signal(handle, Signal::HUP).map_err(signal_failed)
}

/// Where the broker's program is, if it is installed.
#[must_use]
pub fn find_mosquitto() -> Option<PathBuf> {
    ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto", "/opt/homebrew/sbin/mosquitto"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
}

/// A broker of our own; it ends when this is dropped.
#[derive(Debug)]
pub struct MosquittoProcess {
    child: Child,
    pid: u32,
    log: JoinHandle<()>,
}

impl MosquittoProcess {
    /// Starts `program` with a configuration file and waits until it says that it runs.
    ///
    /// # Errors
    /// [`BrokerError::Configuration`] with the broker's last words when it ends at once (a port in use, for example),
    /// [`BrokerError::Timeout`] when it does not get ready.
    pub async fn start(program: &Path, config_file: &Path, deadline: Duration) -> Result<Self, BrokerError> {
        let mut child = Command::new(program)
            .arg("-c")
            .arg(config_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| BrokerError::File { action: "run", path: program.display().to_string(), source })?;
        let ended = |reason: &str| BrokerError::Configuration { setting: "mosquitto", reason: reason.to_owned() };
        let pid = child.id().ok_or_else(|| ended("it ended at once"))?;
        let stderr = child.stderr.take().ok_or_else(|| ended("its messages cannot be read"))?;
        let mut lines = BufReader::new(stderr).lines();
        let ready = async {
            let mut last_words = String::from("it ended without a word");
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains(" running") && line.contains("mosquitto version") {
                    return Ok(());
                }
                last_words = line;
            }
            Err(ended(&last_words))
        };
        tokio::time::timeout(deadline, ready).await.map_err(|_elapsed| BrokerError::Timeout { step: "start" })??;
        // Read on, or the broker blocks once the pipe is full.
        let log = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                tracing::trace!(target: "mosquitto", "{line}");
            }
        });
        Ok(Self { child, pid, log })
    }

    /// Its process number.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it and waits until it is gone.
    ///
    /// # Errors
    /// [`BrokerError::Signal`].
    pub async fn stop(mut self) -> Result<(), BrokerError> {
        self.child.kill().await.map_err(|source| BrokerError::Signal { source })
    }
}

impl Drop for MosquittoProcess {
    fn drop(&mut self) {
        self.log.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_not_the_broker_is_not_signalled() {
        let refused = signal_reload(std::process::id());
        assert!(matches!(refused, Err(BrokerError::Configuration { setting: "pid", .. })), "{refused:?}");
        assert!(signal_reload(0).is_err());
        assert!(signal_reload(u32::MAX).is_err());
    }
}

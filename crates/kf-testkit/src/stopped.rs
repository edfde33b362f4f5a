//! A run that is stopped at each of its durable steps, and once more when it ends: what is there for the blink of an eye only can be looked
//! at.

use std::ffi::OsStr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, pidfd_send_signal, waitpid};

use crate::crash::STOP_FOR;
use crate::{Output, Tool, crash_library};

impl Tool {
    /// Runs it to its end, and calls `look` with its process id whenever it stands still: before each durable step, and last when `main` has
    /// returned. Its children are not stopped.
    ///
    /// # Panics
    /// As [`Tool::run`], and when it was never stopped: then it is no program that loads a library.
    pub fn run_looked_at<S: AsRef<OsStr>>(&self, arguments: &[S], mut look: impl FnMut(u32)) -> Output {
        let tool = self.clone().env("LD_PRELOAD", crash_library()).env(STOP_FOR, std::process::id().to_string());
        let (child, shown, output) = tool.spawned(arguments);
        let id = child.id();
        let process = Pid::from_raw(id.cast_signed()).unwrap_or_else(|| panic!("{shown}: no process"));
        let (over, deadline) = (mpsc::channel::<()>(), self.time_allowed());
        let watched = pidfd_open(process, PidfdFlags::empty()).unwrap_or_else(|error| panic!("{shown}: {error}"));
        thread::spawn(move || {
            if over.1.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout) {
                // It may have ended in this very moment.
                let _gone = pidfd_send_signal(&watched, Signal::KILL);
            }
        });
        let mut stops = 0_u32;
        let status = loop {
            let waited = waitpid(Some(process), WaitOptions::UNTRACED);
            let (_, status) = waited.ok().flatten().unwrap_or_else(|| panic!("{shown}: cannot be waited for"));
            if !status.stopped() {
                break status;
            }
            stops += 1;
            look(id);
            kill_process(process, Signal::CONT).unwrap_or_else(|error| panic!("{shown}: {error}"));
        };
        drop(over.0);
        assert!(stops > 0, "{shown}: was not stopped");
        output(status.exit_status())
    }
}

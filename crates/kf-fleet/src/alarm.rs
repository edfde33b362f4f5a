//! Alarms: a program of the operator's that is called with what happened. No shell, no secret, no waiting.

use std::process::Stdio;
use std::time::Duration;

use crate::Fleet;

/// How long the program may take.
const DEADLINE: Duration = Duration::from_secs(30);

impl Fleet {
    /// Calls the program of `alarm_command`, if there is one, with these arguments. That it failed is logged, and nothing waits for it.
    pub(crate) fn call_alarm(&self, arguments: &[&str]) {
        let Some(program) = self.config.alarm_command.clone() else { return };
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        tokio::spawn(async move {
            let child = tokio::process::Command::new(&program)
                .args(&arguments)
                .env_clear()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .status();
            match tokio::time::timeout(DEADLINE, child).await {
                Ok(Ok(status)) if status.success() => {}
                Ok(Ok(status)) => tracing::error!(program = %program.display(), %status, "the alarm program failed"),
                Ok(Err(error)) => {
                    tracing::error!(program = %program.display(), %error, "the alarm program was not started")
                }
                Err(_late) => tracing::error!(program = %program.display(), "the alarm program took too long"),
            }
        });
    }
}

//! The hook: a program that tells others about the new certificate.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Runs `arguments` without a shell; `Err` says how it failed. It is killed at the deadline.
pub(crate) async fn run(arguments: &[String], deadline: Duration) -> Result<(), String> {
    let Some((program, rest)) = arguments.split_first() else { return Ok(()) };
    let mut child = Command::new(program)
        .args(rest)
        .stdin(Stdio::null())
        // Standard output carries events.
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    match tokio::time::timeout(deadline, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{program} ended with {status}")),
        Ok(Err(error)) => Err(format!("{program} cannot be awaited: {error}")),
        Err(_elapsed) => {
            // Reaped here, so that no zombie stays until the agent ends.
            match child.kill().await {
                Ok(()) => Err(format!("{program} did not end within {} s and was killed", deadline.as_secs())),
                Err(error) => Err(format!("{program} did not end in time and cannot be killed: {error}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[tokio::test]
    async fn a_hook_succeeds_fails_or_is_killed_at_its_deadline() {
        let plenty = Duration::from_secs(30);
        assert_eq!(run(&[], plenty).await, Ok(()));
        assert_eq!(run(&arguments(&["/bin/true"]), plenty).await, Ok(()));
        assert!(run(&arguments(&["/bin/false"]), plenty).await.unwrap_err().contains("exit status: 1"));
        assert!(run(&arguments(&["/no/such/program"]), plenty).await.unwrap_err().contains("cannot be started"));
        let killed = run(&arguments(&["/bin/sleep", "600"]), Duration::from_millis(20)).await;
        assert!(killed.unwrap_err().contains("was killed"));
    }

    #[tokio::test]
    async fn arguments_are_not_read_by_a_shell() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a b; touch c");
        let path = path.to_str().unwrap();
        assert_eq!(run(&arguments(&["/usr/bin/touch", path]), Duration::from_secs(30)).await, Ok(()));
        assert!(std::path::Path::new(path).exists());
    }
}

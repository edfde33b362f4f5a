//! Runs the commands that the documents tell people to type, so that they stay true.
//!
//! A fenced block whose info string is `sh run` is run; the blocks of one document run in order, as one bash script
//! (`set -euo pipefail`), in an empty folder with the `keyfleet` of this build first on PATH and the root of the workspace in
//! CHECKOUT. A line
//! of the form `# prints: TEXT` after a block's command asks that the script's output contain TEXT.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{Failure, Result, target_directory, workspace_root};
use crate::{prerequisites, tidy};

/// The longest that the commands of one document may take.
const LIMIT: Duration = Duration::from_secs(300);

/// How long the programs that a script left running may take to end.
const ENDING: Duration = Duration::from_secs(5);

/// Runs the marked blocks of these documents, relative to the workspace; of every one when none is named.
///
/// # Errors
/// When a script fails, prints something else than it promises, or takes longer than [`LIMIT`].
pub(crate) fn run(documents: &[PathBuf]) -> Result<()> {
    let root = workspace_root();
    let mut scripts = 0_u32;
    for path in tidy::files(&root, &["md"])? {
        if !documents.is_empty() && !documents.contains(&path) {
            continue;
        }
        let text = fs::read_to_string(root.join(&path))
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display()), "check the file"))?;
        let script = marked_blocks(&text);
        if script.is_empty() {
            continue;
        }
        println!("running the commands of {}", path.display());
        run_script(&path, &script)?;
        scripts += 1;
    }
    if scripts == 0 {
        return Err(Failure::new("no document has a block marked `sh run`", "name one that has, or mark its commands"));
    }
    Ok(())
}

/// The contents of the blocks marked `sh run`, in order.
fn marked_blocks(text: &str) -> String {
    let mut script = String::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line.trim_end() == "```sh run";
        } else if inside {
            script.push_str(line);
            script.push('\n');
        }
    }
    script
}

/// What the script promises to print.
fn promises(script: &str) -> impl Iterator<Item = &str> {
    script.lines().filter_map(|line| line.trim().strip_prefix("# prints: "))
}

fn run_script(document: &Path, script: &str) -> Result<()> {
    let name = document.display();
    let folder = empty_folder(document)?;
    let log = folder.join("output.txt");
    let cannot = |error: std::io::Error| {
        Failure::new(format!("cannot run the commands of {name}: {error}"), "check the disk and that bash is there")
    };
    let output = fs::File::create(&log).map_err(cannot)?;
    let mut bash = bash(&folder, script)?;
    bash.stdout(output.try_clone().map_err(cannot)?).stderr(output);
    let mut child = bash.spawn().map_err(cannot)?;
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(cannot)? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            break None;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    };
    end_group(child.id());
    let printed = fs::read_to_string(&log).map_err(cannot)?;
    let failed = |what: String| {
        println!("{printed}");
        Err(Failure::new(format!("{what}; its output is above"), format!("mend {name} or the program")))
    };
    match status {
        None => failed(format!("the commands of {name} took longer than {} s", LIMIT.as_secs())),
        Some(status) if !status.success() => failed(format!("the commands of {name} failed: {status}")),
        Some(_) => match promises(script).find(|promise| !printed.contains(promise)) {
            Some(promise) => failed(format!("the commands of {name} did not print \"{promise}\"")),
            None => Ok(()),
        },
    }
}

/// What a script left running in the background ends with it, and its ports are free for the next one.
fn end_group(leader: u32) {
    let Some(group) = i32::try_from(leader).ok().and_then(rustix::process::Pid::from_raw) else { return };
    let deadline = Instant::now() + ENDING;
    let mut ended = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
    while ended.is_ok() && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(20));
        ended = rustix::process::test_kill_process_group(group);
    }
}

fn bash(folder: &Path, script: &str) -> Result<Command> {
    let mut path = vec![target_directory().join("debug"), prerequisites::python_commands()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let path = std::env::join_paths(path)
        .map_err(|error| Failure::new(format!("PATH cannot be extended: {error}"), "mend PATH"))?;
    let mut bash = Command::new("bash");
    let script = format!("trap 'echo \"failed: $BASH_COMMAND\" >&2' ERR\n{script}");
    bash.args(["-euo", "pipefail", "-c", &script]);
    bash.current_dir(folder)
        .env("PATH", path)
        .env("HOME", folder)
        .env("CHECKOUT", workspace_root())
        .stdin(Stdio::null())
        .process_group(0);
    Ok(bash)
}

/// `target/documents/README.md/`, emptied.
fn empty_folder(document: &Path) -> Result<PathBuf> {
    let folder = target_directory().join("documents").join(document);
    let _may_not_exist = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)
        .map_err(|error| Failure::new(format!("cannot create {}: {error}", folder.display()), "check the disk"))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str =
        "text\n```sh run\necho one\n# prints: one\n```\n```sh\nrm x\n```\n```sh run\necho two\n```\n";

    #[test]
    fn only_marked_blocks_are_run_and_in_order() {
        assert_eq!(marked_blocks(DOCUMENT), "echo one\n# prints: one\necho two\n");
        assert_eq!(promises(&marked_blocks(DOCUMENT)).collect::<Vec<_>>(), ["one"]);
    }

    #[test]
    fn a_script_that_fails_or_does_not_print_what_it_promises_is_a_failure() {
        let document = Path::new("document-commands-test.md");
        assert!(run_script(document, "echo one\n# prints: one\n").is_ok());
        assert!(run_script(document, "echo $((20 + 3))\n# prints: 24\n").is_err());
        assert!(run_script(document, "false | true\necho after\n").is_err());
    }
}

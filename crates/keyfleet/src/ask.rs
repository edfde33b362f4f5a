//! Questions to a person. Nothing requires one: without a terminal the error names the flag that answers.

use std::io::{self, BufRead as _};

use crate::failure::Failure;
use crate::output::{can_ask, say};

/// Asks whether to go on with what can hardly be undone.
///
/// # Errors
/// [`Failure::Usage`] when nobody can be asked and `yes` is not given, or the answer is no.
pub(crate) fn consent(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !can_ask() {
        return Err(Failure::usage(
            format!("{what}; nobody can be asked here"),
            "give --yes, or look first with --dry-run",
        ));
    }
    say(&format!("{what}. Go on? [y/N]"));
    match line()?.as_str() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::usage("not confirmed; nothing was changed", "look first with --dry-run")),
    }
}

/// Asks for the name of what is about to be struck, or compares the name given with `--confirm`.
///
/// # Errors
/// [`Failure::Usage`] when the name does not match or nobody can be asked.
pub(crate) fn name(confirm: Option<&str>, expected: &str, what: &str) -> Result<(), Failure> {
    let given = match confirm {
        Some(given) => given.to_owned(),
        None if can_ask() => {
            say(&format!("{what}. Type its name to go on:"));
            line()?
        }
        None => {
            return Err(Failure::usage(
                format!("{what}; nobody can be asked here"),
                format!("give --confirm {expected}, or look first with --dry-run"),
            ));
        }
    };
    if given == expected {
        return Ok(());
    }
    Err(Failure::usage(
        format!("`{given}` is not `{expected}`; nothing was changed"),
        format!("give --confirm {expected}, or look first with --dry-run"),
    ))
}

fn line() -> Result<String, Failure> {
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|source| Failure::File {
        action: "read",
        path: "the terminal".to_owned(),
        source,
    })?;
    Ok(answer.trim().to_owned())
}

//! Every verb is listed in `tests/verbs.txt`, explains itself, and has a man page.

use std::collections::BTreeSet;

use kf_testkit::{Tool, scratch};

use crate::console::{Succeeds as _, keyfleet};

/// The verbs that scripts may rely on: this file only grows.
const PUBLISHED: &str = include_str!("../verbs.txt");

/// Names under `Commands:` of a help text.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A name stands two columns in; explanations that wrap stand further in.
    let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

fn walk(tool: &Tool, path: &[String], found: &mut BTreeSet<String>) {
    let mut arguments = path.to_vec();
    arguments.push("--help".to_owned());
    let help = tool.run(&arguments).expect_success();
    assert!(help.stderr.is_empty(), "help is asked for, so it goes to standard output: {}", help.text());
    let text = help.stdout_text();
    assert!(text.contains("Usage: keyfleet"), "{path:?}\n{text}");
    let below = subcommands(&text);
    if below.is_empty() {
        found.insert(path.join(" "));
    }
    for name in below {
        let mut deeper = path.to_vec();
        deeper.push(name);
        walk(tool, &deeper, found);
    }
}

#[test]
fn every_published_verb_is_there_and_every_verb_is_published_and_explains_itself() {
    let home = scratch();
    let mut found = BTreeSet::new();
    walk(&keyfleet(home.path()), &[], &mut found);
    let published: BTreeSet<String> = PUBLISHED.lines().map(str::to_owned).collect();
    assert_eq!(found, published, "tests/verbs.txt and the command line differ");
}

#[test]
fn the_help_names_every_exit_code() {
    let home = scratch();
    let help = keyfleet(home.path()).run(&["--help"]).expect_success().stdout_text();
    for code in ["0  done", "1  failed", "2  ", "3  ", "4  ", "5  ", "6  ", "10-13"] {
        assert!(help.contains(code), "{code}\n{help}");
    }
}

#[test]
fn every_verb_has_a_man_page_that_man_can_read() {
    let home = scratch();
    let directory = home.path().join("man");
    keyfleet(home.path()).run(&["man", directory.to_str().unwrap()]).succeeds();
    let pages: BTreeSet<String> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for verb in PUBLISHED.lines() {
        let page = format!("keyfleet-{}.1", verb.replace(' ', "-"));
        assert!(pages.contains(&page), "{page} is missing from {pages:?}");
    }
    assert!(!pages.iter().any(|page| page.contains("signer") || page.contains("-agent")), "hidden verbs have no page");
}

#[test]
fn completions_are_written_for_every_shell_and_bash_accepts_its_own() {
    let home = scratch();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = keyfleet(home.path()).run(&["completions", shell]).expect_success();
        assert!(script.stdout_text().contains("product-line"), "{shell}");
    }
    let script = keyfleet(home.path()).run(&["completions", "bash"]).expect_success().stdout;
    Tool::new("bash").run_with_input(&["-n"], &script).succeeds();
}

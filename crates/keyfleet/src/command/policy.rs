//! `keyfleet policy`: rotation policies, read and judged without a server.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use kf_rotation::{KeyClass, Policy, PolicyError, Preset, Rule, Scope};
use serde::Serialize;

use crate::api::Context;
use crate::failure::Failure;
use crate::file;
use crate::output::{Listing, Names, say};

/// What can be done with policies.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Read a policy, refuse what contradicts itself, and show the rule of every class of keys
    Check {
        /// The policy; the built-in one when absent
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// As it holds for this facility
        #[arg(long, value_name = "NAME")]
        facility: Option<String>,
        /// As it holds for this product line
        #[arg(long, value_name = "NAME")]
        product_line: Option<String>,
    },
    /// What each preset demands, in the standard's terms
    Presets,
}

#[derive(Serialize)]
struct Row {
    class: KeyClass,
    #[serde(flatten)]
    rule: Rule,
}

#[derive(Serialize)]
struct PresetRow {
    name: &'static str,
    demands: &'static str,
}

pub(crate) fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Check { file, facility, product_line } => {
            let policy = file.as_deref().map_or_else(|| Ok(Policy::default()), read)?;
            let scope = Scope { facility: facility.as_deref(), product_line: product_line.as_deref() };
            show(context, &policy, scope)
        }
        Verb::Presets => {
            let rows = Preset::ALL.map(|preset| PresetRow { name: preset.name(), demands: preset.statement() });
            let mut listing = Listing::new(context.format, &["name", "demands"]);
            listing.rows(&rows, &Names::new())?;
            listing.end(None)
        }
    }
}

fn read(path: &Path) -> Result<Policy, Failure> {
    let text = file::read_text(path)?;
    Policy::parse(&text).map_err(|error| {
        if let PolicyError::Contradictions(found) = &error {
            for one in found {
                say(&format!("{}: {one}", path.display()));
            }
        }
        Failure::usage(format!("{}: {error}", path.display()), "mend the file; nothing of it is used before")
    })
}

fn show(context: &Context, policy: &Policy, scope: Scope<'_>) -> Result<(), Failure> {
    let columns = ["class", "originator", "recipient-after", "rotate-at", "uses", "octets", "rotate-on", "exception"];
    let mut listing = Listing::new(context.format, &columns);
    let rows: Vec<Row> =
        KeyClass::ALL.into_iter().map(|class| Row { class, rule: policy.rule(class, scope) }).collect();
    listing.rows(&rows, &Names::new())?;
    listing.end(None)
}

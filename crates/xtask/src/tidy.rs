//! `cargo xtask tidy`: the layers of ARCHITECTURE.md and the few points of style that matter.
//!
//! Rules look at text with comments and literals blanked out ([`source::Source`]), not at syntax trees: they are
//! simple enough to be read in a minute, and each has a test with a planted violation.

mod banned_crates;
mod documents;
mod layers;
mod length;
mod secrets;
mod source;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::process::{Failure, Result, cargo, output, workspace_root};
use source::Source;

/// One place that breaks one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    path: PathBuf,
    /// From 1.
    line: usize,
    rule: &'static str,
    /// What to do about it.
    remedy: String,
    /// A warning does not fail the task.
    is_warning: bool,
}

impl Violation {
    fn new(path: &Path, line: usize, rule: &'static str, remedy: impl Into<String>) -> Self {
        Self { path: path.to_path_buf(), line, rule, remedy: remedy.into(), is_warning: false }
    }

    fn warning(path: &Path, line: usize, rule: &'static str, remedy: impl Into<String>) -> Self {
        Self { is_warning: true, ..Self::new(path, line, rule, remedy) }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_warning { "warning" } else { "error" };
        write!(f, "{}:{}: {kind}: [{}] {}", self.path.display(), self.line, self.rule, self.remedy)
    }
}

/// What `cargo metadata --no-deps` says of the workspace, as far as the tasks need it.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
}

#[derive(Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
    #[serde(default)]
    pub(crate) features: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` is a normal dependency; else `dev` or `build`.
    pub(crate) kind: Option<String>,
    /// Set for a crate of this workspace.
    pub(crate) path: Option<String>,
}

/// Checks the whole tree.
///
/// # Errors
/// When a rule is broken, each violation printed before.
pub(crate) fn run() -> Result<()> {
    let violations = check(&workspace_root(), &metadata()?, &compiled()?)?;
    for violation in &violations {
        println!("{violation}");
    }
    match violations.iter().filter(|violation| !violation.is_warning).count() {
        0 => Ok(()),
        count => Err(Failure::new(format!("tidy: {count} violations"), "each line above says what to do")),
    }
}

/// The workspace as cargo sees it.
///
/// # Errors
/// When cargo fails or answers in another form.
pub(crate) fn metadata() -> Result<Metadata> {
    let remedy = "check Cargo.toml";
    let text = output(cargo().args(["metadata", "--format-version", "1", "--no-deps", "--offline"]), remedy)?;
    serde_json::from_str(&text).map_err(|error| Failure::new(format!("cargo metadata: {error}"), remedy))
}

/// Every crate that a build of the workspace can compile, one a line: name, version, and more.
fn compiled() -> Result<String> {
    let edges = ["tree", "--workspace", "--all-features", "--target", "all", "--edges", "normal,build,dev"];
    let form = ["--prefix", "none", "--format", "{p}", "--locked", "--offline"];
    output(cargo().args(edges).args(form), "run `cargo fetch`, and check Cargo.toml and Cargo.lock")
}

fn check(root: &Path, metadata: &Metadata, compiled: &str) -> Result<Vec<Violation>> {
    let mut violations = layers::check_edges(metadata);
    for path in files(root, &["rs"])? {
        let source = Source::new(path.clone(), &read(root, &path)?);
        violations.extend(layers::check_purity(&source));
        violations.extend(length::check(&source));
        violations.extend(secrets::check(&source));
        violations.extend(words::check_source(&source));
    }
    for path in files(root, &["rs", "md", "toml", "sh", "run", "yml", "yaml", "json", "txt"])? {
        violations.extend(words::check_text(&path, &read(root, &path)?));
    }
    for path in files(root, &["md"])? {
        violations.extend(documents::check(root, &path, &read(root, &path)?));
    }
    violations.extend(banned_crates::check(compiled));
    Ok(violations)
}

fn read(root: &Path, path: &Path) -> Result<String> {
    fs::read_to_string(root.join(path))
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display()), "check the file"))
}

/// Every file of the tree whose name ends in one of `endings`, relative to `root`, sorted.
///
/// # Errors
/// When a folder cannot be read.
pub(crate) fn files(root: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let cannot =
            |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", folder.display()), "check it");
        for entry in fs::read_dir(&folder).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if entry.file_type().map_err(cannot)?.is_dir() {
                let is_ours = matches!(name.as_ref(), ".ci" | ".cargo") || !name.starts_with('.');
                if is_ours && name != "target" {
                    folders.push(path);
                }
            } else if endings.contains(&name.rsplit('.').next().unwrap_or_default()) {
                found.extend(path.strip_prefix(root).map(Path::to_path_buf));
            }
        }
    }
    found.sort();
    Ok(found)
}

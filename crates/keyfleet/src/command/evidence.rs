//! `keyfleet evidence`: a pack for an auditor, who checks it without us: `sha256sum` for what was packed, `keyfleet audit verify`
//! or any program that reads tlog-tiles for the log.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use kf_crypto::Sha256;
use kf_fleet::{Clock as _, SystemClock};
use kf_key::UnixMillis;
use kf_log::Report;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{Api, Context, segment};
use crate::command::audit::copy_log;
use crate::failure::Failure;
use crate::file;
use crate::moment;
use crate::output::{Names, object, say};

/// The most rows of one file.
const MAX_ROWS: u64 = 20_000_000;

const EXAMPLES: &str = "\
The auditor then needs nothing of the fleet but the log's public key, kept since `keyfleet init` printed it:
  sha256sum -c SHA256SUMS
  keyfleet audit verify --log log --verifier-key KEY

Examples:
  keyfleet evidence --from 2026-01-01 --to 2026-12-31 --framework pci-dss --out evidence-2026
  keyfleet evidence --from 90d --out quarter";

/// What to pack.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Evidence {
    /// The first moment: a date, a moment, or a distance back from now (90d)
    #[arg(long, value_name = "WHEN")]
    from: String,
    /// The last moment [default: now]
    #[arg(long, value_name = "WHEN")]
    to: Option<String>,
    /// What the auditor works by: the pack says which file answers which clause, and what it cannot answer; repeat for several
    #[arg(long)]
    framework: Vec<Framework>,
    /// A directory that does not exist yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// What auditors work by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Framework {
    /// PCI DSS v4.0.1, requirement 3.7
    PciDss,
    /// Regulation (EU) 2024/2847, article 14
    Cra,
    /// SP 800-57 Part 1 Revision 5
    #[value(name = "sp800-57")]
    Sp80057,
    /// SP 800-88 Revision 2
    #[value(name = "sp800-88")]
    Sp80088,
}

/// A clause, and the files that answer it; empty: nothing in the pack does.
#[derive(Debug, Serialize)]
struct Clause {
    clause: &'static str,
    asks: &'static str,
    files: &'static [&'static str],
    but: &'static str,
}

impl Framework {
    const fn clauses(self) -> &'static [Clause] {
        match self {
            Self::PciDss => &[
                Clause {
                    clause: "3.7.1",
                    asks: "generation of strong keys",
                    files: &["inventory.jsonl"],
                    but: "algorithm and strength of each key; how a device made its own only its maker can show",
                },
                Clause {
                    clause: "3.7.3",
                    asks: "secure storage",
                    files: &["inventory.jsonl"],
                    but: "place and protection of each key; of a device's as it was reported",
                },
                Clause {
                    clause: "3.7.4",
                    asks: "change at the end of a defined cryptoperiod",
                    files: &["inventory.jsonl", "entries.jsonl"],
                    but: "the verdict of the policy in force now; what was rotated is in the entries",
                },
                Clause {
                    clause: "3.7.5",
                    asks: "retirement, replacement, destruction",
                    files: &["receipts.jsonl", "ownership.jsonl", "incidents.jsonl"],
                    but: "",
                },
                Clause {
                    clause: "3.7.6",
                    asks: "split knowledge and dual control",
                    files: &["proposals.jsonl", "escrows.jsonl", "break-glass.jsonl"],
                    but: "who proposed and who decided; single control is marked as such in the entries",
                },
                Clause {
                    clause: "3.7.8",
                    asks: "acknowledgement by custodians",
                    files: &[],
                    but: "a matter of people: keep their signatures",
                },
            ],
            Self::Cra => &[Clause {
                clause: "article 14",
                asks: "reports within 24 hours, 72 hours and 14 days",
                files: &["incidents.jsonl", "incidents/", "drills.jsonl"],
                but: "when reports were due; that they were sent, and what an authority must be told beyond registry and log, only people know",
            }],
            Self::Sp80057 => &[
                Clause {
                    clause: "section 7",
                    asks: "states of keys and their transitions",
                    files: &["inventory.jsonl", "entries.jsonl"],
                    but: "",
                },
                Clause {
                    clause: "section 9.1",
                    asks: "accountability",
                    files: &["entries.jsonl", "proposals.jsonl"],
                    but: "uses of keys are counted, not listed one by one",
                },
                Clause { clause: "section 9.2", asks: "audit", files: &["log/", "entries.jsonl"], but: "" },
            ],
            Self::Sp80088 => &[Clause {
                clause: "certificate of sanitization",
                asks: "what, method, technique, tool, by whom, verification",
                files: &["receipts.jsonl"],
                but: "a receipt that says `barred` is none of destruction",
            }],
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::PciDss => "PCI DSS v4.0.1",
            Self::Cra => "Regulation (EU) 2024/2847",
            Self::Sp80057 => "SP 800-57 Part 1 Rev. 5",
            Self::Sp80088 => "SP 800-88 Rev. 2",
        }
    }
}

/// The pack as it grows.
struct Pack {
    directory: PathBuf,
    from: UnixMillis,
    to: UnixMillis,
    /// Name and digest of each file.
    sums: Vec<(String, String)>,
}

pub(crate) async fn run(context: &Context, evidence: Evidence) -> Result<(), Failure> {
    let Evidence { from, to, framework, out } = evidence;
    let now = SystemClock.now();
    let wrong = |problem: String| Failure::usage(problem, "for example --from 2026-01-01 --to 2026-12-31");
    let from = moment::parse_past(&from, now).map_err(wrong)?;
    let to = to.map_or(Ok(now), |to| moment::parse_past(&to, now)).map_err(wrong)?;
    if to < from {
        return Err(wrong("--to lies before --from".to_owned()));
    }
    let draft = draft_of(&out);
    file::must_be_free(Some(&out))?;
    file::must_be_free(Some(&draft))?;
    let mut api = context.api_within(Duration::from_secs(600))?;
    let who: Value = api.get("/v1/whoami").await?;
    // Beside its name until it is whole: what a crash leaves is no pack.
    file::private_directory(&draft)?;
    let mut pack = Pack { directory: draft.clone(), from, to, sums: Vec::new() };
    match pack.fill(context, &mut api, &framework, json!({"made": now.0, "made_by": who})).await {
        Ok(said) => {
            pack.finish(&out)?;
            let mut said = said;
            if let Some(fields) = said.as_object_mut() {
                fields.insert("out".to_owned(), out.display().to_string().into());
            }
            object(context.format, &said, &Names::new())
        }
        Err(failure) => {
            // What was begun is ours, and no pack.
            drop(fs::remove_dir_all(&draft));
            Err(failure)
        }
    }
}

fn draft_of(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".draft");
    out.with_file_name(name)
}

impl Pack {
    fn write(&mut self, name: &str, octets: &[u8]) -> Result<(), Failure> {
        let path = self.directory.join(name);
        if let Some(parent) = path.parent() {
            file::private_directory(parent)?;
        }
        file::write_private(&path, octets)?;
        self.sums.push((name.to_owned(), hex::encode(kf_crypto::sha256(octets))));
        Ok(())
    }

    /// Everything but the sums and the name; what is said of it.
    async fn fill(
        &mut self,
        context: &Context,
        api: &mut Api,
        frameworks: &[Framework],
        made: Value,
    ) -> Result<Value, Failure> {
        let counts = self.collect(api).await?;
        let report = self.log(context).await?;
        let checkpoint = report.checkpoint.as_ref();
        let log = json!({
            "size": checkpoint.map(|checkpoint| checkpoint.size),
            "root": checkpoint.map(|checkpoint| hex::encode(checkpoint.root)),
        });
        let clauses = |framework: &Framework| json!({"name": framework.name(), "clauses": framework.clauses()});
        let frameworks: Vec<Value> = frameworks.iter().map(clauses).collect();
        let manifest = json!({
            "v": 1, "made": made, "program": concat!("keyfleet ", env!("CARGO_PKG_VERSION")), "from": self.from.0,
            "to": self.to.0, "counts": counts, "log": log, "frameworks": frameworks,
        });
        let text = serde_json::to_string_pretty(&manifest);
        let text = text.map_err(|error| Failure::Output(std::io::Error::other(error)))?;
        self.write("manifest.json", text.as_bytes())?;
        Ok(json!({"counts": counts, "log": log}))
    }

    async fn collect(&mut self, api: &mut Api) -> Result<Value, Failure> {
        let (from, to) = (self.from, self.to);
        let within = move |row: &Value, fields: &[&str]| {
            // What begins before the end and is not over before the beginning; what has no time is of now.
            let at = |field: &&str| row.pointer(field).and_then(Value::as_u64);
            let times: Vec<u64> = fields.iter().filter_map(at).collect();
            times.iter().any(|at| (from.0..=to.0).contains(at)) || times.is_empty()
        };
        let entries = self.list(api, "entries.jsonl", "/v1/audit", |row| within(row, &["/entry/at"])).await?;
        let inventory = self.list(api, "inventory.jsonl", "/v1/inventory?ended=true", |_| true).await?;
        let receipts =
            self.list(api, "receipts.jsonl", "/v1/destructions", |row| within(row, &["/at", "/settled"])).await?;
        let ownership = self.list(api, "ownership.jsonl", "/v1/ownership", |row| within(row, &["/at"])).await?;
        let proposals =
            self.list(api, "proposals.jsonl", "/v1/proposals", |row| within(row, &["/created", "/effective"])).await?;
        let backups =
            self.list(api, "backups.jsonl", "/v1/backups", |row| within(row, &["/created", "/retired"])).await?;
        let escrows = self.list(api, "escrows.jsonl", "/v1/escrows", |_| true).await?;
        let drills = self.list(api, "drills.jsonl", "/v1/drills", |row| within(row, &["/at", "/recorded"])).await?;
        let break_glass = self.list(api, "break-glass.jsonl", "/v1/break-glass", |row| {
            within(row, &["/created", "/use/opened", "/use/ended", "/withdrawn"])
        });
        let break_glass = break_glass.await?;
        let mut ids = Vec::new();
        let incidents = self
            .list(api, "incidents.jsonl", "/v1/incidents", |row| {
                let opened = row.pointer("/opened").and_then(Value::as_u64);
                let closed = row.pointer("/closed").and_then(Value::as_u64);
                // Open in the period, however long before it was opened.
                let is_of = opened.is_some_and(|opened| opened <= to.0) && closed.is_none_or(|closed| closed >= from.0);
                if let (true, Some(id)) = (is_of, row.pointer("/id").and_then(Value::as_str)) {
                    ids.push(id.to_owned());
                }
                is_of
            })
            .await?;
        for id in &ids {
            let report = api.get_raw(&format!("/v1/incidents/{}/report", segment(id))).await?;
            self.write(&format!("incidents/{id}.json"), &report)?;
        }
        Ok(json!({
            "entries": entries, "inventory": inventory, "receipts": receipts, "proposals": proposals, "backups": backups,
            "escrows": escrows, "incidents": incidents, "ownership": ownership, "drills": drills,
            "break_glass": break_glass,
        }))
    }

    /// A listing as JSON lines, page by page; how many rows. `None`, and no file, where the caller's role may not read it.
    async fn list(
        &mut self,
        api: &mut Api,
        name: &str,
        path: &str,
        mut keep: impl FnMut(&Value) -> bool,
    ) -> Result<Option<u64>, Failure> {
        let target = self.directory.join(name);
        let refused = |error| Failure::file("write", &target, error);
        let mut out = BufWriter::new(File::create_new(&target).map_err(refused)?);
        let (mut digest, mut rows, mut read) = (Sha256::new(), 0, 0);
        let mut after: Option<String> = None;
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let cursor = after.as_deref().map_or_else(String::new, |after| format!("&after={}", segment(after)));
            let page: Value = match api.get(&format!("{path}{separator}limit=1000{cursor}")).await {
                Ok(page) => page,
                Err(failure) if failure.code() == crate::failure::exit::DENIED => {
                    say(&format!("{name} is left out: your role may not read {path}"));
                    drop(out);
                    fs::remove_file(&target).map_err(refused)?;
                    return Ok(None);
                }
                Err(failure) => return Err(failure),
            };
            for row in page.get("items").and_then(Value::as_array).into_iter().flatten() {
                read += 1;
                if keep(row) {
                    let line = format!("{row}\n");
                    digest.update(line.as_bytes());
                    out.write_all(line.as_bytes()).map_err(refused)?;
                    rows += 1;
                }
            }
            let next = page.get("next").and_then(Value::as_str).map(str::to_owned);
            if next.is_none() || next == after || read >= MAX_ROWS {
                break;
            }
            after = next;
        }
        let file = out.into_inner().map_err(|error| refused(error.into_error()))?;
        file.sync_all().map_err(refused)?;
        self.sums.push((name.to_owned(), hex::encode(digest.finish())));
        Ok(Some(rows))
    }

    /// A copy of the published log, checked as it is made.
    async fn log(&mut self, context: &Context) -> Result<Report, Failure> {
        let (report, sums) = copy_log(context, &self.directory.join("log")).await?;
        self.sums.extend(sums.into_iter().map(|(path, sum)| (format!("log/{path}"), sum)));
        if report.holds() {
            return Ok(report);
        }
        let first = report.findings.first().map_or_else(String::new, ToString::to_string);
        Err(Failure::LogFault { problem: format!("the log does not verify, so nothing is packed: {first}") })
    }

    /// The sums, and the name of the whole.
    fn finish(mut self, out: &Path) -> Result<(), Failure> {
        self.sums.sort();
        let sums: String = self.sums.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
        file::write_private(&self.directory.join("SHA256SUMS"), sums.as_bytes())?;
        fs::rename(&self.directory, out).map_err(|error| Failure::file("write", out, error))
    }
}

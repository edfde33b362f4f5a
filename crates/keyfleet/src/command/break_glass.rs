//! `keyfleet break-glass`.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use kf_api::break_glass::{
    BreakGlass, BreakGlassOpening, BreakGlassOutcome, BreakGlassRequest, BreakGlassSession, NewBreakGlass,
    SealedEnvelope,
};
use kf_api::operator::Role;
use kf_api::{PageRequest, ShownOnce};
use kf_key::SecretBytes;

use super::revoke::waiting;
use crate::api::{Context, Paging, list, segment};
use crate::failure::Failure;
use crate::file;
use crate::moment;
use crate::output::{Names, object, say};

const COLUMNS: [&str; 7] = ["name", "state", "role", "facilities", "session_minutes", "expires", "id"];

const EXAMPLES: &str = "\
Beforehand, two people:
  age-keygen -o safe.key                       # goes into a safe that shows when it was opened
  keyfleet break-glass create night-lyon --role facility-operator --facility lyon --recipient age1… --why \"nights\"
  keyfleet proposal approve prop_…
  keyfleet break-glass show night-lyon --out night-lyon.age

When the others are away, one person, with an own credential:
  age -d -i safe.key night-lyon.age | keyfleet break-glass open --secret - --why \"nobody answers\" --out session.toml
  keyfleet --profile session.toml incident run inc_…

Afterwards, two others:
  keyfleet break-glass review night-lyon --why \"what was done was right\"";

/// What can be done.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Verb {
    /// Propose a credential, sealed to somebody's key, that one person can use once
    Create(Create),
    /// List them, and where each stands
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show one and how it was used, or write its sealed secret
    Show {
        /// Its name
        name: String,
        /// Write the sealed secret here, a file of age
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Open one: once, aloud, for as long as was agreed beforehand
    Open(Open),
    /// End a session before its time
    End(Named),
    /// Say that you have looked at what was done; two people do, and neither is who opened it
    Review(Named),
    /// Withdraw one that was not opened
    Withdraw(Named),
}

/// What is to be made.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Its name
    name: String,
    /// fleet-operator or facility-operator
    #[arg(long)]
    role: Role,
    /// Facility (name or id), for a facility operator; repeat for several
    #[arg(long = "facility", value_name = "FACILITY")]
    facilities: Vec<String>,
    /// The recipient of age that the secret is sealed to
    #[arg(long, value_name = "age1...")]
    recipient: String,
    /// Minutes of its session, 1 to 60 [default: 60]
    #[arg(long, value_name = "N")]
    session_minutes: Option<u32>,
    /// Days until it can be opened no more [default: 366]
    #[arg(long, value_name = "N")]
    lifetime_days: Option<u32>,
    /// What it is for
    #[arg(long)]
    why: String,
}

/// How it is opened.
#[derive(Debug, Args)]
pub(crate) struct Open {
    /// The unsealed secret, a private file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// Why; everybody will read it
    #[arg(long)]
    why: String,
    /// The profile of the session, with its token beside it, both mode 0600
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Which, and why.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Its name
    name: String,
    /// Why, for the log
    #[arg(long, default_value = "")]
    why: String,
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(create) => self::create(context, create).await,
        Verb::List { paging } => {
            let page = PageRequest::default();
            list::<BreakGlass>(context, &mut context.api()?, "/v1/break-glass", page, &paging, &COLUMNS).await
        }
        Verb::Show { name, out } => show(context, &name, out).await,
        Verb::Open(open) => self::open(context, open).await,
        Verb::End(named) => act(context, named, "end").await,
        Verb::Review(named) => act(context, named, "review").await,
        Verb::Withdraw(named) => act(context, named, "withdraw").await,
    }
}

async fn create(context: &Context, create: Create) -> Result<(), Failure> {
    let Create { name, role, facilities, recipient, session_minutes, lifetime_days, why } = create;
    let new = NewBreakGlass { name, role, facilities, recipient, session_minutes, lifetime_days, why };
    let outcome: BreakGlassOutcome = context.api()?.post("/v1/break-glass", &new).await?;
    object(context.format, &outcome, &Names::new())?;
    Err(waiting(&outcome.proposal))
}

async fn show(context: &Context, name: &str, out: Option<PathBuf>) -> Result<(), Failure> {
    let path = format!("/v1/break-glass/{}", segment(name));
    let Some(out) = out else {
        let found: BreakGlass = context.api()?.get(&path).await?;
        return object(context.format, &found, &Names::new());
    };
    file::must_be_free(Some(&out))?;
    let sealed: SealedEnvelope = context.api()?.get(&format!("{path}/sealed")).await?;
    let octets = STANDARD
        .decode(&sealed.sealed)
        .map_err(|error| Failure::local(format!("the server's answer is no base64: {error}"), "please report this"))?;
    file::write_new(&out, &octets)
}

async fn open(context: &Context, open: Open) -> Result<(), Failure> {
    let Open { secret, why, out } = open;
    let token_file = out.with_extension("token");
    file::must_be_free(Some(&out))?;
    file::must_be_free(Some(&token_file))?;
    let mut profile = context.profile_source()?.load()?;
    let is_stdin = secret.as_os_str() == "-";
    let text =
        if is_stdin { SecretBytes::from_vec(file::read_or_stdin(&secret)?) } else { file::read_secret(&secret)? };
    // Exposed to be sent over TLS to the server, which compares its hash.
    let text = String::from_utf8_lossy(text.expose()).trim().to_owned();
    let opening = BreakGlassOpening { secret: ShownOnce::new(text), why };
    let session: BreakGlassSession = context.api()?.post("/v1/break-glass/open", &opening).await?;
    // Exposed to the file that the next commands are given.
    file::write_private(&token_file, session.token.expose().as_bytes())?;
    (profile.certificate, profile.key) = (None, None);
    profile.token_file =
        Some(std::path::absolute(&token_file).map_err(|error| Failure::file("write", &token_file, error))?);
    super::profile::write(&out, &profile)?;
    say(&format!(
        "break-glass `{}` is open until {}, and everybody is told; use it with `keyfleet --profile {}`",
        session.name,
        moment::text(session.ends),
        out.display()
    ));
    Ok(())
}

async fn act(context: &Context, named: Named, what: &str) -> Result<(), Failure> {
    let path = format!("/v1/break-glass/{}/{what}", segment(&named.name));
    let found: BreakGlass = context.api()?.post(&path, &BreakGlassRequest { why: named.why }).await?;
    object(context.format, &found, &Names::new())
}

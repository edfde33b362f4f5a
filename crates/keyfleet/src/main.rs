//! The command line of Keyfleet: the server, its administration over HTTPS, and the demonstration.
//!
//! Standard output carries data, standard error carries talk; exit codes are stable ([`failure::exit`]). The nouns are
//! those of the API, one file each below `command`. Nothing here decides: the server does, and says why.
#![forbid(unsafe_code)]

mod api;
mod arguments;
mod ask;
mod command;
mod demo;
mod dumps;
mod failure;
mod file;
mod moment;
mod output;
mod profile;

use std::alloc::System;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use zeroizing_alloc::ZeroAlloc;

use crate::api::Context;
use crate::arguments::{Arguments, Encoding, Noun};
use crate::failure::Failure;

/// Wipes every block of memory that is given back. Secrets lie in types that wipe themselves; what libraries make of them on the way,
/// such as the chunk in which `age` collects what it seals, does not.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    if let Err(failure) = dumps::forbid() {
        return failure.report();
    }
    let arguments = Arguments::parse();
    let format = match arguments.format.format(&arguments.noun) {
        Ok(format) => format,
        Err(failure) => return failure.report(),
    };
    let context = Context {
        format,
        data: arguments.data,
        profile: arguments.profile,
        timeout: arguments.timeout.map(Duration::from_secs),
    };
    match run(&context, arguments.format, arguments.noun) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(context: &Context, encoding: Encoding, noun: Noun) -> Result<ExitCode, Failure> {
    match noun {
        // The signer starts no threads and no runtime before it has locked its memory.
        Noun::Signer => Ok(kf_signer::run_signer()),
        Noun::Agent { arguments } => Ok(command::agent::run(arguments)),
        Noun::Serve(serve) => command::serve::run(context, &serve),
        Noun::Demo(demo) => command::demo::run(context, &demo),
        Noun::Derive(derive) => command::derive::run(context, &derive).map(|()| ExitCode::SUCCESS),
        Noun::Policy(verb) if verb.asks_the_fleet() => {
            block_on(command::policy::judge_fleet(context, verb)).map(|()| ExitCode::SUCCESS)
        }
        Noun::Policy(verb) => command::policy::run(context, verb).map(|()| ExitCode::SUCCESS),
        Noun::Simulate(verb) => command::simulate::run(context, &verb).map(|()| ExitCode::SUCCESS),
        Noun::Exposure(exposure) => command::exposure::run(context, &exposure).map(|()| ExitCode::SUCCESS),
        Noun::Restore(restore) => command::restore::run(context, &restore).map(|()| ExitCode::SUCCESS),
        Noun::Image(verb) => command::image::run(context, &verb).map(|()| ExitCode::SUCCESS),
        Noun::Completions { shell } => command::completions::run(shell).map(|()| ExitCode::SUCCESS),
        Noun::Station(verb) => command::station::run(context, verb),
        Noun::Label(label) => command::station::run_label(&label).map(|()| ExitCode::SUCCESS),
        Noun::Voucher(verb) => command::voucher::run(verb).map(|()| ExitCode::SUCCESS),
        Noun::Man { directory } => command::man::run(&directory).map(|()| ExitCode::SUCCESS),
        Noun::Inventory(inventory) => {
            block_on(command::inventory::run(context, encoding, *inventory)).map(|()| ExitCode::SUCCESS)
        }
        other => block_on(talk(context, other)).map(|()| ExitCode::SUCCESS),
    }
}

/// A client needs no more than one thread.
fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::local(format!("no event loop: {error}"), "raise the limits on open files and processes")
    })?;
    runtime.block_on(work)
}

async fn talk(context: &Context, noun: Noun) -> Result<(), Failure> {
    match noun {
        Noun::Init(init) => command::init::run(context, &init).await,
        Noun::Profile(verb) => command::profile::run(context, &verb).await,
        Noun::Facility(verb) => command::facility::run(context, verb).await,
        Noun::ProductLine(verb) => command::product_line::run(context, verb).await,
        Noun::Device(verb) => command::device::run(context, *verb).await,
        Noun::Batch(verb) => command::batch::run(context, verb).await,
        Noun::Authority(verb) => command::authority::run(context, verb).await,
        Noun::Certificate(verb) => command::certificate::run(context, *verb).await,
        Noun::Revoke(revoke) => command::revoke::run(context, revoke).await,
        Noun::Code(verb) => command::code::run(context, verb).await,
        Noun::Enrolment(verb) => command::enrolment::run(context, verb).await,
        Noun::Epoch(verb) => command::epoch::run(context, verb).await,
        Noun::Rotate(rotate) => command::rotate::run(context, rotate).await,
        Noun::Campaign(verb) => command::campaign::run(context, verb).await,
        Noun::Backup(verb) => command::backup::run(context, verb).await,
        Noun::Escrow(verb) => command::escrow::run(context, *verb).await,
        Noun::Destroy(verb) => command::destroy::run(context, verb).await,
        Noun::Order(verb) => command::order::run(context, verb).await,
        Noun::Operator(verb) => command::operator::run(context, verb).await,
        Noun::Token(verb) => command::token::run(context, verb).await,
        Noun::Access(verb) => command::access::run(context, verb).await,
        Noun::Drill(drill) => command::drill::run(context, *drill).await,
        Noun::Incident(verb) => command::incident::run(context, *verb).await,
        Noun::BreakGlass(verb) => command::break_glass::run(context, *verb).await,
        Noun::Proposal(verb) => command::proposal::run(context, verb).await,
        Noun::Key(verb) => command::key::run(context, verb).await,
        Noun::Open(open) => command::open::run(context, open).await,
        Noun::Relay(relay) => command::relay::run(context, *relay).await,
        Noun::Seal(seal) => command::seal::run(context, seal).await,
        Noun::EncryptionKey(verb) => command::encryption_key::run(context, verb).await,
        Noun::Object(verb) => command::object::run(context, verb).await,
        Noun::Encrypt(encrypt) => command::encrypt::encrypt(context, encrypt).await,
        Noun::Decrypt(decrypt) => command::encrypt::decrypt(context, decrypt).await,
        Noun::Rewrap(rewrap) => command::rewrap::run(context, rewrap).await,
        Noun::Vendor(verb) => command::vendor::run(context, verb).await,
        Noun::Issuance(verb) => command::issuance::run(context, verb).await,
        Noun::Status(status) => command::status::run(context, &status).await,
        Noun::Whoami => command::status::who_am_i(context).await,
        Noun::Audit(verb) => command::audit::run(context, verb).await,
        Noun::Evidence(evidence) => command::evidence::run(context, evidence).await,
        Noun::Doctor(doctor) => command::doctor::run(context, &doctor).await,
        // Taken care of in `run`, which needs no event loop for them.
        Noun::Serve(_)
        | Noun::Demo(_)
        | Noun::Derive(_)
        | Noun::Policy(_)
        | Noun::Exposure(_)
        | Noun::Simulate(_)
        | Noun::Inventory(_)
        | Noun::Image(_)
        | Noun::Restore(_)
        | Noun::Completions { .. }
        | Noun::Man { .. }
        | Noun::Voucher(_)
        | Noun::Station(_)
        | Noun::Label(_)
        | Noun::Signer
        | Noun::Agent { .. } => Ok(()),
    }
}

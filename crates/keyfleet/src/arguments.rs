//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::command;
use crate::failure::Failure;
use crate::output::Format;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  the command line or a field of the request is wrong
  3  there is no such thing, or you may not know of it
  4  not authenticated, or not allowed
  5  it contradicts the state of the fleet, or would overwrite something
  6  not wholly done: some items failed, or it waits for a second person
  10-13  `doctor`: the worst finding is SUCCESS with remarks, WARNING, ERROR or CRITICAL

Data goes to standard output, everything else to standard error. Secrets are never arguments or variables.";

/// Key management for IoT fleets: device identities from factory to revocation
#[derive(Debug, Parser)]
#[command(name = "keyfleet", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Arguments {
    /// How data is written
    #[arg(long, global = true, value_enum, default_value_t = Encoding::Table)]
    pub(crate) format: Encoding,
    /// The data directory of a fleet on this host; its cli.toml is the profile
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The profile: server, root and credential [default: ~/.config/keyfleet/cli.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
    /// How long one call to the server may take
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: Option<u64>,
    #[command(subcommand)]
    pub(crate) noun: Noun,
}

/// What `--format` may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    /// Aligned columns for people; may change.
    #[value(alias = "text")]
    Table,
    /// The API's own JSON; stable.
    Json,
    /// RFC 4180, a header line first; columns are only ever added at the end.
    Csv,
    /// A CycloneDX CBOM: `inventory` only.
    Cyclonedx,
}

impl Encoding {
    /// The format of what a noun prints.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a noun that has no CycloneDX form.
    pub(crate) fn format(self, noun: &Noun) -> Result<Format, Failure> {
        match (self, noun) {
            (Self::Table, _) => Ok(Format::Table),
            (Self::Csv, _) => Ok(Format::Csv),
            (Self::Json, _) | (Self::Cyclonedx, Noun::Inventory(_)) => Ok(Format::Json),
            (Self::Cyclonedx, _) => Err(Failure::usage(
                "only `keyfleet inventory` can be written as CycloneDX",
                "use --format json, csv or table",
            )),
        }
    }
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// Create a fleet: root, issuing CA, log, first owner
    Init(Box<command::init::Init>),
    /// Run the server
    Serve(Box<command::serve::Serve>),
    /// Run a whole small fleet on this machine, from nothing to a proven revocation
    Demo(command::demo::Demo),
    /// Whom this command line talks to, and as whom
    #[command(subcommand)]
    Profile(command::profile::Verb),
    /// Sites and factories
    #[command(subcommand)]
    Facility(command::facility::Verb),
    /// Kinds of devices with their enrolment policy
    #[command(subcommand)]
    ProductLine(command::product_line::Verb),
    /// Devices in the registry
    #[command(subcommand)]
    Device(Box<command::device::Verb>),
    /// Batches of a factory station
    #[command(subcommand)]
    Batch(command::batch::Verb),
    /// Certification authorities
    #[command(subcommand)]
    Authority(command::authority::Verb),
    /// Certificates
    #[command(subcommand)]
    Certificate(Box<command::certificate::Verb>),
    /// Revoke, hold or release: a certificate, a device, a batch, a facility or a CA
    Revoke(command::revoke::Revoke),
    /// One-time enrolment codes
    #[command(subcommand)]
    Code(command::code::Verb),
    /// Manufacturers of devices made elsewhere, whose IDevIDs are accepted
    #[command(subcommand)]
    Vendor(command::vendor::Verb),
    /// Vouchers of a factory station
    #[command(subcommand)]
    Voucher(command::voucher::Verb),
    /// The factory station: make devices by a recipe, offline, within a quota
    #[command(subcommand)]
    Station(command::station::Verb),
    /// Labels of devices that a station made
    Label(command::station::Label),
    /// Flash images: what is in them, keys in clear, and what was deleted and is still there
    #[command(subcommand)]
    Image(command::image::Verb),
    /// Enrolments that wait for a person
    #[command(subcommand)]
    Enrolment(command::enrolment::Verb),
    /// Key epochs of facilities and devices
    #[command(subcommand)]
    Epoch(command::epoch::Verb),
    /// Rotate what the policy says is due
    Rotate(command::rotate::Rotate),
    /// Changes taken to many devices, a few first, then in waves
    #[command(subcommand)]
    Campaign(command::campaign::Verb),
    /// Orders to devices: rotate, wipe
    #[command(subcommand)]
    Order(command::order::Verb),
    /// Backups of the registry, their keys, and what a restored registry has lost
    #[command(subcommand)]
    Backup(command::backup::Verb),
    /// Restore a backup into a data directory without a registry, without a server
    Restore(command::restore::Restore),
    /// Keys in shares that custodians hold: ceremonies, rehearsals, releases
    #[command(subcommand)]
    Escrow(Box<command::escrow::Verb>),
    /// Destruction of keys, with receipts
    #[command(subcommand)]
    Destroy(command::destroy::Verb),
    /// People and machines that operate the fleet
    #[command(subcommand)]
    Operator(command::operator::Verb),
    /// API tokens
    #[command(subcommand)]
    Token(command::token::Verb),
    /// Who may do what, and why
    #[command(subcommand)]
    Access(command::access::Verb),
    /// Compromise recovery: what it reaches, what to do, and the report
    #[command(subcommand)]
    Incident(Box<command::incident::Verb>),
    /// Credentials made beforehand by two people, and used once by one when the others are away
    #[command(subcommand)]
    BreakGlass(Box<command::break_glass::Verb>),
    /// Rehearse compromise recovery on a copy of the fleet, timed, with a verdict
    Drill(Box<command::drill::Drill>),
    /// Acts that wait for a second person
    #[command(subcommand)]
    Proposal(command::proposal::Verb),
    /// Keys that are never certified
    #[command(subcommand)]
    Key(command::key::Verb),
    /// Open what a device sealed
    Open(command::open::Open),
    /// Seal a command for a device
    Seal(command::seal::Seal),
    /// Turn sealed topics of a broker into plain ones of a local broker
    Relay(Box<command::relay::Relay>),
    /// Keys with which the server encrypts for programs
    #[command(subcommand)]
    EncryptionKey(command::encryption_key::Verb),
    /// What programs store with the server, encrypted under an encryption key
    #[command(subcommand)]
    Object(command::object::Verb),
    /// Encrypt a small file under an encryption key
    Encrypt(command::encrypt::Encrypt),
    /// Decrypt what an encryption key encrypted
    Decrypt(command::encrypt::Decrypt),
    /// Bring the ciphertexts in files under the newest version of their key
    Rewrap(command::rewrap::Rewrap),
    /// The switch that stops all issuance
    #[command(subcommand)]
    Issuance(command::issuance::Verb),
    /// The state of the server at a glance
    Status(command::status::Status),
    /// Who the server takes you for
    Whoami,
    /// The log of who did what
    #[command(subcommand)]
    Audit(command::audit::Verb),
    /// A pack for an auditor, who checks it offline: inventory, receipts, approvals, incidents, and the log
    Evidence(command::evidence::Evidence),
    /// Derive one key of the hierarchy from explicit inputs, without a server
    Derive(Box<command::derive::Derive>),
    /// Rotation policies: cryptoperiods, limits, what contradicts itself, and what is overdue
    #[command(subcommand)]
    Policy(command::policy::Verb),
    /// Every key that the server knows of, with its state, its age and what the policy says of it
    Inventory(Box<command::inventory::Inventory>),
    /// Act a fleet out on the rules, and check the invariants at every step, without a server
    #[command(subcommand)]
    Simulate(command::simulate::Verb),
    /// What a stolen key exposes, expected and at worst, for one or several periods
    Exposure(command::exposure::Exposure),
    /// Look for what is wrong or soon will be, each finding with its remedy
    Doctor(command::doctor::Doctor),
    /// Completions for a shell, on standard output
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Man pages, one for each verb
    Man {
        /// Where to write them; made when missing
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// The process that alone holds the root; started by init, serve and demo
    #[command(hide = true)]
    Signer,
    /// The device agent, as `keyfleet-agent`
    #[command(hide = true, disable_help_flag = true, disable_version_flag = true)]
    Agent {
        /// Arguments of keyfleet-agent
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

//! `keyfleet product-line`.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand, ValueEnum};
use kf_api::PageRequest;
use kf_api::product_line::{Approval, EnrolmentPolicy, NewProductLine, ProductLine};
use kf_client::Method;
use kf_key::KeyAlgorithm;

use crate::api::{Context, Paging, list, names_for, segment};
use crate::failure::Failure;
use crate::file;
use crate::output::{Format, object, raw};

const COLUMNS: [&str; 6] = ["name", "policy.approval", "policy.ldevid_lifetime_hours", "authority", "created", "id"];

/// What can be done with product lines.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a product line
    Create {
        /// Unique name, which is also its EST label
        name: String,
        /// Name or id of its issuing CA; the facility's or the fleet's when absent
        #[arg(long)]
        authority: Option<String>,
        #[command(flatten)]
        policy: PolicyArguments,
    },
    /// List product lines
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a product line with its policy
    Show {
        /// Name or id
        product_line: String,
    },
    /// Change the enrolment policy: what is not given stays as it is
    SetPolicy {
        /// Name or id
        product_line: String,
        #[command(flatten)]
        policy: PolicyArguments,
    },
}

/// At once or by a person.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ApprovalArgument {
    /// Granted when every check holds
    Automatic,
    /// Waits for `keyfleet enrolment approve`
    Manual,
}

/// The policy, field by field.
#[derive(Debug, Default, Args)]
pub(crate) struct PolicyArguments {
    /// A TOML file with policy fields; flags win over it, and `show --format json` prints the fields
    #[arg(long, value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// Lifetime of an LDevID in hours, 1 to 87,600
    #[arg(long, value_name = "HOURS")]
    ldevid_lifetime_hours: Option<u32>,
    /// How long after expiry a certificate may still renew itself, in hours; 0 never
    #[arg(long, value_name = "HOURS")]
    renewal_grace_hours: Option<u32>,
    /// Grant enrolments at once, or let a person decide
    #[arg(long)]
    approval: Option<ApprovalArgument>,
    /// A key algorithm that devices may bring; repeat for several
    #[arg(long = "allow-algorithm", value_name = "ALGORITHM")]
    allowed_algorithms: Vec<KeyAlgorithm>,
    /// Whether the server makes keys for devices that cannot
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    server_keygen: Option<bool>,
    /// Whether an IDevID may bootstrap
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    bootstrap_by_idevid: Option<bool>,
    /// Whether a one-time enrolment code may bootstrap
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    bootstrap_by_code: Option<bool>,
    /// Whether a station's voucher may bootstrap
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    bootstrap_by_voucher: Option<bool>,
    /// Whether an expired IDevID may bootstrap
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    accept_expired_idevid: Option<bool>,
    /// LDevIDs of one device that may be good at the same time, 1 to 16
    #[arg(long, value_name = "N")]
    max_live_ldevids: Option<u8>,
    /// Whether EST answers wrap base64 at 64 columns (libest)
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    wrap_base64: Option<bool>,
}

impl PolicyArguments {
    /// `base` with the fields of the file, then those of the flags.
    fn applied_to(self, base: EnrolmentPolicy) -> Result<EnrolmentPolicy, Failure> {
        let mut policy = match &self.policy_file {
            Some(path) => merged(base, &file::read_text(path)?, path)?,
            None => base,
        };
        // In full, so that a new field cannot be forgotten here.
        let Self {
            policy_file: _,
            ldevid_lifetime_hours,
            renewal_grace_hours,
            approval,
            allowed_algorithms,
            server_keygen,
            bootstrap_by_idevid,
            bootstrap_by_code,
            bootstrap_by_voucher,
            accept_expired_idevid,
            max_live_ldevids,
            wrap_base64,
        } = self;
        set(&mut policy.ldevid_lifetime_hours, ldevid_lifetime_hours);
        set(&mut policy.renewal_grace_hours, renewal_grace_hours);
        set(
            &mut policy.approval,
            approval.map(|approval| match approval {
                ApprovalArgument::Automatic => Approval::Automatic,
                ApprovalArgument::Manual => Approval::Manual,
            }),
        );
        set(&mut policy.allowed_algorithms, (!allowed_algorithms.is_empty()).then_some(allowed_algorithms));
        set(&mut policy.server_keygen, server_keygen);
        set(&mut policy.bootstrap_by_idevid, bootstrap_by_idevid);
        set(&mut policy.bootstrap_by_code, bootstrap_by_code);
        set(&mut policy.bootstrap_by_voucher, bootstrap_by_voucher);
        set(&mut policy.accept_expired_idevid, accept_expired_idevid);
        set(&mut policy.max_live_ldevids, max_live_ldevids);
        set(&mut policy.wrap_base64, wrap_base64);
        Ok(policy)
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// The policy with the fields that a TOML text gives.
fn merged(base: EnrolmentPolicy, text: &str, path: &std::path::Path) -> Result<EnrolmentPolicy, Failure> {
    let refused = |problem: String| {
        Failure::local(
            format!("{} is not a policy: {}", path.display(), problem.trim_end()),
            "its fields are those of `keyfleet product-line show NAME --format json` under `policy`",
        )
    };
    let mut fields = toml::Table::try_from(base).map_err(|error| refused(error.to_string()))?;
    let given: toml::Table = text.parse().map_err(|error: toml::de::Error| refused(error.to_string()))?;
    fields.extend(given);
    fields.try_into().map_err(|error: toml::de::Error| refused(error.to_string()))
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    let mut api = context.api()?;
    match verb {
        Verb::Create { name, authority, policy } => {
            let policy = policy.applied_to(EnrolmentPolicy::default())?;
            let made: ProductLine = api.post("/v1/product-lines", &NewProductLine { name, authority, policy }).await?;
            show(context, &mut api, &made).await
        }
        Verb::List { paging } => {
            list::<ProductLine>(context, &mut api, "/v1/product-lines", PageRequest::default(), &paging, &COLUMNS).await
        }
        Verb::Show { product_line } => {
            let found: ProductLine = api.get(&path_of(&product_line)).await?;
            show(context, &mut api, &found).await
        }
        Verb::SetPolicy { product_line, policy } => {
            let path = path_of(&product_line);
            let found: ProductLine = api.get(&path).await?;
            let policy = policy.applied_to(found.policy)?;
            let changed: ProductLine = api.send(Method::PUT, &format!("{path}/policy"), &policy).await?;
            show(context, &mut api, &changed).await
        }
    }
}

fn path_of(product_line: &str) -> String {
    format!("/v1/product-lines/{}", segment(product_line))
}

/// For people the policy follows as TOML, ready for `--policy-file`.
async fn show(context: &Context, api: &mut crate::api::Api, line: &ProductLine) -> Result<(), Failure> {
    if context.format != Format::Table {
        return object(context.format, line, &crate::output::Names::new());
    }
    let names = names_for(context.format, api, &["authority"]).await;
    let mut facts = crate::output::to_value(line)?;
    if let Some(fields) = facts.as_object_mut() {
        fields.remove("policy");
    }
    object(context.format, &facts, &names)?;
    let policy = toml::to_string(&line.policy).map_err(|error| Failure::Output(std::io::Error::other(error)))?;
    raw(format!("\n# policy\n{policy}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_file_changes_only_what_it_names_and_flags_win() {
        let path = std::path::Path::new("policy.toml");
        let base = EnrolmentPolicy { renewal_grace_hours: 7, ..EnrolmentPolicy::default() };
        let policy = merged(base, "approval = \"manual\"\nmax_live_ldevids = 3\n", path).unwrap();
        assert_eq!((policy.approval, policy.max_live_ldevids, policy.renewal_grace_hours), (Approval::Manual, 3, 7));
        let flags = PolicyArguments { max_live_ldevids: Some(4), ..PolicyArguments::default() };
        assert_eq!(flags.applied_to(policy).unwrap().max_live_ldevids, 4);
    }

    #[test]
    fn an_unknown_policy_field_is_refused_by_name() {
        let refusal = merged(EnrolmentPolicy::default(), "lifetime = 3\n", std::path::Path::new("p.toml")).unwrap_err();
        assert!(refusal.text().contains("lifetime"), "{}", refusal.text());
    }
}

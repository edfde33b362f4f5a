//! `keyfleet token`.

use std::path::PathBuf;

use clap::Subcommand;
use kf_api::operator::{NewToken, Token, TokenRequest};
use kf_key::TokenId;

use crate::api::{Context, segment};
use crate::failure::Failure;
use crate::file;
use crate::moment;
use crate::output::{Format, Listing, Names, object, raw, say, to_value};

const COLUMNS: [&str; 5] = ["id", "operator", "created", "expires", "withdrawn"];

/// What can be done with API tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a token; it is shown once
    Create {
        /// Name or id of the operator
        operator: String,
        /// Lifetime in days, 1 to 366; 90 when absent
        #[arg(long, value_name = "DAYS")]
        lifetime_days: Option<u32>,
        /// Write the token here (mode 0600) instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List the tokens of an operator
    List {
        /// Name or id of the operator
        operator: String,
    },
    /// Withdraw a token; it stops working at once
    Withdraw {
        /// Identifier, `tok_...`
        token: TokenId,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    let mut api = context.api()?;
    match verb {
        Verb::Create { operator, lifetime_days, out } => {
            file::must_be_free(out.as_deref())?;
            let made: NewToken = api.post("/v1/tokens", &TokenRequest { operator, lifetime_days }).await?;
            show_once(context, &made, out)
        }
        Verb::List { operator } => {
            let tokens: Vec<Token> = api.get(&format!("/v1/tokens?operator={}", segment(&operator))).await?;
            let mut listing = Listing::new(context.format, &COLUMNS);
            listing.rows(&tokens, &Names::new())?;
            listing.end(None)
        }
        Verb::Withdraw { token } => {
            api.delete(&format!("/v1/tokens/{token}")).await?;
            say(&format!("{token} is withdrawn"));
            Ok(())
        }
    }
}

fn show_once(context: &Context, made: &NewToken, out: Option<PathBuf>) -> Result<(), Failure> {
    say(&format!("token {} of {}, valid until {}", made.id, made.operator, moment::text(made.expires)));
    if let Some(out) = out {
        // Exposed to the file that the person chose for it.
        file::write_private(&out, made.token.expose().as_bytes())?;
        say(&format!("written to {}; it is not shown again", out.display()));
        let mut facts = to_value(made)?;
        if let Some(fields) = facts.as_object_mut() {
            fields.remove("token");
        }
        return object(context.format, &facts, &Names::new());
    }
    match context.format {
        // Exposed to the person who asked for it, once.
        Format::Table => raw(format!("{}\n", made.token.expose()).as_bytes()),
        other => object(other, made, &Names::new()),
    }
}

//! `keyfleet doctor`.
use crate::api::Context;
use crate::failure::Failure;
use clap::Args;
/// x
#[derive(Debug, Args)]
pub(crate) struct Doctor {}
pub(crate) async fn run(_context: &Context, _doctor: &Doctor) -> Result<(), Failure> {
    Ok(())
}

//! The fuses of the device under test: what is burnt before it proves itself, and the lock of its port after.

use kf_flash::fuse::{BurnStep, KeyPurpose};
use kf_key::SecretArray;

use super::{Attempt, of_fixture};
use crate::fixture::{BurnOrder, OrderedStep, copy_key};
use crate::journal::JournalFile;
use crate::line::{Entry, FailReason, Unit};
use crate::recipe::ChipState;

/// The fuses show what is demanded.
pub(super) fn check_fuses(demanded: &ChipState, found: &ChipState) -> Result<(), FailReason> {
    if demanded.missing_from(found).is_some() { Err(FailReason::Fuses) } else { Ok(()) }
}

impl<F: JournalFile> Attempt<'_, F> {
    /// What is burnt before the device proves itself, with the keys that this attempt has.
    fn burn_order(&self) -> BurnOrder {
        let recipe = &self.station.recipe;
        let digest = |block: u8| recipe.fuses.iter().find(|fuse| fuse.block == block).and_then(|fuse| fuse.digest);
        let key = |step: &BurnStep| match step {
            BurnStep::Key { purpose: KeyPurpose::HmacUp, .. } => self.held.fused_key.as_ref().map(copy_key),
            BurnStep::Key { purpose, .. } if purpose.is_secret() => self.held.flash_key.as_ref().map(copy_key),
            BurnStep::Key { block, .. } => digest(*block).map(|digest| SecretArray::fill(|out| *out = digest)),
            BurnStep::Lock(_) => None,
        };
        let steps = recipe.burn_steps().into_iter().map(|step| OrderedStep { step, key: key(&step) });
        BurnOrder { steps: steps.collect(), is_resumed: self.held.is_resumed }
    }

    /// The image is in the device as it should be: now its fuses.
    pub(super) fn burn(&mut self) -> Result<(), FailReason> {
        if !self.station.recipe.burns_fuses() {
            return Ok(());
        }
        let (unit, order) = (self.unit()?, self.burn_order());
        let (stands, ..) = self.station.ledger.unit(unit).ok_or(FailReason::Bug)?;
        if !stands.is_burnt() {
            if order.lacks_secret() {
                // Lost with the power before anything was burnt: the board is as it was.
                return Err(FailReason::PowerCut);
            }
            let at = self.station.now()?;
            self.station.ledger.note(&Entry::Burning { unit, at }, &[])?;
        }
        let state = self.fixture.burn(&order).map_err(of_fixture)?;
        check_fuses(&self.station.recipe.demanded_with_open_port(), &state)
    }

    /// The last lock, behind which nothing is read any more.
    pub(super) fn close(&mut self) -> Result<(), FailReason> {
        let Some(step) = self.station.recipe.port_step() else { return Ok(()) };
        let unit = self.unit()?;
        let (stands, ..) = self.station.ledger.unit(unit).ok_or(FailReason::Bug)?;
        if stands != Unit::Closing {
            let at = self.station.now()?;
            self.station.ledger.note(&Entry::Closing { unit, at }, &[])?;
        } else if self.held.is_port_closed {
            // It was closed before power went, and everything else was checked before.
            return Ok(());
        }
        let order = BurnOrder { steps: vec![OrderedStep { step, key: None }], is_resumed: self.held.is_resumed };
        let state = self.fixture.burn(&order).map_err(of_fixture)?;
        check_fuses(&self.station.recipe.demanded(), &state)
    }
}

//! A station at work on one batch.

mod attempt;
mod event;

pub use event::{Event, Watch};

use std::sync::{Arc, Mutex};

use kf_batch::quota::{Quota, QuotaTerms};
use kf_batch::salt::SaltSealer;
use kf_derive::{BatchKey, SoftwareKey};
use kf_key::UnixMillis;
use kf_pki::issuer::Issuer;

use crate::clock::Clock;
use crate::draft::{Common, Draft, Ending, Origin};
use crate::fixture::{Destruction, Fixture, Verdict};
use crate::journal::JournalFile;
use crate::label::LabelSink;
use crate::ledger::{Ledger, LedgerError, Opening};
use crate::line::{Counts, Entry, FailReason, Interrupted, Next, Unit};
use crate::noise::Noise;
use crate::recipe::{Plan, Protection, Recipe};
use crate::target::Target;
use crate::token::{Generation, StationKey, StationToken, TokenError};

/// How often in a row a fixture may end with no unit made, spoiled or scrapped on the whole line.
const MAX_FIXTURE_FAILURES: u32 = 100;

/// Why a station does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StationError {
    /// The plan is not the one that the quota approves.
    #[error(
        "the quota approves plan {approved}, the recipe makes plan {given}: have it reviewed and a batch made for it"
    )]
    NotApproved {
        /// In the quota.
        approved: String,
        /// Of the recipe.
        given: String,
    },
    /// The recipe is for another product line.
    #[error("the quota is for product line {quota}, the recipe for {recipe}")]
    ProductLine {
        /// In the quota.
        quota: String,
        /// In the recipe.
        recipe: String,
    },
    /// The recipe writes keys in clear and the quota does not allow it.
    #[error("the recipe writes private keys in clear, which the quota does not allow")]
    Unsafe,
    /// Something is burnt and nobody typed that it shall be.
    #[error("fuses will be burnt: type `{0}` to confirm")]
    NotConfirmed(String),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The batch key in the quota does not open under the station's token.
    #[error("the batch key does not open under this station's token: the quota is for another one")]
    BatchKey,
    /// The keys of the batch are not in the token.
    #[error("the keys of the batch, generation {0}, are not in the station's token: destroyed, or it is another token")]
    KeysGone(Generation),
    /// The batch CA in the quota is not the token's.
    #[error("the issuing CA in the quota is not the key of this station's token")]
    Authority,
    /// It could not start.
    #[error("the station cannot start: {}", .0.words())]
    Start(FailReason),
}

/// What a station is set up with.
pub struct Setup<F> {
    /// The recipe.
    pub recipe: Recipe,
    /// The quota, verified.
    pub quota: Quota,
    /// The quota as it was signed.
    pub signed_quota: Vec<u8>,
    /// What was typed to confirm that fuses are burnt; empty when nothing was.
    pub confirmation: String,
    /// The journal of this batch.
    pub journal: F,
    /// The token.
    pub token: Arc<dyn StationToken>,
    /// Whose keys the batch was requested with.
    pub generation: Generation,
    /// What makes images.
    pub target: Arc<dyn Target>,
    /// Where labels go.
    pub labels: Arc<dyn LabelSink>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who works at the line.
    pub operator: String,
}

/// A station at work.
pub struct Station<F> {
    recipe: Recipe,
    plan: Plan,
    terms: QuotaTerms,
    issuer: Issuer,
    ledger: Ledger<F>,
    token: Arc<dyn StationToken>,
    generation: Generation,
    target: Arc<dyn Target>,
    labels: Arc<dyn LabelSink>,
    clock: Arc<dyn Clock>,
    noise: Noise,
    batch_key: BatchKey<SoftwareKey>,
    salts: Mutex<SaltSealer>,
    common: Common,
}

/// What an earlier life left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Units that go on from the beginning.
    pub untouched: usize,
    /// Units whose key was lost and is barred.
    pub key_lost: usize,
    /// Units whose device is to be read back.
    pub to_read_back: usize,
}

impl<F> Setup<F> {
    /// The batch CA and the batch key, if recipe, quota and token belong together.
    fn keys(&self) -> Result<(Issuer, BatchKey<SoftwareKey>), StationError> {
        check_approval(&self.recipe, &self.recipe.plan(), &self.quota.terms, &self.confirmation)?;
        let issuer = self.quota.terms.issuer().map_err(|_not_one| StationError::Authority)?;
        let gone = |error: TokenError, other: StationError| match error {
            TokenError::MISSING => StationError::KeysGone(self.generation),
            _ => other,
        };
        let authority = self.token.public_key(StationKey::Authority(self.generation));
        let authority = authority.map_err(|error| gone(error, StationError::Start(FailReason::Token)))?;
        if *issuer.public_key != *authority.point() {
            return Err(StationError::Authority);
        }
        let agreed = self.token.agree(self.generation, self.quota.batch_key.encapsulated());
        let agreed = agreed.map_err(|error| gone(error, StationError::BatchKey))?;
        let key = self.quota.open_batch_key(&agreed).map_err(|_opaque| StationError::BatchKey)?;
        Ok((issuer, BatchKey::from_keyed_hmac(SoftwareKey::new(key))))
    }
}

impl<F: JournalFile> Station<F> {
    /// Checks that recipe, quota, token and journal belong together, and settles what an earlier life left.
    ///
    /// # Errors
    /// [`StationError`].
    pub fn open(setup: Setup<F>) -> Result<(Self, Recovered), StationError> {
        let (issuer, batch_key) = setup.keys()?;
        let Setup { recipe, quota, signed_quota, journal, token, generation, target, labels, clock, operator, .. } =
            setup;
        let plan = recipe.plan();
        let opening = Opening {
            batch: quota.terms.batch,
            generation,
            quota: &signed_quota,
            count: quota.terms.devices.count(),
            plan: &plan.hash_text(),
            now: clock.now(),
        };
        let ledger = Ledger::open(journal, &opening, Arc::clone(&token))?;
        let salts = SaltSealer::new(&quota.salt_key, quota.terms.batch).map_err(|_opaque| StationError::BatchKey)?;
        let common = Common {
            batch: quota.terms.batch,
            recipe: plan.hash,
            operator,
            firmware: recipe.firmware_sha256,
            is_plain: recipe.identity.protection == Protection::Plain,
        };
        let noise = Noise::start(Arc::clone(&token)).map_err(StationError::Start)?;
        let terms = quota.terms;
        let station = Self {
            recipe,
            plan,
            terms,
            issuer,
            ledger,
            token,
            generation,
            target,
            labels,
            clock,
            noise,
            batch_key,
            salts: Mutex::new(salts),
            common,
        };
        let recovered = station.recover().map_err(StationError::Start)?;
        Ok((station, recovered))
    }

    /// Settles the units that a power cut left without their key.
    fn recover(&self) -> Result<Recovered, FailReason> {
        let mut recovered = Recovered::default();
        for (unit, what) in self.ledger.interrupted() {
            match what {
                Interrupted::Untouched => recovered.untouched += 1,
                Interrupted::ToReadBack => recovered.to_read_back += 1,
                Interrupted::KeyLost => {
                    let draft = self.draft_of(unit, "the device is not here: its key is in it; barred");
                    self.spoil(unit, FailReason::PowerCut, draft)?;
                    recovered.key_lost += 1;
                }
            }
        }
        self.release_labels();
        Ok(recovered)
    }

    /// Power may have gone between the record of a device and its label.
    fn release_labels(&self) {
        if self.recipe.label.is_none() {
            return;
        }
        for unit in self.ledger.lately_finished() {
            let name = self.terms.devices.device(unit).and_then(|device| self.terms.devices.name(device));
            // Most were released: there is nothing in the spool then.
            let _released = name.map(|name| self.labels.release(&name));
        }
    }

    /// The time to work with.
    fn now(&self) -> Result<UnixMillis, FailReason> {
        self.ledger.time(self.clock.now())
    }

    /// What the journal knows of an attempt whose device is not here. A key of the station was in memory, and is gone, unless it may
    /// have been written; `absent` says what there is to say otherwise.
    fn draft_of(&self, unit: u32, absent: &str) -> Draft {
        let Some((stands, _, document)) = self.ledger.unit(unit) else { return Draft::default() };
        let mut draft = Draft::from_document(&document).unwrap_or_default();
        draft.destruction = draft.spki.is_some().then(|| {
            if stands == Unit::Certifying && draft.origin == Origin::Station {
                Destruction::verified("in memory only: gone with the power, written nowhere")
            } else {
                Destruction::unverified(absent)
            }
        });
        draft
    }

    /// Accounts for a unit that failed: its key, if it had one, stands in the record and is barred. Whether it is used up.
    fn spoil(&self, unit: u32, reason: FailReason, draft: Draft) -> Result<bool, FailReason> {
        let (_, hardware, _) = self.ledger.unit(unit).ok_or(FailReason::Bug)?;
        let is_scrap =
            self.ledger.would_be_scrap(unit) || matches!(reason, FailReason::NotPresented | FailReason::Spent);
        let ending = if is_scrap { Ending::Scrapped(reason.words()) } else { Ending::Rework(reason.words()) };
        let at = self.now()?;
        let device = self.terms.devices.device(unit).ok_or(FailReason::Bug)?;
        let record = draft.record(&self.common, device, &hardware, &ending, at);
        self.ledger.close_unit(&Entry::Spoiled { unit, reason, is_scrap, at }, record)?;
        self.ledger.release(unit);
        Ok(is_scrap)
    }

    /// Works until no fixture has a device any more or none can go on. Each fixture has a thread of its own; one that fails
    /// stops alone.
    pub fn run(&self, fixtures: Vec<Box<dyn Fixture>>, watch: &dyn Watch) {
        std::thread::scope(|scope| {
            for (number, mut fixture) in fixtures.into_iter().enumerate() {
                let name = format!("fixture-{}", number.saturating_add(1));
                let _handle = scope.spawn(move || self.work_at(&name, fixture.as_mut(), watch));
            }
        });
    }

    /// Makes one device after the other at one fixture. One that only ever fails is taken out of service, so that it does not fill the
    /// journal.
    fn work_at(&self, name: &str, fixture: &mut dyn Fixture, watch: &dyn Watch) {
        let mut failures = 0;
        while failures < MAX_FIXTURE_FAILURES {
            let before = self.ledger.counts();
            if !self.make_one(name, fixture, watch) {
                return;
            }
            let after = self.ledger.counts();
            let is_nothing_made = (before.good, before.scrap, before.rework) == (after.good, after.scrap, after.rework);
            failures = if is_nothing_made { failures + 1 } else { 0 };
        }
    }

    /// Makes one device; whether the fixture goes on.
    pub fn make_one(&self, name: &str, fixture: &mut dyn Fixture, watch: &dyn Watch) -> bool {
        let Some((verdict, reason)) = attempt::Attempt::new(self, name, fixture, watch).run() else { return false };
        fixture.show(verdict);
        !matches!(verdict, Verdict::Fail(Next::Stop)) && reason != Some(FailReason::Hang)
    }

    /// Closes the shift with a manifest. When nothing more will be made, units that did not come back are scrapped first.
    /// A batch that was closed for good stays as it is.
    ///
    /// # Errors
    /// [`FailReason`].
    pub fn close_shift(&self, is_final: bool) -> Result<(), FailReason> {
        if self.ledger.is_final() {
            return Ok(());
        }
        if is_final {
            for unit in self.ledger.open_units() {
                let draft = self.draft_of(unit, "the device did not come back; barred");
                self.spoil(unit, FailReason::NotPresented, draft)?;
            }
        }
        self.ledger.close_shift(&self.common.operator, is_final, self.now()?)
    }

    /// Whether the batch was closed for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.ledger.is_final()
    }

    /// The counts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.ledger.counts()
    }

    /// The terms of the quota.
    #[must_use]
    pub const fn terms(&self) -> &QuotaTerms {
        &self.terms
    }

    /// The plan.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Milliseconds until the quota ends.
    #[must_use]
    pub fn autonomy(&self) -> u64 {
        self.terms.expires.since(self.clock.now())
    }

    /// Gives the journal's file back.
    pub fn into_file(self) -> F {
        self.ledger.into_file()
    }
}

fn check_approval(recipe: &Recipe, plan: &Plan, terms: &QuotaTerms, confirmation: &str) -> Result<(), StationError> {
    if plan.hash != terms.recipe {
        return Err(StationError::NotApproved { approved: hex::encode(terms.recipe), given: plan.hash_text() });
    }
    if recipe.product_line != terms.product_line_name {
        return Err(StationError::ProductLine {
            quota: terms.product_line_name.clone(),
            recipe: recipe.product_line.clone(),
        });
    }
    if recipe.identity.protection == Protection::Plain && !terms.allows_unsafe {
        return Err(StationError::Unsafe);
    }
    if recipe.burns() && confirmation != plan.burn_phrase() {
        return Err(StationError::NotConfirmed(plan.burn_phrase()));
    }
    Ok(())
}

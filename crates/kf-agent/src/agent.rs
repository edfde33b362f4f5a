//! The rim: carries out what [`crate::machine`] decides, on a disk, a clock and a network.

mod duties;
mod migration;
mod pin;
mod record;
mod reset;
mod trust;
mod wipe;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kf_device::enrolment::machine::{Attention, Credential, Outcome, Spare, State, Step, decide};
use kf_device::enrolment::schedule::{FIRST_WAIT_MILLIS, LONGEST_WAIT_MILLIS};
use kf_key::{SecretArray, SecretBytes, UnixMillis};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::anchors::Anchors;
use crate::clock::Clock;
use crate::config::{Config, KeyKind, SealedTelemetry};
use crate::disk::{DirectoryDisk, Disk as _, replace};
use crate::enrolment::{Attempt, FactoryIdentity, Server, Shown, Trouble, fetch_root};
use crate::event::{Event, EventSink};
use crate::failure::{Failure, chain_of};
use crate::identity::Identity;
use crate::key_ring::{KeyRing, Sealing};
use crate::key_source::pkcs11::TokenKeys;
use crate::key_source::{KeySource, SoftwareKeys};
use crate::message_queue::{self, MessageQueue};
use crate::secret_source::{self, CodeSource};
use crate::slots::{Contents, SLOTS, Slots, StoredIdentity, StoredSpare};
use crate::telemetry::{CounterOutbox, Material, OrderInlet, Outbox, SealedOutbox, Traffic};
use crate::vault::{VAULT, Vault};
use crate::{chain, hook, telemetry};
use duties::{Duties, NEVER, PLAIN_WRAPPING_KEY};
use reset::{RESET, RESET_DONE};
use wipe::{WIPED, WIPED_DONE};

/// The longest sleep: a clock that is set in the meantime is noticed after it.
const LONGEST_NAP: Duration = Duration::from_secs(600);
/// The most rounds of one `once`: two renewals and an order more than any day brings.
const MOST_ROUNDS: usize = 8;
/// The file that names the certificate whose hook has run.
const HOOKED: &str = "hooked";
/// The file that holds the pinned root once it was fetched.
const ROOT: &str = "root.der";
/// The file of the secret of this ownership, which what the key source wraps under is bound to.
const OWNER: &str = "owner";
/// The file that holds the time of the last proven contact.
const LAST_SEEN: &str = "last-seen";
/// What binds the wrapping key to it.
const OWNER_LABEL: &[u8] = b"keyfleet-agent owner v1 ";
/// How much later a contact has to be to be written down.
const LAST_SEEN_STEP: u64 = UnixMillis::HOUR;

/// How a run ended, for the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOutcome {
    /// A valid certificate is in use.
    pub is_valid: bool,
    /// Nothing is under way: no request waits, nothing failed.
    pub is_settled: bool,
    /// Somebody has to act.
    pub needs_attention: bool,
    /// The device was reset: the next start is that of one that never enrolled.
    pub was_reset: bool,
}

/// One device's agent.
pub struct Agent {
    config: Config,
    events: EventSink,
    clock: Clock,
    slots: Slots<DirectoryDisk>,
    keys: Box<dyn KeySource>,
    code: CodeSource,
    factory: Option<FactoryIdentity>,
    server: Option<Server>,
    state: State,
    in_use: watch::Sender<Option<Arc<Material>>>,
    candidate: Option<Identity>,
    needs_attention: bool,
    duties: Option<Duties>,
    /// The receipt of a wipe: nothing else is done any more.
    wiped: Option<Vec<u8>>,
    /// The receipt of a factory reset: nothing else is done by this process.
    reset: Option<Vec<u8>>,
    was_reset: bool,
    _lock: File,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("device", &self.config.device_name).finish_non_exhaustive()
    }
}

impl Agent {
    /// Opens the state, takes its lock, and finishes what a power cut interrupted.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn open(config: Config, events: EventSink) -> Result<Self, Failure> {
        let lock = hold(&config.state_dir)?;
        let keys: Box<dyn KeySource> = if needs_hardware(&config) {
            key_source_of(&config)?
        } else {
            Box::new(SoftwareKeys::new(config.key.algorithm, None))
        };
        Self::open_locked(config, events, keys, lock)
    }

    /// As [`Agent::open`], with keys from elsewhere.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn open_with(config: Config, events: EventSink, keys: Box<dyn KeySource>) -> Result<Self, Failure> {
        let lock = hold(&config.state_dir)?;
        Self::open_locked(config, events, keys, lock)
    }

    fn open_locked(config: Config, events: EventSink, keys: Box<dyn KeySource>, lock: File) -> Result<Self, Failure> {
        let path = config.state_dir.clone();
        let failed = |source| Failure::State { path: path.clone(), source };
        let mut slots = Slots::new(DirectoryDisk::open(&path, &SLOTS).map_err(failed)?);
        let contents = slots.recover().map_err(failed)?;
        let wiped = slots.disk().read(WIPED).map_err(failed)?;
        let reset = slots.disk().read(RESET).map_err(failed)?;
        let clock = Clock::system();
        if let Some(seen) = slots.disk().read(LAST_SEEN).map_err(failed)? {
            clock.not_before(parse_millis(&seen).unwrap_or_default());
        }
        let (code, factory, duties) = match (&wiped, &reset) {
            (Some(_), _) | (_, Some(_)) => (CodeSource::None, None, None),
            (None, None) => (
                CodeSource::open(&config.bootstrap)?,
                factory_of(&config, keys.as_ref())?,
                duties_of(&config, keys.as_ref(), slots.disk())?,
            ),
        };
        let server = open_server(&config, &clock, slots.disk()).map_err(|error| match error {
            RootFailure::Start(failure) => failure,
            RootFailure::Disk(source) => failed(source),
        })?;
        events.tell(&Event::Started { device: config.device_name.clone(), version: env!("CARGO_PKG_VERSION") });
        if !keys.is_protected_at_rest() && wiped.is_none() && reset.is_none() {
            events.tell(&Event::KeyNotSealed);
        }
        let mut agent = Self {
            state: State::new(None, Spare::Empty, code.is_available(), factory.is_some(), false),
            config,
            events,
            clock,
            slots,
            keys,
            code,
            factory,
            server,
            in_use: watch::Sender::new(None),
            candidate: None,
            needs_attention: false,
            duties,
            wiped,
            reset,
            was_reset: false,
            _lock: lock,
        };
        agent.resume_ending()?;
        if agent.is_ending() {
            return Ok(agent);
        }
        agent.take_over(contents).map_err(failed)?;
        agent.forget_other_keys();
        Ok(agent)
    }

    /// Brings the state machine to what the slots hold.
    fn take_over(&mut self, contents: Contents) -> io::Result<()> {
        if let Some(identity) = contents.in_use.and_then(|stored| self.usable(&stored)) {
            // A certificate cannot be in use before its time: the clock must be wrong.
            self.clock.not_before(identity.validity.not_before);
            let hooked = self.slots.disk().read(HOOKED)?;
            self.state.hook_due = hooked.as_deref() != Some(identity.fingerprint().as_bytes());
            self.state.in_use = Some(identity.validity);
            self.publish(identity);
        }
        match contents.spare {
            StoredSpare::Empty => {}
            StoredSpare::Requested { .. } => self.state.spare = Spare::Requested,
            StoredSpare::Issued(stored) => match self.usable(&stored) {
                Some(identity) => {
                    self.state.spare = Spare::Issued(identity.validity);
                    self.candidate = Some(identity);
                }
                None => self.slots.discard()?,
            },
        }
        Ok(())
    }

    fn usable(&self, stored: &StoredIdentity) -> Option<Identity> {
        let key = match self.keys.load(&stored.key) {
            Ok(key) => key,
            Err(error) => {
                tracing::error!(%error, "a stored identity cannot be used");
                return None;
            }
        };
        let chain = kf_pki::pem::decode_all("CERTIFICATE", std::str::from_utf8(&stored.chain).ok()?)?;
        Identity::pair(chain, key.tls_key())
    }

    /// Has a token destroy keys that no slot names. What fails is done at the next occasion.
    fn forget_other_keys(&self) {
        let kept = self.slots.read().map(|contents| {
            let spare = match contents.spare {
                StoredSpare::Empty => None,
                StoredSpare::Requested { key, .. } => Some(key),
                StoredSpare::Issued(stored) => Some(stored.key),
            };
            (contents.in_use.map(|stored| stored.key), spare)
        });
        let Ok((in_use, spare)) = kept else { return };
        let kept: Vec<_> = in_use.iter().chain(spare.iter()).collect();
        if let Err(error) = self.keys.keep_only(&kept) {
            tracing::warn!(%error, "a key that is no longer used was not destroyed");
        }
    }

    fn publish(&self, identity: Identity) {
        let roots = self.server.as_ref().map(|server| server.roots().to_vec()).unwrap_or_default();
        self.in_use.send_replace(Some(Arc::new(Material { identity, roots })));
    }

    /// Runs until `stop` is ready.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> RunOutcome {
        let mut beside = self.start_telemetry();
        let live = async {
            loop {
                let until = self.advance().await.min(self.tend().await);
                if self.was_reset {
                    break;
                }
                let left = Duration::from_millis(until.since(self.clock.now()));
                let arrived = async {
                    match &mut self.duties {
                        Some(duties) => duties.arrivals.recv().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = tokio::time::sleep(left.min(LONGEST_NAP)) => {}
                    Some(order) = arrived => self.hear(&order).await,
                }
            }
        };
        tokio::select! {
            () = stop => {}
            () = live => {}
        }
        beside.abort_all();
        self.events.tell(&Event::Stopped);
        self.outcome()
    }

    /// Does what is due now, without waiting.
    pub async fn once(mut self) -> RunOutcome {
        for _ in 0..MOST_ROUNDS {
            self.advance().await;
            // An order to rotate makes a renewal due, and the renewal an answer.
            if self.tend().await > self.clock.now() || self.was_reset {
                break;
            }
        }
        self.events.tell(&Event::Stopped);
        self.outcome()
    }

    /// Begins to talk to the broker, and to take messages from other programs.
    fn start_telemetry(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let Some(settings) = self.config.telemetry.clone() else { return tasks };
        let (name, events) = (self.config.device_name.clone(), self.events.clone());
        let outbox = match (&settings.sealed, &self.duties) {
            (Some(sealed), Some(duties)) => match sealed_outbox(sealed, duties.ring.clone(), &events, &mut tasks) {
                Some(outbox) => Outbox::Sealed(Box::new(outbox)),
                None => return tasks,
            },
            _ => {
                let interval = telemetry::interval(&settings);
                Outbox::Counter(CounterOutbox { device_name: name.clone(), acknowledged: 0, interval })
            }
        };
        let orders = self.config.order_topic().zip(self.duties.as_ref());
        let orders = orders.map(|(topic, duties)| OrderInlet { topic, arrivals: duties.inlet.clone() });
        let traffic = Traffic { outbox, orders };
        tasks.spawn(telemetry::run(settings, name, self.clock.clone(), events, self.in_use.subscribe(), traffic));
        tasks
    }

    /// A wipe or a reset is under way, and nothing else is done.
    const fn is_ending(&self) -> bool {
        self.wiped.is_some() || self.reset.is_some()
    }

    fn outcome(&self) -> RunOutcome {
        let now = self.clock.now();
        let is_settled = self.state.spare == Spare::Empty && now >= self.state.rest_until;
        RunOutcome {
            is_valid: self.state.is_valid(now),
            is_settled,
            needs_attention: self.needs_attention,
            was_reset: self.was_reset,
        }
    }

    /// Carries out steps until there is nothing to do but wait; says until when.
    async fn advance(&mut self) -> UnixMillis {
        if self.is_ending() {
            return NEVER;
        }
        loop {
            self.state.has_code = self.code.is_available();
            let now = self.clock.now();
            let outcome = match decide(&self.state, now) {
                Step::Wait { until } => return until,
                Step::RunHook => self.run_hook().await,
                Step::MakeRequest => self.make_request(),
                Step::Enrol(credential) => self.enrol(credential).await,
                Step::Prove => self.prove().await,
                Step::Adopt => self.adopt(),
                Step::AskForAttention(attention) => self.ask_for_attention(attention),
            };
            // A failing random source must not stop a renewal: it only spreads waits.
            let random = kf_crypto::random_array().map(u64::from_be_bytes).unwrap_or_default();
            let empties_a_slot = matches!(outcome, Outcome::Adopted | Outcome::Discarded | Outcome::RequestRefused);
            self.state.observe(outcome, self.clock.now(), random);
            if empties_a_slot {
                self.forget_other_keys();
            }
            if self.state.gives_up_proof() {
                self.give_up_candidate(random);
            }
        }
    }

    fn give_up_candidate(&mut self, random: u64) {
        self.candidate = None;
        let outcome = match self.slots.discard() {
            Ok(()) => Outcome::Discarded,
            Err(error) => self.failed("discard", &error),
        };
        self.state.observe(outcome, self.clock.now(), random);
    }

    fn failed(&self, step: &'static str, error: &(dyn std::error::Error + 'static)) -> Outcome {
        self.retry(step, chain_of(error));
        Outcome::Failed { retry_after: 0 }
    }

    fn retry(&self, step: &'static str, reason: String) {
        // Told before the wait is drawn: the least that it will be.
        let doublings = self.state.failures.min(20);
        let least = (FIRST_WAIT_MILLIS << doublings).min(LONGEST_WAIT_MILLIS) / 2;
        self.events.tell(&Event::Retry { step, after_seconds: least.div_ceil(1_000), reason });
    }

    async fn run_hook(&mut self) -> Outcome {
        let Some(material) = self.in_use.borrow().clone() else { return Outcome::HookRan };
        if let Some(path) = &self.config.renewal.export_chain_file
            && let Err(error) = export(path, material.identity.chain_pem().as_bytes())
        {
            self.events.tell(&Event::Hook { succeeded: false, outcome: format!("export: {error}") });
        }
        if !self.config.renewal.hook.is_empty() {
            let ran = hook::run(&self.config.renewal.hook, self.config.renewal.hook_deadline()).await;
            let outcome = ran.as_ref().err().cloned().unwrap_or_else(|| "done".to_owned());
            self.events.tell(&Event::Hook { succeeded: ran.is_ok(), outcome });
        }
        // Written after the act: it runs at least once for every certificate, even when the power fails in between.
        if let Err(error) = replace(self.slots.disk(), HOOKED, material.identity.fingerprint().as_bytes()) {
            tracing::warn!(%error, "the hook may run again");
        }
        Outcome::HookRan
    }

    fn make_request(&mut self) -> Outcome {
        let algorithm = self.wanted_algorithm();
        let made = if algorithm == self.config.key.algorithm {
            self.keys.generate()
        } else {
            self.keys.generate_of(algorithm)
        };
        let made = made.and_then(|(key, stored)| Ok((key.certification_request()?, stored)));
        match made {
            Err(error) => self.failed("key", &error),
            Ok((request, stored)) => match self.slots.begin(&stored, &request) {
                Ok(()) => Outcome::RequestMade,
                Err(error) => self.failed("store", &error),
            },
        }
    }

    async fn enrol(&mut self, credential: Credential) -> Outcome {
        let contents = match self.slots.read() {
            Ok(contents) => contents,
            Err(error) => return self.failed("store", &error),
        };
        let StoredSpare::Requested { key, request } = contents.spare else {
            return Outcome::RequestRefused;
        };
        if let Err(outcome) = self.know_server().await {
            return outcome;
        }
        let attempt = match (&self.server, self.shown(credential)) {
            (Some(server), Ok(shown)) => match self.prove_key(server, credential, &key).await {
                Ok(()) => server.enrol(credential, shown, &request).await,
                Err(attempt) => attempt,
            },
            (_, Err(error)) => return self.failed("credential", &error),
            (None, _) => return Outcome::Failed { retry_after: 0 },
        };
        match attempt {
            Attempt::Issued(certificates) => {
                self.take_up(&certificates).await;
                self.keep_issued(&key, &certificates)
            }
            Attempt::Other(outcome, trouble) => self.tell_trouble(credential, outcome, trouble),
        }
    }

    async fn prove_key(&self, server: &Server, credential: Credential, key: &SecretBytes) -> Result<(), Attempt> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Attempt::Other(Outcome::Failed { retry_after: 0 }, Trouble { status: 0, reason: chain_of(error) })
        };
        let key = self.keys.load(key).map_err(|error| failed(&error))?;
        let shown = self.shown(credential).map_err(|error| failed(&error))?;
        server.prove_key(credential, shown, key.as_ref()).await
    }

    fn shown(&self, credential: Credential) -> io::Result<Shown<'_>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the credential is gone");
        match credential {
            Credential::Code => Ok(Shown::Code { device_name: &self.config.device_name, code: self.code.read()? }),
            Credential::IDevId => {
                let factory = self.factory.as_ref().ok_or_else(missing)?;
                Ok(Shown::Chain { chain: factory.chain.clone(), key: factory.key.clone() })
            }
            Credential::Certificate => {
                let material = self.in_use.borrow().clone().ok_or_else(missing)?;
                Ok(Shown::Chain { chain: material.identity.chain.clone(), key: material.identity.key.clone() })
            }
        }
    }

    fn tell_trouble(&mut self, credential: Credential, outcome: Outcome, trouble: Trouble) -> Outcome {
        let Trouble { status, reason } = trouble;
        match outcome {
            Outcome::Pending { retry_after } => {
                self.events.tell(&Event::Pending { retry_after_seconds: retry_after / 1_000 });
            }
            Outcome::Refused(_) | Outcome::RequestRefused => {
                self.events.tell(&Event::EnrolmentRefused { credential: credential.name(), status, reason });
            }
            _ => self.retry("enrol", reason),
        }
        if outcome == Outcome::RequestRefused
            && let Err(error) = self.slots.discard()
        {
            return self.failed("discard", &error);
        }
        outcome
    }

    fn keep_issued(&mut self, key: &SecretBytes, certificates: &[Vec<u8>]) -> Outcome {
        let key = match self.keys.load(key) {
            Ok(key) => key.tls_key(),
            Err(error) => return self.failed("key", &error),
        };
        let identity = chain::build(&key.spki(), certificates).and_then(|chain| Identity::pair(chain, key));
        let Some(identity) = identity else {
            self.retry("enrol", "the server sent no certificate for the key of the request".to_owned());
            return Outcome::Failed { retry_after: 0 };
        };
        if identity.validity.not_after < self.clock.now() {
            self.retry("enrol", "the server sent a certificate that has expired already".to_owned());
            return Outcome::Failed { retry_after: 0 };
        }
        if let Err(error) = self.slots.store_chain(identity.chain_pem().as_bytes()) {
            return self.failed("store", &error);
        }
        let validity = identity.validity;
        self.needs_attention = false;
        self.candidate = Some(identity);
        Outcome::Issued(validity)
    }

    async fn prove(&mut self) -> Outcome {
        if let Err(outcome) = self.know_server().await {
            return outcome;
        }
        let (Some(server), Some(candidate)) = (&self.server, &self.candidate) else {
            return Outcome::ProofRefused;
        };
        match server.prove(candidate, self.config.renewal.prove_url.as_deref()).await {
            Ok(()) => {
                self.remember_contact();
                Outcome::Proved
            }
            Err((outcome, Trouble { reason, .. })) => {
                self.retry("prove", reason);
                outcome
            }
        }
    }

    fn adopt(&mut self) -> Outcome {
        if let Err(error) = self.slots.adopt() {
            return self.failed("adopt", &error);
        }
        let Some(identity) = self.candidate.take() else { return Outcome::Failed { retry_after: 0 } };
        let seen = identity.seen();
        let is_first = self.in_use.borrow().is_none();
        self.clock.not_before(identity.validity.not_before);
        self.publish(identity);
        self.events.tell(&if is_first { Event::Enrolled(seen) } else { Event::Renewed(seen) });
        Outcome::Adopted
    }

    fn ask_for_attention(&mut self, attention: Attention) -> Outcome {
        let (reason, remedy) = match attention {
            Attention::NoBootstrap => (
                "there is no certificate in use and nothing to get one with",
                "make an enrolment code for this device (keyfleet code new) and hand it over as the configuration says",
            ),
            Attention::AllRefused => (
                "the server refused everything this device can show",
                "look at the device in the registry: release its hold, or make it a new enrolment code",
            ),
        };
        self.events.tell(&Event::NeedsAttention { reason: reason.to_owned(), remedy: remedy.to_owned() });
        self.needs_attention = true;
        Outcome::AttentionAsked
    }

    /// Fetches the pinned root if it is not known yet.
    async fn know_server(&mut self) -> Result<(), Outcome> {
        if self.server.is_some() {
            return Ok(());
        }
        let Ok(Some(pin)) = self.config.root_sha256() else { return Err(Outcome::Failed { retry_after: 0 }) };
        let root = fetch_root(&self.config, pin).await.map_err(|error| self.failed("trust", &error))?;
        replace(self.slots.disk(), ROOT, &root).map_err(|error| self.failed("store", &error))?;
        let anchors = Anchors::open(vec![root], self.slots.disk()).map_err(|error| self.failed("store", &error))?;
        let server = Server::new(&self.config, self.clock.clone(), anchors);
        self.server = Some(server.map_err(|error| self.failed("trust", &error))?);
        Ok(())
    }

    /// Writes down the time of a contact whose certificates were verified at that time: a clock far in the future would
    /// not have got so far.
    fn remember_contact(&mut self) {
        let now = self.clock.now();
        let known = self.slots.disk().read(LAST_SEEN).ok().flatten();
        let known = known.and_then(|text| parse_millis(&text)).unwrap_or_default();
        if now.since(known) < LAST_SEEN_STEP {
            return;
        }
        if let Err(error) = replace(self.slots.disk(), LAST_SEEN, now.0.to_string().as_bytes()) {
            tracing::warn!(%error, "the time of this contact is not kept");
        }
    }
}

/// The sources of messages, and what seals them; `None` when none of them can be had.
fn sealed_outbox(
    settings: &SealedTelemetry,
    ring: KeyRing,
    events: &EventSink,
    tasks: &mut JoinSet<()>,
) -> Option<SealedOutbox> {
    let queue = MessageQueue::new(usize::try_from(settings.queue).unwrap_or(usize::MAX));
    if let Some(path) = &settings.socket {
        match message_queue::bind(path) {
            Ok(listener) => {
                tasks.spawn(message_queue::from_socket(listener, queue.clone(), events.clone()));
            }
            Err(error) => {
                let reason = format!("the socket {} cannot be made: {error}", path.display());
                events.tell(&Event::MessageRefused { reason });
            }
        }
    }
    if settings.stdin
        && let Err(error) = message_queue::from_stdin(queue.clone(), events.clone())
    {
        let reason = format!("standard input cannot be read: {error}");
        events.tell(&Event::MessageRefused { reason });
    }
    let (service, algorithm) = (settings.service()?, settings.algorithm()?);
    Some(SealedOutbox::new(queue, ring, Sealing { service, algorithm, session: settings.session }))
}

/// The IDevID, if the configuration names one.
fn factory_of(config: &Config, keys: &dyn KeySource) -> Result<Option<FactoryIdentity>, Failure> {
    let bootstrap = &config.bootstrap;
    match (&bootstrap.idevid_chain_file, &bootstrap.idevid_key_file, &bootstrap.idevid_sealed_key_file) {
        (Some(chain), Some(key), _) => FactoryIdentity::read(chain, key).map(Some),
        (Some(chain), None, Some(key)) => FactoryIdentity::read_sealed(chain, key, keys).map(Some),
        _ => Ok(None),
    }
}

/// The duties, if the configuration asks for any, with the vault under the wrapping key of the key source.
fn duties_of(config: &Config, keys: &dyn KeySource, disk: &mut DirectoryDisk) -> Result<Option<Duties>, Failure> {
    Duties::open(config, || {
        let failed = |source| Failure::State { path: config.state_dir.clone(), source };
        let wrapping = match keys.wrapping_key()? {
            Some(wrapping) => of_this_owner(&wrapping, disk).map_err(failed)?,
            None => plain_wrapping_key(disk).map_err(failed)?,
        };
        Ok(Vault::open(&config.state_dir, wrapping)?)
    })
}

/// What a key source wraps under comes back at every start, under the next owner too. So it is bound to a secret of this ownership, which a
/// reset destroys. A vault of before there was one goes on as it is.
fn of_this_owner(wrapping: &SecretArray<32>, disk: &mut DirectoryDisk) -> io::Result<SecretArray<32>> {
    let bound = |owner: &[u8]| {
        // Exposed to HMAC.
        let tag = kf_crypto::hmac_sha256(wrapping.expose(), &[OWNER_LABEL, owner].concat());
        SecretArray::fill(|octets| *octets = tag)
    };
    if let Some(owner) = disk.read(OWNER)?.map(SecretBytes::from_vec) {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the secret of the ownership has another length");
        // Exposed to be bound.
        return if owner.len() == 32 { Ok(bound(owner.expose())) } else { Err(wrong()) };
    }
    if disk.read(VAULT)?.is_some() {
        return Ok(SecretArray::fill(|octets| octets.copy_from_slice(wrapping.expose())));
    }
    let fresh = kf_crypto::random_secret::<32>().map_err(|_opaque| io::Error::other("no random numbers"))?;
    // Exposed to the file that dies with the ownership.
    replace(disk, OWNER, fresh.expose())?;
    Ok(bound(fresh.expose()))
}

/// Where keys may rest unwrapped: a wrapping key in a file beside what it wraps, so that the rest is as everywhere.
fn plain_wrapping_key(disk: &mut DirectoryDisk) -> io::Result<SecretArray<32>> {
    if let Some(stored) = disk.read(PLAIN_WRAPPING_KEY)?.map(SecretBytes::from_vec) {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the wrapping key has another length");
        // Exposed to be moved into its type.
        let octets: &[u8; 32] = stored.expose().try_into().map_err(|_length| wrong())?;
        return Ok(SecretArray::fill(|key| key.copy_from_slice(octets)));
    }
    let fresh = kf_crypto::random_secret::<32>().map_err(|_opaque| io::Error::other("no random numbers"))?;
    // Exposed to the file that the configuration allows.
    replace(disk, PLAIN_WRAPPING_KEY, fresh.expose())?;
    Ok(fresh)
}

enum RootFailure {
    Start(Failure),
    Disk(io::Error),
}

/// The server with its roots, if they are known: from the file, or from an earlier fetch by fingerprint.
fn open_server(config: &Config, clock: &Clock, disk: &DirectoryDisk) -> Result<Option<Server>, RootFailure> {
    let field = "trust.root_file";
    let roots = match (&config.trust.root_file, config.root_sha256().map_err(|e| RootFailure::Start(e.into()))?) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| RootFailure::Start(Failure::Source { field, source }))?;
            let roots = kf_pki::pem::decode_all("CERTIFICATE", &text).filter(|roots| !roots.is_empty());
            let expected = "a certificate in PEM";
            roots.ok_or(RootFailure::Start(Failure::Content { field, expected }))?
        }
        (None, Some(pin)) => match disk.read(ROOT).map_err(RootFailure::Disk)? {
            Some(root) if kf_crypto::sha256(&root) == pin => vec![root],
            _ => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    let anchors = Anchors::open(roots, disk).map_err(RootFailure::Disk)?;
    let server = Server::new(config, clock.clone(), anchors);
    let expected = "an https address, with a label of letters, digits, `-`, `.` or `_`";
    server.map(Some).map_err(|_unusable| RootFailure::Start(Failure::Content { field: "server", expected }))
}

/// Makes the state directory when it is missing, holds it, and removes what is left of a reset that was told: before anybody asks
/// where keys live.
fn hold(path: &Path) -> Result<File, Failure> {
    let failed = |source| Failure::State { path: path.to_owned(), source };
    let mut disk = DirectoryDisk::open(path, &SLOTS).map_err(failed)?;
    let lock = lock(path)?;
    reset::settle(&mut disk).map_err(failed)?;
    Ok(lock)
}

/// Whether something of the device may still lie in the hardware. A wipe or a reset that is cut short leaves a TPM with nothing, and
/// perhaps a file of its storage key that was overwritten and not removed yet.
fn needs_hardware(config: &Config) -> bool {
    let is_there = |name| config.state_dir.join(name).exists();
    let is_over = is_there(WIPED_DONE) || is_there(RESET_DONE);
    let is_ending = is_there(WIPED) || is_there(RESET);
    !is_over && (!is_ending || config.key.kind != KeyKind::Tpm)
}

/// Where the configuration says that keys live.
fn key_source_of(config: &Config) -> Result<Box<dyn KeySource>, Failure> {
    let key = &config.key;
    match key.kind {
        KeyKind::Software => Ok(Box::new(SoftwareKeys::new(key.algorithm, secret_source::seal_key(key)?))),
        KeyKind::Tpm => tpm_keys(config),
        KeyKind::Pkcs11 => {
            let missing = Failure::Content { field: "key.pkcs11", expected: "a token's module and label" };
            let (Some(token), Some(pin)) = (&key.pkcs11, secret_source::unlock_value(key)?) else {
                return Err(missing);
            };
            let keys = TokenKeys::open(token.module.clone(), token.token.clone(), pin, &config.device_name)?;
            Ok(Box::new(keys))
        }
        KeyKind::SecureElement => element_keys(key),
    }
}

#[cfg(feature = "secure-element")]
fn element_keys(key: &crate::config::Key) -> Result<Box<dyn KeySource>, Failure> {
    let settings = &key.secure_element;
    let element = kf_secure_element::open_linux(&settings.bus, settings.address).map_err(|error| {
        tracing::error!(%error, bus = %settings.bus.display(), "the secure element does not answer");
        crate::key_source::KeyError::Hardware(crate::key_source::HardwareFault::Unreachable)
    })?;
    Ok(Box::new(crate::key_source::ElementKeys::new(element)?))
}

#[cfg(not(feature = "secure-element"))]
fn element_keys(_key: &crate::config::Key) -> Result<Box<dyn KeySource>, Failure> {
    Err(Failure::NotBuilt { field: "key.kind", value: "secure-element", feature: "secure-element" })
}

#[cfg(feature = "tpm")]
fn tpm_keys(config: &Config) -> Result<Box<dyn KeySource>, Failure> {
    let path = &config.state_dir;
    let mut disk = DirectoryDisk::open(path, &SLOTS).map_err(|source| Failure::State { path: path.clone(), source })?;
    Ok(Box::new(crate::key_source::tpm::TpmKeys::open(&config.key, &mut disk, path)?))
}

#[cfg(not(feature = "tpm"))]
fn tpm_keys(_config: &Config) -> Result<Box<dyn KeySource>, Failure> {
    Err(Failure::NotBuilt { field: "key.kind", value: "tpm", feature: "tpm" })
}

/// Holds the state directory for one agent as long as the file is open.
fn lock(path: &Path) -> Result<File, Failure> {
    let failed = |source| Failure::State { path: path.to_owned(), source };
    let file = File::create(path.join("lock")).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::Locked { path: path.to_owned() }),
        Err(errno) => Err(failed(errno.into())),
    }
}

fn parse_millis(text: &[u8]) -> Option<UnixMillis> {
    std::str::from_utf8(text).ok()?.trim().parse().ok().map(UnixMillis)
}

/// Replaces a file that other programs read.
fn export(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = File::create(&temporary)?;
    io::Write::write_all(&mut file, content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

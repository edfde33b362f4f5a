//! A station for tests: a token in memory, a quota of a rehearsal, a disk that power can be cut from.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kf_batch::P256Key;
use kf_batch::record::Record;
use kf_crypto::{HpkePrivateKey, PrivateKey};
use kf_key::{KeyAlgorithm, SecretArray, UnixMillis};
use kf_station::clock::Clock;
use kf_station::journal::JournalFile;
use kf_station::label::LabelSink;
use kf_station::recipe::Recipe;
use kf_station::rehearsal::{Authorised, Order, authorise};
use kf_station::request::station_request;
use kf_station::station::{Recovered, Setup, Station, StationError};
use kf_station::target::{Target, of_recipe};
use kf_station::token::{Generation, StationKey, StationToken, TokenError};

pub(crate) const LINUX: &str = r#"
format = 1
sku = "gate-r1"
product_line = "gate"
target = "linux"
[identity]
algorithm = "p-256"
origin = "station"
protection = "sealed"
[device_key]
inject = true
"#;

pub(crate) struct MemoryToken {
    keys: Mutex<BTreeMap<StationKey, PrivateKey>>,
    transports: Mutex<BTreeMap<Generation, HpkePrivateKey>>,
    pub(crate) counters: Mutex<BTreeMap<[u8; 16], u64>>,
    pub(crate) power: Option<Arc<Power>>,
    pub(crate) stuck: std::sync::atomic::AtomicBool,
}

impl MemoryToken {
    /// With the keys of the first generation.
    pub(crate) fn new(power: Option<Arc<Power>>) -> Arc<Self> {
        let token = Self::empty(None);
        token.draw(Generation::FIRST).unwrap();
        Arc::new(Self { power, ..token })
    }

    pub(crate) fn empty(power: Option<Arc<Power>>) -> Self {
        let identity = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
        Self {
            keys: Mutex::new(BTreeMap::from([(StationKey::Identity, identity)])),
            transports: Mutex::default(),
            counters: Mutex::default(),
            power,
            stuck: false.into(),
        }
    }

    fn spend(&self, act: &'static str) -> Result<(), TokenError> {
        self.power.as_ref().map_or(Ok(()), |power| power.spend()).map_err(|_off| TokenError(act))
    }
}

impl StationToken for MemoryToken {
    fn source(&self) -> &str {
        "memory"
    }

    fn public_key(&self, key: StationKey) -> Result<P256Key, TokenError> {
        let keys = self.keys.lock().unwrap();
        Ok(P256Key::from_spki(&keys.get(&key).ok_or(TokenError::MISSING)?.spki()).unwrap())
    }

    fn sign(&self, key: StationKey, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.spend("sign")?;
        Ok(self.keys.lock().unwrap().get(&key).ok_or(TokenError::MISSING)?.sign(message).unwrap())
    }

    fn transport_key(&self, generation: Generation) -> Result<P256Key, TokenError> {
        let transports = self.transports.lock().unwrap();
        Ok(P256Key::from_point(*transports.get(&generation).ok_or(TokenError::MISSING)?.public_key()).unwrap())
    }

    fn agree(&self, generation: Generation, peer: &[u8; 65]) -> Result<SecretArray<32>, TokenError> {
        Ok(self.transports.lock().unwrap().get(&generation).ok_or(TokenError::MISSING)?.agree(peer).unwrap())
    }

    fn draw(&self, generation: Generation) -> Result<(), TokenError> {
        for key in [StationKey::Authority(generation), StationKey::Record(generation)] {
            self.spend("draw")?;
            let fresh = || PrivateKey::generate(KeyAlgorithm::P256).unwrap();
            self.keys.lock().unwrap().entry(key).or_insert_with(fresh);
        }
        self.spend("draw")?;
        let fresh = || HpkePrivateKey::derive(&kf_crypto::random_secret().unwrap()).unwrap();
        self.transports.lock().unwrap().entry(generation).or_insert_with(fresh);
        Ok(())
    }

    fn destroy(&self, generation: Generation) -> Result<&'static str, TokenError> {
        for key in [StationKey::Authority(generation), StationKey::Record(generation)] {
            self.spend("destroy")?;
            self.keys.lock().unwrap().remove(&key);
        }
        self.spend("destroy")?;
        self.transports.lock().unwrap().remove(&generation);
        Ok("forgotten")
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), TokenError> {
        if self.stuck.load(Ordering::SeqCst) {
            out.fill(7);
            return Ok(());
        }
        kf_crypto::fill_random(out).map_err(|_opaque| TokenError("give random octets"))
    }

    fn counter(&self, batch: &[u8; 16]) -> Result<u64, TokenError> {
        Ok(self.counters.lock().unwrap().get(batch).copied().unwrap_or(0))
    }

    fn advance(&self, batch: &[u8; 16], to: u64) -> Result<(), TokenError> {
        self.spend("advance")?;
        let mut counters = self.counters.lock().unwrap();
        let counter = counters.entry(*batch).or_default();
        *counter = (*counter).max(to);
        Ok(())
    }
}

/// Power for a number of acts; then nothing works any more.
#[derive(Debug)]
pub(crate) struct Power(AtomicU64);

impl Power {
    pub(crate) fn for_acts(acts: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(acts)))
    }

    pub(crate) fn spend(&self) -> io::Result<()> {
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(|_| ()).map_err(|_none| io::Error::other("no power"))
    }

    /// So many acts are left.
    #[allow(dead_code, reason = "not in every test program")]
    pub(crate) fn leave(&self, acts: u64) {
        self.0.store(acts, Ordering::SeqCst);
    }

    pub(crate) fn cut(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    pub(crate) fn is_off(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

/// A disk: what was synced stays; of a write that power interrupted a part stays.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) durable: Vec<u8>,
    pub(crate) waiting: Vec<u8>,
    pub(crate) power: Option<Arc<Power>>,
    /// How much of what was not synced is there after a power cut, in quarters.
    pub(crate) quarters: usize,
    /// Where its space is counted.
    pub(crate) space: Option<Arc<Space>>,
}

/// A disk that is full at one act, or for some: for whoever shares it.
#[derive(Debug)]
pub(crate) struct Space {
    acts: AtomicU64,
    full_from: u64,
    full_until: u64,
    pub(crate) free: AtomicU64,
}

impl Space {
    /// Full at acts `from` to `until`, counted from 0.
    pub(crate) fn full_at(from: u64, until: u64) -> Arc<Self> {
        Arc::new(Self { acts: AtomicU64::new(0), full_from: from, full_until: until, free: AtomicU64::new(u64::MAX) })
    }

    pub(crate) fn write(&self) -> io::Result<()> {
        let act = self.acts.fetch_add(1, Ordering::SeqCst);
        if (self.full_from..self.full_until).contains(&act) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    pub(crate) fn acts(&self) -> u64 {
        self.acts.load(Ordering::SeqCst)
    }
}

impl Disk {
    pub(crate) fn powered(durable: Vec<u8>, power: Arc<Power>, quarters: usize) -> Self {
        Self { durable, waiting: Vec::new(), power: Some(power), quarters, space: None }
    }

    fn spend(&mut self) -> io::Result<()> {
        let Some(power) = &self.power else { return Ok(()) };
        power.spend().inspect_err(|_off| {
            let torn = self.waiting.len() * self.quarters / 4;
            self.durable.extend(self.waiting.drain(..).take(torn));
        })
    }
}

impl JournalFile for Disk {
    fn reader(&mut self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(Cursor::new(&self.durable)))
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.durable.truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        if let Some(space) = &self.space {
            space.write().inspect_err(|_full| {
                // What had room is there.
                self.durable.extend_from_slice(&octets[..octets.len() / 2]);
            })?;
        }
        self.waiting.extend_from_slice(octets);
        self.spend()
    }

    fn free_octets(&self) -> io::Result<Option<u64>> {
        Ok(self.space.as_ref().map(|space| space.free.load(Ordering::SeqCst)))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.spend()?;
        let mut waiting = std::mem::take(&mut self.waiting);
        self.durable.append(&mut waiting);
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct TestClock(pub(crate) AtomicU64);

/// Goes on by a millisecond whenever it is read, so that no two threads read the same.
impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// What is the same in all lives of one station.
pub(crate) struct Stage {
    pub(crate) recipe: Recipe,
    pub(crate) target: Arc<dyn Target>,
    pub(crate) token: Arc<MemoryToken>,
    pub(crate) authorised: Authorised,
    pub(crate) clock: Arc<TestClock>,
    /// Names of labels that were spooled, for tests that keep them.
    #[allow(dead_code, reason = "not in every test program")]
    pub(crate) spooled: Mutex<std::collections::BTreeSet<String>>,
}

impl Stage {
    pub(crate) fn new(recipe: &str, count: u32) -> Self {
        Self::with_token(recipe, count, MemoryToken::new(None))
    }

    pub(crate) fn with_token(recipe: &str, count: u32, token: Arc<MemoryToken>) -> Self {
        Self::authorised_by(recipe, count, token.as_ref(), Arc::clone(&token))
    }

    /// A stage whose quota is for another token than the one in memory.
    #[allow(dead_code, reason = "for tokens in hardware")]
    pub(crate) fn authorised_for(recipe: &str, count: u32, token: Arc<dyn StationToken>) -> Self {
        Self::authorised_by(recipe, count, token.as_ref(), MemoryToken::new(None))
    }

    fn authorised_by(recipe: &str, count: u32, by: &dyn StationToken, token: Arc<MemoryToken>) -> Self {
        let recipe = Recipe::parse(recipe).unwrap();
        by.draw(Generation::FIRST).unwrap();
        let request = station_request(by, Generation::FIRST, "station-1", NOW).unwrap();
        let order = Order {
            station: "station-1",
            product_line: &recipe.product_line,
            plan: recipe.plan().hash,
            count,
            allows_unsafe: false,
            hours: 24,
            now: NOW,
        };
        let authorised = authorise(&request, &order).unwrap();
        let target = of_recipe(&recipe).unwrap();
        let clock = Arc::new(TestClock(AtomicU64::new(NOW.0)));
        Self { recipe, target, token, authorised, clock, spooled: Mutex::default() }
    }

    pub(crate) fn open_with(
        &self,
        disk: Disk,
        token: Arc<dyn StationToken>,
    ) -> Result<(Station<Disk>, Recovered), StationError> {
        Station::open(self.setup(disk, token, self.recipe.plan().burn_phrase()))
    }

    /// With labels and token going there.
    #[allow(dead_code, reason = "not in every test program")]
    pub(crate) fn open_all(
        &self,
        disk: Disk,
        token: Arc<dyn StationToken>,
        labels: Arc<dyn LabelSink>,
    ) -> Result<(Station<Disk>, Recovered), StationError> {
        Station::open(Setup { labels, ..self.setup(disk, token, self.recipe.plan().burn_phrase()) })
    }

    /// With this typed before fuses are burnt.
    pub(crate) fn open_confirmed(&self, phrase: &str) -> Result<(Station<Disk>, Recovered), StationError> {
        let token = Arc::clone(&self.token) as Arc<dyn StationToken>;
        Station::open(self.setup(Disk::default(), token, phrase.to_owned()))
    }

    /// With labels going there.
    pub(crate) fn open_with_labels(&self, disk: Disk, labels: Arc<dyn LabelSink>) -> Station<Disk> {
        let token = Arc::clone(&self.token) as Arc<dyn StationToken>;
        let setup = Setup { labels, ..self.setup(disk, token, String::new()) };
        Station::open(setup).unwrap().0
    }

    fn setup(&self, disk: Disk, token: Arc<dyn StationToken>, confirmation: String) -> Setup<Disk> {
        Setup {
            recipe: self.recipe.clone(),
            quota: self.authorised.quota.clone(),
            signed_quota: self.authorised.signed.clone(),
            confirmation,
            journal: disk,
            token,
            generation: Generation::FIRST,
            target: Arc::clone(&self.target),
            labels: Arc::new(()),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            operator: "tester".to_owned(),
        }
    }

    /// The station's token, as long as there is power.
    pub(crate) fn powered(&self, power: &Arc<Power>) -> Arc<dyn StationToken> {
        Arc::new(Powered { token: Arc::clone(&self.token), power: Arc::clone(power) })
    }

    pub(crate) fn open(&self, disk: Disk) -> Result<(Station<Disk>, Recovered), StationError> {
        self.open_with(disk, Arc::clone(&self.token) as Arc<dyn StationToken>)
    }

    /// The records of a journal, verified under the record key and checked to be one unbroken chain.
    pub(crate) fn records(&self, disk: &mut Disk) -> Vec<Record> {
        let mut sequence = Vec::new();
        kf_station::ledger::export(disk, &mut sequence).unwrap();
        let key = self.token.public_key(StationKey::Record(Generation::FIRST)).unwrap();
        let mut previous = kf_batch::quota::quota_hash(&self.authorised.signed);
        let (mut rest, mut records) = (sequence.as_slice(), Vec::new());
        while !rest.is_empty() {
            let kf_batch::frame::Split { item, rest: behind, .. } = kf_batch::frame::split_item(rest).unwrap().unwrap();
            rest = behind;
            if let Ok(record) = Record::verify(item, &key) {
                assert_eq!((record.sequence, record.previous), (records.len() as u64 + 1, previous));
                previous = kf_batch::frame::document_hash(item);
                records.push(record);
            }
        }
        records
    }
}

/// The token of a station that can lose power.
struct Powered {
    token: Arc<MemoryToken>,
    power: Arc<Power>,
}

impl StationToken for Powered {
    fn source(&self) -> &str {
        self.token.source()
    }

    fn public_key(&self, key: StationKey) -> Result<P256Key, TokenError> {
        self.token.public_key(key)
    }

    fn sign(&self, key: StationKey, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.power.spend().map_err(|_off| TokenError("sign"))?;
        self.token.sign(key, message)
    }

    fn transport_key(&self, generation: Generation) -> Result<P256Key, TokenError> {
        self.token.transport_key(generation)
    }

    fn agree(&self, generation: Generation, peer: &[u8; 65]) -> Result<SecretArray<32>, TokenError> {
        self.token.agree(generation, peer)
    }

    fn draw(&self, generation: Generation) -> Result<(), TokenError> {
        self.token.draw(generation)
    }

    fn destroy(&self, generation: Generation) -> Result<&'static str, TokenError> {
        self.token.destroy(generation)
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), TokenError> {
        self.token.fill_random(out)
    }

    fn counter(&self, batch: &[u8; 16]) -> Result<u64, TokenError> {
        self.token.counter(batch)
    }

    fn advance(&self, batch: &[u8; 16], to: u64) -> Result<(), TokenError> {
        // A power cut leaves the counter advanced or not: both are tried, by the act before and the act after.
        self.token.advance(batch, to)?;
        self.power.spend().map_err(|_off| TokenError("advance"))
    }
}

//! The writer: one thread, one connection, group commit.
//!
//! It takes what is queued (up to the group limit), waits a little for those who said that they are about to come, runs
//! each operation so that its failure undoes it alone, commits once, and only then answers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use kf_key::UnixMillis;
use kf_log::Tree;
use kf_log::tree::CompletedTile;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use crate::act::{Act, Class, Halt, Isolation, Pending};
use crate::column::millis;
use crate::connection::{Readers, limit_wal, shrink_wal};
use crate::device::Touched;
use crate::reserve::Reserve;
use crate::{Health, StoreError, log, sql};

/// How long a store that is full waits before it looks whether there is space again.
const LOOK_FOR_SPACE_EVERY: Duration = Duration::from_secs(1);
/// A sighting so soon after the one that is written says nothing new, and would change a page of its own: a device that has renewed
/// polls next.
const SIGHTING_STEP: u64 = 60 * UnixMillis::SECOND;
/// Sightings of devices written with one group.
pub(crate) const TOUCHES_PER_GROUP: usize = 1_000;

/// What readers see of the writer.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) tree: RwLock<Arc<Tree>>,
    /// Its size, for those who wait for it to grow.
    pub(crate) grown: watch::Sender<u64>,
    pub(crate) health: RwLock<Health>,
    pub(crate) stopped: RwLock<Option<String>>,
    pub(crate) touched: Mutex<Touched>,
    /// Callers that are about to come, see [`Announced`].
    announced: AtomicUsize,
    /// The writer's thread, to be woken when the last of them has come.
    thread: OnceLock<Thread>,
}

impl Shared {
    /// Whether somebody has announced that he is about to write.
    pub(crate) fn are_coming(&self) -> bool {
        self.announced.load(Ordering::Acquire) > 0
    }

    pub(crate) fn health(&self) -> Health {
        self.health.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_health(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.health.write().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn tree(&self) -> Arc<Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_tree(&self, tree: Arc<Tree>) {
        let size = tree.size();
        *self.tree.write().unwrap_or_else(PoisonError::into_inner) = tree;
        self.grown.send_replace(size);
    }
}

/// A caller that will write in a moment, once something is signed for example. As long as there are some, the writer
/// gathers a little longer: a commit costs more than what is in it, so that one commit for many is what carries load.
/// Dropped when the caller has come, or will not.
#[derive(Debug)]
pub(crate) struct Announcement(Arc<Shared>);

impl Announcement {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.announced.fetch_add(1, Ordering::AcqRel);
        Self(shared)
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if self.0.announced.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(thread) = self.0.thread.get()
        {
            thread.unpark();
        }
    }
}

/// Work on the writer's connection outside of any transaction.
pub(crate) struct Alone(pub(crate) Box<dyn FnOnce(&Connection) + Send>);

/// What is sent to the writer.
pub(crate) enum Message {
    /// An operation.
    Job(Box<dyn Job>),
    /// Something to be done between two groups, outside of any transaction.
    Alone(Alone),
    /// Sightings wait to be written.
    Touched,
    /// Finish what is queued, then end.
    Close(oneshot::Sender<()>),
}

/// An operation on its way through the writer.
pub(crate) trait Job: Send {
    fn class(&self) -> Class;
    /// Runs it; may be called again when the group it was in could not be committed.
    fn run(&mut self, pending: &mut Pending, connection: &Connection, isolation: Isolation) -> Result<(), Halt>;
    /// Answers the caller: with its own outcome when the group was committed.
    fn answer(self: Box<Self>, group: Result<(), StoreError>);
}

/// An operation with its type.
pub(crate) struct Typed<T, F> {
    class: Class,
    operation: F,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Typed<T, F>
where
    T: Send + 'static,
    F: FnMut(&mut Act<'_>) -> Result<T, StoreError> + Send + 'static,
{
    pub(crate) fn boxed(class: Class, operation: F, reply: oneshot::Sender<Result<T, StoreError>>) -> Box<dyn Job> {
        Box::new(Self { class, operation, outcome: None, reply })
    }
}

impl<T, F> Job for Typed<T, F>
where
    T: Send,
    F: FnMut(&mut Act<'_>) -> Result<T, StoreError> + Send,
{
    fn class(&self) -> Class {
        self.class
    }

    fn run(&mut self, pending: &mut Pending, connection: &Connection, isolation: Isolation) -> Result<(), Halt> {
        self.outcome = Some(pending.run(connection, isolation, &mut self.operation)?);
        Ok(())
    }

    fn answer(self: Box<Self>, group: Result<(), StoreError>) {
        let Self { outcome, reply, .. } = *self;
        let answer = match (group, outcome) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Err(StoreError::Closed),
        };
        // Whoever asked may have gone; what was committed stays committed.
        let _gone = reply.send(answer);
    }
}

/// The longest that a group waits for callers who are about to come.
const GATHER: Duration = Duration::from_millis(4);

/// What goes into one group.
#[derive(Default)]
struct Gathered {
    jobs: Vec<Box<dyn Job>>,
    alone: Vec<Alone>,
    /// Whether sightings are to be written with it.
    sightings: bool,
    closing: Option<oneshot::Sender<()>>,
}

impl Gathered {
    fn take(&mut self, message: Message) {
        match message {
            Message::Job(job) => self.jobs.push(job),
            Message::Alone(work) => self.alone.push(work),
            Message::Touched => self.sightings = true,
            Message::Close(done) => {
                self.sightings = true;
                self.closing = Some(done);
            }
        }
    }
}

/// The writer's own state.
pub(crate) struct Writer {
    connection: Connection,
    tree: Arc<Tree>,
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    reserve: Reserve,
    group: usize,
    looked_for_space: Option<Instant>,
}

impl Writer {
    /// A writer on a connection whose schema is up to date.
    ///
    /// # Errors
    /// When the log does not fit its tree, or the reserve cannot be read.
    pub(crate) fn new(
        connection: Connection,
        shared: Arc<Shared>,
        readers: Arc<Readers>,
        reserve: Reserve,
        group: usize,
    ) -> Result<Self, StoreError> {
        let tree = Arc::new(log::load_tree(&connection)?);
        shared.set_tree(tree.clone());
        let stopped = crate::setting::stopped(&connection)?;
        *shared.stopped.write().unwrap_or_else(PoisonError::into_inner) = stopped;
        let group = group.clamp(1, 4_096);
        let mut writer = Self { connection, tree, shared, readers, reserve, group, looked_for_space: None };
        if !writer.reserve.arm(&writer.connection)? {
            writer.enter_full()?;
        }
        Ok(writer)
    }

    /// Serves until every sender is gone or somebody closes.
    pub(crate) fn serve(mut self, mut queue: mpsc::Receiver<Message>) {
        // Set once: a store has one writer.
        let _first = self.shared.thread.set(std::thread::current());
        let mut closing = None;
        while closing.is_none() {
            let Some(first) = queue.blocking_recv() else { break };
            let mut gathered = Gathered::default();
            gathered.take(first);
            self.gather(&mut queue, &mut gathered);
            if gathered.closing.is_some() {
                queue.close();
            }
            closing = gathered.closing;
            self.group(gathered.jobs, gathered.sightings);
            for Alone(work) in gathered.alone {
                let _writing = self.readers.writing();
                work(&self.connection);
            }
        }
        while let Some(message) = queue.blocking_recv() {
            if let Message::Job(job) = message {
                self.group(vec![job], false);
            }
        }
        drop(self);
        if let Some(done) = closing {
            let _gone = done.send(());
        }
    }

    /// Takes what is queued, and waits for those who are about to come. A lone caller never waits.
    fn gather(&self, queue: &mut mpsc::Receiver<Message>, gathered: &mut Gathered) {
        let begun = Instant::now();
        loop {
            while gathered.jobs.len() < self.group
                && let Ok(message) = queue.try_recv()
            {
                gathered.take(message);
            }
            let left = GATHER.saturating_sub(begun.elapsed());
            let is_full = gathered.jobs.len() >= self.group;
            if is_full || gathered.closing.is_some() || left.is_zero() || !self.shared.are_coming() {
                return;
            }
            std::thread::park_timeout(left);
        }
    }

    /// Carries out one group and answers every operation in it.
    fn group(&mut self, jobs: Vec<Box<dyn Job>>, sightings: bool) {
        let readers = Arc::clone(&self.readers);
        let _writing = readers.writing();
        let mut admitted = Vec::with_capacity(jobs.len());
        for job in jobs {
            match self.admit(job.class()) {
                Ok(()) => admitted.push(job),
                Err(error) => job.answer(Err(error)),
            }
        }
        match self.commit_group(&mut admitted, sightings) {
            Ok(()) => answer_all(admitted, &Ok(())),
            Err(StoreError::Full) => self.full(admitted),
            // Another program holds the file's lock: nothing was written, and nothing is wrong with the disk.
            Err(StoreError::Busy) => answer_all(admitted, &Err(StoreError::Busy)),
            Err(error) => {
                tracing::error!(%error, "a commit failed: only revocations are written from now on");
                self.shared.set_health(|health| {
                    health.fenced.get_or_insert_with(|| format!("a write failed: {error}"));
                });
                answer_all(admitted, &Err(error));
            }
        }
    }

    fn admit(&mut self, class: Class) -> Result<(), StoreError> {
        if class == Class::Reserved {
            return Ok(());
        }
        let health = self.shared.health();
        if let Some(why) = health.fenced {
            return Err(StoreError::Fenced { why });
        }
        if health.full && !self.space_again() {
            return Err(StoreError::Full);
        }
        Ok(())
    }

    /// Whether a store that was full has its reserve again.
    fn space_again(&mut self) -> bool {
        let now = Instant::now();
        if self.looked_for_space.is_some_and(|last| now.duration_since(last) < LOOK_FOR_SPACE_EVERY) {
            return false;
        }
        self.looked_for_space = Some(now);
        if shrink_wal(&self.connection).is_err() || !matches!(self.reserve.arm(&self.connection), Ok(true)) {
            return false;
        }
        tracing::info!("there is space again: everything is written");
        self.shared.set_health(|health| health.full = false);
        limit_wal(&self.connection, false).is_ok()
    }

    fn enter_full(&mut self) -> Result<(), StoreError> {
        self.shared.set_health(|health| health.full = true);
        self.looked_for_space = Some(Instant::now());
        self.reserve.release(&self.connection)?;
        limit_wal(&self.connection, true)?;
        shrink_wal(&self.connection)
    }

    /// The disk is full: refuses what is ordinary, writes the rest from the reserve.
    fn full(&mut self, jobs: Vec<Box<dyn Job>>) {
        tracing::error!("the disk is full: only revocations are written until there is space again");
        let released = self.enter_full();
        let (mut reserved, ordinary): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| job.class() == Class::Reserved);
        answer_all(ordinary, &Err(StoreError::Full));
        let result = released.and_then(|()| self.commit_group(&mut reserved, false));
        answer_all(reserved, &result);
    }

    /// One transaction: every operation, the counters, the completed tiles, the commit.
    fn commit_group(&mut self, jobs: &mut [Box<dyn Job>], sightings: bool) -> Result<(), StoreError> {
        let touched = if sightings { self.take_touched() } else { Touched::new() };
        if jobs.is_empty() && touched.is_empty() {
            return Ok(());
        }
        let mut result = self.try_commit(jobs, &touched, Isolation::Bare);
        if result == Err(Halt::Unclean) {
            self.roll_back();
            result = self.try_commit(jobs, &touched, Isolation::Savepoint);
        }
        match &result {
            Ok(tree) => {
                self.tree = tree.clone();
                self.shared.set_tree(tree.clone());
                self.read_switch();
            }
            Err(_) => {
                self.roll_back();
                self.read_tree_back();
            }
        }
        result.map(drop).map_err(|halt| match halt {
            Halt::Failed(error) => error,
            Halt::Unclean => StoreError::Io { what: "an operation could not be undone".into() },
        })
    }

    fn try_commit(
        &self,
        jobs: &mut [Box<dyn Job>],
        touched: &Touched,
        isolation: Isolation,
    ) -> Result<Arc<Tree>, Halt> {
        sql::execute(&self.connection, "BEGIN IMMEDIATE", [])?;
        let mut pending = Pending::new(self.tree.size());
        for job in jobs {
            job.run(&mut pending, &self.connection, isolation)?;
        }
        for (device, at) in touched {
            let sql = "UPDATE device SET last_seen = ?2 WHERE id = ?1 AND coalesce(last_seen, 0) < ?3";
            let before = millis(at.minus(SIGHTING_STEP));
            sql::execute(&self.connection, sql, (device.as_bytes(), millis(*at), before))?;
        }
        pending.write(&self.connection)?;
        let mut tree = self.tree.clone();
        if !pending.entries().is_empty() {
            let grown = Arc::make_mut(&mut tree);
            let mut completed: Vec<CompletedTile> = Vec::new();
            for entry in pending.entries() {
                grown.append(entry.hash(), &mut completed);
            }
            log::store_tiles(&self.connection, &completed)?;
        }
        sql::execute(&self.connection, "COMMIT", [])?;
        Ok(tree)
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }

    /// A commit whose flush failed may have reached the file all the same: what counts is what is read back.
    fn read_tree_back(&mut self) {
        match log::load_tree(&self.connection) {
            Ok(tree) if tree != *self.tree => {
                self.tree = Arc::new(tree);
                self.shared.set_tree(self.tree.clone());
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "the log could not be read back");
                self.shared.set_health(|health| health.fenced = Some(error.to_string()));
            }
        }
    }

    fn take_touched(&self) -> Touched {
        let mut touched = self.shared.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let health = self.shared.health();
        if touched.is_empty() || health.full || health.fenced.is_some() {
            return Touched::new();
        }
        match touched.keys().nth(TOUCHES_PER_GROUP).copied() {
            None => std::mem::take(&mut *touched),
            Some(rest_from) => {
                let rest = touched.split_off(&rest_from);
                std::mem::replace(&mut *touched, rest)
            }
        }
    }

    fn read_switch(&self) {
        if let Ok(stopped) = crate::setting::stopped(&self.connection) {
            let mut shared = self.shared.stopped.write().unwrap_or_else(PoisonError::into_inner);
            if *shared != stopped {
                *shared = stopped;
            }
        }
    }
}

fn answer_all(jobs: Vec<Box<dyn Job>>, result: &Result<(), StoreError>) {
    for job in jobs {
        job.answer(result.clone());
    }
}

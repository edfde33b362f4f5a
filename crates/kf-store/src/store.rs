//! Opening, closing, and the state of the store as a whole.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::act::{Act, Class};
use crate::connection::{Durability, Readers, open_writer};
use crate::reserve::Reserve;
use crate::writer::{Alone, Announcement, Message, Shared, Typed, Writer};
use crate::{Audit, Logged, StoreError, schema};

/// How long an opener waits for whoever has the database. A server that is started again meets its predecessor on the way out, and a
/// process that was just forked keeps its parent's lock until it has become another program.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// Between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// How a store is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Read-only connections kept ready, 1 to 64.
    pub readers: usize,
    /// Operations that may wait for the writer; beyond it callers wait for room.
    pub queue: usize,
    /// The most operations in one commit, 1 to 4,096.
    pub group: usize,
    /// Octets kept free for revocations with their log entries when the disk is full; 0 turns the reserve off.
    pub reserve_octets: u64,
    /// The most pages (of 4,096 octets) the database may grow to, of which `reserve_octets` are kept for revocations.
    pub max_pages: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self { readers: 4, queue: 4_096, group: 256, reserve_octets: 64 << 20, max_pages: None }
    }
}

/// Whether the store takes writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The disk is full: only revocations and what stops things are written.
    pub full: bool,
    /// Writes other than revocations are refused, for this reason.
    pub fenced: Option<String>,
}

/// The registry. Cheap to clone; the writer ends when the last clone is dropped or [`Store::close`] is called.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Mutex<Option<mpsc::Sender<Message>>>,
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Held as long as the store is open: a second process with its own idea of the log would fork it.
    _lock: File,
    path: PathBuf,
    /// The database as a plain file, for searches. Once open it stays so until the connections are closed: closing any
    /// descriptor of a file gives up the locks that SQLite holds on it for this process (POSIX fcntl).
    searched: Mutex<Option<File>>,
    throw_away: Option<PathBuf>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // The thread has nothing left to wait for; a panic in it has been reported by its own hook.
            let _panicked = thread.join();
        }
        if let Some(directory) = &self.throw_away
            && let Err(error) = std::fs::remove_dir_all(directory)
        {
            tracing::warn!(%error, "a throw-away store was left behind");
        }
    }
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> StoreError {
    move |error| StoreError::Io { what: format!("{what}: {error}") }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the lock of a file is asked for with no time limit, or not waited for at all"
)]
fn lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push("-lock");
    let file = File::options().create(true).truncate(false).write(true).open(PathBuf::from(name));
    let file = file.map_err(io("the lock file could not be opened"))?;
    let asked = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if asked.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_PAUSE),
            Err(error) => {
                return Err(StoreError::Io { what: format!("another process has this database open: {error}") });
            }
        }
    }
}

impl Store {
    /// Opens the database at `path`, makes it when it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] for a file of a newer version, [`StoreError::Corrupt`] when the log does not fit its
    /// stored tree, [`StoreError::Io`] also when another process has it open.
    pub fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        Self::start(path, &options, Durability::Full, None)
    }

    /// A store for tests: in a directory of its own below the system's temporary one, removed on drop, and not flushed
    /// to disk; everything else is as in a real one.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn in_memory() -> Result<Self, StoreError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("kf-store-{}-{number}", std::process::id()));
        if directory.exists() {
            std::fs::remove_dir_all(&directory).map_err(io("an older throw-away store could not be removed"))?;
        }
        std::fs::create_dir_all(&directory).map_err(io("the directory could not be made"))?;
        let path = directory.join("registry.db");
        let options = Options { reserve_octets: 0, ..Options::default() };
        Self::start(&path, &options, Durability::None, Some(directory))
    }

    fn start(
        path: &Path,
        options: &Options,
        durability: Durability,
        throw_away: Option<PathBuf>,
    ) -> Result<Self, StoreError> {
        let lock = lock(path)?;
        let mut connection = open_writer(path, durability)?;
        schema::migrate(&mut connection)?;
        let readers = Arc::new(Readers::open(path, options.readers)?);
        let shared = Arc::new(Shared::default());
        let reserve = Reserve::new(path, options.reserve_octets, options.max_pages);
        let writer = Writer::new(connection, shared.clone(), Arc::clone(&readers), reserve, options.group)?;
        let (queue, receiver) = mpsc::channel(options.queue.max(1));
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.serve(receiver))
            .map_err(io("the writer thread could not be started"))?;
        let queue = Mutex::new(Some(queue));
        let thread = Mutex::new(Some(thread));
        Ok(Self {
            inner: Arc::new(Inner {
                queue,
                shared,
                readers,
                thread,
                _lock: lock,
                path: path.into(),
                searched: Mutex::default(),
                throw_away,
            }),
        })
    }

    /// Whether the store takes writes.
    #[must_use]
    pub fn health(&self) -> Health {
        self.inner.shared.health()
    }

    /// Refuses every write but revocations from now on (until reopened): the database was found to be older than a
    /// witness says.
    pub fn fence(&self, why: String) {
        self.inner.shared.set_health(|health| health.fenced = Some(why));
    }

    /// Writes what waits, then ends the writer; later writes are answered with [`StoreError::Closed`].
    pub async fn close(&self) {
        let queue = self.inner.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(queue) = queue {
            let (done, ended) = oneshot::channel();
            if queue.send(Message::Close(done)).await.is_ok() {
                // An error means that the writer ended on its own.
                let _ended = ended.await;
            }
        }
    }

    pub(crate) fn announcement(&self) -> Announcement {
        Announcement::new(Arc::clone(&self.inner.shared))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Runs a read on one of the reading connections.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.inner.readers.with(self.shared().are_coming(), read)
    }

    /// Runs several reads on one snapshot of the database: they fit together, and its locks are taken once.
    pub(crate) fn read_at_once<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.read(|connection| crate::sql::at_once(connection, || read(connection)))
    }

    fn queue(&self) -> Result<mpsc::Sender<Message>, StoreError> {
        let queue = self.inner.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.clone().ok_or(StoreError::Closed)
    }

    /// Wakes the writer to write sightings; when its queue is full it is awake anyway.
    pub(crate) fn wake(&self) {
        if let Ok(queue) = self.queue() {
            let _awake = queue.try_send(Message::Touched);
        }
    }

    /// Where the database is.
    pub(crate) fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The database as a plain file, once [`Store::search_files`] has opened it.
    pub(crate) fn searched(&self) -> MutexGuard<'_, Option<File>> {
        self.inner.searched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs something on the writer's connection between two groups, outside of any transaction.
    pub(crate) async fn alone<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let work = Alone(Box::new(move |connection: &Connection| {
            // Whoever asked may have gone.
            let _gone = reply.send(work(connection));
        }));
        self.queue()?.send(Message::Alone(work)).await.map_err(|_closed| StoreError::Closed)?;
        answer.await.map_err(|_gone| StoreError::Closed)?
    }

    /// Has the writer run an operation and waits until it is durable.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        class: Class,
        operation: impl FnMut(&mut Act<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write_announced(None, class, operation).await
    }

    /// As [`Store::write`], for a caller that announced itself.
    pub(crate) async fn write_announced<T: Send + 'static>(
        &self,
        announcement: Option<Announcement>,
        class: Class,
        operation: impl FnMut(&mut Act<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Typed::boxed(class, operation, reply);
        self.queue()?.send(Message::Job(job)).await.map_err(|_closed| StoreError::Closed)?;
        drop(announcement);
        answer.await.map_err(|_gone| StoreError::Closed)?
    }

    /// As [`Store::write`], followed by the log entries.
    pub(crate) async fn logged<T: Send + 'static>(
        &self,
        class: Class,
        audit: Audit,
        mut operation: impl FnMut(&mut Act<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Logged<T>, StoreError> {
        self.write(class, move |act| {
            let value = operation(act)?;
            let index = act.log(&audit)?;
            Ok(Logged { value, index })
        })
        .await
    }
}

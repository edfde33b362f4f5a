//! An emulated chip for another process: behind a socket, and behind a library loaded in front of libc, which makes of the kernel's
//! I2C calls (i2c-dev, `I2C_RDWR`) messages on it. A command that changes what the chip keeps is a durable step, as [`CRASH_AT`](crate::CRASH_AT)
//! counts them. So a program that was built for a real bus finds the chip, and its memory is its own:
//! what the emulator knows lies in the process of the test.

use std::io::{self, Read, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use embedded_hal::delay::DelayNs as _;
use embedded_hal::i2c::I2c as _;
use tempfile::TempDir;

use super::{ElementBus, ElementDelay, SecureElement};
use crate::Tool;
use crate::crash::preloaded;

/// One request: how many messages; for each of them address, flags and length as in `struct i2c_msg`, then what is written. Its answer: 0,
/// and what was read; or 1, not acknowledged.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/i2c-dev.h>
#include <linux/i2c.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
static int join(const char *path) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0) { close(fd); return -1; }
    return fd;
}
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        static int (*next)(const char *, int, ...); \
        struct stat found; \
        if (!next) { *(void **)&next = dlsym(RTLD_NEXT, #name); } \
        if (stat(path, &found) == 0 && S_ISSOCK(found.st_mode)) { return join(path); } \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
        return next(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
static int say(int fd, const void *octets, size_t length) {
    return send(fd, octets, length, MSG_NOSIGNAL) == (ssize_t)length;
}
static int hear(int fd, void *octets, size_t length) {
    return recv(fd, octets, length, MSG_WAITALL) == (ssize_t)length;
}
/* Word address of commands, count, opcode: DeriveKey, GenKey (its mode: of a new key), Lock, PrivWrite, Write. The call fails and changes
   nothing: a library in front of this one counts it. */
static void step(const struct i2c_msg *message) {
    const unsigned char *sent = message->buf;
    if ((message->flags & I2C_M_RD) || message->len < 4 || sent[0] != 3) { return; }
    switch (sent[2]) {
        case 0x40: if (!(sent[3] & 4)) { return; } /* fall through */
        case 0x12: case 0x17: case 0x1c: case 0x46: fsync(-1);
    }
}
static int transfer(int fd, struct i2c_rdwr_ioctl_data *data) {
    for (unsigned i = 0; i < data->nmsgs; i++) { step(&data->msgs[i]); }
    unsigned char octet = data->nmsgs;
    int is_well = say(fd, &octet, 1);
    for (unsigned i = 0; i < data->nmsgs; i++) {
        struct i2c_msg *message = &data->msgs[i];
        unsigned short head[3] = { message->addr, message->flags, message->len };
        is_well = is_well && say(fd, head, sizeof head);
        if (!(message->flags & I2C_M_RD)) { is_well = is_well && say(fd, message->buf, message->len); }
    }
    if (!is_well || !hear(fd, &octet, 1)) { errno = EIO; return -1; }
    if (octet) { errno = ENXIO; return -1; }
    for (unsigned i = 0; i < data->nmsgs; i++) {
        struct i2c_msg *message = &data->msgs[i];
        if ((message->flags & I2C_M_RD) && !hear(fd, message->buf, message->len)) { errno = EIO; return -1; }
    }
    return data->nmsgs;
}
int ioctl(int fd, unsigned long request, ...) {
    static int (*next)(int, unsigned long, ...);
    if (!next) { *(void **)&next = dlsym(RTLD_NEXT, "ioctl"); }
    va_list more; va_start(more, request); void *argument = va_arg(more, void *); va_end(more);
    switch (request) {
        case I2C_SLAVE: case I2C_PEC: return 0;
        case I2C_RDWR: return transfer(fd, argument);
        default: return next(fd, request, argument);
    }
}
"#;

const READS: u16 = 1;

/// A chip that other processes reach, as long as this process lives.
#[derive(Debug)]
pub struct ServedElement {
    directory: TempDir,
}

/// What the connections share. For the chip passes what passes for its host, whose waiting costs time.
struct Wires {
    bus: ElementBus,
    delay: ElementDelay,
    since: Instant,
}

impl SecureElement {
    /// Puts it on a bus for other processes.
    ///
    /// # Panics
    /// When there is no socket to be had.
    #[must_use]
    pub fn served(&self) -> ServedElement {
        let directory = crate::scratch();
        let served = ServedElement { directory };
        let listener = UnixListener::bind(served.bus()).unwrap_or_else(|error| panic!("no socket: {error}"));
        let wires = Arc::new(Mutex::new(Wires { bus: self.bus(), delay: self.delay(), since: Instant::now() }));
        thread::spawn(move || {
            for host in listener.incoming().map_while(Result::ok) {
                let wires = Arc::clone(&wires);
                // It hangs up when it has had enough.
                thread::spawn(move || while answer(&host, &wires).is_ok() {});
            }
        });
        served
    }
}

impl ServedElement {
    /// The path of the bus.
    #[must_use]
    pub fn bus(&self) -> PathBuf {
        self.directory.path().join("i2c-1")
    }

    /// The library to name in `LD_PRELOAD`, compiled once, by which a program finds the bus there.
    ///
    /// # Panics
    /// Without a C compiler.
    #[must_use]
    pub fn library() -> &'static Path {
        static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
        LIBRARY.get_or_init(|| preloaded("i2c", SHIM))
    }

    /// The same program, which finds the bus there.
    ///
    /// # Panics
    /// Without a C compiler.
    #[must_use]
    pub fn seen_by(&self, tool: Tool) -> Tool {
        tool.env("LD_PRELOAD", Self::library())
    }
}

fn answer(mut host: &UnixStream, wires: &Mutex<Wires>) -> io::Result<()> {
    let mut messages = Vec::new();
    for _ in 0..octets(host, 1)?[0] {
        let head = octets(host, 6)?;
        let word = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
        let is_read = word(2) & READS != 0;
        let length = usize::from(word(4));
        messages.push((word(0) as u8, is_read, if is_read { vec![0; length] } else { octets(host, length)? }));
    }
    let mut wires = wires.lock().unwrap_or_else(PoisonError::into_inner);
    let passed = wires.since.elapsed();
    wires.since = Instant::now();
    wires.delay.delay_us(u32::try_from(passed.as_micros()).unwrap_or(u32::MAX));
    let acknowledged = messages.iter_mut().try_for_each(|(address, is_read, octets)| {
        if *is_read { wires.bus.read(*address, octets) } else { wires.bus.write(*address, octets) }
    });
    let mut answer = vec![u8::from(acknowledged.is_err())];
    if acknowledged.is_ok() {
        messages.iter().filter(|(_, is_read, _)| *is_read).for_each(|(_, _, octets)| answer.extend_from_slice(octets));
    }
    host.write_all(&answer)
}

fn octets(mut host: &UnixStream, length: usize) -> io::Result<Vec<u8>> {
    let mut octets = vec![0; length];
    host.read_exact(&mut octets)?;
    Ok(octets)
}

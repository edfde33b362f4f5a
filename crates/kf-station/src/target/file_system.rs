//! A file system for a Linux device: ext4, made by e2fsprogs, which never mounts anything. The same files for the same device
//! make the same octets, whoever runs it and when.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kf_key::{DeviceId, SecretBytes};

use super::TargetError;
use crate::image::{MAX_IMAGE_OCTETS, Segment};

/// Name of the image.
pub(super) const IMAGE: &str = "keyfleet.ext4";
/// From this size on there is room for a journal, in octets.
const JOURNALED_OCTETS: u32 = 4 * 1024 * 1024;
/// Memory, where there is one: what is sealed need not lie on the station's disk either.
const SCRATCH: &str = "/dev/shm";
/// Where distributions keep the tools, which is not on every operator's path.
const TOOLS: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// A directory of our own that is gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let random: [u8; 16] = kf_crypto::random_array().map_err(|_opaque| io::Error::other("no random octets"))?;
        let memory = Path::new(SCRATCH);
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(format!("keyfleet-image-{}", hex::encode(random)));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, octets: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path(name))?;
        file.write_all(octets)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is sealed; it is named so that somebody finds it.
        let _left = fs::remove_dir_all(&self.0);
    }
}

fn of_disk(error: &io::Error) -> TargetError {
    if crate::disk::is_full(error) { TargetError::DiskFull } else { TargetError::FileSystem }
}

/// Runs a tool of e2fsprogs in the scratch directory, `input` being what it reads.
fn run(scratch: &Scratch, program: &str, arguments: &[&str], time: &str, input: &str) -> Result<(), TargetError> {
    let failed = |error: io::Error| of_disk(&error);
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(&scratch.0)
        .env_clear()
        .env("PATH", TOOLS)
        .env("E2FSPROGS_FAKE_TIME", time)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let status = child.wait().map_err(failed)?;
    // One that reads nothing may end before it was written to.
    let _unread = written;
    if status.success() { Ok(()) } else { Err(TargetError::FileSystem) }
}

/// Names that debugfs takes as one word.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_'))
}

/// Fixed for a device: its identifier and the moment in it (RFC 9562 section 5.7).
fn uuid_and_time(device: DeviceId) -> (String, String) {
    let [a, b, c, d, e, f, ..] = *device.as_bytes();
    let millis = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let mut uuid = hex::encode(device.as_bytes());
    // 8, 4, 4, 4 and 12 digits (RFC 9562 section 4).
    for place in [20, 16, 12, 8] {
        uuid.insert(place, '-');
    }
    (uuid, (millis / 1_000).to_string())
}

/// An ext4 file system of `octets` octets that holds these files, owned by root, mode 0600.
///
/// # Errors
/// [`TargetError::DoesNotFit`], [`TargetError::FileSystem`], [`TargetError::DiskFull`].
pub(super) fn pack(device: DeviceId, octets: u32, files: &[Segment]) -> Result<Segment, TargetError> {
    let failed = |error: io::Error| of_disk(&error);
    let scratch = Scratch::new().map_err(failed)?;
    let (uuid, time) = uuid_and_time(device);
    let has_journal = octets >= JOURNALED_OCTETS;
    let features = if has_journal { "^resize_inode" } else { "^resize_inode,^has_journal" };
    let extended = format!("hash_seed={uuid},root_owner=0:0,lazy_itable_init=0,nodiscard");
    let size = format!("{}k", octets / 1024);
    let fixed = ["-q", "-F", "-t", "ext4", "-b", "1024", "-m", "0", "-L", "keyfleet", "-U", &uuid, "-O", features];
    let arguments = [&fixed[..], &["-E", &extended, IMAGE, &size]].concat();
    run(&scratch, "mke2fs", &arguments, &time, "")?;
    let mut script = "rmdir lost+found\n".to_owned();
    for (number, file) in files.iter().enumerate() {
        let (from, name) = (format!("file-{number}"), file.name.as_str());
        if !is_plain_name(name) {
            return Err(TargetError::FileSystem);
        }
        // Exposed to the file system of the device; what the recipe seals is sealed.
        scratch.write(&from, file.octets.expose()).map_err(failed)?;
        script.push_str(&format!("write {from} {name}\nsif {name} mode 0100600\nsif {name} uid 0\nsif {name} gid 0\n"));
    }
    run(&scratch, "debugfs", &["-w", "-f", "-", IMAGE], &time, &script)?;
    run(&scratch, "e2fsck", &["-fn", IMAGE], &time, "")?;
    let image = read(&scratch.path(IMAGE)).map_err(failed)?;
    // debugfs says nothing of a file for which there was no room.
    let found = unpack_into(&scratch, &time).ok_or(TargetError::FileSystem)?;
    let is_there = |file: &Segment| {
        let same = |one: &&Segment| one.name == file.name;
        // Exposed to be compared.
        found.iter().find(same).is_some_and(|one| one.octets.expose() == file.octets.expose())
    };
    if found.len() != files.len() || !files.iter().all(is_there) {
        return Err(TargetError::DoesNotFit("file system"));
    }
    Ok(Segment { name: IMAGE.to_owned(), offset: 0, octets: image })
}

/// The files of an image, as a device that mounts it finds them.
pub(super) fn unpack(image: &Segment) -> Option<Vec<Segment>> {
    let scratch = Scratch::new().ok()?;
    // Exposed to be read as the device reads it.
    scratch.write(IMAGE, image.octets.expose()).ok()?;
    unpack_into(&scratch, "0")
}

fn unpack_into(scratch: &Scratch, time: &str) -> Option<Vec<Segment>> {
    let out = scratch.path("out");
    fs::DirBuilder::new().mode(0o700).create(&out).ok()?;
    run(scratch, "debugfs", &["-R", "rdump / out", IMAGE], time, "").ok()?;
    let mut files = Vec::new();
    for entry in fs::read_dir(&out).ok()? {
        let entry = entry.ok()?;
        if entry.file_type().ok()?.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            files.push(Segment { name, offset: 0, octets: read(&entry.path()).ok()? });
        }
    }
    Some(files)
}

fn read(path: &Path) -> io::Result<SecretBytes> {
    let longest = u64::try_from(MAX_IMAGE_OCTETS).unwrap_or(u64::MAX);
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > longest {
        return Err(io::Error::other("longer than an image"));
    }
    let mut read = Ok(());
    let octets = SecretBytes::fill(usize::try_from(length).unwrap_or_default(), |out| {
        read = io::Read::read_exact(&mut &file, out);
    });
    read.map(|()| octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u8) -> DeviceId {
        DeviceId::from_parts(kf_key::UnixMillis(1_800_000_000_000), [number; 10])
    }

    #[test]
    fn the_same_files_make_the_same_octets_with_and_without_a_journal_and_are_found_in_them_again() {
        let file = |name: &str, octets: &[u8]| Segment::file(name, octets.to_vec());
        for octets in [2 * 1024 * 1024, 4 * 1024 * 1024] {
            let files = [file("agent.toml", b"server"), file("idevid.key", &[7; 3000])];
            let image = pack(device(1), octets, &files).unwrap();
            assert_eq!(image.octets.len(), usize::try_from(octets).unwrap());
            assert!(pack(device(1), octets, &files).unwrap().octets.expose() == image.octets.expose());
            assert!(pack(device(2), octets, &files).unwrap().octets.expose() != image.octets.expose());
            let found = unpack(&image).unwrap();
            assert_eq!(found.len(), 2);
            let key = found.iter().find(|one| one.name == "idevid.key").unwrap();
            assert_eq!(key.octets.expose(), [7; 3000]);
        }
    }

    #[test]
    fn files_for_which_there_is_no_room_and_names_that_are_no_names_are_refused() {
        let large = Segment::file("large", vec![1; 1024 * 1024]);
        assert_eq!(pack(device(1), 512 * 1024, &[large]).unwrap_err(), TargetError::DoesNotFit("file system"));
        let strange = Segment::file("a b", vec![1]);
        assert_eq!(pack(device(1), 512 * 1024, &[strange]).unwrap_err(), TargetError::FileSystem);
    }
}

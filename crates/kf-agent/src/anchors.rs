//! The roots that the device believes, kept beside its keys once they differ from those of its configuration: a root that
//! took over stays known after a restart, and one that was retired stays forgotten.

use std::io;

use crate::disk::{DirectoryDisk, Disk as _, replace};

/// The file: a line with the SHA-256 of the roots of the configuration, then the roots, PEM.
pub(crate) const ANCHORS: &str = "anchors";

/// Roots, and what they came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Anchors {
    /// SHA-256 of the roots of the configuration, one after the other.
    origin: [u8; 32],
    /// DER.
    pub(crate) roots: Vec<Vec<u8>>,
}

impl Anchors {
    /// The roots of the configuration, or what became of them. Whoever configures other roots starts anew with those.
    pub(crate) fn open(configured: Vec<Vec<u8>>, disk: &DirectoryDisk) -> io::Result<Self> {
        let origin = kf_crypto::sha256(&configured.concat());
        let kept = disk.read(ANCHORS)?.and_then(|text| parse(&text, origin));
        Ok(Self { origin, roots: kept.unwrap_or(configured) })
    }

    /// Writes other roots down; a power cut leaves the old ones or these.
    pub(crate) fn replace(&mut self, roots: Vec<Vec<u8>>, disk: &mut DirectoryDisk) -> io::Result<()> {
        let certificates: String = roots.iter().map(|der| kf_pki::pem::certificate(der)).collect();
        replace(disk, ANCHORS, format!("{}\n{certificates}", hexadecimal(&self.origin)).as_bytes())?;
        self.roots = roots;
        Ok(())
    }

    /// Whether a root of this SHA-256, hexadecimal, is among them.
    pub(crate) fn has(&self, sha256: &str) -> bool {
        self.roots.iter().any(|der| fingerprint(der).eq_ignore_ascii_case(sha256))
    }

    /// The SHA-256 of each, hexadecimal, separated by spaces.
    pub(crate) fn fingerprints(&self) -> String {
        self.roots.iter().map(|der| fingerprint(der)).collect::<Vec<_>>().join(" ")
    }
}

/// SHA-256 of a certificate, hexadecimal.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    hexadecimal(&kf_crypto::sha256(der))
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn parse(text: &[u8], origin: [u8; 32]) -> Option<Vec<Vec<u8>>> {
    let (first, certificates) = std::str::from_utf8(text).ok()?.split_once('\n')?;
    if first != hexadecimal(&origin) {
        return None;
    }
    kf_pki::pem::decode_all("CERTIFICATE", certificates).filter(|roots| !roots.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_up_survives_a_restart_and_ends_with_another_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = DirectoryDisk::open(directory.path(), &[]).unwrap();
        let configured = vec![b"old".to_vec()];
        let mut anchors = Anchors::open(configured.clone(), &disk).unwrap();
        assert_eq!(anchors.roots, configured);
        anchors.replace(vec![b"old".to_vec(), b"new".to_vec()], &mut disk).unwrap();
        assert!(anchors.has(&fingerprint(b"new")) && !anchors.has(&fingerprint(b"other")));
        assert_eq!(anchors.fingerprints(), format!("{} {}", fingerprint(b"old"), fingerprint(b"new")));
        assert_eq!(Anchors::open(configured.clone(), &disk).unwrap(), anchors);
        assert_eq!(Anchors::open(vec![b"another".to_vec()], &disk).unwrap().roots, [b"another".to_vec()]);
        for broken in [b"".as_slice(), b"\n", b"00\nnothing", &[0xff, 0x0a]] {
            replace(&mut disk, ANCHORS, broken).unwrap();
            assert_eq!(Anchors::open(configured.clone(), &disk).unwrap().roots, configured);
        }
    }
}

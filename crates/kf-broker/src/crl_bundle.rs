//! All CRLs of a broker as one PEM file, replaced in one step.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::{BrokerError, PublishedCrl};

/// The most octets of a bundle: about 500,000 revoked certificates.
pub const MAX_BUNDLE_OCTETS: usize = 64 * 1024 * 1024;

const BEGIN: &str = "-----BEGIN X509 CRL-----";
const END: &str = "-----END X509 CRL-----";

/// One PEM text of all `crls`, each checked for its form: a broker that cannot read its CRL file refuses every device.
pub(crate) fn bundle(crls: &[PublishedCrl]) -> Result<String, BrokerError> {
    if crls.is_empty() {
        let reason = "no CRL to publish: with an empty file the broker would refuse every device".to_owned();
        return Err(BrokerError::Configuration { setting: "crls", reason });
    }
    let total: usize = crls.iter().map(|crl| crl.pem.len() + 1).sum();
    if total > MAX_BUNDLE_OCTETS {
        return Err(BrokerError::CrlBundleTooLarge { limit_octets: MAX_BUNDLE_OCTETS });
    }
    let mut text = String::with_capacity(total);
    for crl in crls {
        let pem = crl.pem.trim();
        let is_one_block = pem.starts_with(BEGIN) && pem.ends_with(END) && pem.matches("-----").count() == 4;
        if !is_one_block {
            return Err(BrokerError::Crl { authority: crl.authority.to_string() });
        }
        text.push_str(pem);
        text.push('\n');
    }
    Ok(text)
}

/// Writes `text` so that a reader sees the old file or the new one, and a power cut leaves one of them. World-readable:
/// a broker that dropped its privileges reads the file again.
pub(crate) fn replace_file(path: &Path, text: &[u8]) -> Result<(), BrokerError> {
    replace_file_with_mode(path, text, 0o644)
}

pub(crate) fn replace_file_with_mode(path: &Path, text: &[u8], mode: u32) -> Result<(), BrokerError> {
    let failed =
        |action: &'static str| move |source| BrokerError::File { action, path: path.display().to_string(), source };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary: PathBuf = directory.join(name);
    let mut file = File::create(&temporary).map_err(failed("create beside"))?;
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed("set the mode of"))?;
    file.write_all(text).map_err(failed("write"))?;
    file.sync_all().map_err(failed("sync"))?;
    std::fs::rename(&temporary, path).map_err(failed("replace"))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("sync the directory of"))
}

#[cfg(test)]
mod tests {
    use kf_key::{AuthorityId, UnixMillis};

    use super::*;

    fn crl(pem: &str) -> PublishedCrl {
        PublishedCrl { authority: AuthorityId::from_parts(UnixMillis(1), [1; 10]), pem: pem.to_owned() }
    }

    #[test]
    fn a_bundle_holds_every_crl_and_refuses_what_is_none() {
        let good = crl(&format!("{BEGIN}\nAAAA\n{END}\n"));
        assert_eq!(bundle(&[good.clone(), good.clone()]).unwrap().matches(BEGIN).count(), 2);
        assert!(bundle(&[]).is_err());
        for bad in ["", "AAAA", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", BEGIN] {
            assert!(matches!(bundle(&[good.clone(), crl(bad)]), Err(BrokerError::Crl { .. })), "{bad}");
        }
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("crl.pem");
        replace_file(&path, b"one").unwrap();
        replace_file(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

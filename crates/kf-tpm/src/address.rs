//! Which TPM: the TCTI string of the TPM2 software stack, of which two kinds are accepted.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use tss_esapi::tcti_ldr::{DeviceConfig, NetworkTPMConfig, TctiNameConf};

use crate::TpmError;

/// The most octets of an address.
const MAX_ADDRESS_OCTETS: usize = 256;

/// `device:/dev/tpmrm0`, or `swtpm:host=127.0.0.1,port=2321` for a TPM emulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmAddress {
    text: String,
    conf: TctiNameConf,
}

impl TpmAddress {
    /// Whether a resource manager stands before the TPM, so that other programs' objects are there but not seen.
    pub(crate) fn is_managed(&self) -> bool {
        self.text.starts_with("device:/dev/tpmrm")
    }

    pub(crate) fn conf(&self) -> TctiNameConf {
        self.conf.clone()
    }
}

impl FromStr for TpmAddress {
    type Err = TpmError;

    fn from_str(text: &str) -> Result<Self, TpmError> {
        let refuse = || TpmError::Address { text: text.chars().filter(|c| !c.is_control()).take(80).collect() };
        if text.len() > MAX_ADDRESS_OCTETS {
            return Err(refuse());
        }
        let conf = if let Some(path) = text.strip_prefix("device:") {
            if !path.starts_with("/dev/") || path.contains("..") {
                return Err(refuse());
            }
            TctiNameConf::Device(DeviceConfig::from_str(path).map_err(|_invalid| refuse())?)
        } else if let Some(settings) = text.strip_prefix("swtpm:") {
            let (host, port) = settings.split_once(',').ok_or_else(refuse)?;
            let host = host.strip_prefix("host=").ok_or_else(refuse)?;
            let port = port.strip_prefix("port=").and_then(|port| port.parse::<u16>().ok()).ok_or_else(refuse)?;
            // An emulator speaks without any protection: it stays on this machine.
            let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
            if !is_local || port == 0 {
                return Err(refuse());
            }
            TctiNameConf::Swtpm(NetworkTPMConfig::from_str(settings).map_err(|_invalid| refuse())?)
        } else {
            return Err(refuse());
        };
        Ok(Self { text: text.to_owned(), conf })
    }
}

impl fmt::Display for TpmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_and_a_local_emulator_are_addresses() {
        for text in ["device:/dev/tpmrm0", "device:/dev/tpm0", "swtpm:host=127.0.0.1,port=2321"] {
            assert_eq!(text.parse::<TpmAddress>().unwrap().to_string(), text);
        }
        assert!("device:/dev/tpmrm0".parse::<TpmAddress>().unwrap().is_managed());
        assert!(!"device:/dev/tpm0".parse::<TpmAddress>().unwrap().is_managed());
    }

    #[test]
    fn anything_else_is_refused_with_the_two_forms() {
        let long = format!("device:/dev/{}", "x".repeat(300));
        for text in [
            "",
            "device:",
            "device:/etc/passwd",
            "device:/dev/../etc/passwd",
            "mssim:host=127.0.0.1,port=1",
            "swtpm:",
            "swtpm:host=127.0.0.1",
            "swtpm:host=127.0.0.1,port=0",
            "swtpm:host=127.0.0.1,port=70000",
            "swtpm:host=192.0.2.1,port=2321",
            "swtpm:host=example.net,port=2321",
            long.as_str(),
        ] {
            let refusal = text.parse::<TpmAddress>().unwrap_err().to_string();
            assert!(refusal.contains("device:/dev/tpmrm0") && refusal.len() < 300, "{refusal}");
        }
    }
}

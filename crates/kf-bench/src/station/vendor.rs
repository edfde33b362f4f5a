//! Espressif's own generator of NVS partitions, run once per device as its users run it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kf_crypto::PrivateKey;
use kf_key::KeyAlgorithm;

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::cpu_time_of_ended_children;

/// CPU time of children counts in steps of 10 ms: so many runs make that small.
const DEVICES: u32 = 10;
const NAME: &str = "Espressif's generator, one image";
/// What the station's image holds, as the generator wants to be told.
const TABLE: &str = "key,type,encoding,value\n\
    keyfleet,namespace,,\n\
    name,data,string,pump-000001\n\
    line,data,string,pump\n\
    server,data,string,https://fleet.example:8443\n\
    anchor,file,binary,anchor.der\n\
    idevid_chain,file,binary,chain.pem\n\
    device_key,file,binary,device.key\n\
    idevid_key,file,binary,idevid.der\n";

/// The environment that `cargo xtask prerequisites` makes.
fn interpreter() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv-espressif/bin/python")
}

/// CPU seconds of a device of ours: `making` of key, certificate, image and record, and of the `whole` way.
pub(super) fn measure(making: f64, whole: f64) -> Result<Figure, BenchError> {
    let python = interpreter();
    if !python.is_file() {
        return Ok(Figure::absent(NAME, "not installed: run `cargo xtask prerequisites`"));
    }
    let folder = tempfile::tempdir().map_err(BenchError::io("a folder"))?;
    let key = PrivateKey::generate(KeyAlgorithm::P256).map_err(BenchError::failed("a key"))?;
    let pkcs8 = key.to_pkcs8().map_err(BenchError::failed("a key"))?;
    // Exposed to the generator, for a key that is no device's.
    let files: [(&str, &[u8]); 5] = [
        ("table.csv", TABLE.as_bytes()),
        ("anchor.der", &[0x5a; 500]),
        ("chain.pem", &[b'A'; 1_500]),
        ("device.key", &[0x5a; 32]),
        ("idevid.der", pkcs8.expose()),
    ];
    for (name, octets) in files {
        fs::write(folder.path().join(name), octets).map_err(BenchError::io(name))?;
    }
    let before = cpu_time_of_ended_children()?;
    for _ in 0..DEVICES {
        run(&python, folder.path())?;
    }
    let cost = (cpu_time_of_ended_children()? - before).as_secs_f64() / f64::from(DEVICES);
    let ratio = cost / making;
    let note = format!(
        "the image alone, no certificate, no record, one process each; our whole way with journal, read-back and proof: {:.0}",
        cost / whole
    );
    Ok(Figure::ratio(NAME, cost * 1e3, "ms CPU", ratio, "key, IDevID, image, record", Aim::AtLeast(1_000.0))
        .with_note(note))
}

fn run(python: &Path, folder: &Path) -> Result<(), BenchError> {
    let output = Command::new(python)
        .args(["-m", "esp_idf_nvs_partition_gen", "encrypt", "table.csv", "image.bin", "0x6000"])
        .args(["--keygen", "--key_protect_hmac", "--kp_hmac_keygen"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(BenchError::io("the generator"))?;
    if output.status.success() && folder.join("image.bin").is_file() {
        return Ok(());
    }
    Err(BenchError::Failed { what: NAME, why: String::from_utf8_lossy(&output.stderr).into_owned() })
}

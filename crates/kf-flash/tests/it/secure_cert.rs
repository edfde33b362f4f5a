//! `esp_secure_cert` partitions.

mod encrypted;
mod espressif;
mod round_trip;

use kf_flash::secure_cert::{RecordType, SecureCertError, SecureCertWriter};

/// What goes into one partition, in order.
pub(crate) type Records = Vec<(u8, u8, Vec<u8>)>;

/// Our partition of `octets` octets with these records, and how many of its octets are in use.
pub(crate) fn image(records: &Records, octets: usize) -> Result<(Vec<u8>, usize), SecureCertError> {
    let mut image = vec![0x5a; octets];
    let mut writer = SecureCertWriter::new(&mut image)?;
    for (number, index, value) in records {
        writer.add(RecordType::from_number(*number), *index, value)?;
    }
    let end = writer.finish()?;
    Ok((image, end))
}

//! Steps of the hierarchy.

use kf_derive::{
    Algorithm, CounterMode, Info, KeyDerivationKey, KeyedHmac, Level, Purpose, SoftwareKey, extract as hkdf_extract,
};

use crate::fields::{Fields, write};

/// key 32, level, algorithm, purpose, context, epoch: answers with the length of `info`, `info`, and the key.
pub(crate) fn step(fields: &mut Fields<'_>, result: &mut [u8]) -> Option<usize> {
    let key = SoftwareKey::new(fields.key()?);
    derive(&key, fields, result)
}

/// As [`step`], by SP 800-108r1.
pub(crate) fn counter_step(fields: &mut Fields<'_>, result: &mut [u8]) -> Option<usize> {
    let key = CounterMode::new(SoftwareKey::new(fields.key()?));
    derive(&key, fields, result)
}

fn derive<K: KeyDerivationKey>(key: &K, fields: &mut Fields<'_>, result: &mut [u8]) -> Option<usize> {
    let (level, algorithm) = (fields.octet()?, fields.octet()?);
    let level = Level::ALL.into_iter().find(|known| *known as u8 == level)?;
    let algorithm = Algorithm::ALL.into_iter().find(|known| *known as u8 == algorithm)?;
    let purpose = fields.text()?;
    let purpose = Purpose::ALL.into_iter().find(|known| known.name() == purpose)?;
    let info = Info::new(level, algorithm, purpose, fields.next()?, fields.number()?).ok()?;
    let derived = key.derive(&info).ok()?;
    let length = u8::try_from(info.as_bytes().len()).ok()?;
    // Exposed to the host: the keys of vectors are public.
    let key = derived.expose().get(..usize::from(info.key_octets()))?;
    write(&[&[length], info.as_bytes(), key], result)
}

/// salt, input: answers with the extracted key.
pub(crate) fn extract(fields: &mut Fields<'_>, result: &mut [u8]) -> Option<usize> {
    let key = hkdf_extract(fields.next()?, fields.next()?).into_secret();
    // Exposed to the host: the keys of vectors are public.
    write(&[key.expose()], result)
}

/// key 32, message: answers with the tag.
pub(crate) fn hmac(fields: &mut Fields<'_>, result: &mut [u8]) -> Option<usize> {
    let mut tag = [0; 32];
    SoftwareKey::new(fields.key()?).hmac_sha256(fields.next()?, &mut tag).ok()?;
    write(&[&tag], result)
}

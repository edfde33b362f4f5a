//! The chip: its configuration, and the commands that use keys.

use core::fmt;

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;
use kf_exchange::PublicKey;
use kf_key::SecretArray;

use crate::config::{ConfigZone, Slot};
use crate::error::Error;
use crate::link::Link;
use crate::memory;
use crate::policy::{self, Refusal, Use};
use crate::wire::{Command, Opcode};

/// The seven-bit address of a chip fresh from the maker.
pub const DEFAULT_ADDRESS: u8 = 0x60;
/// The last value of a counter.
pub const MAX_COUNT: u32 = 2_097_151;

/// The longest message of the KDF command that every account of it agrees on.
const MAX_KDF_OCTETS: usize = 127;
/// Octets that the SHA command takes at a time.
const SHA_BLOCK: usize = 64;

const NONCE_TO_DIGEST_BUFFER: u8 = 0x43;
const GENERATE: u8 = 0x04;
const PUBLIC: u8 = 0x00;
/// External message, from the message digest buffer.
const SIGN_EXTERNAL: u8 = 0xa0;
/// External key, from the message digest buffer.
const VERIFY_EXTERNAL: u8 = 0x22;
const KEY_TYPE_P256: u16 = 4;
/// The shared secret goes to the answer and nowhere else.
const ECDH_TO_OUTPUT: u8 = 0x0c;
/// HKDF, source slot, to the answer.
const KDF_HKDF: u8 = 0x52;
/// The message is in the command.
const KDF_MESSAGE_IN_COMMAND: u8 = 0x02;
const SHA_UPDATE: u8 = 1;
const SHA_HMAC_START: u8 = 4;
/// End, the digest to the answer and nowhere else.
const SHA_END: u8 = 0xc2;
const SELF_TEST_ALL: u8 = 0x3b;

/// One of the two monotonic counters. Counter 0 also counts the uses of slots with LimitedUse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// The first.
    Zero,
    /// The second.
    One,
}

/// One chip. Every call wakes it and puts it to sleep again, so that nothing of one call is left in it for the next.
pub struct Element<I, D> {
    pub(crate) link: Link<I, D>,
    zone: ConfigZone,
}

impl<I, D> fmt::Debug for Element<I, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Element").field(&self.zone).finish()
    }
}

impl<I: I2c, D: DelayNs> Element<I, D> {
    /// Wakes the chip at `address` and reads its configuration.
    ///
    /// The bus must run at 100 kHz: the wake token is a low level of at least 60 microseconds, made by the eight zeroes of
    /// address 0.
    ///
    /// # Errors
    /// [`Error::Asleep`] when nothing is there, [`Error`].
    pub fn open(i2c: I, delay: D, address: u8) -> Result<Self, Error> {
        let mut link = Link::new(i2c, delay, address);
        let zone = memory::read_config(&mut link);
        link.sleep();
        let zone = zone?;
        link.set_slow_clock(zone.has_slow_clock());
        Ok(Self { link, zone })
    }

    /// The configuration as it was last read.
    #[must_use]
    pub const fn config(&self) -> &ConfigZone {
        &self.zone
    }

    /// Reads the configuration again.
    ///
    /// # Errors
    /// [`Error`].
    pub fn refresh(&mut self) -> Result<&ConfigZone, Error> {
        self.zone = self.session(memory::read_config)?;
        Ok(&self.zone)
    }

    /// Whether a slot permits a use. Costs nothing.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn permits(&self, slot: Slot, wanted: Use) -> Result<(), Refusal> {
        policy::check(&self.zone, slot, wanted)
    }

    /// Commands from waking to sleeping.
    pub(crate) fn session<T>(&mut self, work: impl FnOnce(&mut Link<I, D>) -> Result<T, Error>) -> Result<T, Error> {
        let outcome = work(&mut self.link);
        self.link.sleep();
        outcome
    }

    /// What kind of chip it is, four octets; the third is 0x60 for the ATECC608 family.
    ///
    /// # Errors
    /// [`Error`].
    pub fn revision(&mut self) -> Result<[u8; 4], Error> {
        self.session(|link| link.execute(&Command::new(Opcode::Info, 0, 0, &[]))?.array(Opcode::Info).copied())
    }

    /// 32 random octets. The chip's generator is a DRBG that it seeds and tests itself.
    ///
    /// # Errors
    /// [`Refusal::ConfigUnlocked`]: before that the chip gives a fixed pattern.
    pub fn random(&mut self) -> Result<SecretArray<32>, Error> {
        if !self.zone.is_config_locked() {
            return Err(Refusal::ConfigUnlocked.into());
        }
        self.session(|link| {
            let answer = link.execute(&Command::new(Opcode::Random, 0, 0, &[]))?;
            secret(answer.array(Opcode::Random)?)
        })
    }

    /// Makes a new private key in a slot, in place of the one that is there, and gives its public half. The private half
    /// never leaves the chip.
    ///
    /// # Errors
    /// [`Refusal`]; after any other error the old or a new key is in the slot.
    pub fn generate_key(&mut self, slot: Slot) -> Result<PublicKey, Error> {
        self.permits(slot, Use::Generate)?;
        self.session(|link| public_key(link, GENERATE, slot))
    }

    /// The public half of the private key in a slot.
    ///
    /// # Errors
    /// [`Error::Execution`] or [`Error::EccFault`] when there is none.
    pub fn public_key(&mut self, slot: Slot) -> Result<PublicKey, Error> {
        self.permits(slot, Use::PublicKey)?;
        self.session(|link| public_key(link, PUBLIC, slot))
    }

    /// ECDSA on P-256 over a SHA-256 digest: r and s, 32 octets each.
    ///
    /// # Errors
    /// [`Refusal`], [`Error`].
    pub fn sign(&mut self, slot: Slot, digest: &[u8; 32]) -> Result<[u8; 64], Error> {
        self.permits(slot, Use::Sign)?;
        self.session(|link| {
            link.execute(&Command::new(Opcode::Nonce, NONCE_TO_DIGEST_BUFFER, 0, &[digest]))?;
            let command = Command::new(Opcode::Sign, SIGN_EXTERNAL, u16::from(slot.number()), &[]);
            link.execute(&command)?.array(Opcode::Sign).copied()
        })
    }

    /// Verifies an ECDSA signature over a SHA-256 digest in the chip.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another key, digest or signature.
    pub fn verify(&mut self, digest: &[u8; 32], signature: &[u8; 64], key: &PublicKey) -> Result<(), Error> {
        if !self.zone.is_config_locked() {
            return Err(Refusal::ConfigUnlocked.into());
        }
        let point = key.to_sec1();
        let point = point.split_first().map(|(_tag, point)| point).unwrap_or_default();
        self.session(|link| {
            link.execute(&Command::new(Opcode::Nonce, NONCE_TO_DIGEST_BUFFER, 0, &[digest]))?;
            link.execute(&Command::new(Opcode::Verify, VERIFY_EXTERNAL, KEY_TYPE_P256, &[signature, point])).map(drop)
        })
    }

    /// ECDH on P-256 with the private key in a slot: the x-coordinate of the shared point (SP 800-56A section 5.7.1.2).
    ///
    /// # Errors
    /// [`Refusal`], [`Error`].
    pub fn agree(&mut self, slot: Slot, other: &PublicKey) -> Result<SecretArray<32>, Error> {
        self.permits(slot, Use::Agree)?;
        let point = other.to_sec1();
        let point = point.split_first().map(|(_tag, point)| point).unwrap_or_default();
        self.session(|link| {
            let parts = [point];
            let command = Command::new(Opcode::Ecdh, ECDH_TO_OUTPUT, u16::from(slot.number()), &parts);
            secret(link.execute(&command)?.array(Opcode::Ecdh)?)
        })
    }

    /// `HMAC-SHA-256(key in the slot, message)`, by the KDF command (whose HKDF mode is one HMAC) where the message and the
    /// options of the chip allow it, and else by the SHA command.
    ///
    /// # Errors
    /// [`Refusal`], [`Error`].
    pub fn hmac(&mut self, slot: Slot, message: &[u8]) -> Result<SecretArray<32>, Error> {
        let fits = (1..=MAX_KDF_OCTETS).contains(&message.len());
        if fits && self.permits(slot, Use::Kdf).is_ok() {
            self.hmac_by_kdf(slot, message)
        } else {
            self.hmac_by_sha(slot, message)
        }
    }

    /// The same by the KDF command: one command, 1 to 127 octets.
    ///
    /// # Errors
    /// [`Refusal::Length`], [`Refusal`], [`Error`].
    pub fn hmac_by_kdf(&mut self, slot: Slot, message: &[u8]) -> Result<SecretArray<32>, Error> {
        self.permits(slot, Use::Kdf)?;
        let length = u8::try_from(message.len()).map_err(|_too_long| Refusal::Length)?;
        if !(1..=MAX_KDF_OCTETS).contains(&message.len()) {
            return Err(Refusal::Length.into());
        }
        let details = [KDF_MESSAGE_IN_COMMAND, 0, 0, length];
        self.session(|link| {
            let parts = [details.as_slice(), message];
            let command = Command::new(Opcode::Kdf, KDF_HKDF, u16::from(slot.number()), &parts);
            secret(link.execute(&command)?.array(Opcode::Kdf)?)
        })
    }

    /// The same by the SHA command, 64 octets at a time.
    ///
    /// # Errors
    /// [`Refusal`], [`Error`].
    pub fn hmac_by_sha(&mut self, slot: Slot, message: &[u8]) -> Result<SecretArray<32>, Error> {
        self.permits(slot, Use::Hmac)?;
        let (blocks, rest) = message.as_chunks::<SHA_BLOCK>();
        self.session(|link| {
            link.execute(&Command::new(Opcode::Sha, SHA_HMAC_START, u16::from(slot.number()), &[]))?;
            for block in blocks {
                link.execute(&Command::new(Opcode::Sha, SHA_UPDATE, 64, &[block]))?;
            }
            let length = u16::try_from(rest.len()).map_err(|_impossible| Refusal::Length)?;
            secret(link.execute(&Command::new(Opcode::Sha, SHA_END, length, &[rest]))?.array(Opcode::Sha)?)
        })
    }

    /// Encrypts one block under the AES-128 key in the first 16 octets of a slot (FIPS 197; ECB is the chip's only mode, so
    /// a mode of operation is the caller's).
    ///
    /// # Errors
    /// [`Refusal`], [`Error`].
    pub fn aes_encrypt(&mut self, slot: Slot, block: &[u8; 16]) -> Result<[u8; 16], Error> {
        self.aes(slot, 0, block)
    }

    /// Decrypts one block.
    ///
    /// # Errors
    /// [`Refusal`], [`Error`].
    pub fn aes_decrypt(&mut self, slot: Slot, block: &[u8; 16]) -> Result<[u8; 16], Error> {
        self.aes(slot, 1, block)
    }

    fn aes(&mut self, slot: Slot, mode: u8, block: &[u8; 16]) -> Result<[u8; 16], Error> {
        self.permits(slot, Use::Aes)?;
        self.session(|link| {
            let parts = [block.as_slice()];
            let command = Command::new(Opcode::Aes, mode, u16::from(slot.number()), &parts);
            link.execute(&command)?.array(Opcode::Aes).copied()
        })
    }

    /// The value of a counter.
    ///
    /// # Errors
    /// [`Error`].
    pub fn count(&mut self, counter: Counter) -> Result<u32, Error> {
        self.counter(0, counter)
    }

    /// Counts one up for good and gives the new value. After an error other than a refusal it may have counted or not:
    /// read it.
    ///
    /// # Errors
    /// [`Error::Execution`] at [`MAX_COUNT`].
    pub fn increment(&mut self, counter: Counter) -> Result<u32, Error> {
        self.counter(1, counter)
    }

    fn counter(&mut self, mode: u8, counter: Counter) -> Result<u32, Error> {
        if !self.zone.is_config_locked() {
            return Err(Refusal::ConfigUnlocked.into());
        }
        let id = match counter {
            Counter::Zero => 0,
            Counter::One => 1,
        };
        self.session(|link| {
            let answer = link.execute(&Command::new(Opcode::Counter, mode, id, &[]))?;
            answer.array(Opcode::Counter).map(|octets| u32::from_le_bytes(*octets))
        })
    }

    /// Has the chip test its generator, ECDSA, ECDH, AES and SHA.
    ///
    /// # Errors
    /// [`Error::SelfTest`] with the failed tests: 0x01 generator, 0x02 ECDSA, 0x08 ECDH, 0x10 AES, 0x20 SHA.
    pub fn self_test(&mut self) -> Result<(), Error> {
        self.session(|link| match link.execute(&Command::new(Opcode::SelfTest, SELF_TEST_ALL, 0, &[]))?.status() {
            Some(0) => Ok(()),
            Some(failed) => Err(Error::SelfTest(failed)),
            None => Err(Error::Answer(Opcode::SelfTest)),
        })
    }
}

fn secret(octets: &[u8; 32]) -> Result<SecretArray<32>, Error> {
    Ok(SecretArray::fill(|place| place.copy_from_slice(octets)))
}

fn public_key<I: I2c, D: DelayNs>(link: &mut Link<I, D>, mode: u8, slot: Slot) -> Result<PublicKey, Error> {
    let answer = link.execute(&Command::new(Opcode::GenKey, mode, u16::from(slot.number()), &[]))?;
    let mut point = [4; 65];
    point.iter_mut().skip(1).zip(answer.array::<64>(Opcode::GenKey)?).for_each(|(place, octet)| *place = *octet);
    PublicKey::from_sec1(&point).map_err(|_no_point| Error::EccFault)
}

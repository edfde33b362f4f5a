//! Devices that make their key in hardware of their own and never show it: what stands in the fixture is the device's software.

use std::sync::{Arc, Mutex};

use kf_key::KeyAlgorithm;
use kf_station::fixture::{Fixture, FixtureError, Reading};
use kf_station::image::{Image, Segment};
use kf_station::recipe::{ChipState, Fuse};

/// A key in hardware.
pub(crate) trait HeldKey: Send {
    fn spki(&self) -> Vec<u8>;
    /// DER for ECDSA.
    fn sign(&self, message: &[u8]) -> Option<Vec<u8>>;
}

/// What was written to each device, by its address.
pub(crate) type Written = Arc<Mutex<Vec<(String, Vec<Segment>)>>>;

/// Devices, one after the other.
pub(crate) struct Devices<M> {
    make: M,
    left: u32,
    mac: String,
    key: Option<Box<dyn HeldKey>>,
    segments: Vec<Segment>,
    written: Written,
}

impl<M: FnMut(u32) -> Box<dyn HeldKey> + Send> Devices<M> {
    /// So many devices; `make` makes the key of a number in its hardware.
    pub(crate) fn new(count: u32, make: M) -> (Self, Written) {
        let written = Written::default();
        let devices = Self {
            make,
            left: count,
            mac: String::new(),
            key: None,
            segments: Vec::new(),
            written: Arc::clone(&written),
        };
        (devices, written)
    }
}

fn copy(segment: &Segment) -> Segment {
    let octets = kf_key::SecretBytes::from_vec(segment.octets.expose().to_vec());
    Segment { name: segment.name.clone(), offset: segment.offset, octets }
}

impl<M: FnMut(u32) -> Box<dyn HeldKey> + Send> Fixture for Devices<M> {
    fn read(&mut self) -> Result<Option<Reading>, FixtureError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.mac = format!("02:4c:00:00:00:{:02x}", self.left);
        let board = format!("G{:04}", self.left);
        let (mac, chip_state) = (self.mac.clone(), ChipState::default());
        Ok(Some(Reading { mac, board, chip: None, chip_state }))
    }

    fn make_key(&mut self, algorithm: KeyAlgorithm, _slot: Option<u32>) -> Result<Vec<u8>, FixtureError> {
        let key = (self.make)(self.left);
        let request = kf_pki::request::make_request_with(algorithm, &key.spki(), "", |message| key.sign(message));
        self.key = Some(key);
        request.map_err(|_refused| FixtureError::Failed)
    }

    fn write(&mut self, image: &Image) -> Result<(), FixtureError> {
        assert!(image.unlock.is_none(), "there is nothing to unlock");
        self.segments = image.segments.iter().map(copy).collect();
        Ok(())
    }

    fn burn(&mut self, _fuses: &[Fuse], _unlock: Option<&kf_key::SecretArray<32>>) -> Result<(), FixtureError> {
        Err(FixtureError::Unsupported)
    }

    fn read_back(&mut self) -> Result<(Vec<Segment>, ChipState), FixtureError> {
        Ok((self.segments.iter().map(copy).collect(), ChipState::default()))
    }

    fn prove(&mut self, message: &[u8]) -> Result<Vec<u8>, FixtureError> {
        let signed = self.key.as_ref().and_then(|key| key.sign(message));
        signed.ok_or(FixtureError::Failed)
    }

    fn show(&mut self, _verdict: kf_station::fixture::Verdict) {
        self.left -= 1;
        let segments = std::mem::take(&mut self.segments);
        self.written.lock().unwrap().push((self.mac.clone(), segments));
    }
}

/// A recipe for keys that are born in such hardware.
pub(crate) fn recipe(target: &str) -> String {
    format!(
        "format = 1\nsku = \"gateway-r2\"\nproduct_line = \"gateway\"\ntarget = \"{target}\"\n\
         [identity]\nalgorithm = \"p-256\"\norigin = \"device\"\nprotection = \"hardware\"\n"
    )
}

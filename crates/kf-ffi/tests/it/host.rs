//! `examples/c/bare-metal/device.c` compiled for this machine, and what surrounds its board: flash, noise, modem.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use kf_testkit::Tool;

use crate::est_server::{EstServer, Said};
use crate::{c_file, compile, root};

const WORD: usize = 8;
const SECTOR: usize = 1_024;
const SECTORS: usize = 16;
/// Octets of the flash memory.
pub(crate) const SECTORS_OCTETS: usize = SECTOR * SECTORS;

/// Why a command did not end.
pub(crate) const POWER_CUT: &str = "the power was cut";

/// What a device is told to do: the code of the frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told {
    Enrol = 2,
    Inject = 3,
    Seal = 4,
    Open = 5,
    Exchange = 6,
    Obey = 7,
    Destroy = 8,
    Show = 9,
    Orders = 10,
    Keep = 11,
    Recall = 12,
}

/// What is burnt into a chip and lies in its flash, and who is at the other end of the modem.
pub(crate) struct Bench {
    program: Tool,
    /// The folder of the program, removed with the bench.
    _scratch: Box<dyn std::any::Any>,
    pub(crate) flash: Vec<u8>,
    pub(crate) fuses: Vec<Vec<u8>>,
    pub(crate) server: EstServer,
    /// The power goes after so many operations of the flash memory, in the middle of the next.
    pub(crate) cut_after: Option<u32>,
    seed: u64,
}

/// A device whose power is on. Dropping it is pulling the plug.
pub(crate) struct Powered<'b> {
    bench: &'b mut Bench,
    child: Child,
}

pub(crate) fn fields(parts: &[&[u8]]) -> Vec<u8> {
    let with_length = |part: &&[u8]| [&u16::try_from(part.len()).unwrap().to_le_bytes()[..], part].concat();
    parts.iter().flat_map(with_length).collect()
}

impl Bench {
    pub(crate) fn new(fuses: Vec<Vec<u8>>, server: EstServer) -> Self {
        let scratch = kf_testkit::scratch();
        let example = root().join("examples/c/bare-metal");
        std::fs::copy(example.join("board.h"), scratch.path().join("board.h")).unwrap();
        let sources = [c_file("host_board.c"), example.join("frame.c"), example.join("device.c")];
        let program = compile("gcc", "-std=c11", scratch.path(), &sources);
        Self {
            program,
            _scratch: Box::new(scratch),
            flash: vec![0xff; SECTORS_OCTETS],
            fuses,
            server,
            cut_after: None,
            seed: 1,
        }
    }

    /// Switches the power on, and gives the evidence of the noise or why the device does not start.
    pub(crate) fn power_on(&mut self) -> (Powered<'_>, Result<Vec<u8>, String>) {
        let mut command = Command::new(self.program.path());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let fuses: Vec<&[u8]> = self.fuses.iter().map(Vec::as_slice).collect();
        let frame = fields(&fuses);
        let mut powered = Powered { bench: self, child };
        let evidence = powered.ask(&frame);
        (powered, evidence)
    }

    /// Whether the power goes in this operation.
    fn is_cut(&mut self) -> bool {
        let is_cut = self.cut_after == Some(0);
        self.cut_after = self.cut_after.map(|left| left.saturating_sub(1));
        is_cut
    }

    fn samples(&mut self) -> Vec<u8> {
        let mut sample = || {
            self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb).to_be_bytes()[0]
        };
        (0..256).map(|_| sample()).collect()
    }
}

fn number(octets: &[u8], at: usize) -> usize {
    usize::try_from(u32::from_be_bytes(octets[at..at + 4].try_into().unwrap())).unwrap()
}

impl Powered<'_> {
    pub(crate) fn tell(&mut self, told: Told, now: u64, arguments: &[&[u8]]) -> Result<Vec<u8>, String> {
        let now = now.to_be_bytes();
        let arguments: Vec<&[u8]> = std::iter::once(now.as_slice()).chain(arguments.iter().copied()).collect();
        #[allow(clippy::as_conversions, reason = "a fieldless enum with explicit codes")]
        let code = told as u8;
        self.ask(&[vec![code], fields(&arguments)].concat())
    }

    pub(crate) fn server(&mut self) -> &mut EstServer {
        &mut self.bench.server
    }

    fn send(&mut self, frame: &[u8]) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(&u16::try_from(frame.len()).unwrap().to_le_bytes()).unwrap();
        stdin.write_all(frame).unwrap();
        stdin.flush().unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let stdout = self.child.stdout.as_mut().unwrap();
        let mut length = [0; 2];
        stdout.read_exact(&mut length).unwrap();
        let mut frame = vec![0; usize::from(u16::from_le_bytes(length))];
        stdout.read_exact(&mut frame).unwrap();
        frame
    }

    /// Serves the device until it is done.
    fn ask(&mut self, frame: &[u8]) -> Result<Vec<u8>, String> {
        self.send(frame);
        loop {
            let frame = self.receive();
            let (kind, rest) = frame.split_first().unwrap();
            let answer = match kind {
                b'D' => return Ok(rest.to_vec()),
                b'F' => return Err(String::from_utf8(rest.to_vec()).unwrap()),
                b'R' => self.bench.flash[number(rest, 0)..number(rest, 0) + number(rest, 4)].to_vec(),
                b'P' => {
                    for (word, octets) in (number(rest, 0)..).step_by(WORD).zip(rest[4..].chunks(WORD)) {
                        let is_cut = self.bench.is_cut();
                        // Of a torn word some bits are not programmed, and those behind it are as they were.
                        let torn = if is_cut { 0x0f } else { 0 };
                        let cells = self.bench.flash[word..].iter_mut();
                        cells.zip(octets).for_each(|(cell, octet)| *cell &= octet | torn);
                        if is_cut {
                            return Err(POWER_CUT.to_owned());
                        }
                    }
                    vec![0]
                }
                b'E' => {
                    let is_cut = self.bench.is_cut();
                    let sector = &mut self.bench.flash[number(rest, 0) * SECTOR..][..SECTOR];
                    // Of a torn sector some octets are not erased.
                    let erased = if is_cut { SECTOR / 2 } else { SECTOR };
                    sector[..erased].fill(0xff);
                    if is_cut {
                        return Err(POWER_CUT.to_owned());
                    }
                    vec![0]
                }
                b'N' => self.bench.samples(),
                b'H' => self.carry(rest),
                other => panic!("{other}"),
            };
            self.send(&answer);
        }
    }

    /// The modem: asks the device to sign, as TLS would, and the server to answer.
    fn carry(&mut self, request: &[u8]) -> Vec<u8> {
        let (_method, mut rest) = request.split_first().unwrap();
        let mut next = || {
            let length = usize::from(u16::from_le_bytes([rest[0], rest[1]]));
            let (field, after) = rest[2..].split_at(length);
            rest = after;
            field.to_vec()
        };
        let (path, _content_type, authorization) = (next(), next(), next());
        let (body, certificate) = (next(), next());
        let (headers, believed) = (String::from_utf8(next()).unwrap(), next());
        assert!(!believed.is_empty() && believed.len().is_multiple_of(32), "it says whom it believes");
        let said = Said { headers: &headers, believed: &believed };
        let is_proved = !certificate.is_empty() && {
            self.send(b"Sto be signed in a handshake");
            let answer = self.receive();
            self.bench.server.verifies(&certificate, b"to be signed in a handshake", &answer[1..])
        };
        let client = is_proved.then_some(certificate);
        let path = String::from_utf8(path).unwrap();
        let (status, beside, body) = self.bench.server.answer(&path, &authorization, client.as_deref(), &said, &body);
        let length = u16::try_from(beside.len()).unwrap().to_le_bytes();
        [b"A", status.to_be_bytes().as_slice(), &u32::MAX.to_be_bytes(), &length, beside.as_bytes(), &body].concat()
    }
}

impl Drop for Powered<'_> {
    fn drop(&mut self) {
        let _has_ended = self.child.kill();
        let _has_ended = self.child.wait();
    }
}

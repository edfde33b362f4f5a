//! A device: what a product's firmware does with the SDK, driven by commands from the serial port.
//!
//! The line to the host stands for what surrounds the microcontroller: the flash chip, the noise source, the one-time
//! programmable memory with the chip's key and the pins, and a modem that does TLS and HTTP. Keys never cross it: the
//! modem asks for a signature when a TLS session needs one.
#![no_std]
#![no_main]

mod device;
mod enrol;
mod exchange;
mod fields;
mod fuses;
mod host;
mod peripherals;
mod records;
mod rotate;
mod text;
mod trust;

use core::cell::RefCell;

use board::line::{Line, MAX_FRAME_OCTETS};
use device::Device;
use fields::Fields;
use fuses::Fuses;
use kf_key::{UnixMillis, wipe_stack};
use text::Text;

/// What a command does: reads its fields, writes its result, says how long it is, or why it failed.
type Act = for<'l> fn(&mut Device<'l>, UnixMillis, &mut Fields<'_>, &mut [u8]) -> Result<usize, Text>;

const COMMANDS: [(u8, Act); 11] = [
    (2, enrol::enrol),
    (3, device::inject),
    (4, device::seal),
    (5, device::open),
    (6, exchange::run),
    (7, rotate::obey),
    (8, device::destroy),
    (9, device::show),
    (10, rotate::fetch),
    (11, records::put),
    (12, records::recall),
];

/// Stack that is written over after each command: more than the deepest of them uses.
const STACK_OCTETS: usize = 64 * 1024;

/// Ends of a command on the line.
const DONE: u8 = b'D';
const FAILED: u8 = b'F';

#[board::entry]
fn main() -> ! {
    let line = RefCell::new(Line::open());
    let (mut command, mut result) = ([0; MAX_FRAME_OCTETS], [0; MAX_FRAME_OCTETS]);
    let started = receive(&line, &mut command).and_then(Fuses::read).and_then(|fuses| Device::start(&line, fuses));
    let mut device = match started {
        Ok((device, evidence)) => {
            line.borrow_mut().send(&[&[DONE], &evidence]);
            device
        }
        Err(reason) => {
            line.borrow_mut().send(&[&[FAILED], reason.as_bytes()]);
            board::semihosting::exit(1)
        }
    };
    loop {
        let done = receive(&line, &mut command).and_then(|frame| run(&mut device, frame, &mut result));
        wipe_stack::<STACK_OCTETS>();
        match done.as_ref().map(|length| result.get(..*length).unwrap_or_default()) {
            Ok(result) => line.borrow_mut().send(&[&[DONE], result]),
            Err(reason) => line.borrow_mut().send(&[&[FAILED], reason.as_bytes()]),
        }
    }
}

fn receive<'a>(line: &RefCell<Line>, buffer: &'a mut [u8]) -> Result<&'a [u8], Text> {
    line.borrow_mut().receive(buffer).map(|frame| &*frame).map_err(|_too_long| Text::of("the command is too long"))
}

/// In a frame of its own, so that nothing of a command stays in the frame of the loop.
#[inline(never)]
fn run(device: &mut Device<'_>, frame: &[u8], result: &mut [u8]) -> Result<usize, Text> {
    let (code, rest) = frame.split_first().ok_or(Text::of("the command is empty"))?;
    let mut fields = Fields::new(rest);
    let now = fields.time()?;
    let (_, act) = COMMANDS.iter().find(|(known, _)| known == code).ok_or(Text::of("the command is unknown"))?;
    act(device, now, &mut fields, result)
}

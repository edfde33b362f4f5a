//! Computes what the host asks for: one request frame, one answer frame.
//!
//! A request is an operation octet and fields; a field is two octets of length (little endian) and its octets. An answer
//! is a status octet, 0 for success, and the result.
#![no_std]
#![no_main]

mod derivation;
mod fields;
mod sealing;

use board::line::{Line, MAX_FRAME_OCTETS};
use fields::Fields;

/// What every operation does: reads its fields, writes its result, and says how long it is. `None` is a refusal.
type Operation = fn(&mut Fields<'_>, &mut [u8]) -> Option<usize>;

const OPERATIONS: [(u8, Operation); 6] = [
    (1, derivation::step),
    (2, derivation::counter_step),
    (3, derivation::extract),
    (4, derivation::hmac),
    (5, sealing::seal),
    (6, sealing::open),
];

const DONE: &[u8] = &[0];
const REFUSED: &[u8] = &[1];
const UNKNOWN: &[u8] = &[2];

#[board::entry]
fn main() -> ! {
    let mut line = Line::open();
    let (mut request, mut result) = ([0; MAX_FRAME_OCTETS], [0; MAX_FRAME_OCTETS]);
    loop {
        let Ok([code, fields @ ..]) = line.receive(&mut request) else {
            line.send(&[UNKNOWN]);
            continue;
        };
        match OPERATIONS.iter().find(|(known, _)| known == code) {
            None => line.send(&[UNKNOWN]),
            Some((_, operation)) => {
                let length = operation(&mut Fields::new(fields), &mut result);
                match length.and_then(|length| result.get(..length)) {
                    Some(result) => line.send(&[DONE, result]),
                    None => line.send(&[REFUSED]),
                }
            }
        }
    }
}

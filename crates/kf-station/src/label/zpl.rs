//! A label in ZPL II.

use std::fmt::Write as _;

use super::Label;

/// Octets that ZPL reads as commands or that a printer's code page may change are written as `_XX` (`^FH`).
fn field(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        if octet.is_ascii_graphic() && !matches!(octet, b'^' | b'~' | b'_' | b'\\') || octet == b' ' {
            out.push(char::from(octet));
        } else {
            // Writing to a string cannot fail.
            let _written = write!(out, "_{octet:02X}");
        }
    }
    out
}

/// 50 × 25 mm at 203 dots per inch: 400 × 200 dots.
pub(super) fn label(label: &Label) -> String {
    // Exposed to the label: the QR code is the claim. `MA,` stands for error correction M, automatic encoding.
    let claim = field(label.claim.expose());
    let mut zpl = format!("^XA^PW400^LL200^CI28\n^FO8,8^BQN,2,3^FH^FDMA,{claim}^FS\n");
    for (number, line) in label.lines().iter().enumerate() {
        let _written = writeln!(zpl, "^FO216,{}^A0N,22,20^FH^FD{}^FS", 16 + number * 42, field(line));
    }
    zpl.push_str("^XZ\n");
    zpl
}

//! base64 as EST carries it (RFC 4648, RFC 8951 section 3.1). No Content-Transfer-Encoding goes with it: it is no HTTP
//! header.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Where the lines of an answer end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrapping {
    /// One line and a final CRLF.
    None,
    /// Lines of 64 columns.
    Columns64,
}

const COLUMNS: usize = 64;

/// DER as an EST body.
pub(super) fn encode(der: &[u8], wrapping: Wrapping) -> Vec<u8> {
    let text = STANDARD.encode(der).into_bytes();
    let columns = match wrapping {
        Wrapping::None => text.len().max(1),
        Wrapping::Columns64 => COLUMNS,
    };
    let mut lines = Vec::with_capacity(text.len().saturating_add(2 * (text.len() / columns + 1)));
    for line in text.chunks(columns) {
        lines.extend_from_slice(line);
        lines.extend_from_slice(b"\r\n");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_the_body_is_one_line_with_a_final_line_end() {
        assert_eq!(encode(&[0xff; 60], Wrapping::None), [b"/".repeat(80), b"\r\n".to_vec()].concat());
    }

    #[test]
    fn for_libest_no_line_is_longer_than_64_columns() {
        let body = String::from_utf8(encode(&[0xff; 100], Wrapping::Columns64)).unwrap();
        let lines: Vec<_> = body.split_terminator("\r\n").collect();
        assert_eq!(lines.iter().map(|line| line.len()).collect::<Vec<_>>(), [64, 64, 8]);
        assert!(body.ends_with("\r\n"));
    }
}

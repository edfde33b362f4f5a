//! What the broker says on `$SYS/broker/log/#`, as far as it is about sessions and reloading.

/// One line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogLine<'a> {
    /// A client has been let in.
    Connected { client_id: &'a str, user_name: &'a str },
    /// A session has ended.
    Ended { client_id: &'a str, by_command: bool },
    /// The configuration is being read again.
    Reloading,
    /// A file could not be read again. Refused handshakes log errors too, which are none of a reload's business.
    LoadError(&'a str),
    /// Nothing that we need.
    Other,
}

/// How the broker words the end of a session, with the one that means a command of ours first.
const ENDINGS: [&str; 9] = [
    " been disconnected by administrative action.",
    " disconnected.",
    " closed its connection.",
    " has exceeded timeout, disconnecting.",
    " already connected, closing old connection.",
    " disconnected due to protocol error.",
    " disconnected: Protocol error.",
    " disconnected, not authorised.",
    " disconnected due to malformed packet.",
];

/// Reads a line: `1795415844: New client connected from 127.0.0.1:52828 as dev1 (p2, c1, k60, u'dev1').`
///
/// A client chooses its own identifier, which may contain anything; a user name comes from a certificate and contains no
/// quote. So the user name is taken from the end of the line and the identifier is what remains.
pub(crate) fn parse(line: &str) -> LogLine<'_> {
    let text = match line.split_once(": ") {
        Some((stamp, rest)) if stamp.bytes().all(|octet| octet.is_ascii_digit()) => rest,
        _ => line,
    };
    if let Some(connected) = text.strip_prefix("New client connected from ").and_then(connected) {
        return connected;
    }
    if text == "Reloading config." {
        return LogLine::Reloading;
    }
    if let Some(rest) = text.strip_prefix("Client ") {
        let found = ENDINGS.iter().zip(0u8..).find_map(|(ending, index)| Some((rest.strip_suffix(ending)?, index)));
        if let Some((client_id, index)) = found {
            return LogLine::Ended { client_id, by_command: index == 0 };
        }
    }
    if let Some((client_id, _reason)) =
        text.strip_prefix("Bad socket read/write on client ").and_then(|rest| rest.rsplit_once(": "))
    {
        return LogLine::Ended { client_id, by_command: false };
    }
    if text.starts_with("Error") && text.contains("load") {
        return LogLine::LoadError(text);
    }
    LogLine::Other
}

fn connected(rest: &str) -> Option<LogLine<'_>> {
    let (_address, rest) = rest.split_once(" as ")?;
    let (rest, user_name) = rest.strip_suffix("').")?.rsplit_once(", u'")?;
    let (client_id, _flags) = rest.rsplit_once(" (p")?;
    Some(LogLine::Connected { client_id, user_name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_mosquitto_2_0_11_are_understood() {
        let table = [
            (
                "1795415722: New client connected from 127.0.0.1:54822 as dev1 (p2, c1, k60, u'dev1').",
                LogLine::Connected { client_id: "dev1", user_name: "dev1" },
            ),
            (
                "1795415723: Client dev1 been disconnected by administrative action.",
                LogLine::Ended { client_id: "dev1", by_command: true },
            ),
            ("1795415723: Client ctl disconnected.", LogLine::Ended { client_id: "ctl", by_command: false }),
            (
                "1795415846: Client dev1 already connected, closing old connection.",
                LogLine::Ended { client_id: "dev1", by_command: false },
            ),
            ("1795415845: Reloading config.", LogLine::Reloading),
            ("1795415844: New connection from 127.0.0.1:52830 on port 18883.", LogLine::Other),
            (
                "1795415845: Error: Unable to load certificate revocation file \"/x/crl.pem\". Check crlfile.",
                LogLine::LoadError("Error: Unable to load certificate revocation file \"/x/crl.pem\". Check crlfile."),
            ),
            ("1795415691: OpenSSL Error[0]: error:0A000086:SSL routines::certificate verify failed", LogLine::Other),
        ];
        for (line, expected) in table {
            assert_eq!(parse(line), expected, "{line}");
        }
    }

    #[test]
    fn a_client_identifier_cannot_pass_for_another_user_name() {
        let line = "1: New client connected from 10.0.0.1:1 as x (p2, c1, k60, u'good'). (p2, c1, k60, u'evil').";
        let expected = LogLine::Connected { client_id: "x (p2, c1, k60, u'good').", user_name: "evil" };
        assert_eq!(parse(line), expected);
    }
}

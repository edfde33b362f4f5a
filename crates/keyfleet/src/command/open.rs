//! `keyfleet open`: what a device sealed.

use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::{Args, ValueEnum};
use kf_api::sealed::{OpenAnswer, OpenOutcome, OpenRefusal, OpenRequest, Opened, SealedPayload};

use crate::api::Context;
use crate::failure::Failure;
use crate::file;
use crate::output::{Format, Names, object, raw, say};

/// What to open.
#[derive(Debug, Args)]
pub(crate) struct Open {
    /// The sealed payload; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How the file is written: auto tells octets, hexadecimal and base64 apart
    #[arg(long, value_enum, default_value_t = Encoding::Auto)]
    encoding: Encoding,
    /// What the sender bound the payload to, for example its topic
    #[arg(long, value_name = "TEXT", default_value = "")]
    external_aad: String,
    /// Where to write the plaintext, which nobody else may then read [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// How octets are written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    /// Whichever it looks like
    Auto,
    /// As they are
    Binary,
    /// Two digits each
    Hex,
    /// RFC 4648, with or without line breaks
    Base64,
}

/// The first octet of every sealed payload, which is no printable character: tag 16 of COSE_Encrypt0.
const TAG: u8 = 0xd0;

impl Encoding {
    /// The octets of a file.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    fn decode(self, contents: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let text: Vec<u8> = contents.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
        let decoded = match self {
            Self::Binary => Some(contents),
            Self::Auto if contents.first() == Some(&TAG) => Some(contents),
            Self::Hex => hex::decode(&text).ok(),
            Self::Base64 => BASE64_STANDARD.decode(&text).ok(),
            Self::Auto => hex::decode(&text).ok().or_else(|| BASE64_STANDARD.decode(&text).ok()),
        };
        decoded.filter(|octets| !octets.is_empty()).ok_or_else(|| {
            Failure::usage("the file is no sealed payload in this encoding", "check the file, or give --encoding")
        })
    }
}

pub(crate) async fn run(context: &Context, open: Open) -> Result<(), Failure> {
    let Open { file, encoding, external_aad, out } = open;
    file::must_be_free(out.as_deref())?;
    let envelope = BASE64_STANDARD.encode(encoding.decode(file::read_or_stdin(&file)?)?);
    let payload = SealedPayload { envelope, external_aad: BASE64_STANDARD.encode(external_aad) };
    let request = OpenRequest { payloads: vec![payload] };
    let answer: OpenAnswer = context.api()?.post("/v1/open", &request).await?;
    match answer.payloads.into_iter().next() {
        Some(OpenOutcome::Opened(opened)) => write(context.format, &opened, out),
        Some(OpenOutcome::Refused { refusal, problem }) => Err(refused(refusal, problem)),
        None => Err(Failure::local("the server's answer is about no payload", "update keyfleet or the server")),
    }
}

fn write(format: Format, opened: &Opened, out: Option<PathBuf>) -> Result<(), Failure> {
    let plaintext = BASE64_STANDARD
        .decode(&opened.plaintext)
        .map_err(|_not_base64| Failure::local("the server's answer is not base64", "update keyfleet or the server"))?;
    if let Some(out) = out {
        file::write_private(&out, &plaintext)?;
        let without = Opened { plaintext: String::new(), ..opened.clone() };
        return object(format, &without, &Names::new());
    }
    if format == Format::Table {
        let Opened { device_name, device, service, boot_number, counter, .. } = opened;
        say(&format!("{service} of {device_name} ({device}), boot {boot_number}, message {counter}"));
        return raw(&plaintext);
    }
    object(format, opened, &Names::new())
}

fn refused(refusal: OpenRefusal, problem: String) -> Failure {
    let remedy = match refusal {
        OpenRefusal::Malformed => return Failure::usage(problem, "check the file, and --encoding"),
        OpenRefusal::Direction => "the device that it is for opens it",
        OpenRefusal::UnknownKey => "check who you are (keyfleet whoami) and that the device fetched its key",
        OpenRefusal::Barred => "see keyfleet device show; nothing that it sends is opened until it is resumed",
        OpenRefusal::Superseded => "let the device send again under its newest key",
        OpenRefusal::UnknownSession => "let the device agree another session and send again",
        OpenRefusal::NotAuthentic => "check --external-aad and the file; if both are right, somebody changed it",
        OpenRefusal::Replayed => "nothing is opened twice: keep what the first opening gave",
        OpenRefusal::TooOld => {
            "let the device send again; if it keeps on, its boot counter was reset: give it a new epoch"
        }
        OpenRefusal::DamagedRecord => "give the device a new epoch, and look after the registry's disk",
    };
    Failure::InTheWay { problem, remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_encodings_are_told_apart() {
        let octets = [TAG, 0x83, 0x41, 0x00];
        for written in [octets.to_vec(), b"d083 4100\n".to_vec(), b"0INB\nAA==\n".to_vec()] {
            assert_eq!(Encoding::Auto.decode(written).unwrap(), octets);
        }
        assert!(Encoding::Hex.decode(b"0INBAA==".to_vec()).is_err());
        assert!(Encoding::Auto.decode(b"no payload".to_vec()).is_err());
        assert!(Encoding::Auto.decode(Vec::new()).is_err());
    }
}

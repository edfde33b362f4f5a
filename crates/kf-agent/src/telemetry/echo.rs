//! Lines over mutual TLS that come back.

use std::io;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Ending, Outbox, Session, before_acceptance};
use crate::event::Event;
use crate::failure::chain_of;

/// How long connecting, and each line, may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// The most octets of a line.
const MAX_LINE_OCTETS: u64 = 4 * 1024;

pub(super) async fn hold(session: &Session<'_>, outbox: &mut Outbox) -> Ending {
    let stream = match in_time(connect(session)).await {
        Ok(stream) => stream,
        Err(error) => return before_acceptance(&error),
    };
    let mut stream = BufReader::new(stream);
    let mut is_up = false;
    loop {
        let message = outbox.next(session.events).await;
        // With TLS 1.3 the first line that comes back is the first sign of acceptance.
        match in_time(exchange(&mut stream, &message)).await {
            Ok(()) => {
                if !is_up {
                    session.events.tell(&Event::Connected { broker: session.broker() });
                    is_up = true;
                }
                outbox.acknowledged(session.events);
            }
            Err(error) if is_up => return Ending::Disconnected(chain_of(&error)),
            Err(error) => return before_acceptance(&error),
        }
    }
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
    }
}

async fn connect(session: &Session<'_>) -> io::Result<TlsStream<TcpStream>> {
    let settings = session.settings;
    let name = ServerName::try_from(settings.host.clone())
        .map_err(|invalid| io::Error::new(io::ErrorKind::InvalidInput, invalid))?;
    let stream = TcpStream::connect((settings.host.as_str(), settings.port)).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(session.tls.clone()).connect(name, stream).await
}

async fn exchange(stream: &mut BufReader<TlsStream<TcpStream>>, message: &[u8]) -> io::Result<()> {
    stream.get_mut().write_all(message).await?;
    stream.get_mut().write_all(b"\n").await?;
    stream.get_mut().flush().await?;
    let mut line = Vec::new();
    let read = stream.take(MAX_LINE_OCTETS).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the broker"));
    }
    if line.trim_ascii_end() != message {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "another line came back"));
    }
    Ok(())
}

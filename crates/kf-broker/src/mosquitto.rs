//! Mosquitto, as Debian ships it (2.0.11): a CRL file read again on SIGHUP, sessions cut through the dynamic security
//! plugin, and the broker's own log topics as the witness of who is connected.
//!
//! What this version does, and what follows:
//! * SIGHUP builds new TLS contexts, so new connections meet the new CRL and old session tickets end; open sessions stay.
//! * `disableClient` closes the sessions of a user name, but a client named by its certificate is served again at once
//!   when it reconnects, because the plugin checks passwords and there is none. So the CRL goes first, and a cut also
//!   takes away the role that the connector gave the client.
//! * There is no command that lists sessions. With `log_dest topic` the broker tells who comes and goes; without it
//!   [`Mosquitto`] cuts but refuses to say that a device is gone.
//! * Websocket listeners check no CRL: the connector covers plain TLS listeners only.

mod config;
mod connector;
mod control;
mod dynamic_security;
mod log_line;
mod process;
mod sessions;

pub use config::{MosquittoConfig, MosquittoFiles};
pub use connector::{BrokerProcess, Control, CutBy, Mosquitto, MosquittoSettings};
pub use dynamic_security::DeviceTopics;
pub use process::{MosquittoProcess, find_mosquitto};

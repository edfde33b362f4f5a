//! Where a call goes.

use http::Uri;
use rustls_pki_types::ServerName;

use crate::ClientError;

/// The most octets of an address.
const MAX_URL_OCTETS: usize = 8 * 1024;

/// An http or https address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) is_tls: bool,
    /// Host without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Value of the Host header.
    pub(crate) authority: String,
    /// Path and query, beginning with `/`.
    pub(crate) target: String,
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, ClientError> {
        let refuse = |reason| ClientError::Address { url: url.chars().take(200).collect(), reason };
        if url.len() > MAX_URL_OCTETS {
            return Err(refuse("it is longer than 8,192 octets"));
        }
        let uri: Uri = url.parse().map_err(|_invalid| refuse("it is not a URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(refuse("it begins with neither https:// nor http://")),
        };
        let authority = uri.authority().ok_or_else(|| refuse("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("a user or password in the address would end up in logs"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(refuse("it names no host"));
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let target = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { is_tls, host, port, authority: authority.as_str().to_owned(), target })
    }

    pub(crate) fn server_name(&self) -> Result<ServerName<'static>, ClientError> {
        ServerName::try_from(self.host.clone()).map_err(|_invalid| ClientError::Address {
            url: self.authority.clone(),
            reason: "the host is neither a DNS name nor an IP address",
        })
    }

    pub(crate) fn endpoint(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether another call can share this one's connection.
    pub(crate) fn same_peer(&self, other: &Self) -> bool {
        self.is_tls == other.is_tls && self.host == other.host && self.port == other.port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let address = Address::parse("https://[::1]:8443/v1/devices?page=2").unwrap();
        assert_eq!((address.is_tls, address.host.as_str(), address.port), (true, "::1", 8443));
        assert_eq!((address.authority.as_str(), address.target.as_str()), ("[::1]:8443", "/v1/devices?page=2"));
        assert_eq!(address.endpoint(), "[::1]:8443");
        assert_eq!(Address::parse("http://pki.example").unwrap().port, 80);
        assert_eq!(Address::parse("https://pki.example").unwrap().target, "/");
    }

    #[test]
    fn an_address_with_a_password_or_another_scheme_is_refused() {
        for url in ["https://user:secret@host/", "ftp://host/", "host:443", "/v1", "", "https://", "https://a b/"] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
        let refusal = Address::parse(&format!("https://h/{}", "a".repeat(9_000))).unwrap_err().to_string();
        assert!(refusal.len() < 400, "{refusal}");
    }
}

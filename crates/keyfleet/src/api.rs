//! Calls of `/v1` over one connection.

use std::path::PathBuf;
use std::time::Duration;

use kf_api::Page;
use kf_client::header::{ACCEPT, CONTENT_TYPE};
use kf_client::{ClientError, HeaderValue, Method, Response, Session};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::Failure;
use crate::output::{Format, Listing, Names, to_value};
use crate::profile::Source;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The most pages that are read to give identifiers their names.
const MAX_NAME_PAGES: u32 = 10;

/// What every command needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// How data is written.
    pub(crate) format: Format,
    /// `--data`.
    pub(crate) data: Option<PathBuf>,
    /// `--profile` before the noun.
    pub(crate) profile: Option<PathBuf>,
    /// How long a call may take.
    pub(crate) timeout: Option<Duration>,
}

impl Context {
    /// A connection to the server of the profile.
    ///
    /// # Errors
    /// [`Failure`] when there is no usable profile.
    pub(crate) fn api(&self) -> Result<Api, Failure> {
        self.api_within(Duration::from_secs(60))
    }

    /// A connection whose calls may take this long unless `--timeout` says otherwise.
    ///
    /// # Errors
    /// As [`Context::api`].
    pub(crate) fn api_within(&self, deadline: Duration) -> Result<Api, Failure> {
        let profile = self.profile_source()?.load()?;
        let client = profile.client(self.timeout.unwrap_or(deadline))?;
        Ok(Api { base: profile.server.trim_end_matches('/').to_owned(), session: client.session() })
    }

    /// Where the profile is.
    ///
    /// # Errors
    /// [`Failure::Usage`] when none is given and there is no home directory.
    pub(crate) fn profile_source(&self) -> Result<Source, Failure> {
        Source::choose(self.profile.as_deref(), self.data.as_deref())
    }

    /// The data directory, where a command cannot do without.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub(crate) fn data_dir(&self) -> Result<kf_fleet::DataDir, Failure> {
        let data = self.data.as_ref().ok_or_else(|| {
            Failure::usage("the data directory is not given", "give --data DIR, for example --data /var/lib/keyfleet")
        })?;
        Ok(kf_fleet::DataDir::new(data))
    }
}

/// A connection to `/v1`.
#[derive(Debug)]
pub(crate) struct Api {
    base: String,
    session: Session,
}

impl Api {
    /// Reads a resource.
    pub(crate) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        Ok(self.fetch(path).await?.json()?)
    }

    /// Reads a resource with a filter in its query.
    pub(crate) async fn query<F: Serialize, T: DeserializeOwned>(
        &mut self,
        path: &str,
        filter: &F,
    ) -> Result<T, Failure> {
        let query = query_of(&to_value(filter)?);
        let separator = if query.is_empty() { "" } else { "?" };
        self.get(&format!("{path}{separator}{query}")).await
    }

    /// Reads a resource as it is.
    pub(crate) async fn get_raw(&mut self, path: &str) -> Result<Vec<u8>, Failure> {
        Ok(self.fetch(path).await?.success()?.body.to_vec())
    }

    /// A GET may be sent again when the peer closed an idle connection.
    async fn fetch(&mut self, path: &str) -> Result<Response, Failure> {
        let url = format!("{}{path}", self.base);
        let headers = [(ACCEPT, JSON)];
        match self.session.request(Method::GET, &url, &headers, Vec::new()).await {
            Err(ClientError::Exchange { .. }) => {
                Ok(self.session.request(Method::GET, &url, &headers, Vec::new()).await?)
            }
            answer => Ok(answer?),
        }
    }

    /// Sends a JSON body and reads a JSON answer.
    pub(crate) async fn send<B: Serialize, T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::Output(std::io::Error::other(error)))?;
        self.send_body(method, path, JSON, body).await
    }

    /// Sends a JSON body and expects no answer but success.
    pub(crate) async fn send_nothing_back<B: Serialize>(
        &mut self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<(), Failure> {
        let url = format!("{}{path}", self.base);
        let body = serde_json::to_vec(body).map_err(|error| Failure::Output(std::io::Error::other(error)))?;
        self.session.request(method, &url, &[(ACCEPT, JSON), (CONTENT_TYPE, JSON)], body).await?.success()?;
        Ok(())
    }

    /// POST of a JSON body.
    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(&mut self, path: &str, body: &B) -> Result<T, Failure> {
        self.send(Method::POST, path, body).await
    }

    /// Sends a body of any type and reads a JSON answer.
    pub(crate) async fn send_body<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        content_type: HeaderValue,
        body: Vec<u8>,
    ) -> Result<T, Failure> {
        let url = format!("{}{path}", self.base);
        let headers = [(ACCEPT, JSON), (CONTENT_TYPE, content_type)];
        Ok(self.session.request(method, &url, &headers, body).await?.json()?)
    }

    /// Sends a body of any type and reads the answer as it is.
    pub(crate) async fn post_raw(
        &mut self,
        path: &str,
        content_type: HeaderValue,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, Failure> {
        let url = format!("{}{path}", self.base);
        let answer = self.session.request(Method::POST, &url, &[(CONTENT_TYPE, content_type)], body).await?;
        Ok(answer.success()?.body.to_vec())
    }

    /// Deletes a resource.
    pub(crate) async fn delete(&mut self, path: &str) -> Result<(), Failure> {
        let url = format!("{}{path}", self.base);
        self.session.request(Method::DELETE, &url, &[(ACCEPT, JSON)], Vec::new()).await?.success()?;
        Ok(())
    }

    /// Names of what the caller may see at `path`, by identifier. What cannot be had stays an identifier.
    pub(crate) async fn names(&mut self, path: &str) -> Names {
        let mut names = Names::new();
        let mut request = kf_api::PageRequest { after: None, limit: Some(kf_api::page::MAX_LIMIT) };
        for _ in 0..MAX_NAME_PAGES {
            let Ok(page) = self.query::<_, Page<Value>>(path, &request).await else { break };
            for item in &page.items {
                if let (Some(id), Some(name)) = (item["id"].as_str(), item["name"].as_str()) {
                    names.insert(id.to_owned(), name.to_owned());
                }
            }
            request.after = page.next;
            if request.after.is_none() {
                break;
            }
        }
        names
    }
}

/// How much of a listing is wanted.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Paging {
    /// Rows in a page, 1 to 1,000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: Option<u32>,
    /// Where the page starts: the `next` of the page before
    #[arg(long, value_name = "CURSOR", conflicts_with = "all")]
    pub(crate) after: Option<String>,
    /// Every page, one after the other
    #[arg(long)]
    pub(crate) all: bool,
}

impl Paging {
    /// Rows to ask for in one call.
    pub(crate) const fn rows(&self) -> Option<u32> {
        match (self.limit, self.all) {
            (Some(limit), _) => Some(limit),
            (None, true) => Some(kf_api::page::MAX_LIMIT),
            (None, false) => None,
        }
    }
}

/// A filter that can move to the next page.
pub(crate) trait Paged: Serialize {
    /// Starts after this place, with this many rows.
    fn page(&mut self, after: Option<String>, limit: Option<u32>);
}

macro_rules! paged {
    ($($filter:ty),+) => {$(
        impl Paged for $filter {
            fn page(&mut self, after: Option<String>, limit: Option<u32>) {
                self.after = after;
                self.limit = limit;
            }
        }
    )+};
}

paged!(
    kf_api::PageRequest,
    kf_api::device::DeviceFilter,
    kf_api::certificate::CertificateFilter,
    kf_api::audit::AuditFilter,
    kf_api::order::OrderFilter,
    kf_api::batch::BatchFilter,
    kf_api::inventory::InventoryFilter,
    kf_api::campaign::MemberFilter,
    kf_api::encryption_key::EncryptionKeyFilter,
    kf_api::incident::IncidentFilter
);

/// Lists `path`: one page, or all of them as they come. `T` checks that the answer is what it should be.
pub(crate) async fn list<T: DeserializeOwned + Serialize>(
    context: &Context,
    api: &mut Api,
    path: &str,
    mut filter: impl Paged,
    paging: &Paging,
    columns: &[&str],
) -> Result<(), Failure> {
    let names = names_for(context.format, api, columns).await;
    let mut listing = Listing::new(context.format, columns);
    let mut after = paging.after.clone();
    loop {
        filter.page(after.clone(), paging.rows());
        let page: Page<T> = api.query(path, &filter).await?;
        listing.rows(&page.items, &names)?;
        match page.next {
            // A server that sends the same place again would keep us here for ever.
            Some(next) if paging.all && after.as_ref() != Some(&next) => after = Some(next),
            next => {
                listing.end(next.as_deref())?;
                if let (Some(next), Format::Table) = (next, context.format) {
                    crate::output::say(&format!("more: --after {next}, or --all"));
                }
                return Ok(());
            }
        }
    }
}

/// The names that a table of these columns needs.
pub(crate) async fn names_for(format: Format, api: &mut Api, columns: &[&str]) -> Names {
    let mut names = Names::new();
    if format != Format::Table {
        return names;
    }
    for (column, path) in [
        ("facility", "/v1/facilities"),
        ("facilities", "/v1/facilities"),
        ("product_line", "/v1/product-lines"),
        ("authority", "/v1/authorities"),
        ("issuer", "/v1/authorities"),
    ] {
        if columns.contains(&column) {
            names.append(&mut api.names(path).await);
        }
    }
    names
}

/// One segment of a path, percent-encoded (RFC 3986 section 2.1).
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The query of a flat filter: one `key=value` for each field that is given.
pub(crate) fn query_of(filter: &Value) -> String {
    let pair = |(key, value): (&String, &Value)| {
        let text = match value {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some(format!("{}={}", segment(key), segment(&text)))
    };
    filter.as_object().into_iter().flatten().filter_map(pair).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_cannot_leave_its_path_segment() {
        assert_eq!(segment("a/../b?c#d e:é"), "a%2F..%2Fb%3Fc%23d%20e%3A%C3%A9");
    }

    #[test]
    fn a_filter_becomes_a_query_without_absent_fields() {
        let filter = kf_api::device::DeviceFilter {
            facility: Some("lyon & co".to_owned()),
            limit: Some(5),
            ..kf_api::device::DeviceFilter::default()
        };
        assert_eq!(query_of(&to_value(&filter).unwrap()), "facility=lyon%20%26%20co&limit=5");
    }
}

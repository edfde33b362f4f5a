//! What handlers take from a request. The caller is established first: nobody who has not proved who they are makes the
//! server read a body.

use std::sync::Weak;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::request::Parts;
use kf_fleet::Principal;
use serde::de::DeserializeOwned;

use super::app;
use crate::app::App;
use crate::authorization::bearer;
use crate::body;
use crate::failure::Failure;
use crate::peer::Peer;

/// The shared state, as the router holds it.
#[derive(Clone)]
pub(crate) struct AppState(pub(super) Weak<App>);

/// An authenticated operator: by API token, else by the certificate of the TLS session.
pub(super) struct Caller(pub(super) Principal);

impl FromRequestParts<AppState> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        let fleet = &app(state)?.fleet;
        if let Some(token) = bearer(&parts.headers)? {
            return Ok(Self(fleet.authenticate_token(&token).await?));
        }
        let certificate = parts.extensions.get::<Peer>().and_then(|peer| peer.certificate.as_ref());
        match certificate {
            Some(certificate) => Ok(Self(fleet.authenticate_certificate(certificate).await?)),
            None => Err(Failure::unauthenticated()),
        }
    }
}

/// A JSON body whose unknown fields are refused by its type.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<AppState> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Failure> {
        let limits = app(state)?.limits;
        let (parts, body) = request.into_parts();
        if !body::has_media_type(&parts.headers, "application/json") {
            return Err(Failure::unsupported_media_type("application/json"));
        }
        let text = body::read(&parts.headers, body, limits.json_octets, limits.body).await?;
        serde_json::from_slice(&text).map(Self).map_err(|error| {
            Failure::invalid("body", &error.to_string(), "send the JSON object that this address expects")
        })
    }
}

/// A query string whose unknown fields are refused by its type.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for Asked<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &AppState) -> Result<Self, Failure> {
        let Query(asked) = Query::try_from_uri(&parts.uri).map_err(|rejection| {
            Failure::invalid("query", &rejection.body_text(), "ask with the fields that this address knows")
        })?;
        Ok(Self(asked))
    }
}

/// The variable part of a path: a name, an id, or the path of a file of the log.
pub(super) struct Named(pub(super) String);

impl FromRequestParts<AppState> for Named {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => Err(Failure::not_found()),
        }
    }
}

/// The variable parts of a path that names something and a thing that belongs to it.
pub(super) struct Pair(pub(super) String, pub(super) String);

impl FromRequestParts<AppState> for Pair {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((one, other))) => Ok(Self(one, other)),
            Err(_) => Err(Failure::not_found()),
        }
    }
}

/// The variable parts of a path that names something and the number of one of its epochs or versions.
pub(super) struct Numbered {
    pub(super) name: String,
    pub(super) number: u32,
}

impl FromRequestParts<AppState> for Numbered {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Ok(Path((name, number))) = path else { return Err(Failure::not_found()) };
        let number = number.parse().map_err(|_not_a_number| Failure::not_found())?;
        Ok(Self { name, number })
    }
}

impl Named {
    /// The id or serial number that the path names.
    ///
    /// # Errors
    /// 400 naming `field` when it is none.
    pub(super) fn parse<T: std::str::FromStr>(&self, field: &str) -> Result<T, Failure>
    where
        T::Err: std::fmt::Display,
    {
        self.0.parse().map_err(|error: T::Err| {
            Failure::invalid(field, &error.to_string(), "copy it from a listing, with its prefix")
        })
    }
}

//! Key epochs of facilities and devices.

use axum::extract::{FromRequestParts, Path, State};
use http::request::Parts;
use kf_api::epoch::EpochRequest;
use kf_api::{Page, PageRequest};

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, ok};
use crate::failure::Failure;

/// An epoch of a facility, from the path.
pub(super) struct Epoch {
    facility: String,
    number: u32,
}

impl FromRequestParts<AppState> for Epoch {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Ok(Path((facility, number))) = path else { return Err(Failure::not_found()) };
        let number = number.parse().map_err(|_not_a_number| Failure::not_found())?;
        Ok(Self { facility, number })
    }
}

pub(super) async fn list(State(state): State<AppState>, Caller(who): Caller, Named(facility): Named) -> Answer {
    ok(&Page { items: app(&state)?.fleet.epoch_list(&who, &facility).await?, next: None })
}

pub(super) async fn advance_facility(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(facility): Named,
    Json(request): Json<EpochRequest>,
) -> Answer {
    created(&app(&state)?.fleet.epoch_advance_facility(&who, &facility, request.why).await?)
}

pub(super) async fn holders(
    State(state): State<AppState>,
    Caller(who): Caller,
    epoch: Epoch,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.epoch_holders(&who, &epoch.facility, epoch.number, page).await?)
}

pub(super) async fn retire(
    State(state): State<AppState>,
    Caller(who): Caller,
    epoch: Epoch,
    Json(request): Json<EpochRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.epoch_retire(&who, &epoch.facility, epoch.number, request.why).await?)
}

pub(super) async fn device_keys(State(state): State<AppState>, Caller(who): Caller, Named(device): Named) -> Answer {
    ok(&app(&state)?.fleet.device_keys(&who, &device).await?)
}

pub(super) async fn advance_device(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(device): Named,
    Json(request): Json<EpochRequest>,
) -> Answer {
    created(&app(&state)?.fleet.epoch_advance_device(&who, &device, request.why).await?)
}

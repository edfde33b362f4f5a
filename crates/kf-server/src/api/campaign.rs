//! Campaigns.

use axum::extract::State;
use kf_api::PageRequest;
use kf_api::campaign::{CampaignActRequest, CampaignEdit, MemberFilter, NewCampaign};

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, ok};

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.campaign_list(&who, page).await?)
}

pub(super) async fn create(State(state): State<AppState>, Caller(who): Caller, Json(new): Json<NewCampaign>) -> Answer {
    created(&app(&state)?.fleet.campaign_create(&who, new).await?)
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, Named(campaign): Named) -> Answer {
    ok(&app(&state)?.fleet.campaign_show(&who, &campaign).await?)
}

pub(super) async fn members(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(campaign): Named,
    Asked(filter): Asked<MemberFilter>,
) -> Answer {
    ok(&app(&state)?.fleet.campaign_members(&who, &campaign, filter).await?)
}

pub(super) async fn act(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(campaign): Named,
    Json(request): Json<CampaignActRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.campaign_act(&who, &campaign, request).await?)
}

pub(super) async fn estimate(State(state): State<AppState>, Caller(who): Caller, Named(campaign): Named) -> Answer {
    ok(&app(&state)?.fleet.campaign_estimate(&who, &campaign).await?)
}

pub(super) async fn edit(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(campaign): Named,
    Json(edit): Json<CampaignEdit>,
) -> Answer {
    ok(&app(&state)?.fleet.campaign_edit(&who, &campaign, edit).await?)
}

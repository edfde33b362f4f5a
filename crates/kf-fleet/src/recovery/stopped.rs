//! Devices, batches, public keys and places that are stopped: put back into a registry of before, and told to the witness where a crash came
//! between.

use std::collections::BTreeMap;

use kf_api::backup::Restored;
use kf_key::{DeviceId, DeviceState, UnixMillis};
use kf_store::Store;

use super::STOPPED_AT_ONCE;
use super::book::{Book, Place, target_of};
use crate::entry::Entry;
use crate::fence::{FenceKeeper, Line};
use crate::{Fleet, FleetError};

const OF_BEFORE: &str = "the witness knows of it: this registry is of before";

/// Stops devices and batches again, blocks public keys again, and keeps issuance stopped where it was. Whether there was anything.
pub(super) async fn stop_again(
    store: &Store,
    book: &Book,
    restored: &mut Restored,
    now: UnixMillis,
) -> Result<bool, FleetError> {
    let server = Fleet::server_principal();
    let before = restored.devices;
    let stopped: Vec<(DeviceId, DeviceState)> =
        book.devices.iter().filter(|(_, state)| !state.may_enrol()).map(|(device, state)| (*device, *state)).collect();
    for chunk in stopped.chunks(STOPPED_AT_ONCE) {
        let entry = Entry::done(&server, "device.stop", now).because(OF_BEFORE);
        restored.devices += store.stop_devices_again(chunk.to_vec(), restored.clone(), entry.build()).await?;
    }
    let mut any = restored.devices > before;
    if any {
        tracing::warn!(devices = restored.devices - before, "devices were taken out of service again");
    }
    for (batch, state) in &book.batches {
        let entry = Entry::done(&server, "batch.cancel", now).about(*batch).because(OF_BEFORE).with("to", state.name());
        any |= store.end_batch_again(*batch, *state, now, entry.build()).await?;
    }
    let mut blocked = book.blocked.clone();
    store.for_each_blocked(&mut |key| {
        blocked.remove(&key);
    })?;
    let blocked: Vec<[u8; 32]> = blocked.into_iter().collect();
    for chunk in blocked.chunks(STOPPED_AT_ONCE) {
        let entry = Entry::done(&server, "key.block", now).because(OF_BEFORE).with("keys", chunk.len());
        any |= store.block_keys(chunk.to_vec(), now, entry.build()).await?.value > 0;
    }
    for (place, why) in &book.issuance {
        let Some(why) = why else { continue };
        if exists(store, *place)? {
            any |= hold(store, *place, why, now).await?;
        }
    }
    Ok(any)
}

/// Whether a registry of before knows the facility or CA.
fn exists(store: &Store, place: Place) -> Result<bool, FleetError> {
    Ok(match place {
        (Some(facility), _) => store.facility(facility, &kf_access::Visibility::Fleet)?.is_some(),
        (None, Some(authority)) => store.authority(authority)?.is_some(),
        (None, None) => true,
    })
}

async fn hold(store: &Store, place: Place, why: &str, now: UnixMillis) -> Result<bool, FleetError> {
    let (facility, authority) = place;
    let mut entry =
        Entry::done(&Fleet::server_principal(), "issuance.stop", now).because(OF_BEFORE).with("stopped_for", why);
    if let Some(facility) = facility {
        entry = entry.about(facility).at_facility(Some(facility));
    }
    if let Some(authority) = authority {
        entry = entry.about(authority);
    }
    match target_of(place) {
        Some(target) if store.issuance_held(target)?.is_none() => {
            store.hold_issuance(target, Some((why.to_owned(), now)), entry.build()).await?;
        }
        None if store.issuance_stopped().is_none() => {
            store.set_issuance(Some(why.to_owned()), entry.build()).await?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Tells the witness what is stopped here and not known there; and, unless this registry is of before, what goes on.
pub(super) fn note(
    store: &Store,
    fence: &FenceKeeper,
    book: &Book,
    (is_behind, at): (bool, UnixMillis),
) -> Result<(), FleetError> {
    if !fence.has_witness() {
        return Ok(());
    }
    let mut here = BTreeMap::new();
    store.for_each_stopped_device(&mut |device, state| {
        here.insert(device, state);
    })?;
    let unknown = here.iter().filter(|(device, state)| book.devices.get(device) != Some(state));
    let line = |(device, state): (&DeviceId, &DeviceState)| Line::DeviceState { device: *device, state: *state, at };
    fence.note_lines(unknown.map(line));
    let ended = store.ended_batches()?.into_iter().filter(|(batch, state)| book.batches.get(batch) != Some(state));
    fence.note_lines(ended.map(|(batch, state)| Line::BatchEnded { batch, state, at }));
    let mut blocked = Vec::new();
    store.for_each_blocked(&mut |key| {
        if !book.blocked.contains(&key) {
            blocked.push(Line::KeyBlocked { spki_sha256: hex::encode(key), at });
        }
    })?;
    fence.note_lines(blocked);
    if !is_behind {
        for (device, _) in book.devices.iter().filter(|(_, state)| !state.may_enrol()) {
            if here.contains_key(device) {
                continue;
            }
            if let Some(found) = store.device(*device, &kf_access::Visibility::Fleet)? {
                fence.note_lines([Line::DeviceState { device: *device, state: found.state, at }]);
            }
        }
    }
    note_issuance(store, fence, book, (is_behind, at))?;
    fence.write_noted()
}

fn note_issuance(
    store: &Store,
    fence: &FenceKeeper,
    book: &Book,
    (is_behind, at): (bool, UnixMillis),
) -> Result<(), FleetError> {
    let facilities = store.facility_ids()?.into_iter().map(|id| (Some(id), None));
    let authorities = store.authorities()?.into_iter().map(|authority| (None, Some(authority.id)));
    for place in std::iter::once((None, None)).chain(facilities).chain(authorities) {
        let here = match target_of(place) {
            Some(target) => store.issuance_held(target)?,
            None => store.issuance_stopped(),
        };
        let there = book.issuance.get(&place).cloned().flatten();
        let goes_on = here.is_none() && there.is_some() && !is_behind;
        if goes_on || (here.is_some() && there.is_none()) {
            let (facility, authority) = place;
            fence.note_lines([Line::Issuance { facility, authority, stopped: here, at }]);
        }
    }
    Ok(())
}

//! One station, batch after batch: each with keys of its own, whatever is cut in between.

use std::collections::BTreeSet;
use std::sync::Arc;

use kf_batch::P256Key;
use kf_batch::keys_destroyed::KeysDestroyed;
use kf_station::ending::destroy_keys;
use kf_station::generation::{for_request, give_up, take, waiting};
use kf_station::token::{Generation, StationKey, StationToken, TokenError};

use crate::stage::{LINUX, MemoryToken, NOW, Power, Stage};

fn keys_of(token: &dyn StationToken, generation: Generation) -> Result<[P256Key; 3], TokenError> {
    let signing = [StationKey::Authority(generation), StationKey::Record(generation)].map(|key| token.public_key(key));
    let [authority, record] = signing;
    Ok([authority?, record?, token.transport_key(generation)?])
}

#[test]
fn asking_again_gives_the_same_keys_until_a_quota_took_them_and_then_others() {
    let token = MemoryToken::empty(None);
    let first = for_request(&token).unwrap();
    let keys = keys_of(&token, first).unwrap();
    assert_eq!((for_request(&token), keys_of(&token, first)), (Ok(first), Ok(keys)));
    assert_eq!(waiting(&token), Ok(Some(first)));
    take(&token, first).unwrap();
    assert_eq!(waiting(&token), Ok(None));
    let second = for_request(&token).unwrap();
    let fresh = keys_of(&token, second).unwrap();
    assert!(second > first && fresh.iter().all(|key| !keys.contains(key)));
    assert_eq!(keys_of(&token, first), Ok(keys), "its batch is open");
}

#[test]
fn a_request_that_is_given_up_leaves_no_keys_and_the_next_one_has_others() {
    let token = MemoryToken::empty(None);
    assert_eq!(give_up(&token), Ok(None));
    let first = for_request(&token).unwrap();
    assert_eq!(give_up(&token), Ok(Some(first)));
    assert_eq!((keys_of(&token, first), waiting(&token)), (Err(TokenError::MISSING), Ok(None)));
    assert!(for_request(&token).unwrap() > first);
}

#[test]
fn keys_of_a_request_that_are_gone_and_a_generation_that_the_token_never_drew_are_refused_by_name() {
    let token = MemoryToken::empty(None);
    let first = for_request(&token).unwrap();
    token.destroy(first).unwrap();
    assert_eq!(for_request(&token), Err(TokenError::MISSING));
    assert_eq!(take(&token, first.next().unwrap()), Err(TokenError::OTHER));
    assert_eq!(give_up(&token), Ok(Some(first)), "which is the way out");
    assert!(for_request(&token).is_ok());
}

/// What power may be cut from: a request, a quota that takes its keys, a request that is given up, an end.
#[derive(Clone, Copy, Debug)]
enum Act {
    Request,
    Take,
    GiveUp,
    End,
}

fn carry_out(act: Act, token: &dyn StationToken, stage: &Stage) -> Result<(), TokenError> {
    match act {
        Act::Request => for_request(token).map(|_generation| ()),
        Act::Take => waiting(token)?.map_or(Ok(()), |generation| take(token, generation)),
        Act::GiveUp => give_up(token).map(|_generation| ()),
        Act::End => {
            let terms = &stage.authorised.quota.terms;
            destroy_keys(token, Generation::FIRST, terms, false, NOW).map(|_said| ()).map_err(|_cut| TokenError("end"))
        }
    }
}

#[test]
fn power_cut_at_every_act_of_the_token_leaves_what_the_same_call_finishes() {
    let stage = Stage::new(LINUX, 1);
    for act in [Act::Request, Act::Take, Act::GiveUp, Act::End] {
        let mut acts = 0;
        loop {
            let power = Power::for_acts(u64::MAX);
            let token = MemoryToken::empty(Some(Arc::clone(&power)));
            if !matches!(act, Act::Request) {
                for_request(&token).unwrap();
            }
            power.leave(acts);
            let was_cut = carry_out(act, &token, &stage).is_err();
            power.leave(u64::MAX);
            carry_out(act, &token, &stage).unwrap();
            let first = keys_of(&token, Generation::FIRST);
            match act {
                Act::Request => assert_eq!((first.is_ok(), waiting(&token)), (true, Ok(Some(Generation::FIRST)))),
                Act::Take => assert_eq!((first.is_ok(), waiting(&token)), (true, Ok(None))),
                Act::GiveUp | Act::End => assert_eq!(first, Err(TokenError::MISSING), "{act:?} cut at {acts}"),
            }
            // Whatever was cut: the next batch has keys of its own, and none is used twice.
            if let Some(generation) = waiting(&token).unwrap() {
                take(&token, generation).unwrap();
            }
            let next = for_request(&token).unwrap();
            let keys: BTreeSet<_> = keys_of(&token, next).unwrap().iter().map(|key| key.spki_sha256()).collect();
            assert_eq!(keys.len(), 3);
            assert!(next > Generation::FIRST && first != keys_of(&token, next), "{act:?} cut at {acts}");
            if !was_cut {
                assert!(acts > 0, "the test cuts nothing of {act:?}");
                break;
            }
            acts += 1;
        }
    }
}

#[test]
fn the_end_of_a_batch_is_signed_by_the_identity_key_and_names_the_keys_that_the_quota_names() {
    let stage = Stage::new(LINUX, 1);
    let keys = keys_of(stage.token.as_ref(), Generation::FIRST).unwrap();
    let terms = &stage.authorised.quota.terms;
    let said = destroy_keys(stage.token.as_ref(), Generation::FIRST, terms, true, NOW).unwrap();
    let identity = stage.token.public_key(StationKey::Identity).unwrap();
    let destroyed = KeysDestroyed::verify(&said, &identity).unwrap();
    assert_eq!(destroyed.keys, keys.map(|key| key.spki_sha256()));
    assert_eq!((destroyed.batch, destroyed.generation, destroyed.is_given_up), (terms.batch, 1, true));
    assert!(KeysDestroyed::verify(&said, &keys[1]).is_err());
    assert_eq!(keys_of(stage.token.as_ref(), Generation::FIRST), Err(TokenError::MISSING));
    let refused = stage.open(crate::stage::Disk::default()).err();
    assert!(
        matches!(refused, Some(kf_station::station::StationError::KeysGone(Generation::FIRST))),
        "nothing is made with them: {refused:?}"
    );
}

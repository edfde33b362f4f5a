//! Which generation of keys a station asks a batch with: each serves one batch, and is destroyed when that ends.
//!
//! Two counters in the token say where it stands: the last generation that was drawn, and the last that a quota took. Between them
//! lies at most one, that of a request which waits for its quota. A counter follows what it counts, so that power may be cut between
//! any two steps: what was drawn and not counted is drawn to its end by the next request, which nobody has seen before.

use crate::token::{Generation, StationToken, TokenError};

const DRAWN: [u8; 16] = *b"keyfleet drawn\0\0";
const TAKEN: [u8; 16] = *b"keyfleet taken\0\0";

/// The generation of a request that waits for its quota.
///
/// # Errors
/// [`TokenError`].
pub fn waiting(token: &dyn StationToken) -> Result<Option<Generation>, TokenError> {
    let (drawn, taken) = (token.counter(&DRAWN)?, token.counter(&TAKEN)?);
    Ok(if drawn > taken { Generation::from_number(drawn) } else { None })
}

/// The generation for a request: that of the last one while no quota took it, else a fresh one.
///
/// # Errors
/// [`TokenError`]; [`TokenError::MISSING`] when the keys of the last request are not in the token any more.
pub fn for_request(token: &dyn StationToken) -> Result<Generation, TokenError> {
    if let Some(generation) = waiting(token)? {
        token.transport_key(generation)?;
        return Ok(generation);
    }
    let fresh = token
        .counter(&DRAWN)?
        .checked_add(1)
        .and_then(Generation::from_number)
        .ok_or(TokenError("count its generations"))?;
    token.draw(fresh)?;
    token.advance(&DRAWN, fresh.number())?;
    Ok(fresh)
}

/// A quota took a generation.
///
/// # Errors
/// [`TokenError`]; [`TokenError::OTHER`] for a generation that the token never drew.
pub fn take(token: &dyn StationToken, generation: Generation) -> Result<(), TokenError> {
    if generation.number() > token.counter(&DRAWN)? {
        return Err(TokenError::OTHER);
    }
    token.advance(&TAKEN, generation.number())
}

/// Destroys the keys of a request that no quota shall take any more, and says which generation that was.
///
/// # Errors
/// [`TokenError`].
pub fn give_up(token: &dyn StationToken) -> Result<Option<Generation>, TokenError> {
    let Some(generation) = waiting(token)? else { return Ok(None) };
    // Counted last: until then the request is still the one that waits, and is given up again.
    token.destroy(generation)?;
    take(token, generation)?;
    Ok(Some(generation))
}

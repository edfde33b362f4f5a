//! `keyfleet batch import`: a file of any length in pieces that the server takes, each piece whole or not at all. Memory does
//! not grow with the file. To resume, run it again: what is there already costs a look.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kf_api::batch::{BatchImport, RefusedItem};
use kf_batch::frame::{MAX_ITEM_OCTETS, split_item};
use kf_client::{HeaderValue, Method};

use crate::api::{Api, Context, segment};
use crate::failure::Failure;
use crate::output::{Format, Listing, Names, object, octets_bar, say};

/// What the server takes at once.
const MAX_PIECE_OCTETS: usize = 2 * 1024 * 1024;
const MAX_PIECE_ITEMS: u64 = 1_024;
/// The most conflicts and refused items that are listed; all are counted.
const MAX_LISTED: usize = 1_000;
const CONFLICT_COLUMNS: [&str; 4] = ["sequence", "kind", "device", "other"];
const REFUSED_COLUMNS: [&str; 2] = ["item", "problem"];

/// What to import.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Batch (name or id)
    batch: String,
    /// What the station wrote: signed records and manifests, one after the other
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Check everything that can be checked without writing
    #[arg(long)]
    dry_run: bool,
}

/// Reads whole items from a file.
struct Items {
    file: File,
    buffer: Vec<u8>,
    octets_read: u64,
}

/// Some items, as they are sent.
struct Piece {
    octets: Vec<u8>,
    items: u64,
}

impl Items {
    /// The next piece; `None` at the end.
    fn next(&mut self) -> Result<Option<Piece>, String> {
        let mut piece = Piece { octets: Vec::new(), items: 0 };
        while piece.items < MAX_PIECE_ITEMS && piece.octets.len() + MAX_ITEM_OCTETS <= MAX_PIECE_OCTETS {
            let split = split_item(&self.buffer).map_err(|error| error.to_string())?;
            match split.map(|split| split.item.len()) {
                Some(length) => {
                    piece.octets.extend(self.buffer.drain(..length));
                    piece.items += 1;
                }
                None if self.fill()? => {}
                None if self.buffer.is_empty() => break,
                None => return Err("it breaks off in the middle of a record".to_owned()),
            }
        }
        Ok((piece.items > 0).then_some(piece))
    }

    /// Reads on; false at the end of the file.
    fn fill(&mut self) -> Result<bool, String> {
        let mut chunk = vec![0; 16 * MAX_ITEM_OCTETS];
        let read = self.file.read(&mut chunk).map_err(|error| error.to_string())?;
        self.buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        self.octets_read += u64::try_from(read).unwrap_or(0);
        Ok(read > 0)
    }
}

pub(super) async fn run(context: &Context, import: &Import) -> Result<(), Failure> {
    let file = File::open(&import.file).map_err(|error| Failure::file("read", &import.file, error))?;
    let length = file.metadata().map_err(|error| Failure::file("read", &import.file, error))?.len();
    let mut api = context.api_within(Duration::from_secs(600))?;
    let bar = octets_bar(length);
    let mut items = Items { file, buffer: Vec::new(), octets_read: 0 };
    let mut total = BatchImport { dry_run: import.dry_run, ..BatchImport::default() };
    loop {
        let piece = items.next().map_err(|problem| {
            say(&format!("{} items were answered", total.items));
            Failure::local(
                format!("{}: {problem}", import.file.display()),
                "fetch the file from the station again and import it: what is there already is left alone",
            )
        })?;
        let Some(piece) = piece else { break };
        if let Err(failure) = send(&mut api, import, piece, &mut total).await {
            bar.abandon();
            say(&format!("{} items were answered; run the same command again to resume", total.items));
            return Err(failure);
        }
        bar.set_position(items.octets_read);
    }
    bar.finish_and_clear();
    finish(context, import, &total)
}

async fn send(api: &mut Api, import: &Import, piece: Piece, total: &mut BatchImport) -> Result<(), Failure> {
    let path = format!("/v1/batches/{}/records?dry_run={}", segment(&import.batch), import.dry_run);
    let content_type = HeaderValue::from_static("application/cbor-seq");
    let report: BatchImport = api.send_body(Method::POST, &path, content_type, piece.octets).await?;
    let room = MAX_LISTED.saturating_sub(total.conflicts.len());
    total.conflicts.extend(report.conflicts.into_iter().take(room));
    let room = MAX_LISTED.saturating_sub(total.refused.len());
    // Counted from the beginning of the file.
    let refused = report.refused.into_iter().map(|one| RefusedItem { item: one.item + total.items, ..one });
    total.refused.extend(refused.take(room));
    total.items += piece.items;
    total.merged += report.merged;
    total.already_there += report.already_there;
    total.manifests += report.manifests;
    total.receipts += report.receipts;
    total.conflict_count += report.conflict_count;
    total.refused_count += report.refused_count;
    Ok(())
}

fn finish(context: &Context, import: &Import, total: &BatchImport) -> Result<(), Failure> {
    if context.format == Format::Json {
        object(context.format, total, &Names::new())?;
    } else {
        let done = if import.dry_run { "would be merged" } else { "merged" };
        say(&format!(
            "{} items: {} {done}, {} already there, {} manifests, {} conflicts, {} refused",
            total.items, total.merged, total.already_there, total.manifests, total.conflict_count, total.refused_count
        ));
        if total.receipts > 0 {
            say("the station destroyed the keys of this batch");
        }
        let mut listing = Listing::new(context.format, &CONFLICT_COLUMNS);
        listing.rows(&total.conflicts, &Names::new())?;
        if !total.refused.is_empty() {
            let mut listing = Listing::new(context.format, &REFUSED_COLUMNS);
            listing.rows(&total.refused, &Names::new())?;
        }
    }
    if total.conflict_count == 0 && total.refused_count == 0 {
        return Ok(());
    }
    Err(Failure::Partial {
        problem: format!("{} conflicts, {} items refused", total.conflict_count, total.refused_count),
        remedy: "see `keyfleet batch reconcile`; the devices concerned are quarantined".to_owned(),
    })
}

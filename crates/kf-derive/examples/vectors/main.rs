//! Prints `vectors/derive.json`: `cargo run -q -p kf-derive --example vectors > vectors/derive.json`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod document;

fn main() {
    println!("{}", serde_json::to_string_pretty(&document::document()).unwrap());
}

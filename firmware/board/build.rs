//! Hands the board's memory map to the linker script of cortex-m-rt.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(folder.join("memory.x"), include_str!("memory.x")).expect("OUT_DIR can be written");
    println!("cargo:rustc-link-search={}", folder.display());
    println!("cargo:rerun-if-changed=memory.x");
}

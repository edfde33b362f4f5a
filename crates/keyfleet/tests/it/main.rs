//! The binary as its users run it: what it prints, where, and with which exit code.

mod console;
mod device_files;
mod fleet;
mod host;
mod refusals;
mod verbs;

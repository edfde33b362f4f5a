//! The registry: who may enter what, and what a second, wrong or broken entry comes to.

mod bootstraps;
mod codes;
mod devices;
mod import;
mod log;
mod operators;
mod places;
mod table;

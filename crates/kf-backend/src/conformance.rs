//! The suite that every back end passes.
#![allow(clippy::todo)]

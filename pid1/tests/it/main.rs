//! The contract of pid1, line by line: each test runs the real binary as the real first process of
//! a PID namespace. Its name is the promise.
//!
//! The binary is the one in `$PID1_BINARY`, or else the one cargo has just built. The words in
//! `$PID1_RUNNER` are put before it, such as `qemu-s390x` for a binary of another platform.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod advice;
#[path = "../../src/chance.rs"]
mod chance;
mod command_line;
mod container;
mod ending;
mod footprint;
mod hard;
mod limits;
mod not_first;
mod options;
mod originals;
mod personalities;
mod running;
mod starting;
mod terminal;

//! The xtask as its users call it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod image;

mod bench;
mod build;
mod built;

mod compare;
mod dist;
mod distributions;
mod lint;
mod package;
mod plan;
mod release;

mod blog;
mod demo;
mod smoke;

mod docker;
mod docker_registry;
mod ferro;
mod podman;
mod push;
mod refresh;
mod standins;

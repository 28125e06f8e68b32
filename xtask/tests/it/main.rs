//! The xtask as its users call it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod image;

mod build;
mod built;

mod compare;
mod dist;

mod blog;
mod smoke;

mod docker;
mod docker_registry;
mod podman;
mod push;

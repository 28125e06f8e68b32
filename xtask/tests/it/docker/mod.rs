//! Docker with our init: what `docker run --init` starts, and what a Dockerfile names that was
//! written for another.

mod daemon;

mod demo;
mod dockerfile;
mod init;
mod readme;
mod snippets;

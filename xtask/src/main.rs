//! `cargo xtask`: from one Rust init to the images people build on.
#![deny(unsafe_code)]

mod flags;

mod bench;
mod build;
mod compare;
mod dist;
mod generate;
mod image;
mod lint;
mod plan;
mod push;
mod run;
mod test;

mod spec;

mod contents;
mod oci;
mod registry;
mod release;
mod smoke;
mod tools;

mod files;
mod folder;
mod revision;

mod definition;
mod paths;
mod platform;
mod process;
mod ui;
mod version;

#[cfg(test)]
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use flags::{Command, Flags};
use process::Interrupt;
use ui::Ui;

/// What every command is given: where to report, and when to stop.
#[derive(Clone)]
pub struct Context {
    /// Where to report.
    pub ui: Ui,
    /// When to stop.
    pub interrupt: Interrupt,
}

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> Result<ExitCode> {
    let context = Context { ui: Ui::new(flags.quiet), interrupt: Interrupt::install()? };
    let done = match flags.command {
        Command::Plan { choice, json } => plan::print(&choice, json),
        Command::Smoke { choice, smoke } => smoke::command(&context, &choice, &smoke),
        Command::Run(flags) => return run::command(&context, &flags),
        Command::Inside => smoke::inside::run(),
        Command::Build { platforms } => {
            let built = build::build(&context, &platforms.chosen())?;
            build::print(&built);
            Ok(())
        }
        Command::Bench(flags) => bench::bench(&context, &flags),
        Command::Compare(flags) => compare::compare(&context, &flags),
        Command::Push(flags) => push::run(&context, &flags),
        Command::Lint => lint::lint(&context),
        Command::Generate { check: true } => generate::check(),
        Command::Generate { check: false } => generate::write(&context),
        Command::Image(choice) => image::run(&context, &choice),
        Command::Dist(flags) => dist::dist(&context, &flags),
        Command::Test(flags) => test::test(&context, &flags),
    };
    done.map(|()| ExitCode::SUCCESS)
}

//! `cargo xtask`: from one Rust init to the images people build on.
#![deny(unsafe_code)]

mod flags;

mod attach;
mod bench;
mod build;
mod compare;
mod demo;
mod dist;
mod generate;
mod image;
mod lint;
mod lock;
mod plan;
mod publish;
mod pull;
mod push;
mod refresh;
mod reproduce;
mod run;
mod sign;
mod test;

mod spec;

mod builder;

mod base;
mod contents;
mod oci;
mod registry;
mod release;
mod smoke;
mod tags;
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
        Command::Plan { choice, matrix: true, .. } => plan::print_matrix(&choice),
        Command::Plan { choice, json, .. } => plan::print(&choice, json),
        Command::Smoke { choice, smoke, from } => pull::command(&context, &choice, &from)
            .and_then(|()| smoke::command(&context, &choice, &smoke)),
        Command::Run(flags) => return run::command(&context, &flags),
        Command::Inside => smoke::inside::run(),
        Command::Build { platforms } => {
            let built = build::build(&context, &platforms.chosen())?;
            build::print(&built);
            Ok(())
        }
        Command::Demo(flags) => demo::demo(&context, &flags),
        Command::Bench(flags) => bench::run(&context, &flags),
        Command::Compare(flags) => compare::compare(&context, &flags),
        Command::Push(flags) => push::run(&context, &flags),
        Command::Attach(flags) => attach::run(&context, &flags),
        Command::Reproduce(flags) => reproduce::run(&context, &flags),
        Command::Lint(flags) => lint::lint(&context, &flags),
        Command::Generate { check: true } => generate::check(),
        Command::Generate { check: false } => generate::write(&context),
        Command::Refresh(flags) => refresh::refresh(&context, &flags),
        Command::Lock(flags) => lock::command(&context, &flags),
        Command::Image(flags) => image::run(&context, &flags),
        Command::Dist(flags) => dist::dist(&context, &flags),
        Command::Release(flags) => publish::release(&context, &flags),
        Command::Sign(flags) => sign::command(&context, &flags),
        Command::Test(flags) => test::test(&context, &flags),
    };
    done.map(|()| ExitCode::SUCCESS)
}

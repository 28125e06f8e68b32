//! The programs of the image `docker-testing`, one binary under many names, and the smoke tests'
//! probe.
#![deny(unsafe_code)]

mod blog;
mod tools;

mod probe;

mod family;
#[allow(unsafe_code, reason = "the one module that nix is not enough for")]
mod sys;

use std::env;
use std::path::Path;
use std::process::ExitCode;

/// A program says in one line what went wrong; nobody further up could handle it.
type Result<T = ()> = std::result::Result<T, String>;

/// What [`run`] knows by name and an image should have in `/bin`.
const PROGRAMS: &str = "sigterm, orphans, surviving, ps, sleep, echo, env";

fn main() -> ExitCode {
    let words = env::args_os().map(|word| word.to_string_lossy().into_owned());
    let mut words: Vec<String> = words.collect();
    if words.first().is_some_and(|word| file_name(word) == env!("CARGO_PKG_NAME")) {
        words.remove(0);
    }
    let arguments: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    let name = words.first().map_or("", |word| file_name(word));
    match run(name, &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("{name}: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, arguments: &[&str]) -> Result {
    match name {
        "sigterm" => blog::sigterm(arguments),
        "orphans" => blog::orphans(),
        "surviving" => blog::surviving(),
        "ps" => tools::ps(arguments),
        "sleep" => tools::sleep(arguments),
        "echo" => tools::echo(arguments),
        "env" => tools::env(arguments),
        "sh" => tools::sh(arguments),
        "probe" => probe::run(arguments),
        _ => Err(format!("no such program, the programs are {PROGRAMS}")),
    }
}

/// `argv[0]` may be a path.
fn file_name(word: &str) -> &str {
    Path::new(word).file_name().and_then(|name| name.to_str()).unwrap_or(word)
}

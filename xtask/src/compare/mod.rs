//! `cargo xtask compare`: what pid1 and the other inits do, each cell found out by running it.

mod rows;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{fs, io};

use anyhow::{Context as _, Result, ensure};

use crate::bench::peers::{self, Peer};
use crate::{Context, files, flags, paths, platform, process};
use rows::{Judge, LIBRARY, Options, ROWS, Row};

/// In seconds; every experiment that an init passes is over in half of it.
const DEADLINE: &str = "8";

/// How often an init may try: the experiments go by the clock, and a busy machine makes those fail
/// that should succeed, and hardly ever the other way round.
const ATTEMPTS: usize = 3;

/// What stands in the cell of an init that passed.
const YES: &str = "yes";

/// What `timeout` exits with when it had to use SIGKILL, and its group with it.
const KILLED: i32 = 137;

/// Of the crate that has pid1-rs' program.
const PID1_RS: &str = "0.1.6";

/// What stands under the table.
const NOTE: &str = "
`*`: not run, the option is not among those that the program lists.
All else was run in PID namespaces, with Debian's binaries and pid1-rs' own.
fpco/pid1 is Debian's package `pid1`.
";

const START: &str = "<!-- compare: written by `cargo xtask compare --readme` -->";
const END: &str = "<!-- /compare -->";

/// Runs every row's experiment with every init, prints the table, and puts it into pid1's README
/// if asked to.
pub fn compare(context: &Context, flags: &flags::Compare) -> Result<()> {
    let peers = if flags.own { vec![peers::own()?] } else { all(context)? };
    let mut table = vec![];
    for row in ROWS {
        let mut cells = vec![row.name.to_string()];
        for peer in &peers {
            context.interrupt.check()?;
            context.ui.say(format!("{}: {}", peer.name, row.name));
            cells.push(cell(row, peer)?);
        }
        table.push(cells);
    }
    let names: Vec<_> = peers.iter().map(|peer| peer.name).collect();
    let text = markdown(&names, &table);
    if flags.readme {
        let readme = paths::root().join("pid1/README.md");
        files::put_between(&readme, START, END, &format!("{text}{NOTE}"))?;
    }
    print!("{text}");
    Ok(())
}

fn all(context: &Context) -> Result<Vec<Peer>> {
    let mut all = vec![peers::own()?];
    for name in ["tini", "dumb-init", "catatonit"] {
        all.push(peers::debian(context, name)?);
    }
    all.push(Peer { name: "pid1-rs", path: Some(pid1_rs(context)?) });
    all.push(Peer { name: "fpco/pid1", path: Some(fpco_pid1(context)?) });
    Ok(all)
}

/// pid1-rs' program, built once.
fn pid1_rs(context: &Context) -> Result<PathBuf> {
    let root = paths::tools().join("pid1-rs");
    let binary = root.join("bin/pid1");
    if !binary.exists() {
        let mut cargo = Command::new("cargo");
        cargo.args(["install", "pid1-exe", "--version", PID1_RS, "--root"]).arg(&root);
        process::run(&context.ui, &context.interrupt, cargo)?;
    }
    Ok(binary)
}

/// fpco's program, as Debian builds it. Its package would install it as `pid1`, which is our name,
/// too.
fn fpco_pid1(context: &Context) -> Result<PathBuf> {
    let script = "apt-get -qq download pid1; dpkg-deb --extract pid1_*.deb .";
    Ok(peers::made(context, "fpco-pid1", script)?.join("usr/bin/pid1"))
}

/// What `peer` does in the experiment of `row`.
fn cell(row: &Row, peer: &Peer) -> Result<String> {
    let options = match &row.options {
        None => Some(&[][..]),
        Some(options) => spelled(options, peer.name),
    };
    // Not run.
    let Some(options) = options else { return Ok("no*".to_string()) };
    let mut said = String::new();
    for _ in 0..ATTEMPTS {
        let output = run(row, peer, options);
        said = verdict(row, &output.with_context(|| format!("cannot run {}", peer.name))?);
        if said == YES {
            break;
        }
    }
    Ok(said)
}

fn spelled<'a>(options: &Options, name: &str) -> Option<&'a [&'static str]> {
    match name {
        "pid1" => Some(options.pid1),
        "tini" => options.tini,
        "dumb-init" => options.dumb_init,
        "catatonit" => options.catatonit,
        "pid1-rs" => options.pid1_rs,
        _ => options.fpco_pid1,
    }
}

/// A PID namespace, in it a shell that becomes the init, and in that the program.
fn run(row: &Row, peer: &Peer, options: &[&str]) -> Result<Output> {
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let scratch = scratch.path();
    open_to_all(scratch, "exit 7\n").context("cannot write a temporary folder")?;
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", DEADLINE, "unshare", "--pid", "--fork", "--kill-child=KILL"]);
    command.args(["--mount-proc", "sh", "-c", row.before, "sh"]);
    command.arg(peer.path.as_ref().context("there is no init")?).args(options);
    if let Some(words) = row.program.strip_prefix('=') {
        let words = words.replace("$SCRATCH", &scratch.to_string_lossy());
        command.args(words.split(' '));
    } else {
        command.args(["--", "sh", "-c", &format!("{LIBRARY}{}", row.program)]);
    }
    command.env("SCRATCH", scratch).stdin(Stdio::null());
    command.env("PROBE", paths::binary(platform::host(), "docker-testing"));
    let output = command.output().context("cannot run `timeout` and `unshare`")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!said.starts_with("unshare:"), "no PID namespace, run it as root: {}", said.trim());
    Ok(output)
}

/// A folder that every user may read, with a script in it that has no `#!`.
fn open_to_all(folder: &Path, script: &str) -> io::Result<()> {
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder, executable.clone())?;
    let path = folder.join("script");
    fs::write(&path, script)?;
    fs::set_permissions(path, executable)
}

/// `yes`, or what it did instead.
fn verdict(row: &Row, output: &Output) -> String {
    // unshare dies as its child did; timeout has no code where it was killed along with its group.
    let is_over = output.status.code().is_some();
    let text = [&output.stdout[..], &output.stderr].concat();
    match row.judge {
        Judge::Code(wanted) if output.status.code() == Some(wanted) => YES.to_string(),
        Judge::Says(part) if String::from_utf8_lossy(&text).contains(part) => YES.to_string(),
        _ if !is_over => "hangs".to_string(),
        Judge::Code(_) => format!("exit {}", output.status.code().unwrap_or(KILLED)),
        Judge::Says(_) => "no".to_string(),
    }
}

fn markdown(names: &[&str], table: &[Vec<String>]) -> String {
    let mut text = format!("| | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for cells in table {
        text.extend(["| ", &cells.join(" | "), " |\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn output(status: i32, stdout: &str) -> Output {
        let status = ExitStatus::from_raw(status);
        Output { status, stdout: stdout.into(), stderr: vec![] }
    }

    #[test]
    fn a_cell_says_what_happened_instead() {
        let code = &ROWS[0];
        let says = ROWS.iter().find(|row| matches!(row.judge, Judge::Says("all came"))).unwrap();
        assert_eq!(verdict(code, &output(7 << 8, "")), "yes");
        assert_eq!(verdict(code, &output(1 << 8, "")), "exit 1");
        assert_eq!(verdict(code, &output(9, "")), "hangs");
        assert_eq!(verdict(says, &output(0, "all came\n")), "yes");
        assert_eq!(verdict(says, &output(0, "")), "no");
    }

    #[test]
    fn a_table_has_a_column_an_init() {
        let table = vec![vec!["reaps".to_string(), "yes".to_string(), "no*".to_string()]];
        let text = markdown(&["one", "two"], &table);
        assert_eq!(text, "| | one | two |\n|---|---|---|\n| reaps | yes | no* |\n");
    }
}

//! What the smoke tests look through: each probe does one thing, says what it saw, and exits 0 if
//! that is as it should be under an init.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, getegid, geteuid, getpid, getppid};

use crate::tools::{parse, say};
use crate::{Result, blog, family, sys};

/// How long a signal may take from the init to us.
const FORWARDED_WITHIN: Duration = Duration::from_secs(5);

/// How long to wait for somebody outside to send a signal.
const SENT_WITHIN: Duration = Duration::from_mins(1);

/// `docker-testing probe NAME [ARGUMENT]`.
pub fn run(arguments: &[&str]) -> Result {
    match arguments {
        ["exit", code] => std::process::exit(parse(code, "an exit code")?),
        ["die", signal] => die(parse(signal, "a signal")?),
        // `1` under an init, `0` where we are PID 1 ourselves.
        ["parent"] => say(getppid()),
        ["ids"] => say(format!("{}:{}", geteuid(), getegid())),
        ["directory"] => directory(),
        ["write", path] => write(path),
        ["starts", path, text] => starts(path, text),
        ["forwarded", signal] => forwarded(parse(signal, "a signal")?),
        ["wait", signal] => wait(parse(signal, "a signal")?),
        ["orphans", count] => orphans(parse(count, "a number")?),
        // Leaves children that say something when they are asked to end.
        ["grace", count] => blog::survive(parse(count, "a number")?),
        ["hang"] => hang(),
        ["answer", signal] => answer(parse(signal, "a signal")?),
        ["release", count] => release(parse(count, "a number")?),
        _ => Err(format!("no such probe: {}", arguments.join(" "))),
    }
}

/// Dies by `signal`.
fn die(signal: i32) -> Result {
    sys::kill(getpid(), signal)?;
    Err(format!("signal {signal} did nothing"))
}

/// Prints the working directory.
fn directory() -> Result {
    let directory = std::env::current_dir().map_err(|err| format!("it has no name: {err}"))?;
    say(directory.display())
}

/// Fails unless a file can be made at `path`.
fn write(path: &str) -> Result {
    File::create(path).map_err(|err| format!("cannot create `{path}`: {err}"))?;
    Ok(())
}

/// Fails unless the file at `path` starts with `text`.
fn starts(path: &str, text: &str) -> Result {
    let bytes = std::fs::read(path).map_err(|err| format!("cannot read `{path}`: {err}"))?;
    if !bytes.starts_with(text.as_bytes()) {
        return Err(format!("`{path}` does not start with `{text}`"));
    }
    Ok(())
}

/// Sends `signal` to PID 1, which should hand it on to us.
fn forwarded(signal: i32) -> Result {
    let held = sys::Held::new(signal)?;
    sys::kill(Pid::from_raw(1), signal)?;
    if !held.comes_within(FORWARDED_WITHIN) {
        return Err(format!("signal {signal} to PID 1 did not arrive here"));
    }
    say(format!("{signal} forwarded"))
}

/// Says when it is ready for `signal`, and when it came.
fn wait(signal: i32) -> Result {
    let held = sys::Held::new(signal)?;
    say("ready")?;
    if !held.comes_within(SENT_WITHIN) {
        return Err(format!("signal {signal} did not come"));
    }
    say(format!("{signal} came"))
}

/// Leaves orphans that end at once, and counts the zombies.
fn orphans(count: usize) -> Result {
    let orphans = family::leave_orphans(count, |_| Ok(()))?;
    say(format!("{} zombies", family::settle(&orphans)?))
}

/// Says `ready`, and then one byte each time `signal` comes: what a benchmark listens to.
fn answer(signal: i32) -> Result {
    let held = sys::Held::new(signal)?;
    say("ready")?;
    while held.comes_within(SENT_WITHIN) {
        std::io::stdout()
            .write_all(b".")
            .and_then(|()| std::io::stdout().flush())
            .map_err(|err| format!("cannot answer: {err}"))?;
    }
    Ok(())
}

/// Leaves orphans that wait, says `ready`, ends them all at once, and says how many µs the init
/// took until the last was reaped.
fn release(count: usize) -> Result {
    let group = Pid::from_raw(0);
    // Refused where an init made this process the leader of a session: then it has its own group.
    let _ = nix::unistd::setpgid(group, group);
    family::leave_orphans(count, |_| {
        nix::unistd::pause();
        Ok(())
    })?;
    say("ready")?;
    // The group is the orphans and this process, which is to live on.
    let _held = sys::Held::new(nix::libc::SIGTERM)?;
    let start = Instant::now();
    sys::kill(group, nix::libc::SIGTERM)?;
    // Signal 0 reaches nobody; it fails once nobody but the init and this process is there. The
    // kernel walks over all processes for it, so asking more often would slow down what we watch.
    while nix::sys::signal::kill(Pid::from_raw(-1), None).is_ok() {
        std::thread::sleep(Duration::from_millis(2));
    }
    say(start.elapsed().as_micros())
}

/// Does not end, whatever it is told in kind.
fn hang() -> Result {
    let _held = sys::Held::new(nix::libc::SIGTERM)?;
    say("ready")?;
    loop {
        nix::unistd::pause();
    }
}

//! What the smoke tests look through: each probe does one thing, says what it saw, and exits 0 if
//! that is as it should be under an init.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getegid, geteuid, getpid, getppid};

use crate::tools::{parse, say};
use crate::{Result, blog, family, sys, tools};

/// How long a signal may take from the init to us.
const FORWARDED_WITHIN: Duration = Duration::from_secs(5);

/// How long a child of `late` lives on: an init that waits for nobody ends it before.
const LATE: Duration = Duration::from_millis(50);

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
        ["owner", path] => owner(path),
        ["directory"] => directory(),
        ["listens"] => listens(),
        ["write", path] => write(path),
        ["starts", path, text] => starts(path, text),
        ["forwarded", signals @ ..] => signals.iter().try_for_each(|signal| {
            let signal = parse(signal, "a signal")?;
            sent_as(signal, signal)
        }),
        ["rewritten", from, to] => sent_as(parse(from, "a signal")?, parse(to, "a signal")?),
        ["drained"] => drained(),
        ["group", signal] => group(parse(signal, "a signal")?),
        ["wait", signal] => wait(parse(signal, "a signal")?),
        ["orphans", count] => orphans(parse(count, "a number")?),
        // Leaves children that say something when they are asked to end.
        ["grace", count] => blog::survive(parse(count, "a number")?),
        ["stopped"] => stopped(),
        ["session"] => session(),
        ["stubborn"] => stubborn(),
        ["late"] => late(),
        ["hang"] => hang(),
        ["idle"] => idle(),
        ["terminal"] => terminal(),
        // What comes after these becomes another program: usually pid1, as PID 1.
        ["called", name, program, arguments @ ..] => {
            tools::execute(program, &[&[*name], arguments].concat())
        }
        ["ignoring-children", words @ ..] => sys::ignore_children().and_then(|()| execute(words)),
        ["without-stdin", words @ ..] => without(&[0], words),
        ["without-stdio", words @ ..] => without(&[0, 1, 2], words),
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

/// Becomes another program.
fn execute(words: &[&str]) -> Result {
    let Some(program) = words.first() else { return Err("needs a program".to_string()) };
    tools::execute(program, words)
}

/// Becomes another program, which lacks those standard `descriptors`.
fn without(descriptors: &[i32], words: &[&str]) -> Result {
    for descriptor in descriptors {
        nix::unistd::close(*descriptor)
            .map_err(|err| format!("cannot close {descriptor}: {}", err.desc()))?;
    }
    execute(words)
}

/// Fails unless sockets handed on would be ours.
fn listens() -> Result {
    let named = std::env::var("LISTEN_PID").unwrap_or_default();
    if named == getpid().to_string() { Ok(()) } else { Err(format!("they are `{named}`'s")) }
}

/// Prints the number of the user who owns `path`.
fn owner(path: &str) -> Result {
    let metadata = std::fs::metadata(path);
    say(metadata.map_err(|err| format!("cannot look at `{path}`: {err}"))?.uid())
}

/// Fails unless standard output is a terminal with us in its foreground.
fn terminal() -> Result {
    let group = nix::unistd::tcgetpgrp(std::io::stdout());
    let group = group.map_err(|err| format!("it is no terminal of ours: {}", err.desc()))?;
    if group == nix::unistd::getpgrp() { say("in front") } else { Err("in the back".to_string()) }
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

/// Sends the signal `from` to PID 1, which should hand it on to us as `to`.
fn sent_as(from: i32, to: i32) -> Result {
    let held = sys::Held::new(to)?;
    sys::kill(Pid::from_raw(1), from)?;
    if !held.comes_within(FORWARDED_WITHIN) {
        return Err(format!("signal {from} to PID 1 did not arrive here as {to}"));
    }
    say(format!("{to} forwarded"))
}

/// Sends SIGTERM to PID 1, which should keep it to itself for now, and a second time, when it
/// should come at once.
fn drained() -> Result {
    let term = sys::Held::new(nix::libc::SIGTERM)?;
    sys::kill(Pid::from_raw(1), nix::libc::SIGTERM)?;
    // Of several signals the one with the lowest number is taken first: once this one is here,
    // nothing else is on its way.
    sent_as(nix::libc::SIGWINCH, nix::libc::SIGWINCH)?;
    if term.comes_within(Duration::ZERO) {
        return Err("SIGTERM was not held back".to_string());
    }
    sys::kill(Pid::from_raw(1), nix::libc::SIGTERM)?;
    if term.comes_within(FORWARDED_WITHIN) { Ok(()) } else { Err("SIGTERM did not come".into()) }
}

/// Sends `signal` to PID 1, which should hand it on to our child as well.
fn group(signal: i32) -> Result {
    let held = sys::Held::new(signal)?;
    let child = sys::fork(|| {
        let came = held.comes_within(FORWARDED_WITHIN);
        if came { say(format!("{signal} came to the child")) } else { Err("nothing came".into()) }
    })?;
    sent_as(signal, signal)?;
    family::finish(child)
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

/// Leaves a child that has stopped, and says when it got a SIGTERM all the same.
fn stopped() -> Result {
    let child = sys::fork(|| blog::got_a_term(|| sys::kill(getpid(), nix::libc::SIGSTOP)))?;
    let status = waitpid(child, Some(WaitPidFlag::WUNTRACED));
    match status.map_err(|err| format!("cannot wait: {}", err.desc()))? {
        WaitStatus::Stopped(..) => Ok(()),
        _ => Err("the child did not stop".to_string()),
    }
}

/// Leaves children as `grace` does, out of reach of who signals groups and sessions.
fn session() -> Result {
    family::finish(sys::fork(|| {
        nix::unistd::setsid().map_err(|err| format!("cannot leave the session: {}", err.desc()))?;
        blog::survive(1)
    })?)
}

/// Leaves a child that only SIGKILL ends.
fn stubborn() -> Result {
    let _held = sys::Held::new(nix::libc::SIGTERM)?;
    sys::fork(|| {
        loop {
            nix::unistd::pause();
        }
    })?;
    Ok(())
}

/// Leaves a child that says after our end whom it was left to, and ends by itself.
fn late() -> Result {
    let (parent, init) = (getpid(), getppid());
    sys::fork(|| {
        while getppid() == parent {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Who is ended instead of waited for does not come to the next line.
        std::thread::sleep(LATE);
        match getppid() {
            it if it == Pid::from_raw(1) => say("left to PID 1"),
            it if it == init => say("left to the init above"),
            _ => say("left to somebody else"),
        }
    })?;
    Ok(())
}

/// Does nothing, and dies of SIGTERM.
fn idle() -> Result {
    say("ready")?;
    loop {
        nix::unistd::pause();
    }
}

/// Does not end, whatever it is told in kind.
fn hang() -> Result {
    let _held = sys::Held::new(nix::libc::SIGTERM)?;
    say("ready")?;
    loop {
        nix::unistd::pause();
    }
}

//! The three demonstrations: a signal that PID 1 does not get, orphans that nobody reaps, and
//! children that nobody asks to end.

use std::ffi::CString;
use std::io::{PipeReader, Read, Write};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::getpid;

use crate::Result;
use crate::{family, sys, tools};

/// How many orphans `orphans` leaves, and how many children `surviving`.
const FAMILY: usize = 4;

/// How long a child of `surviving` works on after SIGTERM: an init without patience cuts it off.
const CLEANING_UP: Duration = Duration::from_millis(50);

/// Sends SIGTERM to itself. Most programs die of that; PID 1 does not, because the kernel drops
/// what PID 1 has no handler for.
pub fn sigterm(arguments: &[&str]) -> Result {
    match arguments {
        [] => {}
        ["install-handler"] => sys::exit_42_on(Signal::SIGTERM)?,
        _ => return Err("the only argument there is is `install-handler`".to_string()),
    }
    sys::kill(getpid(), Signal::SIGTERM as i32)?;
    loop {
        tools::say("Still alive!")?;
        thread::sleep(Duration::from_secs(1));
    }
}

/// Loses sight of some `echo`s, as a careless daemon does, and shows what became of them.
pub fn orphans() -> Result {
    let orphans = family::leave_orphans(FAMILY, |number| {
        let words = ["echo".to_string(), number.to_string()];
        let words = words.map(|word| CString::new(word).expect("it has no NUL"));
        let Err(err) = nix::unistd::execvp(&words[0], &words);
        Err(format!("cannot run `echo`: {}", err.desc()))
    })?;
    family::settle(&orphans)?;
    tools::ps(&[])
}

/// Leaves children behind that would like to tidy up. Without an init their world ends with their
/// parent.
pub fn surviving() -> Result {
    survive(FAMILY)?;
    tools::say(format!("Leaving {FAMILY} children behind"))
}

/// Starts `count` children that print a line some time after SIGTERM; returns when all are ready.
pub fn survive(count: usize) -> Result {
    let (mut reader, writer) = std::io::pipe().map_err(|err| format!("cannot pipe: {err}"))?;
    for _ in 0..count {
        // The reader is our parent, which is waiting for this byte.
        let ready = || (&writer).write_all(b".").map_err(|err| format!("cannot say so: {err}"));
        sys::fork(|| got_a_term(ready))?;
    }
    drop(writer);
    wait_until_ready(&mut reader, count)
}

/// Waits for SIGTERM, which is held back from before `ready` is called, and says that it came.
pub fn got_a_term(ready: impl FnOnce() -> Result) -> Result {
    let failed = |err: Errno| format!("cannot wait for SIGTERM: {}", err.desc());
    let term = SigSet::from(Signal::SIGTERM);
    term.thread_block().map_err(failed)?;
    ready()?;
    term.wait().map_err(failed)?;
    thread::sleep(CLEANING_UP);
    tools::say("Got a TERM")
}

fn wait_until_ready(reader: &mut PipeReader, count: usize) -> Result {
    let mut ready = vec![0; count];
    reader.read_exact(&mut ready).map_err(|err| format!("cannot wait for the children: {err}"))
}

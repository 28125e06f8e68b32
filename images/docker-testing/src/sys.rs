//! The system calls that nix cannot make safe, or has no real-time signals for. All `unsafe` is
//! here.

use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{ForkResult, Pid};

use crate::Result;

/// Runs `body` in a child.
pub fn fork(body: impl FnOnce() -> Result) -> Result<Pid> {
    // SAFETY: no program here starts a thread, so the child has all that its parent had, its
    // memory allocator's and stdout's locks included, and nothing was held.
    let forked = unsafe { nix::unistd::fork() };
    match forked.map_err(|err| format!("cannot fork: {}", err.desc()))? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let code = match body() {
                Ok(()) => 0,
                Err(err) => {
                    eprintln!("{err}");
                    1
                }
            };
            std::process::exit(code)
        }
    }
}

/// Sends a signal by number, so that it can be a real-time one.
pub fn kill(pid: Pid, signal: i32) -> Result {
    // SAFETY: kill takes two integers and touches no memory of ours.
    let result = unsafe { libc::kill(pid.as_raw(), signal) };
    Errno::result(result).map_err(|err| format!("cannot send signal {signal}: {}", err.desc()))?;
    Ok(())
}

/// Makes `signal` end the process with 42.
pub fn exit_42_on(signal: Signal) -> Result {
    extern "C" fn exit_42(_: libc::c_int) {
        // SAFETY: _exit is async-signal-safe and does not return.
        unsafe { libc::_exit(42) }
    }
    let action = SigAction::new(SigHandler::Handler(exit_42), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler calls nothing but _exit.
    let result = unsafe { sigaction(signal, &action) };
    result.map_err(|err| format!("cannot handle {signal}: {}", err.desc()))?;
    Ok(())
}

/// Does not want to know of children that end, and neither will what is executed from here.
pub fn ignore_children() -> Result {
    // SAFETY: to ignore a signal installs no handler that could be wrong.
    let result = unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigIgn) };
    result.map_err(|err| format!("cannot ignore SIGCHLD: {}", err.desc()))?;
    Ok(())
}

/// A signal, held back until it is asked for.
pub struct Held {
    signal: i32,
    set: libc::sigset_t,
}

impl Held {
    /// From here on `signal` waits for [`Held::comes_within`].
    pub fn new(signal: i32) -> Result<Held> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set it is given, and is the first to touch it.
        // sigaddset refuses a number that is no signal.
        let (set, result) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            let result = libc::sigaddset(&raw mut set, signal);
            (set, result)
        };
        Errno::result(result).map_err(|_| format!("`{signal}` is no signal"))?;
        // SAFETY: the set is initialised and outlives the call; no old mask is asked for.
        let result = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
        Errno::result(result).map_err(|err| format!("cannot block {signal}: {}", err.desc()))?;
        Ok(Held { signal, set })
    }

    /// Whether the signal comes within `limit`, at most 2³¹ s.
    pub fn comes_within(&self, limit: Duration) -> bool {
        let seconds = i32::try_from(limit.as_secs()).unwrap_or(i32::MAX);
        let limit = libc::timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        loop {
            // SAFETY: both structures are initialised and outlive the call; no details are asked
            // for.
            let got = unsafe {
                libc::sigtimedwait(&raw const self.set, ptr::null_mut(), &raw const limit)
            };
            if got == self.signal || Errno::last() != Errno::EINTR {
                return got == self.signal;
            }
        }
    }
}

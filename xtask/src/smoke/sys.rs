//! The system calls of the sandbox that nix has no safe form of. All of xtask's `unsafe` is here.

use std::io;
use std::mem::MaybeUninit;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::unistd::{ForkResult, Pid};

/// How a process ended. Not nix's `WaitStatus`: that has no real-time signals, and its `waitpid`
/// fails on them when the kernel has already forgotten the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Whether it was a signal.
    pub by_signal: bool,
    /// The exit code, or the number of the signal.
    pub number: i32,
}

/// Runs `body` in a child, which leaves with 1 when `body` returns.
pub fn fork(body: impl FnOnce()) -> Result<Pid> {
    // SAFETY: the helper that calls this was just executed and starts no thread (clap and
    // signal-hook's flags do not either), so no lock is held that the child would wait for.
    match unsafe { nix::unistd::fork() }.context("cannot fork")? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            body();
            // SAFETY: _exit takes an integer. Nothing of the parent's is to be flushed twice.
            unsafe { libc::_exit(1) }
        }
    }
}

/// Waits until `pid`, a child of ours, has ended, and leaves it as a zombie: nobody else can get
/// its number meanwhile.
pub fn wait_and_leave(pid: Pid) -> Result<Ended> {
    let id = libc::id_t::try_from(pid.as_raw()).expect("the number of a process is positive");
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let info = loop {
        // SAFETY: `info` outlives the call, and waitid fills it when it returns 0. All zeroes are
        // a valid siginfo_t, so it may be read either way.
        let (result, info) = unsafe {
            let flags = libc::WEXITED | libc::WNOWAIT;
            let result = libc::waitid(libc::P_PID, id, info.as_mut_ptr(), flags);
            (Errno::result(result), info.assume_init_ref())
        };
        match result {
            Err(Errno::EINTR) => {}
            result => break result.map(|_| info).context("cannot wait for PID 1")?,
        }
    };
    // SAFETY: waitid with WEXITED fills in the fields of SIGCHLD, of which the status is one.
    let number = unsafe { info.si_status() };
    Ok(Ended { by_signal: info.si_code != libc::CLD_EXITED, number })
}

/// Lets go of a zombie.
pub fn reap(pid: Pid) {
    // SAFETY: a null status is allowed. That it fails would mean that somebody reaped it before.
    unsafe { libc::waitpid(pid.as_raw(), std::ptr::null_mut(), 0) };
}

/// Sends a signal by number, so that it can be a real-time one.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: kill takes two integers and touches no memory of ours.
    let result = unsafe { libc::kill(pid, signal) };
    Errno::result(result).with_context(|| format!("cannot send signal {signal} to {pid}"))?;
    Ok(())
}

/// Gives the next program the signals and descriptors a runtime gives: all signals at their
/// defaults, none blocked, and no descriptor above 2. Rust ignores SIGPIPE, and who started us may
/// have ignored more.
pub fn reset_for_exec() -> Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is no function that could be called. It fails for KILL, STOP and what the
        // C library keeps for itself, which have no other disposition anyway.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask().context("cannot unblock the signals")?;
    // SAFETY: close-on-exec closes nothing yet, so every owner of a descriptor still has it.
    let result =
        unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if result != 0 {
        // Linux before 5.11: what we opened ourselves is close-on-exec already.
        let err = io::Error::last_os_error();
        anyhow::ensure!(
            matches!(err.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)),
            "cannot close inherited descriptors: {err}"
        );
    }
    Ok(())
}

//! The end: what remains gets SIGTERM, time, and then SIGKILL.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::pid_t;
use signal_hook::consts::{SIGCONT, SIGKILL, SIGTERM};

use crate::args::Options;
use crate::descendants;
use crate::family::Family;
use crate::signals::{Signal, is_order_to_end};
use crate::sys::{self, Arrivals};

/// How long what was killed may take to be gone, which it is at once unless the kernel is stuck.
const LAST_REAP: Duration = Duration::from_secs(1);
/// How often we look for processes whose end nobody tells us: `docker exec` makes them the children
/// of somebody outside. Doubled from the first to the last as time goes on.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(100);

/// The highest process id that Linux can be made to use.
const HIGHEST_PID: pid_t = 4_194_304;
const EVERYBODY: pid_t = -1;
const PROBE: Signal = 0;

/// Who is ours to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everybody in our PID namespace, whose first process we are.
    Namespace,
    /// Our descendants: we are not the first process, but their subreaper.
    Descendants,
    /// The child's process group: we are neither.
    Group,
}

/// Ends what remains, giving it `timeout` between SIGTERM and SIGKILL.
pub fn end(family: &mut Family, arrivals: &mut Arrivals, scope: Scope, timeout: Duration) {
    if !send(family, scope, SIGTERM) {
        return;
    }
    // A stopped process acts on SIGTERM only when it continues.
    send(family, scope, SIGCONT);
    if wait_until_alone(family, arrivals, scope, timeout) {
        return;
    }
    family.begin_killing(scope);
    send(family, scope, SIGKILL);
    wait_until_alone(family, arrivals, scope, LAST_REAP);
}

/// Sends `signal` to everybody in `scope`. Tells whether there was anybody.
fn send(family: &Family, scope: Scope, signal: Signal) -> bool {
    match scope {
        // Not PID 1 cannot be in this scope; but what `kill(-1)` does elsewhere is to end
        // everything on the machine, so this is not left to be read in another file.
        Scope::Namespace => sys::own_pid() == 1 && sys::kill(EVERYBODY, signal).is_ok(),
        // Without /proc we do not know them, but for those whom the child led.
        Scope::Descendants => {
            descendants::signal(signal).unwrap_or_else(|_| send(family, Scope::Group, signal))
        }
        Scope::Group => family.group().is_some_and(|group| sys::kill(-group, signal).is_ok()),
    }
}

/// Reaps until nothing is left that we could end, for `limit` at most. Tells whether it came so
/// far.
fn wait_until_alone(
    family: &mut Family,
    arrivals: &mut Arrivals,
    scope: Scope,
    limit: Duration,
) -> bool {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut witness = Witness::default();
    loop {
        family.reap();
        if !anybody(family, scope, &mut witness) {
            return true;
        }
        let Some(left) = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else {
            return false;
        };
        // Signals that come now have nobody to go to any more: everybody has got theirs.
        if arrivals.next(Some(left.min(pause))).is_none() {
            pause = LAST_PAUSE.min(pause * 2);
        }
    }
}

fn anybody(family: &Family, scope: Scope, witness: &mut Witness) -> bool {
    match scope {
        Scope::Namespace => witness.is_there(),
        // Every descendant has an ancestor that is our child.
        Scope::Descendants => !family.is_childless(),
        // Whoever is PID 1 may leave them as zombies, and those take signals as well.
        Scope::Group => send(family, scope, PROBE) && family.group().is_some_and(lives),
    }
}

/// Whether anybody in `group` has not ended; where there is no /proc, it is taken for granted.
fn lives(group: pid_t) -> bool {
    let mut lives = false;
    let looked = descendants::for_each_stat(|it| lives |= it.group == group && !it.has_ended());
    lives || looked.is_err()
}

/// Waits until everybody has ended by themselves, or until we are told to end them.
pub fn wait_for_all(family: &mut Family, arrivals: &mut Arrivals, scope: Scope, options: &Options) {
    let mut witness = Witness::default();
    while anybody(family, scope, &mut witness) {
        // Only those who are not our children end without a word.
        let pause = family.is_childless().then_some(LAST_PAUSE);
        match arrivals.next(pause) {
            Some(arrival) if options.is_order_to_end(arrival.signal) => return,
            _ => family.reap(),
        }
    }
}

/// Reaps until we are told to end.
pub fn wait_to_be_told(family: &mut Family, arrivals: &mut Arrivals) {
    loop {
        family.reap();
        if arrivals.next(None).is_some_and(|arrival| is_order_to_end(arrival.signal)) {
            return;
        }
    }
}

/// A process that is still there and that we may signal.
///
/// For an init that may not signal everybody, `kill(-1)` says yes as long as anybody is there at
/// all. So we look for one by its number, and the next time at the same one first.
#[derive(Default)]
struct Witness(Option<pid_t>);

impl Witness {
    fn is_there(&mut self) -> bool {
        if sys::kill(EVERYBODY, PROBE) == Err(Errno::ESRCH) {
            return false;
        }
        if !self.0.is_some_and(may_signal) {
            self.0 = find_one_we_may_signal();
        }
        self.0.is_some()
    }
}

fn find_one_we_may_signal() -> Option<pid_t> {
    let mut found = None;
    let looked = descendants::for_each_process(|pid| {
        if pid != sys::own_pid() && found.is_none() && may_signal(pid) {
            found = Some(pid);
        }
    });
    match looked {
        Ok(()) => found,
        // No /proc: all the numbers there are, which takes half a second where none is right.
        Err(_) => (2..=HIGHEST_PID).find(|pid| may_signal(*pid)),
    }
}

fn may_signal(pid: pid_t) -> bool {
    sys::kill(pid, PROBE).is_ok()
}

//! Advice for containers that are put together in a way that hurts, one line each, for those who
//! asked for more (`-v`): what is wrong shows in /proc, and where there is none nothing is said.

use nix::libc::pid_t;
use nix::unistd::getppid;

use crate::args::Options;
use crate::descendants::{self, Names, STAT};
use crate::log::{Level, Line, Log};
use crate::personality::{is_an_init, last_part};

const FIRST: pid_t = 1;

/// Somebody else is PID 1, and we only become the command: says who, and what helps.
pub fn on_not_being_first(log: Log) {
    if log.wants(Level::Life) {
        explain_who_is_first(log);
    }
}

// Here and below apart, because of the buffers: while nothing is said, the stack that they need is
// never touched.
#[inline(never)]
fn explain_who_is_first(log: Log) {
    let mut buffer = [0; STAT];
    let Some(first) = descendants::program(FIRST, &mut buffer) else { return };
    let remedy = if is_an_init(first) {
        ": one init is enough, leave out `--init`"
    } else if is_a_shell(first) && getppid().as_raw() == FIRST {
        ": write ENTRYPOINT in exec form, or `exec` before pid1"
    } else {
        ": add --subreaper to supervise all the same"
    };
    log.advise(Line::new().text("not PID 1, that is ").quoted(first).text(remedy));
}

/// Says so if what we run is an init, too.
pub fn on_running_an_init(options: &Options) {
    if options.log.wants(Level::Life) {
        explain_second_init(options);
    }
}

#[inline(never)]
fn explain_second_init(options: &Options) {
    let name = last_part(options.command.get(0).unwrap_or(c"").to_bytes());
    if is_an_init(name) {
        options.log.advise(Line::new().quoted(name).text(" is an init, too: one is enough"));
    }
}

/// Says so if `child`, which has got a SIGTERM some time ago, is a shell with a program below it:
/// that one has got none, and the shell waits for it.
#[inline(never)]
pub fn on_deaf_shell(log: Log, child: pid_t) {
    let mut buffer = [0; STAT];
    let shell = descendants::program(child, &mut buffer).filter(|name| is_a_shell(name));
    let Some(shell) = shell else { return };
    let mut below = Names::new();
    descendants::names(&mut below, |it| it.parent == child);
    if !below.as_bytes().is_empty() {
        let mut line = Line::new();
        line.quoted(shell).text(" runs on after SIGTERM, with ").quoted(below.as_bytes());
        log.advise(line.text(" below it: unless it hands signals on, start that with `exec`"));
    }
}

fn is_a_shell(name: &[u8]) -> bool {
    matches!(name, b"sh" | b"ash" | b"bash" | b"dash" | b"ksh" | b"zsh")
}

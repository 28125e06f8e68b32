//! A container init: starts one program, forwards signals to it, reaps everything, and at the end
//! gives what remains time to end too.
#![cfg_attr(not(test), no_main)]
// The tests have an entry point of their own, from which nothing of this is reached.
#![cfg_attr(test, allow(dead_code))]
#![deny(unsafe_code)]

mod advice;
mod args;
#[cfg(test)]
mod chance;
mod child;
mod descendants;
mod family;
mod forward;
mod log;
mod personality;
mod shutdown;
mod signals;
#[allow(unsafe_code, reason = "the one module that talks to the kernel")]
mod sys;
mod user;

use std::ffi::c_int;

use nix::unistd::chdir;
use signal_hook::consts::SIGCHLD;

use args::{Misuse, Options, Request};
use child::Inheritance;
use family::Family;
use forward::{Forwarder, Patience};
use log::{Level, Line};
use personality::{NotFirst, Personality};
use shutdown::Scope;
use sys::{Arrivals, Words};

const STDERR: c_int = 2;

/// The program. Gives the exit code.
fn run(words: Words, environment: Words) -> u8 {
    let personality = personality::called(words.get(0));
    let options = match args::parse(personality, words.skip(1), environment) {
        Ok(Request::Run(options)) => options,
        Ok(Request::Print(text)) => return print(personality, text),
        Err(misuse) => return refuse(personality, &misuse),
    };
    if options.command.is_empty() && !options.pause {
        log::print(STDERR, personality.no_command);
        return personality.codes.misuse;
    }
    let Some(scope) = scope(personality, &options) else {
        child::exec(&options, environment, None)
    };
    options.ask_for_parent_death_signal();
    if options.pause { pause(&options, scope) } else { supervise(&options, environment, scope) }
}

fn print(personality: &Personality, text: &[&str]) -> u8 {
    log::print(personality.print_to, text);
    0
}

#[inline(never)]
fn refuse(personality: &Personality, misuse: &Misuse) -> u8 {
    let mut line = Line::new();
    line.text(personality.prefix);
    misuse.explain(&mut line, personality.options);
    line.send();
    log::print(STDERR, personality.after_misuse);
    personality.codes.misuse
}

/// Whom we may end at the end; none if we are not to supervise at all.
fn scope(personality: &Personality, options: &Options) -> Option<Scope> {
    if sys::own_pid() == 1 {
        return Some(Scope::Namespace);
    }
    if options.subreaper || personality.not_first == NotFirst::Subreaper {
        return Some(match sys::become_subreaper() {
            Ok(()) => Scope::Descendants,
            Err(error) => {
                options.log.error(|line| {
                    line.text("cannot reap orphans: ").bytes(sys::reason(error).to_bytes())
                });
                Scope::Group
            }
        });
    }
    match personality.not_first {
        NotFirst::Exec => {
            advice::on_not_being_first(options.log);
            return None;
        }
        NotFirst::SuperviseAndWarn => options.log.error(|line| {
            line.text("not PID 1 and no subreaper (-s): orphans go to somebody else")
        }),
        NotFirst::Supervise | NotFirst::Subreaper => {}
    }
    Some(Scope::Group)
}

/// The life of an init.
fn supervise(options: &Options, environment: Words, scope: Scope) -> u8 {
    // From here on no signal acts on us: each waits until we take it.
    let signals = sys::take_signals();
    let terminal = child::terminal(options.session);
    let inheritance = Inheritance { environment, signals, terminal };
    let child = match child::start(options, &inheritance) {
        Ok(child) => child,
        Err(code) => return options.exit_codes.apply(code),
    };
    // From here on nothing that fails may end us: the container would go with us.
    let_go_of_what_is_the_childs();
    options.log.event(Level::Life, "started", |it| it.pid("pid", child));
    advice::on_running_an_init(options);

    let mut arrivals = Arrivals::default();
    let mut forwarder = Forwarder::new(options, &inheritance.terminal);
    let mut family = Family::new(Some(child), options);
    // Look before waiting: the child may have ended before there was anybody to tell.
    family.reap();
    while !family.child_has_ended() && forwarder.tick(child) == Patience::Left {
        match arrivals.next(forwarder.timeout()) {
            Some(arrival) if arrival.signal == SIGCHLD => family.reap(),
            Some(arrival) if !arrival.own => forwarder.take(arrival.signal, child),
            _ => {}
        }
    }
    // From here on the child's process id may be anybody's, and is not signalled any more.
    if options.wait_all && !forwarder.told_to_end() {
        shutdown::wait_for_all(&mut family, &mut arrivals, scope, options);
    }
    shutdown::end(&mut family, &mut arrivals, scope, options.timeout);
    inheritance.terminal.take_back();
    options.exit_codes.apply(family.report())
}

/// Does nothing but reap, until it is told to end: for a container that only holds namespaces.
fn pause(options: &Options, scope: Scope) -> u8 {
    sys::take_signals();
    let_go_of_what_is_the_childs();
    let mut arrivals = Arrivals::default();
    let mut family = Family::new(None, options);
    shutdown::wait_to_be_told(&mut family, &mut arrivals);
    shutdown::end(&mut family, &mut arrivals, scope, options.timeout);
    0
}

/// A descriptor that init holds never reports end of file, and a directory it sits in cannot be
/// unmounted. The standard ones stay, to be able to say something.
fn let_go_of_what_is_the_childs() {
    sys::close_from(STDERR + 1);
    // Fails only if the root is forbidden us; then we stay where we are.
    let _ = chdir(c"/");
}

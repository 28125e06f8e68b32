//! What becomes of a signal that arrives: held back, replaced, dropped or handed on.

use std::time::{Duration, Instant};

use nix::libc::pid_t;
use signal_hook::consts::{SIGSTOP, SIGTERM, SIGTTIN, SIGTTOU};

use crate::advice;
use crate::args::{Options, TERMINAL_STOPS, Target};
use crate::child::Terminal;
use crate::log::Level;
use crate::signals::Signal;
use crate::sys;

/// How long a child may take over a SIGTERM before its deafness is looked into. Less than engines
/// give us: afterwards nobody would be there to say anything.
const DEAF_AFTER: Duration = Duration::from_secs(3);

/// Whether the child may still take its time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    Left,
    Over,
}

/// Hands signals on to the child.
pub struct Forwarder<'a> {
    options: &'a Options,
    /// The terminal's word to processes in the background, which is where we are since we gave the
    /// foreground away. The child it would stop.
    deaf_to_background: bool,
    drain: Option<Duration>,
    /// When the SIGTERM that is held back goes on.
    held_until: Option<Instant>,
    /// When the child has had its time.
    patient_until: Option<Instant>,
    /// When to look whether the child is a shell that keeps a SIGTERM to itself.
    look_at: Option<Instant>,
    told_to_end: bool,
}

impl<'a> Forwarder<'a> {
    pub fn new(options: &'a Options, terminal: &Terminal) -> Self {
        Self {
            options,
            deaf_to_background: matches!(terminal, Terminal::Foreground(_)),
            drain: options.drain,
            held_until: None,
            patient_until: None,
            look_at: None,
            told_to_end: false,
        }
    }

    /// A signal has come from outside.
    pub fn take(&mut self, arrived: Signal, child: pid_t) {
        if self.deaf_to_background && (arrived == SIGTTIN || arrived == SIGTTOU) {
            return;
        }
        self.told_to_end |= self.options.is_order_to_end(arrived);
        if arrived == SIGTERM {
            if let Some(drain) = self.drain.take() {
                self.held_until = Instant::now().checked_add(drain);
                return;
            }
            // The second one does not wait, and carries the first.
            self.held_until = None;
        }
        self.forward(arrived, child);
        if self.options.stops_too && TERMINAL_STOPS.contains(&arrived) {
            // As PID 1 we cannot be stopped, and are not.
            let _ = sys::kill(sys::own_pid(), SIGSTOP);
        }
    }

    /// Whether somebody wants all of this to end, and not only a signal to reach the child.
    pub fn told_to_end(&self) -> bool {
        self.told_to_end
    }

    /// Does what is due. Tells whether the child's time is up.
    pub fn tick(&mut self, child: pid_t) -> Patience {
        if self.held_until.is_some_and(is_past) {
            self.held_until = None;
            self.forward(SIGTERM, child);
        }
        let is_over = self.patient_until.is_some_and(is_past);
        if self.look_at.take_if(|at| is_over || is_past(*at)).is_some() {
            advice::on_deaf_shell(self.options.log, child);
        }
        if is_over {
            self.options.log.event(Level::Life, "impatient", |it| it.pid("pid", child));
            return Patience::Over;
        }
        Patience::Left
    }

    /// How long until something is due; for ever if nothing is.
    pub fn timeout(&self) -> Option<Duration> {
        let due = self.held_until.into_iter().chain(self.patient_until).chain(self.look_at);
        let next = due.min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn forward(&mut self, arrived: Signal, child: pid_t) {
        let Some(signal) = self.options.rewrites.apply(arrived) else { return };
        // It may have ended, or have become another user's: no reason for us to end.
        let sent = match self.options.target {
            Target::Child => sys::kill(child, signal),
            // A new child may not have come to lead a group yet.
            Target::Group => sys::kill(-child, signal).or_else(|_| sys::kill(child, signal)),
        };
        self.options.log.event(Level::Signal, "forwarded", |record| {
            record.signal("signal", arrived).signal("as", signal).pid("to", child);
            if let Err(error) = sent {
                record.bytes("failed", sys::reason(error).to_bytes());
            }
            record
        });
        if arrived == SIGTERM || signal == SIGTERM {
            self.expect_the_end();
        }
    }

    /// The child has been asked to end: from now on its time runs.
    fn expect_the_end(&mut self) {
        let Options { kill_after, target, log, .. } = self.options;
        let now = Instant::now();
        if self.patient_until.is_none() {
            self.patient_until = kill_after.and_then(|it| now.checked_add(it));
        }
        // Nobody keeps from the program what its whole group gets.
        if *target == Target::Child && log.wants(Level::Life) {
            self.look_at = now.checked_add(DEAF_AFTER);
        }
    }
}

fn is_past(instant: Instant) -> bool {
    Instant::now() >= instant
}

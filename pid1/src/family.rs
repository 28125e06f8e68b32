//! The child and the orphans that we came by: who has ended, and how.

use nix::libc::pid_t;

use crate::args::Options;
use crate::descendants::{self, Names};
use crate::log::{Level, Log};
use crate::shutdown::Scope;
use crate::sys::{self, Reaped, Status};

/// All whose parent we are.
pub struct Family {
    child: Option<pid_t>,
    status: Option<Status>,
    /// Nobody was left when we last looked.
    childless: bool,
    /// How many others ended after the child: in all, and those that had to be killed.
    remaining: u64,
    killed: u64,
    /// The names of the latter, if anybody wants to know.
    names: Names,
    killing: bool,
    log: Log,
    reaped: Level,
    lost: u8,
}

impl Family {
    pub fn new(child: Option<pid_t>, options: &Options) -> Self {
        Self {
            child,
            status: None,
            childless: false,
            remaining: 0,
            killed: 0,
            names: Names::new(),
            killing: false,
            log: options.log,
            reaped: if options.warn_of_reaping { Level::Error } else { Level::Orphan },
            lost: options.codes.failure,
        }
    }

    /// Takes every process that has ended out of the process table: one SIGCHLD may stand for
    /// fifty.
    pub fn reap(&mut self) {
        self.childless = loop {
            match sys::reap() {
                Reaped::Process(pid, status) => self.bury(pid, status),
                Reaped::None => break false,
                Reaped::Childless => break true,
            }
        };
    }

    fn bury(&mut self, pid: pid_t, status: Status) {
        let is_child = self.child == Some(pid);
        if is_child {
            self.status = Some(status);
        } else {
            self.remaining += u64::from(self.status.is_some() || self.killing);
            self.killed += u64::from(self.killing);
        }
        let level = if is_child { Level::Orphan } else { self.reaped };
        self.log.event(level, "reaped", |it| it.pid("pid", pid).status(status));
    }

    /// Also if somebody else has reaped it, for whatever reason: it is gone.
    pub fn child_has_ended(&self) -> bool {
        self.status.is_some() || self.childless
    }

    /// The process group that the child has led, for as long as anybody is in it.
    pub fn group(&self) -> Option<pid_t> {
        self.child
    }

    pub fn is_childless(&self) -> bool {
        self.childless
    }

    /// From here on, what ends was killed.
    pub fn begin_killing(&mut self, scope: Scope) {
        self.killing = true;
        if self.log.wants(Level::Life) {
            let group = self.group();
            descendants::names(&mut self.names, |it| match scope {
                Scope::Namespace => true,
                Scope::Descendants => descendants::descends_from_us(it.pid),
                Scope::Group => Some(it.group) == group,
            });
        }
    }

    /// Says how it ended. Gives the exit code.
    pub fn report(&self) -> u8 {
        let code = match self.status {
            Some(Status::Exited(code)) => code,
            Some(Status::Killed(signal)) => 128 + signal.to_le_bytes()[0],
            None => self.lost,
        };
        self.log.event(Level::Life, "ended", |record| {
            record.number("code", code.into());
            if let Some(Status::Killed(signal)) = self.status {
                record.signal("signal", signal);
            }
            record.number("remaining", self.remaining).number("killed", self.killed);
            if !self.names.as_bytes().is_empty() {
                record.bytes("names", self.names.as_bytes());
            }
            record
        });
        code
    }
}

//! Processes: those there are, and orphans made on purpose.

use std::fs;
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

use crate::{Result, sys};

/// How long an orphan may take to end.
const ENDED_WITHIN: Duration = Duration::from_secs(5);

/// How long an init may take to reap what has ended. Once it is over, nobody does.
const REAPED_WITHIN: Duration = Duration::from_millis(500);

const POLL: Duration = Duration::from_millis(1);

/// One process, as `/proc` shows it.
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub state: char,
    /// What the kernel calls it: the file that was executed.
    pub name: String,
    /// Its command line; none if it is a zombie.
    pub words: Vec<String>,
}

impl Process {
    /// The process `pid`, if it is there.
    pub fn find(pid: i32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, rest) = stat.rsplit_once(") ")?;
        let (_, name) = head.split_once(" (")?;
        let mut fields = rest.split(' ');
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        Some(Process { pid, parent, state, name: name.to_string(), words: words(pid) })
    }

    /// Every process that can be seen, in the order of their numbers.
    pub fn all() -> Result<Vec<Process>> {
        let entries = fs::read_dir("/proc").map_err(|err| format!("cannot read `/proc`: {err}"))?;
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut pids: Vec<i32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        if pids.is_empty() {
            return Err("cannot read `/proc`: it is not mounted".to_string());
        }
        Ok(pids.into_iter().filter_map(Process::find).collect())
    }

    pub fn is_zombie(&self) -> bool {
        self.state == 'Z'
    }
}

/// The command line of `pid`. What qemu put in front of it is left out: there, it is the machine.
fn words(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut words: Vec<String> = text.split_terminator('\0').map(str::to_string).collect();
    let is_qemu = |word: &String| {
        let name = crate::file_name(word);
        // What Debian registers for the whole machine ends like that.
        name.starts_with("qemu-") || name.ends_with("-binfmt-P")
    };
    if words.len() > 2 && words.first().is_some_and(is_qemu) {
        words.drain(..2);
    }
    words
}

/// Starts `count` processes through parents that end at once, so that they become the init's.
/// `body` is what they do, given their number from 1 on.
pub fn leave_orphans(count: usize, body: impl Fn(usize) -> Result) -> Result<Vec<Pid>> {
    let (mut reader, writer) = std::io::pipe().map_err(|err| format!("cannot pipe: {err}"))?;
    let mut pids = Vec::with_capacity(count);
    for number in 1..=count {
        let parent = sys::fork(|| {
            let orphan = sys::fork(|| body(number))?;
            (&writer)
                .write_all(&orphan.as_raw().to_ne_bytes())
                .map_err(|err| format!("cannot name the orphan: {err}"))
        })?;
        finish(parent).map_err(|err| format!("cannot leave orphan {number}: {err}"))?;
        let mut pid = [0; size_of::<i32>()];
        reader.read_exact(&mut pid).map_err(|err| format!("cannot learn of an orphan: {err}"))?;
        pids.push(Pid::from_raw(i32::from_ne_bytes(pid)));
    }
    Ok(pids)
}

/// Waits for our child `pid`, which should exit with 0.
pub fn finish(pid: Pid) -> Result {
    match waitpid(pid, None) {
        Ok(WaitStatus::Exited(_, 0)) => Ok(()),
        Ok(_) => Err(format!("the child {pid} failed")),
        Err(err) => Err(format!("cannot wait for the child {pid}: {}", err.desc())),
    }
}

/// Waits until all of `orphans` have ended, and then for an init to reap them, as far as there is
/// one. Gives how many are left as zombies.
pub fn settle(orphans: &[Pid]) -> Result<usize> {
    let count = |wanted: fn(&Process) -> bool| {
        let found = orphans.iter().filter_map(|pid| Process::find(pid.as_raw()));
        found.filter(wanted).count()
    };
    if !within(ENDED_WITHIN, || count(|it| !it.is_zombie()) == 0) {
        return Err("cannot wait for the orphans: they run on and on".to_string());
    }
    let zombies = || count(Process::is_zombie);
    // Where we are PID 1 ourselves, there is no init to wait for.
    if getpid() != Pid::from_raw(1) {
        within(REAPED_WITHIN, || zombies() == 0);
    }
    Ok(zombies())
}

fn within(limit: Duration, is_so: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(POLL);
    }
    true
}

//! What is measured, one function a quantity. Everything runs in PID namespaces made here.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::peers::{self, Peer};

/// In ms: no step takes this long, unless something hangs.
const DEADLINE: u16 = 60_000;

/// How long idle inits are watched.
const IDLE: Duration = Duration::from_secs(3);

/// How many of one kind are watched at once.
const IDLE_COUNT: usize = 101;

/// Sets up namespaces for the children of this thread, one after the other.
pub struct Namespaces {
    own: File,
}

impl Namespaces {
    /// Remembers the namespace to return to.
    pub fn new() -> Result<Namespaces> {
        let own = File::open("/proc/self/ns/pid").context("cannot open our own PID namespace")?;
        Ok(Namespaces { own })
    }

    /// Runs `work`; the first process it starts is PID 1 of a new namespace.
    fn with_new<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        unshare(CloneFlags::CLONE_NEWPID)
            .context("cannot make a PID namespace; run `cargo xtask bench` as root")?;
        let result = work();
        setns(&self.own, CloneFlags::CLONE_NEWPID)
            .context("cannot return to our own PID namespace")?;
        result
    }

    /// From the start of PID 1 to its end, around a program that does nothing.
    pub fn start(&self, peer: &Peer, nothing: &[&OsStr]) -> Result<Duration> {
        let mut command = peer.command(nothing);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.with_new(|| {
            let start = Instant::now();
            let status = command.status().with_context(|| format!("cannot run {}", peer.name))?;
            let took = start.elapsed();
            ensure!(status.success(), "{} did not pass on the exit code 0: {status}", peer.name);
            Ok(took)
        })
    }

    /// Starts `program` under `peer` and waits for its `ready`.
    fn ready(&self, peer: &Peer, program: &[&OsStr]) -> Result<Running> {
        let mut command = peer.command(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child =
            self.with_new(|| command.spawn().with_context(|| format!("cannot run {}", peer.name)))?;
        let stdout = child.stdout.take().expect("it was piped");
        let mut running = Running { child, stdout: BufReader::new(stdout) };
        let line = running.line()?;
        ensure!(line == "ready", "the program under {} said `{line}`", peer.name);
        Ok(running)
    }

    /// Memory and wake-ups of `peer` over a program that waits: the medians of several at once,
    /// since where the kernel puts the stack is random, and decides over one page.
    pub fn idle(&self, peer: &Peer, waiting: &[&OsStr]) -> Result<Idle> {
        let all: Result<Vec<_>> = (0..IDLE_COUNT).map(|_| self.ready(peer, waiting)).collect();
        let all = all?;
        let switches = || all.iter().map(|it| switches(it.child.id())).collect::<Result<Vec<_>>>();
        let before = switches()?;
        std::thread::sleep(IDLE);
        let wakeups = switches()?.into_iter().zip(before).map(|(after, before)| after - before);
        let rollup = |it: &Running| fs::read_to_string(format!("/proc/{}/smaps_rollup", it.pid()));
        let rollups: Result<Vec<_>, _> = all.iter().map(rollup).collect();
        let rollups = rollups.context("cannot read the memory of an init")?;
        let fields = |name: &str| rollups.iter().map(|it| field(it, name)).collect::<Result<_>>();
        Ok(Idle {
            resident_kb: median(fields("Rss:")?),
            private_dirty_kb: median(fields("Private_Dirty:")?),
            // To the nearest: the third of three can fall just outside.
            wakeups_per_s: (median(wakeups.collect()) + IDLE.as_secs() / 2) / IDLE.as_secs(),
        })
    }

    /// From SIGUSR1 to `peer` until its program has answered, `count` times.
    pub fn latency(
        &self,
        peer: &Peer,
        answering: &[&OsStr],
        count: usize,
    ) -> Result<Vec<Duration>> {
        let mut running = self.ready(peer, answering)?;
        let pid = running.pid();
        let mut answer = [0];
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            kill(pid, Signal::SIGUSR1).context("cannot signal an init")?;
            running.stdout.read_exact(&mut answer).context("the program did not answer")?;
            all.push(start.elapsed());
        }
        Ok(all)
    }

    /// How long `peer` takes to reap orphans that all end at once.
    pub fn reap(&self, peer: &Peer, releasing: &[&OsStr]) -> Result<Duration> {
        let mut running = self.ready(peer, releasing)?;
        let micros = running.line()?;
        let micros = micros.parse().with_context(|| format!("{}: `{micros}`", peer.name))?;
        Ok(Duration::from_micros(micros))
    }
}

/// Does `work`, with all that it starts, on one processor: with more, what is measured is above all
/// how long the kernel takes to wake another one.
pub fn on_one_processor<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let this = Pid::from_raw(0);
    let all = sched_getaffinity(this).context("cannot ask for our processors")?;
    // The last: what devices want is done by the first.
    let last = (0..CpuSet::count()).rev().find(|it| all.is_set(*it) == Ok(true));
    let mut one = CpuSet::new();
    one.set(last.context("there is no processor")?).context("cannot name a processor")?;
    sched_setaffinity(this, &one).context("cannot keep to one processor")?;
    let result = work();
    sched_setaffinity(this, &all).context("cannot return to all processors")?;
    result
}

/// A process that ends with this value.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    /// The next line it prints; waits for that as long as anything here may take.
    fn line(&mut self) -> Result<String> {
        if self.stdout.buffer().is_empty() {
            let mut stdout = [PollFd::new(self.stdout.get_ref().as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut stdout, DEADLINE).context("cannot wait for a program")?;
            ensure!(ready > 0, "a program printed nothing for {DEADLINE} ms");
        }
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("cannot read what a program prints")?;
        Ok(line.trim_end().to_string())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id is an i32"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // PID 1 takes its namespace with it. One that is gone already is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What an init costs while nothing happens.
pub struct Idle {
    /// Resident memory, in KB of 1024 bytes.
    pub resident_kb: u64,
    /// Memory that is its alone and was written to, in KB of 1024 bytes.
    pub private_dirty_kb: u64,
    /// How often it ran without being asked to.
    pub wakeups_per_s: u64,
}

fn median(mut all: Vec<u64>) -> u64 {
    all.sort_unstable();
    all[all.len() / 2]
}

fn switches(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .context("cannot read the status of an init")?;
    field(&status, "voluntary_ctxt_switches:")
}

fn field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.split_whitespace().next());
    let value = value.with_context(|| format!("the kernel does not say `{name}`"))?;
    value.parse().with_context(|| format!("the kernel says `{name} {value}`"))
}

/// The system calls from the start of `peer` until its child is `nothing`: those of the child
/// before its exec count, those of the kernel's loader too.
pub fn system_calls(peer: &Peer, nothing: &[&OsStr]) -> Result<u64> {
    let Some(path) = &peer.path else { return Ok(0) };
    let trace = tempfile::NamedTempFile::new().context("cannot make a file for strace")?;
    let init = peer.command(nothing);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(trace.path()).args(["unshare", "--pid", "--fork"]);
    strace.arg(init.get_program()).args(init.get_args()).stdin(Stdio::null());
    peers::clean(&mut strace);
    let output = strace.output().context("cannot run `strace`; run `apt-get install strace`")?;
    if !output.status.success() {
        bail!("`strace` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = fs::read_to_string(trace.path()).context("cannot read what strace wrote")?;
    count_calls(&text, path, Path::new(nothing[0])).with_context(|| {
        format!("cannot find the starts of {} and its child in strace's output", peer.name)
    })
}

/// What the init does up to its fork, and what its child does up to its exec. What the init does
/// meanwhile is not on the way.
fn count_calls(trace: &str, init: &Path, program: &Path) -> Option<u64> {
    let lines: Vec<_> = trace.lines().filter_map(|line| line.split_once(' ')).collect();
    let start = |path: &Path| {
        let call = format!("execve(\"{}\"", path.display());
        lines.iter().position(|(_, rest)| rest.trim_start().starts_with(&call))
    };
    let (first, last) = (start(init)?, start(program)?);
    let (init, child) = (lines[first].0, lines[last].0);
    let forks = |rest: &str| ["clone", "fork", "vfork"].iter().any(|it| rest.starts_with(it));
    let mut count = 0;
    let mut has_forked = false;
    for (pid, rest) in lines.get(first + 1..last)? {
        let rest = rest.trim_start();
        let is_call = rest.contains('(') && !rest.starts_with(['<', '-', '+']);
        if is_call && (*pid == child || (*pid == init && !has_forked)) {
            count += 1;
            has_forked |= *pid == init && forks(rest);
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_between_the_two_starts() {
        let trace = "\
7 execve(\"/usr/bin/unshare\", [...]) = 0
7 unshare(CLONE_NEWPID) = 0
8 execve(\"/init\", [\"/init\"]) = 0
8 rt_sigprocmask(SIG_SETMASK, ~[], [], 8) = 0
8 fork( <unfinished ...>
9 setpgid(0, 0 <unfinished ...>
8 <... fork resumed>) = 9
8 chdir(\"/\") = 0
9 <... setpgid resumed>) = 0
9 execve(\"/nothing\", [\"/nothing\"]) = 0
9 exit_group(0) = ?
";
        let count = count_calls(trace, Path::new("/init"), Path::new("/nothing"));
        assert_eq!(count, Some(3));
    }

    #[test]
    fn a_field_is_read_without_its_unit() {
        assert_eq!(field("Rss:      72 kB\nPss: 1 kB\n", "Rss:").unwrap(), 72);
    }
}

//! A container for one test: a PID and mount namespace with its own /proc, killed at a deadline.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getegid, geteuid};
use tempfile::TempDir;

use crate::limits;

/// After this a container is killed: its test has failed, whatever it shows then.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// The system call in which an init waits for signals: here, and for a 32-bit program with a clock
/// of 32 and of 64 bits.
const WAITING: [libc::c_long; 3] = [libc::SYS_rt_sigtimedwait, 177, 421];

/// The binary under test with the words that go before it.
pub fn pid1() -> Vec<OsString> {
    let binary = env::var_os("PID1_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_pid1").into());
    let runner = env::var("PID1_RUNNER").unwrap_or_default();
    runner.split_whitespace().map(OsString::from).chain([binary]).collect()
}

/// The same, but called `name`, as a link in `folder`.
pub fn pid1_called(name: &str, folder: &TempDir) -> Vec<OsString> {
    let link = folder.path().join(name);
    let mut words = pid1();
    let binary = words.pop().expect("there is a binary");
    symlink(std::path::absolute(binary).unwrap(), &link).unwrap();
    words.push(link.into_os_string());
    words
}

/// A command to be run as the first process of a container.
pub struct Container {
    command: Command,
    setup: Vec<Setup>,
    deadline: Duration,
    /// Kept until the end.
    folders: Vec<TempDir>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Container {
    /// pid1 with `arguments` is the first process.
    pub fn init<S: AsRef<OsStr>>(arguments: &[S]) -> Self {
        let arguments = arguments.iter().map(|it| it.as_ref().to_owned());
        Self::bare(&pid1().into_iter().chain(arguments).collect::<Vec<_>>())
    }

    /// `words` are the first process: what would happen without an init.
    pub fn bare<S: AsRef<OsStr>>(words: &[S]) -> Self {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.env("PID1", pid1().join(OsStr::new(" ")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, setup: Vec::new(), deadline: DEADLINE, folders: Vec::new() }
    }

    /// pid1 is the first process, but called `name`.
    pub fn called<S: AsRef<OsStr>>(name: &str, arguments: &[S]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut words = pid1_called(name, &folder);
        words.extend(arguments.iter().map(|it| it.as_ref().to_owned()));
        let mut container = Self::bare(&words);
        container.folders.push(folder);
        container
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.command.stdout(stdout);
        self
    }

    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.command.stderr(stderr);
        self
    }

    /// Lets it run for longer than others.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs `step` in the container before its first process is started. No allocation in it.
    pub fn setup(mut self, step: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> Self {
        self.setup.push(Box::new(step));
        self
    }

    /// Gives it the writing end of a pipe as descriptor 7.
    pub fn with_pipe_to_write(self) -> (io::PipeReader, Self) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, self.setup(move || duplicate(&writer)))
    }

    /// Gives it the reading end of a pipe as descriptor 7.
    pub fn with_pipe_to_read(self) -> (io::PipeWriter, Self) {
        let (reader, writer) = io::pipe().unwrap();
        (writer, self.setup(move || duplicate(&reader)))
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Outcome {
        self.start().finish()
    }

    /// Runs it to its end, and expects `code`.
    #[track_caller]
    pub fn run_to(self, code: i32) -> Outcome {
        let outcome = self.run();
        assert_eq!(outcome.status.code(), Some(code), "{outcome:?}");
        outcome
    }

    #[track_caller]
    pub fn start(mut self) -> Running {
        let (mut pid_reader, pid_writer) = io::pipe().unwrap();
        let mut setup = self.setup;
        let writer = OwnedFd::from(pid_writer);
        // SAFETY: between fork and exec only system calls are made.
        unsafe { self.command.pre_exec(move || enter(&writer, &mut setup)) };
        let mut child = self.command.spawn().expect("cannot make a container");
        // Holds the other end of the pipe.
        drop(self.command);
        let mut pid = [0; 4];
        pid_reader.read_exact(&mut pid).expect("the container says its process id");
        let stderr = child.stderr.take().map(|mut stderr| {
            thread::spawn(move || {
                let mut text = Vec::new();
                stderr.read_to_end(&mut text).unwrap();
                limits::without_remarks(&String::from_utf8_lossy(&text))
            })
        });
        let stdout = child.stdout.take().map(BufReader::new);
        let stdin = child.stdin.take();
        let keeper = Pid::from_raw(child.id().cast_signed());
        let init = Pid::from_raw(i32::from_ne_bytes(pid));
        let watchdog = watch(keeper, self.deadline);
        Running {
            child: Kept(child),
            init,
            stdin,
            stdout,
            stderr,
            watchdog,
            _folders: self.folders,
        }
    }
}

fn duplicate(descriptor: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: takes numbers; 7 is nobody's in a process about to exec. It may be this one itself,
    // and then only has to survive that.
    match unsafe { libc::dup2(descriptor.as_raw_fd(), 7) | libc::fcntl(7, libc::F_SETFD, 0) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Kills `keeper`, and with it the container, unless the sender is dropped before the deadline.
fn watch(keeper: Pid, deadline: Duration) -> Sender<()> {
    let (sender, receiver) = mpsc::channel::<()>();
    thread::spawn(move || {
        if receiver.recv_timeout(deadline) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill(keeper, Signal::SIGKILL);
        }
    });
    sender
}

type Setup = Box<dyn FnMut() -> io::Result<()> + Send + Sync>;

/// Makes the namespaces. Returns as the first process in them; the process that it was before stays
/// outside, waits for it and ends as it ends.
fn enter(writer: &OwnedFd, setup: &mut [Setup]) -> io::Result<()> {
    let mut flags = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    let (user, group) = (geteuid(), getegid());
    if !user.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags)?;
    if !user.is_root() {
        map(c"/proc/self/setgroups", format_args!("deny"))?;
        map(c"/proc/self/uid_map", format_args!("0 {user} 1"))?;
        map(c"/proc/self/gid_map", format_args!("0 {group} 1"))?;
    }
    // SAFETY: the process has one thread, being between fork and exec.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => keep(child, writer),
        ForkResult::Child => {
            set_pdeathsig(Signal::SIGKILL)?;
            start_clean();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, c"/", None::<&str>, private, None::<&str>)?;
            mount(Some(c"proc"), c"/proc", Some(c"proc"), MsFlags::empty(), None::<&str>)?;
            setup.iter_mut().try_for_each(|step| step())
        }
    }
}

/// Lets go of what the machine that the tests run on may have handed them: descriptors above 2, and
/// ignored signals, such as SIGQUIT of what a script runs in the background. By system calls, as
/// the C library does not let one reset all of them.
fn start_clean() {
    // What the kernel reads is at most this long: handler, flags, restorer, mask.
    let default = [0u64; 4];
    // SAFETY: marks descriptors to be closed at exec; sets dispositions to their default.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0, 8);
        }
    }
}

fn map(path: &std::ffi::CStr, line: std::fmt::Arguments) -> io::Result<()> {
    let file = nix::fcntl::open(path, nix::fcntl::OFlag::O_WRONLY, nix::sys::stat::Mode::empty())?;
    let mut buffer = [0; 64];
    let mut rest = &mut buffer[..];
    rest.write_fmt(line)?;
    let unused = rest.len();
    let length = 64 - unused;
    nix::unistd::write(file, &buffer[..length])?;
    Ok(())
}

/// Stays outside: tells the test the first process's id, waits for it, and ends in the same way.
fn keep(child: Pid, writer: &OwnedFd) -> ! {
    let _ = nix::unistd::write(writer, &child.as_raw().to_ne_bytes());
    // SAFETY: whatever is open here belongs to the other process; only its end is of interest.
    // The standard descriptors go too, lest a pipe stay open.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
    let code = loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => break code,
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                // SAFETY: a disposition, and a limit that lives here.
                unsafe {
                    libc::signal(signal as i32, libc::SIG_DFL);
                    libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
                }
                let _ = raise(signal);
                break 255;
            }
            Err(Errno::EINTR) | Ok(_) => {}
            Err(_) => break 254,
        }
    };
    // SAFETY: does not return.
    unsafe { libc::_exit(code) }
}

/// What keeps a container. Ends with this value, and the container with it, also where a test
/// panics.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        // Where it was waited for, both do nothing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A container whose first process runs.
pub struct Running {
    child: Kept,
    /// The first process, as seen from outside.
    pub init: Pid,
    pub stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<JoinHandle<String>>,
    watchdog: Sender<()>,
    _folders: Vec<TempDir>,
}

impl Running {
    /// Waits for the next line on standard output.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().expect("standard output is a pipe").read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits for `line` on standard output, which has to be the next.
    #[track_caller]
    pub fn expect(&mut self, line: &str) {
        let got = self.line();
        if got != line {
            // Nothing at all says that all in there has ended; how, is worth knowing.
            if !got.is_empty() {
                let _ = self.child.0.kill();
            }
            let status = self.child.0.wait().unwrap();
            let stderr = self.stderr.take().map(|it| it.join().unwrap()).unwrap_or_default();
            panic!("expected `{line}`, got `{got}`; {status}; standard error: {stderr}");
        }
    }

    /// Sends a signal to the first process, real-time ones too.
    pub fn signal(&self, signal: i32) {
        // SAFETY: takes two numbers; the process is ours, and not reaped before `finish`.
        assert_eq!(unsafe { libc::kill(self.init.as_raw(), signal) }, 0);
    }

    /// Waits until the first process has taken every signal sent to it, and waits for the next.
    pub fn wait_until_idle(&self) {
        let read = |file| fs::read_to_string(format!("/proc/{}/{file}", self.init));
        let waits = || {
            let call = read("syscall").unwrap_or_default();
            let number = call.split(' ').next().and_then(|number| number.parse().ok());
            number.is_some_and(|number| WAITING.contains(&number))
        };
        let none_pending = "ShdPnd:\t0000000000000000\n";
        // What has ended and was not waited for has a status, but no memory.
        let status = || read("status").ok().filter(|status| status.contains("VmRSS:"));
        loop {
            let status = status().expect("the first process has ended");
            if status.contains(none_pending) && waits() {
                break;
            }
            thread::yield_now();
        }
    }

    /// Ends it from outside.
    pub fn destroy(self) {
        drop(self);
    }

    #[track_caller]
    pub fn finish(mut self) -> Outcome {
        drop(self.stdin.take());
        self.finish_by_itself()
    }

    /// As `finish`, but what is on standard input does not end meanwhile.
    #[track_caller]
    pub fn finish_by_itself(mut self) -> Outcome {
        let _stdin = self.stdin.take();
        let mut stdout = String::new();
        if let Some(mut reader) = self.stdout.take() {
            reader.read_to_string(&mut stdout).unwrap();
        }
        let status = self.child.0.wait().unwrap();
        drop(self.watchdog);
        let stderr = self.stderr.take().map(|it| it.join().unwrap()).unwrap_or_default();
        assert_ne!(status.signal(), Some(libc::SIGKILL), "not over at the deadline: {stderr}");
        Outcome { status, stdout, stderr }
    }
}

/// The words of a shell with `script`.
pub fn sh(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(String::from).to_vec()
}

/// `options`, then a shell with `script`.
pub fn with(options: &[&str], script: &str) -> Vec<String> {
    options.iter().map(|it| (*it).to_owned()).chain(sh(script)).collect()
}

//! The child: from a copy of init to the program that was asked for.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc::pid_t;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{
    AccessFlags, Gid, Pid, Uid, access, chdir, getgid, getpgrp, getsid, getuid, read, setgid,
    setgroups, setpgid, setsid, setuid, tcgetpgrp, tcsetpgrp,
};
use signal_hook::consts::{SIGCONT, SIGHUP};

use crate::args::{Options, split_user, variable_name};
use crate::log::Line;
use crate::personality::Codes;
use crate::signals::Signal;
use crate::sys::{self, InheritedSignals, Memory, WordList, Words};
use crate::user;

/// Where programs are looked for if there is no PATH: musl's choice.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/bin:/usr/bin";
/// The longest path the kernel takes, its closing zero included.
const PATH_MAX: usize = 4096;
const SHELL: &CStr = c"/bin/sh";
/// What a terminal says to the leader of the session that lets it go.
const PARTING: [Signal; 2] = [SIGHUP, SIGCONT];

/// Why the child is not running its program.
enum Failure {
    Start(Errno),
    Exec(Errno),
    /// The file is there; what its `#!` line or its ELF header asks for is not.
    MissingInterpreter,
    Directory(&'static CStr, Errno),
    UnknownUser(&'static [u8]),
    UnknownGroup(&'static [u8]),
    Identity(&'static str, Errno),
    Unread(&'static CStr, Errno),
    Memory(Errno),
}

type Outcome<T> = Result<T, Failure>;

/// What init was given and hands on.
pub struct Inheritance {
    pub environment: Words,
    pub signals: InheritedSignals,
    pub terminal: Terminal,
}

/// What the child is the leader of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// A process group in our session, in the terminal's foreground where we were.
    Ours,
    /// A session, with the terminal for its own.
    New,
}

/// What happens to our controlling terminal.
pub enum Terminal {
    /// There is none, or it is not ours to give: not fatal, whatever the reason.
    None,
    /// The child gets its foreground.
    Foreground(BorrowedFd<'static>),
    /// We have let it go, the child takes it.
    GivenUp(BorrowedFd<'static>),
}

/// Finds the terminal on any of the standard descriptors: each of them may be closed or a file.
pub fn terminal(session: Session) -> Terminal {
    let mut descriptors = (0..=2).map(sys::stdio);
    match session {
        Session::Ours => {
            let is_ours =
                |terminal: &BorrowedFd| tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp());
            descriptors.find(is_ours).map_or(Terminal::None, Terminal::Foreground)
        }
        Session::New => {
            let given_up = descriptors.find(|it| sys::give_up_terminal(*it).is_ok());
            // To the session's leader it has said, on the spot, that it hangs up.
            if given_up.is_some() && getsid(None) == Ok(Pid::this()) {
                PARTING.into_iter().for_each(sys::forget);
            }
            given_up.map_or(Terminal::None, Terminal::GivenUp)
        }
    }
}

impl Terminal {
    /// The foreground is ours again: whoever started us goes on with it.
    pub fn take_back(&self) {
        if let Self::Foreground(terminal) = self {
            // It may be gone.
            let _ = tcsetpgrp(terminal, getpgrp());
        }
    }
}

/// Starts the child. Otherwise says why not, and gives the exit code.
pub fn start(options: &Options, inheritance: &Inheritance) -> Result<pid_t, u8> {
    let become_it = || {
        stand_alone(options.session, &inheritance.terminal);
        exec(options, inheritance.environment, Some(&inheritance.signals))
    };
    let started = sys::start(memory(options), &become_it);
    started.map_err(|error| report(options, &Failure::Start(error)))
}

/// Ours, unless the child changes its user or its environment: whoever else is that user should
/// find nothing of ours in it, and what it writes there would be ours for ever. What else it may
/// write are two pages at most, to name itself in `LISTEN_PID` or to run a script by the shell.
fn memory(options: &Options) -> Memory {
    let plain =
        options.user.is_none() && options.group.is_none() && options.environment().next().is_none();
    if plain { Memory::Shared } else { Memory::Own }
}

/// Makes the child the leader of a group, so that `kill 0` in a script spares init, or of a
/// session. SIGTTOU is blocked, so that asking for the foreground from the background does not stop
/// us.
fn stand_alone(session: Session, terminal: &Terminal) {
    // None of this fails for a new process, except where the terminal goes away in between: that is
    // the program's to find out. And running anyhow is better than not running.
    let _ = match session {
        Session::Ours => setpgid(Pid::from_raw(0), Pid::from_raw(0)),
        Session::New => setsid().map(drop),
    };
    let _ = match terminal {
        Terminal::None => Ok(()),
        Terminal::Foreground(terminal) => tcsetpgrp(terminal, Pid::this()),
        Terminal::GivenUp(terminal) => sys::take_terminal(*terminal),
    };
}

/// Becomes the program, or says why not and exits. Once in the binary, for both who call it.
#[inline(never)]
pub fn exec(options: &Options, inherited: Words, signals: Option<&InheritedSignals>) -> ! {
    let failure = match try_exec(options, inherited, signals) {
        Err(failure) => failure,
        Ok(never) => match never {},
    };
    // The message must neither stop us (SIGTTOU) nor kill us (SIGPIPE).
    sys::block_signals();
    sys::exit(report(options, &failure))
}

fn report(options: &Options, failure: &Failure) -> u8 {
    let name = options.command.get(0).unwrap_or(c"").to_bytes();
    options.log.error(|line| failure.explain(line.text("cannot run ").quoted(name).text(": ")));
    failure.code(options.codes)
}

fn try_exec(
    options: &Options,
    inherited: Words,
    signals: Option<&InheritedSignals>,
) -> Outcome<std::convert::Infallible> {
    let home = change_identity(options)?;
    if signals.is_none() {
        // Not earlier: it does not outlive a change of user.
        options.ask_for_parent_death_signal();
    }
    if let Some(directory) = options.workdir {
        chdir(directory).map_err(|error| Failure::Directory(directory, error))?;
    }
    // Without an init between, the descriptors are for whom they were.
    let listen_pid = if signals.is_some() { listen_pid(inherited)? } else { None };
    let environment = environment(options, inherited, home.into_iter().chain(listen_pid))?;
    // From here on signals end us as they would end the program.
    if let Some(signals) = signals {
        signals.restore();
    }
    Err(run(options.command, environment))
}

/// Takes on the user and group that were asked for. Gives `HOME=…` for a user.
///
/// As Docker's `--user`: a user's own groups are left out when a group is named, and a number that
/// nobody has is fine, with group 0 and `/` for a home.
fn change_identity(options: &Options) -> Outcome<Option<&'static CStr>> {
    let (user, mut group) = match options.user.and_then(split_user) {
        Some((user, group)) => (Some(user), group),
        None => (None, None),
    };
    group = options.group.map(CStr::to_bytes).or(group);
    if user.is_none() && group.is_none() {
        return Ok(None);
    }
    let passwd = if user.is_some() { contents(c"/etc/passwd")? } else { b"" };
    let groups = contents(c"/etc/group")?;

    let account = user.map(|user| account(passwd, user)).transpose()?;
    let gid = match (group, &account) {
        (Some(group), _) => user::find_group(groups, group).ok_or(Failure::UnknownGroup(group))?,
        (None, Some(account)) => account.gid,
        (None, None) => return Ok(None),
    };
    let member = account.as_ref().filter(|_| group.is_none()).map_or(&b""[..], |it| it.name);
    let uid = account.as_ref().map(|it| Uid::from_raw(it.uid));
    take_on(uid, Gid::from_raw(gid), groups, member)?;
    account.map(|it| concatenate(b"HOME=", it.home)).transpose()
}

fn take_on(uid: Option<Uid>, gid: Gid, groups: &[u8], member: &[u8]) -> Outcome<()> {
    let changed = set_groups(groups, member)
        .and_then(|()| setgid(gid).map_err(|error| Failure::Identity("group", error)))
        .and_then(|()| match uid {
            Some(uid) => setuid(uid).map_err(|error| Failure::Identity("user", error)),
            None => Ok(()),
        });
    // Who is them already, in a second pid1 or by the engine's `--user`, may not change, and need
    // not.
    let is_already = || getgid() == gid && uid.is_none_or(|uid| getuid() == uid);
    changed.or_else(|failure| if is_already() { Ok(()) } else { Err(failure) })
}

fn account(passwd: &'static [u8], user: &'static [u8]) -> Outcome<user::Account<'static>> {
    let unlisted = |uid| user::Account { name: b"", uid, gid: 0, home: b"/" };
    user::find_user(passwd, user)
        .or_else(|| user::id(user).map(unlisted))
        .ok_or(Failure::UnknownUser(user))
}

/// Makes the supplementary groups those that list `member`; an empty name is in none.
fn set_groups(groups: &[u8], member: &[u8]) -> Outcome<()> {
    let ids = || user::groups_of(groups, member).filter(|_| !member.is_empty());
    let list = sys::zeroed(ids().count()).map_err(Failure::Memory)?;
    for (entry, id) in list.iter_mut().zip(ids()) {
        *entry = Gid::from_raw(id);
    }
    setgroups(list).map_err(|error| Failure::Identity("groups", error))
}

/// A file's contents; nothing if there is no such file, as in an image of one program.
fn contents(path: &'static CStr) -> Outcome<&'static [u8]> {
    match read_whole(path) {
        Ok(bytes) => Ok(bytes),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(b""),
        Err(error) => Err(Failure::Unread(path, error)),
    }
}

fn read_whole(path: &CStr) -> nix::Result<&'static [u8]> {
    let file = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let size = usize::try_from(fstat(&file)?.st_size).map_err(|_| Errno::EFBIG)?;
    let buffer = sys::zeroed(size)?;
    let mut length = 0;
    while length < size {
        match read(&file, &mut buffer[length..])? {
            0 => break,
            count => length += count,
        }
    }
    Ok(&buffer[..length])
}

/// The child's environment: the one we got, with `ours` and then what `--env` says in its place.
fn environment(
    options: &Options,
    inherited: Words,
    ours: impl Iterator<Item = &'static CStr> + Clone,
) -> Outcome<Words> {
    let added = ours.clone().count() + options.environment().count();
    if added == 0 {
        return Ok(inherited);
    }
    let mut list = WordList::with_room(inherited.len() + added).map_err(Failure::Memory)?;
    inherited.iter().for_each(|word| list.push(word));
    for word in ours.chain(options.environment()) {
        let name = variable_name(word.to_bytes());
        list.replace_or_push(word, |other| variable_name(other.to_bytes()) == name);
    }
    Ok(list.finish())
}

/// Socket activation: descriptors are meant for the process that `LISTEN_PID` names. If that is the
/// process init is, or was before it started us, it becomes ours.
fn listen_pid(inherited: Words) -> Outcome<Option<&'static CStr>> {
    const PREFIX: &[u8] = b"LISTEN_PID=";
    let value = |word: &'static CStr| word.to_bytes().strip_prefix(PREFIX);
    let Some(named) = inherited.iter().find_map(value) else { return Ok(None) };
    let mut parent = Line::new();
    parent.number(Pid::parent().as_raw().unsigned_abs().into());
    if named != parent.as_bytes() {
        return Ok(None);
    }
    let mut own = Line::new();
    own.number(Pid::this().as_raw().unsigned_abs().into());
    concatenate(PREFIX, own.as_bytes()).map(Some)
}

fn concatenate(first: &[u8], second: &[u8]) -> Outcome<&'static CStr> {
    let length = first.len() + second.len();
    let bytes = sys::zeroed(length + 1).map_err(Failure::Memory)?;
    bytes[..first.len()].copy_from_slice(first);
    bytes[first.len()..length].copy_from_slice(second);
    Ok(CStr::from_bytes_until_nul(bytes).expect("one more zero byte than is written over"))
}

/// Runs the command, looked for in the PATH that it will see itself. Returns why it cannot.
fn run(command: Words, environment: Words) -> Failure {
    let name = command.get(0).unwrap_or(c"");
    if name.is_empty() {
        return Failure::Exec(Errno::ENOENT);
    }
    if name.to_bytes().contains(&b'/') {
        let error = exec_or_interpret(name, command, environment);
        let there = error == Errno::ENOENT && access(name, AccessFlags::F_OK).is_ok();
        return if there { Failure::MissingInterpreter } else { Failure::Exec(error) };
    }
    let path = environment.iter().find_map(|word| word.to_bytes().strip_prefix(b"PATH="));
    Failure::Exec(search(path.unwrap_or(DEFAULT_PATH), name, command, environment))
}

/// Tries each directory of `path`, as execvp(3): one that has no such file or is none is passed
/// over, and a file that may not be run is what is reported if no later one can be.
fn search(path: &[u8], name: &CStr, command: Words, environment: Words) -> Errno {
    let mut reported = Errno::ENOENT;
    for directory in path.split(|byte| *byte == b':') {
        let mut buffer = [0; PATH_MAX];
        let Some(candidate) = join(&mut buffer, directory, name) else { continue };
        match exec_or_interpret(candidate, command, environment) {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => reported = Errno::EACCES,
            error => return error,
        }
    }
    reported
}

/// `directory/name`, or `name` alone in the current directory, which an empty entry means. None if
/// it is longer than any path can be.
fn join<'a>(buffer: &'a mut [u8], directory: &[u8], name: &CStr) -> Option<&'a CStr> {
    let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
    let mut length = 0;
    for part in [directory, slash, name.to_bytes_with_nul()] {
        buffer.get_mut(length..length + part.len())?.copy_from_slice(part);
        length += part.len();
    }
    CStr::from_bytes_until_nul(buffer).ok()
}

/// Runs the file at `path`, through the shell if it is a script that does not say what runs it.
fn exec_or_interpret(path: &CStr, command: Words, environment: Words) -> Errno {
    let error = sys::exec(path, command, environment);
    if error != Errno::ENOEXEC {
        return error;
    }
    let Ok(mut words) = WordList::with_room(command.len() + 1) else { return error };
    let Ok(script) = concatenate(path.to_bytes(), b"") else { return error };
    words.push(SHELL);
    words.push(script);
    command.skip(1).iter().for_each(|word| words.push(word));
    match sys::exec(SHELL, words.finish(), environment) {
        // No shell here: the file is what cannot be run.
        Errno::ENOENT | Errno::ENOTDIR => error,
        shell => shell,
    }
}

impl Failure {
    fn code(&self, codes: Codes) -> u8 {
        match self {
            Self::Exec(Errno::ENOENT | Errno::ENOTDIR) | Self::MissingInterpreter => {
                codes.not_found
            }
            Self::Exec(_) => codes.not_executable,
            _ => codes.failure,
        }
    }

    fn explain<'a>(&self, line: &'a mut Line) -> &'a mut Line {
        let error = match *self {
            Self::MissingInterpreter => {
                return line.text("it is there, but its interpreter is not");
            }
            Self::UnknownUser(user) => {
                return line.text("no user ").quoted(user).text(" in /etc/passwd");
            }
            Self::UnknownGroup(group) => {
                return line.text("no group ").quoted(group).text(" in /etc/group");
            }
            Self::Exec(error) | Self::Memory(error) => error,
            Self::Start(error) => {
                line.text("cannot start a process: ");
                error
            }
            Self::Directory(directory, error) => {
                line.text("cannot change to ").quoted(directory.to_bytes()).text(": ");
                error
            }
            Self::Identity(what, error) => {
                line.text("cannot set the ").text(what).text(": ");
                error
            }
            Self::Unread(path, error) => {
                line.text("cannot read ").quoted(path.to_bytes()).text(": ");
                error
            }
        };
        line.bytes(sys::reason(error).to_bytes())
    }
}

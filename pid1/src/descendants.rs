//! The processes below us and their names, from /proc where there is one.

use std::ffi::CStr;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc::pid_t;
use nix::sys::stat::Mode;
use nix::unistd::read;

use crate::log::Line;
use crate::personality::last_part;
use crate::signals::Signal;
use crate::sys;

/// Enough of `/proc/PID/stat` for the id, the name, the state and the parent.
pub const STAT: usize = 256;
/// More generations than there can be processes in one line; it ends the walk if /proc shows a
/// circle, which it may while ids are used again.
const GENERATIONS: usize = 10_000;

/// Sends `signal` to every descendant of ours. Tells whether one of them took it; fails where there
/// is no /proc.
///
/// A process that is born meanwhile may be missed; it is found by the SIGKILL, or becomes our child
/// when its parent ends.
pub fn signal(signal: Signal) -> nix::Result<bool> {
    let mut taken = false;
    for_each_process(|pid| {
        if descends_from_us(pid) {
            taken |= sys::kill(pid, signal).is_ok();
        }
    })?;
    Ok(taken)
}

/// Names of processes, separated by commas: as many as fit.
pub struct Names {
    bytes: [u8; 128],
    length: usize,
}

impl Names {
    pub fn new() -> Self {
        Self { bytes: [0; _], length: 0 }
    }

    fn add(&mut self, name: &[u8]) {
        let comma: &[u8] = if self.length == 0 { b"" } else { b"," };
        for byte in comma.iter().chain(name) {
            if let Some(free) = self.bytes.get_mut(self.length) {
                *free = *byte;
                self.length += 1;
            }
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Adds the names of those who `belong` to `names`, ours never; none where there is no /proc.
pub fn names(names: &mut Names, belong: impl Fn(&Stat) -> bool) {
    let _ = for_each_stat(|it| {
        if it.pid != sys::own_pid() && !it.has_ended() && belong(it) {
            names.add(it.name);
        }
    });
}

/// The last part of the first word that `pid` was started with: for a script its shell, where the
/// name in `stat` is the script's. None where there is no /proc.
pub fn program(pid: pid_t, buffer: &mut [u8; STAT]) -> Option<&[u8]> {
    if !proc_is_ours() {
        return None;
    }
    let word = read_file_of(pid, "/cmdline\0", buffer)?.split(|byte| *byte == 0).next()?;
    // What is ending has none.
    Some(last_part(word)).filter(|name| !name.is_empty())
}

/// Whether `pid` is our child, or one of a child of ours, and so on.
pub fn descends_from_us(pid: pid_t) -> bool {
    let parent = |pid: pid_t| stat(pid, &mut [0; STAT]).map(|it| it.parent);
    std::iter::successors(parent(pid), |pid| parent(*pid))
        .take(GENERATIONS)
        .any(|ancestor| ancestor == sys::own_pid())
}

/// What /proc says about a process.
#[derive(Debug, PartialEq, Eq)]
pub struct Stat<'a> {
    pub pid: pid_t,
    pub name: &'a [u8],
    state: u8,
    pub parent: pid_t,
    pub group: pid_t,
}

impl Stat<'_> {
    /// Whether only its parent has still to be told.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

fn stat(pid: pid_t, buffer: &mut [u8; STAT]) -> Option<Stat<'_>> {
    parse_stat(pid, read_file_of(pid, "/stat\0", buffer)?)
}

fn read_file_of<'a>(pid: pid_t, file: &str, buffer: &'a mut [u8; STAT]) -> Option<&'a [u8]> {
    let mut path = Line::new();
    path.text("/proc/").number(pid.unsigned_abs().into()).text(file);
    read_start(CStr::from_bytes_until_nul(path.as_bytes()).ok()?, buffer)
}

fn read_start<'a>(path: &CStr, buffer: &'a mut [u8; STAT]) -> Option<&'a [u8]> {
    let file = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let length = read(&file, buffer).ok()?;
    Some(&buffer[..length])
}

/// Reads `7 (name) S 1 7 …`. The name may itself hold brackets and spaces.
fn parse_stat(pid: pid_t, text: &[u8]) -> Option<Stat<'_>> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = text.get(close..)?.split(|byte| *byte == b' ').skip(1);
    let state = *fields.next()?.first()?;
    let parent = process_id(fields.next()?)?;
    let group = process_id(fields.next()?)?;
    Some(Stat { pid, name: text.get(open + 1..close)?, state, parent, group })
}

fn process_id(text: &[u8]) -> Option<pid_t> {
    crate::user::id(text)?.try_into().ok()
}

/// Calls `visit` for every process in /proc that is still there when we look, provided that it is
/// our namespace's.
pub fn for_each_stat(mut visit: impl FnMut(&Stat)) -> nix::Result<()> {
    for_each_process(|pid| {
        if let Some(it) = stat(pid, &mut [0; STAT]) {
            visit(&it);
        }
    })
}

/// Calls `visit` for every process in /proc, provided that it is our namespace's.
pub fn for_each_process(mut visit: impl FnMut(pid_t)) -> nix::Result<()> {
    if !proc_is_ours() {
        return Err(Errno::ENOENT);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = open(c"/proc", flags, Mode::empty())?;
    let mut buffer = sys::EntryBuffer::new();
    loop {
        let mut entries = sys::read_entries(&folder, &mut buffer)?;
        if entries.is_empty() {
            return Ok(());
        }
        while let Some((name, rest)) = split_entry(entries) {
            process_id(name).into_iter().for_each(&mut visit);
            entries = rest;
        }
    }
}

/// Whether /proc has the ids by which we know ourselves and others: a host's that is mounted into a
/// container has other ones.
fn proc_is_ours() -> bool {
    let mut buffer = [0; STAT];
    let own = read_start(c"/proc/self/stat", &mut buffer)
        .and_then(|text| process_id(text.split(|byte| *byte == b' ').next()?));
    own == Some(sys::own_pid())
}

/// The first entry's name and what follows, from getdents64(2)'s records: inode and offset in eight
/// bytes each, the record's length in two, the type in one, and the name up to a zero byte.
fn split_entry(entries: &[u8]) -> Option<(&[u8], &[u8])> {
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    let length = [*entries.get(LENGTH)?, *entries.get(LENGTH + 1)?];
    let (entry, rest) = entries.split_at_checked(u16::from_ne_bytes(length).into())?;
    let name = entry.get(NAME..)?.split(|byte| *byte == 0).next()?;
    Some((name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_stat_may_hold_anything() {
        let check = |text: &str, name: &str, state, parent, group| {
            let expected = Stat { pid: 7, name: name.as_bytes(), state, parent, group };
            assert_eq!(parse_stat(7, text.as_bytes()), Some(expected), "{text}");
        };
        check("7 (sleep) S 1 7 7 0", "sleep", b'S', 1, 7);
        check("7 (a) S 9 (b) R 12 8 7", "a) S 9 (b", b'R', 12, 8);
        check("7 () Z 0 6 5", "", b'Z', 0, 6);
    }

    #[test]
    fn cut_stats_are_none() {
        let cut =
            ["", "7", "7 (sleep", "7 (sleep)", "7 (sleep) S", "7 (sleep) S x", ")(", "7 ) S ("];
        for text in cut.iter().chain(&["7 (sleep) S 1", "7 (sleep) S 1 x", "7 (sleep)  1 7 7"]) {
            assert_eq!(parse_stat(7, text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn cut_entries_are_none() {
        let entry = |length: u16| {
            let mut bytes = [0; 24];
            bytes[16..18].copy_from_slice(&length.to_ne_bytes());
            bytes[19] = b'7';
            bytes
        };
        assert_eq!(split_entry(&entry(24)), Some((&b"7"[..], &b""[..])));
        assert_eq!(split_entry(&entry(25)), None);
        assert_eq!(split_entry(&entry(0)), None);
        assert_eq!(split_entry(&entry(24)[..17]), None);
    }

    #[test]
    fn we_are_a_descendant_of_our_parent_and_not_of_ourselves() {
        let mut buffer = [0; STAT];
        let parent = stat(sys::own_pid(), &mut buffer).unwrap().parent;
        assert!(parent > 0);
        assert!(!descends_from_us(parent));
    }
}

//! Messages: one line each, built in place, in words or as JSON, and never waiting for a reader.

use std::ffi::c_int;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

use crate::signals::{self, Signal};
use crate::sys::{self, Status};

/// Longer lines are cut. A pipe takes this much whole or not at all (`PIPE_BUF` is 4096).
const CAPACITY: usize = 1024;

/// A line being put together.
pub struct Line {
    bytes: [u8; CAPACITY],
    length: usize,
}

impl Line {
    pub fn new() -> Self {
        Self { bytes: [0; CAPACITY], length: 0 }
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.raw(text.as_bytes())
    }

    /// Bytes as they are, except that what could break the line or move the cursor is a `?`.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for byte in bytes {
            self.raw(&[if byte.is_ascii_control() { b'?' } else { *byte }]);
        }
        self
    }

    /// What the user wrote, between the marks that keep it apart from our words.
    pub fn quoted(&mut self, bytes: &[u8]) -> &mut Self {
        self.text("`").bytes(bytes).text("`")
    }

    pub fn number(&mut self, number: u64) -> &mut Self {
        let mut digits = [0; 20];
        let mut start = digits.len();
        let mut rest = number;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10).to_le_bytes()[0];
            rest /= 10;
            if rest == 0 {
                return self.raw(&digits[start..]);
            }
        }
    }

    pub fn signal(&mut self, signal: Signal) -> &mut Self {
        match (signals::name(signal), signals::above_rtmin(signal)) {
            (Some(name), _) => self.text(name),
            (None, Some(0)) => self.text("SIGRTMIN"),
            (None, Some(above)) => self.text("SIGRTMIN+").number(above),
            (None, None) => self.number(signal.unsigned_abs().into()),
        }
    }

    /// A JSON string's inside. JSON is UTF-8, and a name need not be: then it is taken as Latin-1.
    fn escaped(&mut self, bytes: &[u8]) -> &mut Self {
        let is_utf8 = str::from_utf8(bytes).is_ok();
        for byte in bytes {
            match byte {
                b'"' | b'\\' => self.raw(&[b'\\', *byte]),
                0x20..=0x7e => self.raw(&[*byte]),
                0x80.. if is_utf8 => self.raw(&[*byte]),
                _ => self.text("\\u00").hexadecimal(byte >> 4).hexadecimal(byte & 15),
            };
        }
        self
    }

    fn hexadecimal(&mut self, digit: u8) -> &mut Self {
        self.raw(&[if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }])
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        // The last byte is kept for the line's end.
        let room = CAPACITY - 1 - self.length;
        let bytes = &bytes[..bytes.len().min(room)];
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
        self
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Writes the line to standard error, if it takes it now: a reader that has stopped reading, or
    /// has gone, must not stop or end us. Hence also no word about it.
    pub fn send(&mut self) {
        self.bytes[self.length] = b'\n';
        self.length += 1;
        let stderr = sys::stdio(2);
        if writable_now(stderr) {
            let _ = write(stderr, self.as_bytes());
        }
    }
}

fn writable_now(descriptor: BorrowedFd) -> bool {
    let mut descriptors = [PollFd::new(descriptor.as_fd(), PollFlags::POLLOUT)];
    let ready = poll(&mut descriptors, PollTimeout::ZERO);
    // Where nobody reads any more there is an error, too, and a write would end us by SIGPIPE
    // while we have not blocked it.
    ready == Ok(1) && descriptors[0].revents() == Some(PollFlags::POLLOUT)
}

/// Writes all of `texts` to `descriptor`, waiting for the reader: for what was asked for.
pub fn print(descriptor: c_int, texts: &[&str]) {
    for text in texts {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match write(sys::stdio(descriptor), rest) {
                Ok(written) => rest = &rest[written..],
                Err(nix::errno::Errno::EINTR) => {}
                // Nobody there to tell.
                Err(_) => return,
            }
        }
    }
}

/// How messages look.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// How much is said, and how.
#[derive(Clone, Copy)]
pub struct Log {
    pub program: &'static str,
    /// What a line of text begins with.
    pub prefix: &'static str,
    pub verbosity: u8,
    pub format: Format,
}

/// How often `--verbose` has to be given to see a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What is always said.
    Error = 0,
    /// How it starts and ends.
    Life = 1,
    /// Each signal.
    Signal = 2,
    /// Each process reaped.
    Orphan = 3,
}

impl Log {
    pub fn wants(self, level: Level) -> bool {
        level as u8 <= self.verbosity
    }

    /// Says that `event` happened, with the fields that `describe` adds.
    pub fn event(
        self,
        level: Level,
        event: &str,
        describe: impl FnOnce(&mut Record) -> &mut Record,
    ) {
        if self.wants(level) {
            self.write(event, describe);
        }
    }

    /// Says that something went wrong: `explain` says what, in words.
    #[inline(never)]
    pub fn error(self, explain: impl FnOnce(&mut Line) -> &mut Line) {
        let mut words = Line::new();
        self.say("error", explain(&mut words));
    }

    /// Says what would be better, in `words`. For callers who know that somebody wants to hear it.
    pub fn advise(self, words: &Line) {
        self.say("advice", words);
    }

    #[inline(never)]
    fn say(self, event: &str, words: &Line) {
        match self.format {
            Format::Text => {
                Line::new().text(self.prefix).bytes(words.as_bytes()).send();
            }
            Format::Json => self.write(event, |it| it.bytes("message", words.as_bytes())),
        }
    }

    /// Apart, because of the line: while nothing is said, the stack that it needs is never touched.
    #[inline(never)]
    fn write(self, event: &str, describe: impl FnOnce(&mut Record) -> &mut Record) {
        let mut record = Record { line: Line::new(), format: self.format };
        match self.format {
            Format::Text => record.line.text(self.prefix).text(event),
            Format::Json => {
                record.line.text("{\"program\":\"").text(self.program);
                record.line.text("\",\"event\":\"").text(event).text("\"")
            }
        };
        describe(&mut record);
        if self.format == Format::Json {
            // Where it had to be cut it is no JSON any more, but still a line.
            record.line.text("}");
        }
        record.line.send();
    }
}

/// A message with named fields.
pub struct Record {
    line: Line,
    format: Format,
}

impl Record {
    pub fn number(&mut self, name: &str, number: u64) -> &mut Self {
        self.name(name).number(number);
        self
    }

    pub fn pid(&mut self, name: &str, pid: c_int) -> &mut Self {
        self.number(name, pid.unsigned_abs().into())
    }

    pub fn signal(&mut self, name: &str, signal: Signal) -> &mut Self {
        // Names of signals need no escaping.
        match self.format {
            Format::Text => self.name(name).signal(signal),
            Format::Json => self.name(name).text("\"").signal(signal).text("\""),
        };
        self
    }

    pub fn bytes(&mut self, name: &str, bytes: &[u8]) -> &mut Self {
        match self.format {
            Format::Text => self.name(name).bytes(bytes),
            Format::Json => self.name(name).text("\"").escaped(bytes).text("\""),
        };
        self
    }

    /// A process's end: its code, or the signal that was it.
    pub fn status(&mut self, status: Status) -> &mut Self {
        match status {
            Status::Exited(code) => self.number("code", code.into()),
            Status::Killed(signal) => self.signal("signal", signal),
        }
    }

    fn name(&mut self, name: &str) -> &mut Line {
        match self.format {
            Format::Text => self.line.text(" ").text(name).text("="),
            Format::Json => self.line.text(",\"").text(name).text("\":"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(build: impl FnOnce(&mut Line) -> &mut Line) -> String {
        let mut line = Line::new();
        build(&mut line);
        String::from_utf8_lossy(line.as_bytes()).into_owned()
    }

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 9, 10, 255, u64::MAX] {
            assert_eq!(text(|line| line.number(number)), number.to_string());
        }
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(text(|line| line.signal(15)), "SIGTERM");
        assert_eq!(text(|line| line.signal(34)), "SIGRTMIN");
        assert_eq!(text(|line| line.signal(37)), "SIGRTMIN+3");
        assert_eq!(text(|line| line.signal(33)), "33");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(text(|line| line.quoted(b"a\x1b[2J\nb")), "`a?[2J?b`");
        assert_eq!(text(|line| line.escaped(b"a\"\\\n\xe9")), "a\\\"\\\\\\u000a\\u00e9");
        assert_eq!(text(|line| line.escaped("é".as_bytes())), "é");
    }

    #[test]
    fn long_lines_are_cut() {
        let line = text(|line| line.text(&"x".repeat(2 * CAPACITY)).text("y"));
        assert_eq!(line, "x".repeat(CAPACITY - 1));
    }
}

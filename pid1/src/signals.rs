//! Signals by name and number, and what is forwarded in place of what arrives.

use std::ffi::c_int;

use signal_hook::consts::{SIGCHLD, SIGINT, SIGKILL, SIGSTOP, SIGTERM};
use signal_hook::low_level::signal_name;

/// A signal's number, 1 to 64.
pub type Signal = c_int;

/// The highest there is.
pub const LAST: Signal = RTMAX;

// As kill(1), Docker and systemd count them. musl's own SIGRTMIN is 35: it keeps 34 for itself.
const RTMIN: Signal = 34;
const RTMAX: Signal = 64;

/// Standard signals that signal-hook has no name for; the same numbers on all our platforms.
const UNNAMED: [(&str, Signal); 2] = [("SIGSTKFLT", 16), ("SIGPWR", 30)];
const ALIASES: [(&str, Signal); 3] = [("SIGIOT", 6), ("SIGPOLL", 29), ("SIGCLD", SIGCHLD)];

/// The name of a standard signal, such as `SIGTERM`; real-time signals have none of their own.
pub fn name(signal: Signal) -> Option<&'static str> {
    let unnamed = || UNNAMED.iter().find(|(_, number)| *number == signal).map(|(name, _)| *name);
    signal_name(signal).or_else(unnamed)
}

/// How far `signal` is above SIGRTMIN, if it is a real-time signal.
pub fn above_rtmin(signal: Signal) -> Option<u64> {
    (RTMIN..=RTMAX).contains(&signal).then(|| (signal - RTMIN).unsigned_abs().into())
}

/// Whether `signal` is how engines and terminals ask for the end.
pub fn is_order_to_end(signal: Signal) -> bool {
    signal == SIGTERM || signal == SIGINT
}

/// Reads a signal as people write them: `TERM`, `SIGTERM`, `15`, `RTMIN+3`, in any case.
pub fn parse(text: &[u8]) -> Option<Signal> {
    if let Some(number) = number(text) {
        return (1..=LAST).contains(&number).then_some(number);
    }
    let bare = strip_prefix(text, b"SIG").unwrap_or(text);
    standard(bare).or_else(|| real_time(bare))
}

fn standard(bare: &[u8]) -> Option<Signal> {
    let is = |name: &str| bare.eq_ignore_ascii_case(&name.as_bytes()[3..]);
    let alias = || ALIASES.iter().find(|(name, _)| is(name)).map(|(_, number)| *number);
    (1..RTMIN).find(|signal| name(*signal).is_some_and(is)).or_else(alias)
}

fn real_time(bare: &[u8]) -> Option<Signal> {
    let signal = if let Some(rest) = strip_prefix(bare, b"RTMIN") {
        RTMIN + offset(rest, b'+')?
    } else {
        RTMAX - offset(strip_prefix(bare, b"RTMAX")?, b'-')?
    };
    (RTMIN..=RTMAX).contains(&signal).then_some(signal)
}

/// Nothing, or `sign` and a number.
fn offset(text: &[u8], sign: u8) -> Option<Signal> {
    match text.split_first() {
        None => Some(0),
        Some((first, digits)) if *first == sign => number(digits),
        Some(_) => None,
    }
}

fn strip_prefix<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// A decimal number of one to three digits.
pub fn number(text: &[u8]) -> Option<c_int> {
    if text.is_empty() || text.len() > 3 {
        return None;
    }
    let digit = |byte: u8| byte.is_ascii_digit().then(|| c_int::from(byte - b'0'));
    text.iter().try_fold(0, |value, byte| Some(value * 10 + digit(*byte)?))
}

/// What to forward for each signal that can arrive.
#[derive(Clone)]
pub struct Rewrites([u8; LAST as usize + 1]);

/// No rule: the signal goes on as it is.
const AS_IT_IS: u8 = u8::MAX;

impl Default for Rewrites {
    fn default() -> Self {
        Self([AS_IT_IS; _])
    }
}

impl Rewrites {
    /// Takes `FROM:TO` to heart; `TO` may be 0, for forwarding nothing.
    pub fn add(&mut self, rule: &[u8]) -> Option<()> {
        let (from, to) = split_at_colon(rule)?;
        let from = parse(from)?;
        let to = if number(to) == Some(0) { 0 } else { parse(to)? };
        // Nobody can receive these two, so a rule for them is a mistake.
        if from == SIGKILL || from == SIGSTOP {
            return None;
        }
        *self.entry(from)? = to.to_le_bytes()[0];
        Some(())
    }

    /// Forwards `to` for `from`, unless there is a rule for that.
    pub fn add_default(&mut self, from: Signal, to: Signal) {
        if let Some(entry) = self.entry(from).filter(|entry| **entry == AS_IT_IS) {
            *entry = to.to_le_bytes()[0];
        }
    }

    fn entry(&mut self, from: Signal) -> Option<&mut u8> {
        self.0.get_mut(usize::try_from(from).ok()?)
    }

    /// What to forward for `signal`, if anything.
    pub fn apply(&self, signal: Signal) -> Option<Signal> {
        match *self.0.get(usize::try_from(signal).ok()?)? {
            0 => None,
            AS_IT_IS => Some(signal),
            other => Some(other.into()),
        }
    }
}

/// The two halves of `FROM:TO`.
pub fn split_at_colon(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = text.iter().position(|byte| *byte == b':')?;
    Some((&text[..colon], &text[colon + 1..]))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::chance::Chance;

    #[track_caller]
    fn check(text: &str, expected: Option<Signal>) {
        assert_eq!(parse(text.as_bytes()), expected, "{text}");
    }

    #[test]
    fn names_and_numbers_are_signals() {
        check("TERM", Some(15));
        check("SIGTERM", Some(15));
        check("sigterm", Some(15));
        check("15", Some(15));
        check("PWR", Some(30));
        check("STKFLT", Some(16));
        check("IOT", Some(6));
        check("POLL", Some(29));
        check("64", Some(64));
    }

    #[test]
    fn real_time_signals_count_from_34_to_64() {
        check("RTMIN", Some(34));
        check("SIGRTMIN+3", Some(37));
        check("rtmin+30", Some(64));
        check("RTMAX", Some(64));
        check("RTMAX-30", Some(34));
        check("RTMIN+31", None);
        check("RTMAX-31", None);
        check("RTMIN-1", None);
        check("RTMIN+", None);
    }

    #[test]
    fn anything_else_is_not_a_signal() {
        for text in ["", "0", "65", "-1", "SIG", "TERMINATE", "SIGSIGTERM", "1e1", "0015", "+9"] {
            check(text, None);
        }
    }

    #[test]
    fn every_name_reads_back_as_its_number() {
        for signal in (1..32).filter(|signal| name(*signal).is_some()) {
            assert_eq!(parse(name(signal).unwrap().as_bytes()), Some(signal));
        }
        assert_eq!((1..32).filter(|signal| name(*signal).is_none()).count(), 0);
    }

    #[test]
    fn rewrites_replace_and_drop() {
        let mut rewrites = Rewrites::default();
        assert_eq!(rewrites.apply(64), Some(64));
        assert!(rewrites.add(b"TERM:QUIT").is_some());
        assert!(rewrites.add(b"RTMIN+3:15").is_some());
        assert!(rewrites.add(b"HUP:0").is_some());
        assert_eq!(rewrites.apply(15), Some(3));
        assert_eq!(rewrites.apply(37), Some(15));
        assert_eq!(rewrites.apply(1), None);
        assert_eq!(rewrites.apply(2), Some(2));
    }

    #[test]
    fn wrong_rewrites_are_refused() {
        for rule in ["", "TERM", "TERM:", ":TERM", "TERM:QUIT:1", "KILL:TERM", "STOP:0", "0:TERM"] {
            assert!(Rewrites::default().add(rule.as_bytes()).is_none(), "{rule}");
        }
    }

    const INPUTS: usize = 200_000;
    const PIECES: [&str; 24] = [
        "SIG", "sig", "Sig", "RTMIN", "rtmax", "TERM", "kill", "STOP", "Pwr", "cld", "INT", "0",
        "1", "3", "5", "9", "34", "64", "+", "-", ":", " ", "x", "é",
    ];

    /// Every way there is to write a signal.
    type List = HashMap<String, Signal>;

    fn by_list(list: &List, text: &str) -> Option<Signal> {
        list.get(&text.to_ascii_uppercase()).copied()
    }

    fn ways_to_write() -> Vec<(String, Signal)> {
        let names = "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT \
            CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS";
        let names = names.split_whitespace().map(str::to_owned).zip(1..);
        let aliases = [("IOT", 6), ("POLL", 29), ("CLD", 17), ("RTMIN", 34), ("RTMAX", 64)];
        let aliases = aliases.map(|(name, signal)| (name.to_owned(), signal));
        let mut ways: Vec<_> = names.chain(aliases).collect();
        for offset in 0..=30 {
            let digits = [format!("{offset}"), format!("{offset:02}"), format!("{offset:03}")];
            for digits in digits {
                ways.push((format!("RTMIN+{digits}"), 34 + offset));
                ways.push((format!("RTMAX-{digits}"), 64 - offset));
            }
        }
        ways.extend(ways.clone().into_iter().map(|(name, signal)| (format!("SIG{name}"), signal)));
        for signal in 1..=64 {
            ways.extend([1, 2, 3].map(|width| (format!("{signal:0width$}"), signal)));
        }
        ways
    }

    #[test]
    fn two_hundred_thousand_texts_are_the_signals_in_a_list() {
        let (mut chance, ways) = (Chance::new(), ways_to_write());
        let list = List::from_iter(ways.clone());
        let mut signals = 0;
        for _ in 0..INPUTS / 2 {
            let text = chance.text(&PIECES, 4);
            check(&text, by_list(&list, &text));
            signals += usize::from(parse(text.as_bytes()).is_some());
        }
        for _ in 0..INPUTS / 2 {
            let (way, signal) = &ways[chance.below(ways.len())];
            let lower = way.to_ascii_lowercase();
            check(chance.pick(&[way.as_str(), &lower]), Some(*signal));
        }
        assert!(signals > INPUTS / 100, "{signals}");
    }

    #[test]
    fn two_hundred_thousand_rewrites_change_one_signal_or_nothing() {
        let (mut chance, ways) = (Chance::new(), ways_to_write());
        let list = List::from_iter(ways.clone());
        let (unchanged, mut taken) = (Rewrites::default(), 0);
        for _ in 0..INPUTS {
            let sides = [0, 1].map(|_| match chance.below(3) {
                0 => chance.text(&PIECES, 3),
                _ => ways[chance.below(ways.len())].0.clone(),
            });
            let rule = sides.join(":");
            let mut rewrites = unchanged.clone();
            let added = rewrites.add(rule.as_bytes()).is_some();
            let (from, to) = rule.split_once(':').unwrap();
            let from = by_list(&list, from).filter(|from| ![SIGKILL, SIGSTOP].contains(from));
            let drops = ["0", "00", "000"].contains(&to);
            let to = if drops { Some(0) } else { by_list(&list, to) };
            let right = from.zip(to);
            assert_eq!(added, right.is_some(), "{rule}");
            let mut expected = unchanged.0;
            if let Some((from, to)) = right {
                expected[usize::try_from(from).unwrap()] = to.try_into().unwrap();
            }
            assert_eq!(rewrites.0, expected, "{rule}");
            taken += usize::from(added);
        }
        assert!(taken > INPUTS / 4, "{taken}");
    }
}

//! The command line and its variables: from words to `Options`, by a table.

use std::ffi::CStr;
use std::time::Duration;

use signal_hook::consts::{SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};

use crate::child::Session;
use crate::log::{Format, Level, Line, Log};
use crate::personality::{Codes, LICENCE, Personality};
use crate::signals::{self, Rewrites, Signal, split_at_colon};
use crate::sys::{self, Words};

/// What a terminal sends to stop who uses it.
pub const TERMINAL_STOPS: [Signal; 3] = [SIGTSTP, SIGTTIN, SIGTTOU];
const MOST_VERBOSE: u8 = Level::Orphan as u8;

/// Everything a command line can ask of the supervisor.
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of a command line")]
pub struct Options {
    /// The program to run and its arguments; empty if none was given.
    pub command: Words,
    /// The words before it, to find the `--env` ones in again: there may be any number of them.
    given: Scanner,
    pub user: Option<&'static CStr>,
    pub group: Option<&'static CStr>,
    pub workdir: Option<&'static CStr>,
    /// How long what remains may take between SIGTERM and SIGKILL.
    pub timeout: Duration,
    /// How long the child may take after a SIGTERM; for ever if none.
    pub kill_after: Option<Duration>,
    /// How long the first SIGTERM is held back.
    pub drain: Option<Duration>,
    pub rewrites: Rewrites,
    pub exit_codes: ExitCodes,
    pub target: Target,
    pub session: Session,
    pub wait_all: bool,
    pub subreaper: bool,
    pub parent_death_signal: Option<Signal>,
    /// Run no command, only reap until told to end.
    pub pause: bool,
    /// Stop when a terminal says so, where we can be stopped.
    pub stops_too: bool,
    /// Always say when an orphan is reaped.
    pub warn_of_reaping: bool,
    pub codes: Codes,
    pub log: Log,
}

/// Who gets the signals that we forward.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Child,
    /// The child's process group.
    Group,
}

/// What to exit with for each code the child leaves us with.
pub struct ExitCodes([u8; 256]);

impl ExitCodes {
    fn unchanged() -> Self {
        let mut codes = [0; 256];
        for (code, entry) in (0..=u8::MAX).zip(&mut codes) {
            *entry = code;
        }
        Self(codes)
    }

    fn add(&mut self, rule: &[u8]) -> Option<()> {
        let (from, to) = split_at_colon(rule)?;
        self.0[usize::from(code(from)?)] = code(to)?;
        Some(())
    }

    pub fn apply(&self, code: u8) -> u8 {
        self.0[usize::from(code)]
    }
}

fn code(text: &[u8]) -> Option<u8> {
    signals::number(text)?.try_into().ok()
}

/// What an option sets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    Env,
    User,
    Group,
    Workdir,
    Timeout,
    KillAfter,
    Drain,
    Rewrite,
    MapExit,
    SignalGroup,
    WaitAll,
    Subreaper,
    ParentDeathSignal,
    Verbose,
    Log,
    Help,
    Version,
    Licence,
    /// `--map-exit CODE:0`.
    ForgiveExit,
    WarnOfReaping,
    /// Neither a session for the child nor signals for its group.
    SingleChild,
    Pause,
    /// All that `Verbose` can say.
    Debug,
}

impl Setting {
    /// What it takes, for messages; nothing if it is a switch.
    fn takes(self) -> Option<&'static str> {
        Some(match self {
            Self::Env => "NAME=VALUE",
            Self::User => "USER or USER:GROUP, each a name or number",
            Self::Group => "a group's name or number",
            Self::Workdir => "a directory",
            Self::Timeout | Self::KillAfter | Self::Drain => "seconds, such as 5 or 0.5",
            Self::Rewrite => {
                "FROM:TO, signals such as TERM, 15 or RTMIN+3, or 0 as TO to drop FROM"
            }
            Self::MapExit => "FROM:TO, exit codes from 0 to 255",
            Self::ParentDeathSignal => "a signal, such as TERM, 15 or RTMIN+3",
            Self::Log => "text or json",
            Self::ForgiveExit => "an exit code from 0 to 255",
            Self::SignalGroup
            | Self::WaitAll
            | Self::Subreaper
            | Self::Verbose
            | Self::Help
            | Self::Version
            | Self::Licence
            | Self::WarnOfReaping
            | Self::SingleChild
            | Self::Pause
            | Self::Debug => return None,
        })
    }
}

/// What a variable may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// What the option takes; 1 or 0 for a switch.
    Value,
    /// How often the option is given, from this number on.
    Count { from: u8 },
    /// Anything: that it is set is enough.
    Presence,
    /// This; anything else counts as not set.
    Only(&'static str),
}

/// How an option is written.
pub struct Spec {
    pub setting: Setting,
    /// 0 if there is no short form.
    pub short: u8,
    /// Empty if there is no long form.
    pub long: &'static str,
    /// Empty if there is no variable.
    pub variable: &'static str,
    pub reading: Reading,
}

impl Spec {
    /// What its variable takes, for messages.
    fn variable_takes(&self) -> &'static str {
        match self.reading {
            Reading::Count { .. } => "a number, such as 1",
            _ => self.setting.takes().unwrap_or("1 or 0"),
        }
    }

    fn spelling<'a>(&self, line: &'a mut Line) -> &'a mut Line {
        if self.long.is_empty() {
            line.text("-").bytes(&[self.short])
        } else {
            line.text("--").text(self.long)
        }
    }
}

/// What is wrong with a command line.
pub enum Misuse {
    UnknownShort(u8),
    UnknownLong(&'static [u8]),
    MissingValue(&'static Spec),
    UnwantedValue(&'static Spec),
    WrongValue(&'static Spec, &'static [u8]),
    WrongVariable(&'static Spec, &'static [u8]),
}

impl Misuse {
    /// Says it in one line that names the right ones.
    pub fn explain(&self, line: &mut Line, specs: &[Spec]) {
        match *self {
            Self::UnknownShort(letter) => {
                line.text("unknown option `-").bytes(&[letter]).text("`, there are");
                list(line, specs);
            }
            Self::UnknownLong(name) => {
                line.text("unknown option `--").bytes(name).text("`, there are");
                list(line, specs);
            }
            Self::MissingValue(spec) => {
                spec.spelling(line).text(" needs ").text(spec.setting.takes().unwrap_or(""));
            }
            Self::UnwantedValue(spec) => {
                spec.spelling(line).text(" takes no value");
            }
            Self::WrongValue(spec, value) => {
                line.text("cannot use ").quoted(value).text(" for ");
                spec.spelling(line).text(": it takes ").text(spec.setting.takes().unwrap_or(""));
            }
            Self::WrongVariable(spec, value) => {
                line.text("cannot use ").quoted(value).text(" for ").text(spec.variable);
                line.text(": it takes ").text(spec.variable_takes());
            }
        }
    }
}

fn list(line: &mut Line, specs: &[Spec]) {
    // Some rows are only variables.
    for spec in specs.iter().filter(|spec| spec.short != 0 || !spec.long.is_empty()) {
        line.text(" ");
        if spec.short != 0 && !spec.long.is_empty() {
            line.text("-").bytes(&[spec.short]).text("/");
        }
        spec.spelling(line);
    }
}

/// Walks the options at the head of a command line. They end at the first word that is none, or
/// after `--`.
#[derive(Clone)]
pub struct Scanner {
    specs: &'static [Spec],
    words: Words,
    /// What is left of a word like `-vvt5`.
    cluster: &'static CStr,
}

type Found = Result<(&'static Spec, &'static CStr), Misuse>;

impl Scanner {
    pub fn new(specs: &'static [Spec], words: Words) -> Self {
        Self { specs, words, cluster: c"" }
    }

    fn take(&mut self) -> Option<&'static CStr> {
        let word = self.words.get(0)?;
        self.words = self.words.skip(1);
        Some(word)
    }

    fn long(&mut self, word: &'static CStr) -> Found {
        let bytes = word.to_bytes();
        let end = bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len());
        let name = &bytes[2..end];
        let named = |spec: &&Spec| !name.is_empty() && spec.long.as_bytes() == name;
        let spec = self.specs.iter().find(named).ok_or(Misuse::UnknownLong(name))?;
        let attached = (end < bytes.len()).then(|| suffix(word, end + 1));
        match (spec.setting.takes(), attached) {
            (None, None) => Ok((spec, c"")),
            (None, Some(_)) => Err(Misuse::UnwantedValue(spec)),
            (Some(_), Some(value)) => Ok((spec, value)),
            (Some(_), None) => self.take().map(|it| (spec, it)).ok_or(Misuse::MissingValue(spec)),
        }
    }

    fn short(&mut self) -> Found {
        let letter = self.cluster.to_bytes()[0];
        self.cluster = suffix(self.cluster, 1);
        let spec = self.specs.iter().find(|spec| spec.short == letter);
        let spec = spec.ok_or(Misuse::UnknownShort(letter))?;
        if spec.setting.takes().is_none() {
            return Ok((spec, c""));
        }
        let attached = std::mem::replace(&mut self.cluster, c"");
        if !attached.is_empty() {
            return Ok((spec, attached));
        }
        self.take().map(|value| (spec, value)).ok_or(Misuse::MissingValue(spec))
    }
}

impl Iterator for Scanner {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        if !self.cluster.is_empty() {
            return Some(self.short());
        }
        let word = self.words.get(0)?;
        match word.to_bytes() {
            b"--" => {
                self.take();
                None
            }
            [b'-', b'-', ..] => {
                self.take();
                Some(self.long(word))
            }
            [b'-', _, ..] => {
                self.take();
                self.cluster = suffix(word, 1);
                Some(self.short())
            }
            _ => None,
        }
    }
}

/// What is left of `word` without its first `count` bytes.
fn suffix(word: &'static CStr, count: usize) -> &'static CStr {
    let rest = word.to_bytes_with_nul().get(count..).unwrap_or(b"\0");
    CStr::from_bytes_until_nul(rest).expect("it ends where the word ends")
}

/// What a command line asks for.
#[allow(clippy::large_enum_variant, reason = "there is one, and no allocator to box it with")]
pub enum Request {
    Run(Options),
    /// Print this and exit.
    Print(&'static [&'static str]),
}

impl Options {
    /// What `personality` does without being told anything.
    fn new(personality: &'static Personality, words: Words) -> Self {
        Self {
            command: words,
            given: Scanner::new(personality.options, words),
            user: None,
            group: None,
            workdir: None,
            timeout: Duration::from_secs(5),
            kill_after: None,
            drain: None,
            rewrites: Rewrites::default(),
            exit_codes: ExitCodes::unchanged(),
            target: Target::Child,
            session: Session::Ours,
            wait_all: false,
            subreaper: false,
            parent_death_signal: None,
            pause: false,
            stops_too: false,
            warn_of_reaping: false,
            codes: personality.codes,
            log: Log {
                program: personality.name,
                prefix: personality.prefix,
                verbosity: 0,
                format: Format::Text,
            },
        }
    }

    /// The values of `--env`, in their order.
    pub fn environment(&self) -> impl Iterator<Item = &'static CStr> {
        let value = |found: Found| found.ok().filter(|(spec, _)| spec.setting == Setting::Env);
        self.given.clone().filter_map(value).map(|(_, value)| value)
    }

    /// A session for the child and the signals for all of its group.
    pub fn whole_session(&mut self) {
        self.session = Session::New;
        self.target = Target::Group;
        self.stops_too = true;
    }

    fn single_child(&mut self) {
        self.session = Session::Ours;
        self.target = Target::Child;
    }

    /// Nobody is left to start a session again that has a terminal of its own: it stops when the
    /// terminal says so, whatever the program makes of that, unless a rule says otherwise.
    fn stop_sessions(&mut self) {
        if self.session == Session::New {
            for signal in TERMINAL_STOPS {
                self.rewrites.add_default(signal, SIGSTOP);
            }
        }
    }

    /// Has the kernel send us that signal when our parent dies, if one was named.
    pub fn ask_for_parent_death_signal(&self) {
        if let Some(signal) = self.parent_death_signal {
            sys::ask_for_parent_death_signal(signal);
        }
    }

    /// Whether `arrived` asks for the end of all this: as it comes, or as what we make of it. What
    /// is dropped asks for nothing.
    pub fn is_order_to_end(&self, arrived: Signal) -> bool {
        let signal = self.rewrites.apply(arrived);
        signal.is_some_and(|it| signals::is_order_to_end(it) || signals::is_order_to_end(arrived))
    }

    fn set(&mut self, setting: Setting, value: &'static CStr) -> Option<()> {
        let bytes = value.to_bytes();
        match setting {
            // Looked for again when they are needed; here they only have to be right.
            Setting::Env => return variable_name(bytes).map(drop),
            Setting::User => {
                split_user(value)?;
                self.user = Some(value);
            }
            Setting::Group => self.group = Some(not_empty(value)?),
            Setting::Workdir => self.workdir = Some(not_empty(value)?),
            Setting::Timeout => self.timeout = seconds(bytes)?,
            Setting::KillAfter => self.kill_after = Some(seconds(bytes)?),
            Setting::Drain => self.drain = Some(seconds(bytes)?),
            Setting::Rewrite => self.rewrites.add(bytes)?,
            Setting::MapExit => self.exit_codes.add(bytes)?,
            Setting::ParentDeathSignal => self.parent_death_signal = Some(signals::parse(bytes)?),
            Setting::SignalGroup => self.target = Target::Group,
            Setting::WaitAll => self.wait_all = true,
            Setting::Subreaper => self.subreaper = true,
            Setting::Verbose => self.log.verbosity = MOST_VERBOSE.min(self.log.verbosity + 1),
            Setting::Debug => self.log.verbosity = MOST_VERBOSE,
            Setting::Log => self.log.format = format(bytes)?,
            Setting::ForgiveExit => self.exit_codes.0[usize::from(code(bytes)?)] = 0,
            Setting::WarnOfReaping => self.warn_of_reaping = true,
            Setting::Pause => self.pause = true,
            Setting::SingleChild => self.single_child(),
            Setting::Help | Setting::Version | Setting::Licence => {}
        }
        Some(())
    }
}

/// Reads `environment` and then `words`, which therefore has the last say.
pub fn parse(
    personality: &'static Personality,
    words: Words,
    environment: Words,
) -> Result<Request, Misuse> {
    let mut options = Options::new(personality, words);
    (personality.start)(&mut options);
    for word in environment.iter() {
        apply_variable(&mut options, personality.options, word)?;
    }
    let mut scanner = Scanner::new(personality.options, words);
    for found in &mut scanner {
        let (spec, value) = found?;
        match spec.setting {
            Setting::Help => return Ok(Request::Print(personality.help)),
            Setting::Version => return Ok(Request::Print(personality.version)),
            Setting::Licence => return Ok(Request::Print(LICENCE)),
            setting => {
                options.set(setting, value).ok_or(Misuse::WrongValue(spec, value.to_bytes()))?;
            }
        }
    }
    options.command = scanner.words;
    options.stop_sessions();
    Ok(Request::Run(options))
}

fn apply_variable(
    options: &mut Options,
    specs: &'static [Spec],
    word: &'static CStr,
) -> Result<(), Misuse> {
    let Some(name) = variable_name(word.to_bytes()) else { return Ok(()) };
    let named = |spec: &&Spec| spec.variable.as_bytes() == name;
    let Some(spec) = specs.iter().find(named) else { return Ok(()) };
    let value = suffix(word, name.len() + 1);
    // As if it were not set: Dockerfiles and compose files cannot unset an inherited one.
    if value.is_empty() && spec.reading != Reading::Presence {
        return Ok(());
    }
    set_by_variable(options, spec, value).ok_or(Misuse::WrongVariable(spec, value.to_bytes()))
}

fn set_by_variable(options: &mut Options, spec: &Spec, value: &'static CStr) -> Option<()> {
    let bytes = value.to_bytes();
    match (spec.reading, spec.setting) {
        (Reading::Count { from }, _) => {
            options.log.verbosity = code(bytes)?.saturating_sub(from).min(MOST_VERBOSE);
        }
        (Reading::Presence, setting) => options.set(setting, value)?,
        (Reading::Only(right), setting) if bytes == right.as_bytes() => {
            options.set(setting, value)?;
        }
        (Reading::Only(_), _) => {}
        (Reading::Value, setting @ (Setting::Rewrite | Setting::MapExit)) => {
            let rule = |rule| match setting {
                Setting::Rewrite => options.rewrites.add(rule),
                _ => options.exit_codes.add(rule),
            };
            rules(bytes).try_for_each(rule)?;
        }
        (Reading::Value, setting) if setting.takes().is_some() => options.set(setting, value)?,
        (Reading::Value, setting) => match bytes {
            b"1" => options.set(setting, value)?,
            b"0" => {}
            _ => return None,
        },
    }
    Some(())
}

/// The entries of a variable's list, separated by commas or spaces.
fn rules(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| matches!(byte, b',' | b' ')).filter(|rule| !rule.is_empty())
}

/// The name in `NAME=VALUE`.
pub fn variable_name(assignment: &[u8]) -> Option<&[u8]> {
    let end = assignment.iter().position(|byte| *byte == b'=')?;
    (end > 0).then(|| &assignment[..end])
}

/// The two parts of `USER[:GROUP]`, neither of them empty.
pub fn split_user(user: &CStr) -> Option<(&[u8], Option<&[u8]>)> {
    let bytes = user.to_bytes();
    let (user, group) = split_at_colon(bytes).map_or((bytes, None), |(u, g)| (u, Some(g)));
    (!user.is_empty() && group != Some(b"")).then_some((user, group))
}

fn not_empty(value: &CStr) -> Option<&CStr> {
    (!value.is_empty()).then_some(value)
}

fn format(name: &[u8]) -> Option<Format> {
    match name {
        b"text" => Some(Format::Text),
        b"json" => Some(Format::Json),
        _ => None,
    }
}

/// Seconds, as a decimal number with or without a fraction, which counts to the nanosecond. More
/// than 136 years is refused.
fn seconds(text: &[u8]) -> Option<Duration> {
    const NANOSECOND_DIGITS: usize = 9;
    let point = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = text.split_at(point.unwrap_or(text.len()));
    let fraction = fraction.get(1..).unwrap_or(b"");
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
    let add = |value: u32, byte: &u8| value.checked_mul(10)?.checked_add(digit(*byte)?);
    let whole = whole.iter().try_fold(0, add)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(NANOSECOND_DIGITS);
    Some(Duration::new(whole.into(), digits.into_iter().try_fold(0, add)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;
    use crate::personality;

    const INPUTS: usize = 100_000;

    /// Each option, with values that it takes.
    const OPTIONS: [(&str, &str, &[&str]); 15] = [
        ("e", "env", &["A=1", "B=", "C==x", "D=é e"]),
        ("u", "user", &["app", "0", "app:staff", "1:2", "-x"]),
        ("g", "group", &["staff", "50", "--"]),
        ("w", "workdir", &["/", "a b", "-", "=x"]),
        ("t", "timeout", &["0", "5", "0.5", "4294967295.999999999"]),
        ("", "kill-after", &["7", ".25"]),
        ("", "drain", &["1.", "00.1"]),
        ("", "rewrite", &["TERM:QUIT", "1:0", "RTMIN+3:sigrtmax-1"]),
        ("", "map-exit", &["143:0", "0:255", "7:007"]),
        ("", "signal-group", &[]),
        ("", "wait-all", &[]),
        ("s", "subreaper", &[]),
        ("", "parent-death-signal", &["HUP", "64"]),
        ("v", "verbose", &[]),
        ("", "log", &["text", "json"]),
    ];

    type Given = (&'static str, &'static str);

    fn parse_words(words: &[String]) -> (Words, Result<Request, Misuse>) {
        let words = Words::leaked(words);
        (words, parse(personality::called(None), words, Words::leaked::<&str>(&[])))
    }

    fn texts(words: impl Iterator<Item = &'static CStr>) -> Vec<&'static str> {
        words.map(|word| word.to_str().unwrap()).collect()
    }

    /// Up to five options, in one of the ways each can be written.
    fn command_line(chance: &mut Chance) -> (Vec<Given>, Vec<String>) {
        let (mut given, mut words) = (Vec::new(), Vec::<String>::new());
        let mut is_cluster = false;
        for _ in 0..chance.below(6) {
            let (short, long, values) = chance.pick(&OPTIONS);
            let value = if values.is_empty() { "" } else { chance.pick(values) };
            given.push((long, value));
            let is_short = !short.is_empty() && chance.below(2) == 0;
            if is_short && is_cluster {
                *words.last_mut().unwrap() += short;
            } else {
                words.push(if is_short { format!("-{short}") } else { format!("--{long}") });
            }
            is_cluster = is_short && values.is_empty();
            match (values.is_empty(), chance.below(2)) {
                (true, _) => {}
                (_, 0) => words.push(value.to_owned()),
                _ if is_short => *words.last_mut().unwrap() += value,
                _ => words.last_mut().unwrap().extend(["=", value]),
            }
        }
        (given, words)
    }

    /// A command after `words`, set apart where it could be taken for an option.
    fn add_command(chance: &mut Chance, words: &mut Vec<String>) -> Vec<&'static str> {
        let command: Vec<_> =
            (0..chance.below(4)).map(|_| chance.pick(&["sh", "-c", "--", "-v", "", "-"])).collect();
        let looks_like_one = command.first().is_some_and(|it| it.len() > 1 && it.starts_with('-'));
        if looks_like_one || chance.below(2) == 0 {
            words.push("--".to_owned());
        }
        words.extend(command.iter().map(|it| (*it).to_owned()));
        command
    }

    #[track_caller]
    fn check_options(options: &Options, given: &[Given]) {
        let all = |name| given.iter().filter(move |it| it.0 == name).map(|it| it.1);
        let last = |name| all(name).next_back();
        let text = |value: Option<&'static CStr>| value.map(|it| it.to_str().unwrap());
        let time = |name| last(name).map(|it| it.parse::<f64>().unwrap());
        let same = |time: Option<f64>, duration: Option<Duration>| match (time, duration) {
            (Some(time), Some(duration)) => (time - duration.as_secs_f64()).abs() < 1e-6,
            (time, duration) => time.is_none() && duration.is_none(),
        };
        assert_eq!(texts(options.environment()), all("env").collect::<Vec<_>>());
        assert_eq!(text(options.user), last("user"));
        assert_eq!(text(options.group), last("group"));
        assert_eq!(text(options.workdir), last("workdir"));
        assert!(same(time("timeout").or(Some(5.0)), Some(options.timeout)));
        assert!(same(time("kill-after"), options.kill_after));
        assert!(same(time("drain"), options.drain));
        assert_eq!(options.target == Target::Group, last("signal-group").is_some());
        assert_eq!(options.wait_all, last("wait-all").is_some());
        assert_eq!(options.subreaper, last("subreaper").is_some());
        assert_eq!(options.log.format == Format::Json, last("log") == Some("json"));
        assert_eq!(usize::from(options.log.verbosity), all("verbose").count().min(3));
        let signal = last("parent-death-signal").map(|it| if it == "HUP" { 1 } else { 64 });
        assert_eq!(options.parent_death_signal, signal);
        for (from, to, rule) in [(15, Some(3), "TERM:QUIT"), (1, None, "1:0")] {
            let is_given = all("rewrite").any(|it| it == rule);
            assert_eq!(options.rewrites.apply(from), if is_given { to } else { Some(from) });
        }
        for (from, to, rule) in [(143, 0, "143:0"), (0, 255, "0:255"), (7, 7, "7:007")] {
            let is_given = all("map-exit").any(|it| it == rule);
            assert_eq!(options.exit_codes.apply(from), if is_given { to } else { from });
        }
    }

    #[test]
    fn a_hundred_thousand_command_lines_read_back_as_they_were_written() {
        let mut chance = Chance::new();
        for _ in 0..INPUTS {
            let (given, mut words) = command_line(&mut chance);
            let command = add_command(&mut chance, &mut words);
            let (_, Ok(Request::Run(options))) = parse_words(&words) else { panic!("{words:?}") };
            assert_eq!(texts(options.command.iter()), command, "{words:?}");
            check_options(&options, &given);
        }
    }

    /// Where the command starts, if all words before it are options, read the plain way.
    fn start_by_hand(words: &[String]) -> Option<usize> {
        let mut at = 0;
        while let Some(word) = words.get(at).filter(|it| it.len() > 1 && it.starts_with('-')) {
            at += 1;
            if word == "--" {
                break;
            } else if let Some(long) = word.strip_prefix("--") {
                let (name, value) =
                    long.split_once('=').map_or((long, None), |it| (it.0, Some(it.1)));
                let values = OPTIONS.iter().find(|it| it.1 == name)?.2;
                at += usize::from(value.is_none() && !values.is_empty());
                if values.is_empty() && value.is_some() {
                    return None;
                }
                continue;
            }
            for (index, letter) in word.char_indices().skip(1) {
                let values = OPTIONS.iter().find(|it| it.0.chars().eq([letter]))?.2;
                if !values.is_empty() {
                    at += usize::from(index + 1 == word.len());
                    break;
                }
            }
        }
        (at <= words.len()).then_some(at)
    }

    #[test]
    fn a_hundred_thousand_heaps_of_words_end_at_the_command_or_in_one_line() {
        let pieces = [
            "-", "--", "=", "e", "s", "v", "t", "x", "5", "é", "\n", ":", "TERM", "env", "timeout",
            "rewrite", "map-exit", "wait-all", "A=1", "1:2", " ",
        ];
        let (mut chance, mut right) = (Chance::new(), 0);
        for _ in 0..INPUTS {
            let words: Vec<_> = (0..chance.below(5)).map(|_| chance.text(&pieces, 4)).collect();
            let start = start_by_hand(&words);
            match parse_words(&words).1 {
                Ok(Request::Run(options)) => {
                    let start = start.unwrap_or_else(|| panic!("{words:?}"));
                    assert_eq!(texts(options.command.iter()), words[start..], "{words:?}");
                    right += 1;
                }
                Ok(Request::Print(_)) => panic!("{words:?}: there is no such option in it"),
                Err(misuse) => {
                    let is_a_value = matches!(misuse, Misuse::WrongValue(..));
                    assert!(is_a_value || start.is_none(), "{words:?}");
                    let mut line = Line::new();
                    misuse.explain(&mut line, personality::called(None).options);
                    assert!(!line.as_bytes().contains(&b'\n'), "{words:?}");
                }
            }
        }
        assert!(right > INPUTS / 10, "{right}");
    }

    /// What one to three digits say, if that is a code.
    fn code_by_hand(text: &str) -> Option<u8> {
        let digits = text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits)
    }

    #[test]
    fn two_hundred_thousand_exit_code_rules_change_one_code_or_nothing() {
        let pieces = ["0", "1", "2", "25", "5", "6", "9", "12", "+", "-", " ", "x", ":", "é"];
        let (mut chance, mut taken) = (Chance::new(), 0);
        for _ in 0..2 * INPUTS {
            let rule = [0, 1].map(|_| match chance.below(4) {
                0 => chance.text(&pieces, 4),
                _ => chance.below(300).to_string(),
            });
            let rule = rule.join(":");
            let mut codes = ExitCodes::unchanged();
            let added = codes.add(rule.as_bytes()).is_some();
            let (from, to) = rule.split_once(':').unwrap();
            let right = code_by_hand(from).zip(code_by_hand(to));
            assert_eq!(added, right.is_some(), "{rule}");
            let mut expected = ExitCodes::unchanged().0;
            if let Some((from, to)) = right {
                expected[usize::from(from)] = to;
            }
            assert_eq!(codes.0, expected, "{rule}");
            taken += usize::from(added);
        }
        assert!(taken > INPUTS / 2, "{taken}");
    }
}

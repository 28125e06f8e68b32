//! Which init we are: the options, variables, texts and exit codes of each, as tables.

use std::ffi::{CStr, c_int};

use crate::args::{Options, Reading, Setting, Spec};

/// One command line in front of the supervisor.
pub struct Personality {
    /// What we are called, as the last part of `argv[0]`.
    called: &'static [&'static str],
    pub name: &'static str,
    /// What messages begin with.
    pub prefix: &'static str,
    pub options: &'static [Spec],
    /// Sets what differs from pid1's own behaviour before any option is read.
    pub start: fn(&mut Options),
    pub not_first: NotFirst,
    pub codes: Codes,
    pub help: &'static [&'static str],
    pub version: &'static [&'static str],
    /// The descriptor that those two go to.
    pub print_to: c_int,
    /// What is said when there is no command.
    pub no_command: &'static [&'static str],
    /// What is said after the line that says what is wrong with the command line.
    pub after_misuse: &'static [&'static str],
}

/// What to do when somebody else is PID 1.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NotFirst {
    /// Become the command.
    Exec,
    Supervise,
    SuperviseAndWarn,
    /// Supervise as the subreaper of our descendants.
    Subreaper,
}

/// What we exit with when it is not the child's code.
#[derive(Clone, Copy)]
pub struct Codes {
    pub not_found: u8,
    pub not_executable: u8,
    /// Anything else that we could not do.
    pub failure: u8,
    /// A wrong command line.
    pub misuse: u8,
}

/// The personality that goes with `argv[0]`; our own for any other name.
pub fn called(name: Option<&CStr>) -> &'static Personality {
    find(last_part(name.unwrap_or(c"").to_bytes())).unwrap_or(&PID1)
}

/// Whether `name` is that of an init: one of those whose names we take.
pub fn is_an_init(name: &[u8]) -> bool {
    find(name).is_some()
}

fn find(name: &[u8]) -> Option<&'static Personality> {
    let is_it = |it: &&&Personality| it.called.iter().any(|called| called.as_bytes() == name);
    ALL.iter().find(is_it).copied()
}

/// What follows the last slash of `path`, if there is one.
pub fn last_part(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

static ALL: [&Personality; 4] = [&PID1, &TINI, &DUMB_INIT, &CATATONIT];

const fn option(setting: Setting, short: u8, long: &'static str) -> Spec {
    Spec { setting, short, long, variable: "", reading: Reading::Value }
}

impl Spec {
    const fn or(self, variable: &'static str) -> Self {
        self.or_reading(variable, Reading::Value)
    }

    const fn or_reading(self, variable: &'static str, reading: Reading) -> Self {
        Spec { variable, reading, ..self }
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `docker info` shows as the version of its init: the word behind `git.`, which ends at the
/// next dot.
const REVISION: &str = concat!(
    "pid1-",
    env!("CARGO_PKG_VERSION_MAJOR"),
    "-",
    env!("CARGO_PKG_VERSION_MINOR"),
    "-",
    env!("CARGO_PKG_VERSION_PATCH"),
);

pub const LICENCE: &[&str] = &["\
pid1 is free software under the MIT License: use it, change it and pass it on, with
its notice and without any warranty. https://spdx.org/licenses/MIT
"];

static PID1: Personality = Personality {
    called: &["pid1"],
    name: "pid1",
    prefix: "pid1: ",
    options: &[
        option(Setting::Env, b'e', "env"),
        option(Setting::User, b'u', "user").or("PID1_USER"),
        option(Setting::Group, b'g', "group").or("PID1_GROUP"),
        option(Setting::Workdir, b'w', "workdir").or("PID1_WORKDIR"),
        option(Setting::Timeout, b't', "timeout").or("PID1_TIMEOUT"),
        option(Setting::KillAfter, 0, "kill-after").or("PID1_KILL_AFTER"),
        option(Setting::Drain, 0, "drain").or("PID1_DRAIN"),
        option(Setting::Rewrite, 0, "rewrite").or("PID1_REWRITE"),
        option(Setting::MapExit, 0, "map-exit").or("PID1_MAP_EXIT"),
        option(Setting::SignalGroup, 0, "signal-group").or("PID1_SIGNAL_GROUP"),
        option(Setting::WaitAll, 0, "wait-all").or("PID1_WAIT_ALL"),
        option(Setting::Subreaper, b's', "subreaper").or("PID1_SUBREAPER"),
        option(Setting::ParentDeathSignal, 0, "parent-death-signal"),
        option(Setting::Verbose, b'v', "verbose")
            .or_reading("PID1_VERBOSE", Reading::Count { from: 0 }),
        option(Setting::Log, 0, "log").or("PID1_LOG"),
        option(Setting::Help, b'h', "help"),
        option(Setting::Version, b'V', "version"),
    ],
    start: |_| {},
    not_first: NotFirst::Exec,
    codes: Codes { not_found: 127, not_executable: 126, failure: 125, misuse: 125 },
    help: &["\
Usage: pid1 [OPTIONS] [--] COMMAND [ARG]...

Runs COMMAND as the first process of a container: forwards signals to it, reaps
orphans, and when it ends gives what remains time to end too. Exits with its code.

Options, each with the variable that does the same:
  -e, --env NAME=VALUE      set a variable for COMMAND; may be repeated
  -u, --user USER[:GROUP]   run COMMAND as this user, name or number  PID1_USER
  -g, --group GROUP         run COMMAND with this group               PID1_GROUP
  -w, --workdir DIR         run COMMAND in this directory             PID1_WORKDIR
  -t, --timeout SECONDS     time between SIGTERM and SIGKILL for what
                            remains when COMMAND has ended; 5         PID1_TIMEOUT
      --kill-after SECONDS  end everything if COMMAND runs on this
                            long after a SIGTERM                      PID1_KILL_AFTER
      --drain SECONDS       hold the first SIGTERM back this long     PID1_DRAIN
      --rewrite FROM:TO     forward TO for FROM, 0 for nothing; may
                            be repeated                               PID1_REWRITE
      --map-exit FROM:TO    exit with TO for FROM; may be repeated    PID1_MAP_EXIT
      --signal-group        signal COMMAND's whole process group      PID1_SIGNAL_GROUP
      --wait-all            when COMMAND has ended, wait for what
                            remains instead of ending it              PID1_WAIT_ALL
  -s, --subreaper           supervise even when not PID 1             PID1_SUBREAPER
      --parent-death-signal SIGNAL
                            get SIGNAL when our parent dies
  -v, --verbose             say more, up to three times               PID1_VERBOSE
      --log text|json       how to say it                             PID1_LOG
  -h, --help                print this
  -V, --version             print the version

Exit codes: COMMAND's own, 128 + N if signal N ended it, 127 if there is no such
program, 126 if it cannot be run, 125 if pid1 itself failed.
"],
    version: &["pid1 ", VERSION, "\n"],
    print_to: 1,
    no_command: &["\
pid1: No arguments provided
pid1: an ENTRYPOINT in shell form passes none on, write ENTRYPOINT [\"/sbin/pid1\"]
"],
    after_misuse: &[],
};

/// tini 0.19, which Docker calls docker-init and runs for `docker run --init`.
static TINI: Personality = Personality {
    called: &["tini", "tini-static", "docker-init"],
    name: "tini",
    prefix: "tini: ",
    options: &[
        option(Setting::Subreaper, b's', "").or_reading("TINI_SUBREAPER", Reading::Presence),
        option(Setting::ParentDeathSignal, b'p', ""),
        option(Setting::Verbose, b'v', "").or_reading("TINI_VERBOSITY", Reading::Count { from: 1 }),
        option(Setting::WarnOfReaping, b'w', ""),
        option(Setting::SignalGroup, b'g', "")
            .or_reading("TINI_KILL_PROCESS_GROUP", Reading::Presence),
        option(Setting::ForgiveExit, b'e', ""),
        option(Setting::Licence, b'l', ""),
        option(Setting::Help, b'h', ""),
        option(Setting::Version, 0, "version"),
    ],
    start: |_| {},
    not_first: NotFirst::SuperviseAndWarn,
    codes: Codes { not_found: 127, not_executable: 126, failure: 1, misuse: 1 },
    help: TINI_HELP,
    // What `docker info` reads its init's version and commit from.
    version: &["tini version ", VERSION, "_pid1 - git.", REVISION, "\n"],
    print_to: 1,
    no_command: TINI_HELP,
    after_misuse: TINI_HELP,
};

const TINI_HELP: &[&str] = &[
    "tini (tini version ",
    VERSION,
    "_pid1)
Usage: tini [OPTIONS] PROGRAM -- [ARGS] | --version

Options:
  --version   print the version
  -h          print this
  -s          be a child subreaper when not PID 1
  -p SIGNAL   get SIGNAL when the parent dies
  -v          say more, up to three times
  -w          say when an orphan is reaped
  -g          signal the program's whole process group
  -e CODE     exit with 0 for CODE; may be repeated
  -l          print the licence

Variables:
  TINI_SUBREAPER            as -s
  TINI_VERBOSITY            how much is said: 1, or 2 for -v, and so on
  TINI_KILL_PROCESS_GROUP   as -g
",
];

/// dumb-init 1.2.
static DUMB_INIT: Personality = Personality {
    called: &["dumb-init"],
    name: "dumb-init",
    prefix: "[dumb-init] ",
    options: &[
        option(Setting::SingleChild, b'c', "single-child")
            .or_reading("DUMB_INIT_SETSID", Reading::Only("0")),
        option(Setting::Rewrite, b'r', "rewrite"),
        option(Setting::Debug, b'v', "verbose").or_reading("DUMB_INIT_DEBUG", Reading::Only("1")),
        option(Setting::Help, b'h', "help"),
        option(Setting::Version, b'V', "version"),
    ],
    start: Options::whole_session,
    not_first: NotFirst::Supervise,
    codes: Codes { not_found: 2, not_executable: 2, failure: 2, misuse: 1 },
    help: &[
        "dumb-init v",
        VERSION,
        "_pid1
Usage: dumb-init [option] command [[arg] ...]

Options:
   -c, --single-child   no session for the command, and no signals for its group
   -r, --rewrite s:r    forward r when s arrives, 0 for nothing; may be repeated
   -v, --verbose        say what happens, to standard error
   -h, --help           print this
   -V, --version        print the version
",
    ],
    version: &["dumb-init v", VERSION, "_pid1\n"],
    print_to: 2,
    no_command: &["\
Usage: dumb-init [option] program [args]
Try dumb-init --help for full usage.
"],
    after_misuse: &[],
};

/// catatonit 0.1, which podman runs for `podman run --init` and as its pause process.
static CATATONIT: Personality = Personality {
    called: &["catatonit", "podman-init"],
    name: "catatonit",
    prefix: "catatonit: ",
    options: &[
        option(Setting::SignalGroup, b'g', ""),
        option(Setting::Pause, b'P', ""),
        option(Setting::Licence, b'L', ""),
        option(Setting::Help, b'h', ""),
        option(Setting::Version, b'V', "version"),
        // A variable only.
        option(Setting::Debug, 0, "").or_reading("CATATONIT_DEBUG", Reading::Presence),
    ],
    start: |_| {},
    not_first: NotFirst::Subreaper,
    codes: Codes { not_found: 1, not_executable: 1, failure: 1, misuse: 1 },
    help: CATATONIT_HELP,
    version: &["tini version ", VERSION, "_pid1\n"],
    print_to: 1,
    no_command: &["catatonit: missing program name\n", CATATONIT_USAGE],
    after_misuse: &[CATATONIT_USAGE],
};

const CATATONIT_USAGE: &str = "usage: catatonit [-ghLPV] [--] <progname> [<arguments>...]\n";
const CATATONIT_HELP: &[&str] = &[
    CATATONIT_USAGE,
    "
options:
  -g              signal the program's whole process group
  -h              print this
  -L              print the licence
  -P              run no program: reap until told to end
  -V, --version   print the version
",
];

//! What is compared: one row a behaviour, with the experiment that shows it.

/// How the other inits spell what a row needs; none where the init has no such option.
#[derive(Debug, Default)]
pub struct Options {
    pub pid1: &'static [&'static str],
    pub tini: Option<&'static [&'static str]>,
    pub dumb_init: Option<&'static [&'static str]>,
    pub catatonit: Option<&'static [&'static str]>,
    pub pid1_rs: Option<&'static [&'static str]>,
    pub fpco_pid1: Option<&'static [&'static str]>,
}

/// What shows that an init does it.
#[derive(Debug)]
pub enum Judge {
    /// The exit code.
    Code(i32),
    /// A part of what is printed.
    Says(&'static str),
}

/// One behaviour.
#[derive(Debug)]
pub struct Row {
    /// What the table calls it.
    pub name: &'static str,
    /// Shell commands before the init; the last is the `exec` of it, unless the row is about an
    /// init that is not the first process.
    pub before: &'static str,
    /// The options to be set, where it takes any.
    pub options: Option<Options>,
    /// The words after the options, with `$PROBE` and `$SCRATCH` for the shell to fill in.
    pub program: &'static str,
    pub judge: Judge,
}

const EXEC: &str = r#"exec "$@""#;

/// At the head of a session with a terminal, as engines have it, and in a PID namespace within
/// ours, since the other end of the terminal has to be outside of it.
const TYPED: &str = r#"
{ sleep 0.5; printf 'sleep 60\n'; sleep 0.5; printf '\032'; sleep 0.5
  printf 'echo ali""ve\n'; sleep 0.3; printf 'exit\nexit\n'; sleep 0.3; } |
  script -qec "unshare --pid --fork --mount-proc --kill-child=KILL setsid --ctty $*" /dev/null"#;

const fn row(name: &'static str, program: &'static str, judge: Judge) -> Row {
    Row { name, before: EXEC, options: None, program, judge }
}

const NO_OPTIONS: Options = Options {
    pid1: &[],
    tini: None,
    dumb_init: None,
    catatonit: None,
    pid1_rs: None,
    fpco_pid1: None,
};

/// Every row, as the table has them. pid1's answer is yes everywhere.
pub const ROWS: &[Row] = &[
    row("exits with the program's code", "exit 7", Judge::Code(7)),
    row("exits with 128 + the signal that ended it", "kill -TERM $$", Judge::Code(143)),
    row("… a real-time signal too", "exec $PROBE probe die 40", Judge::Code(168)),
    row("forwards TERM", "signals='15'; count", Judge::Says("all came")),
    row("forwards INT", "signals='2'; count", Judge::Says("all came")),
    row("forwards HUP, QUIT, USR1, USR2", "signals='1 3 10 12'; count", Judge::Says("all came")),
    row(
        "forwards ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS",
        "signals='4 5 6 7 8 11 31'; count",
        Judge::Says("all came"),
    ),
    row("forwards real-time signals", "signals='35 40 64'; count", Judge::Says("all came")),
    row(
        "… to the program's whole process group, if asked",
        "( trap 'echo member' USR1; : > $SCRATCH/ready; pause ) & trap : USR1
        until [ -e $SCRATCH/ready ]; do sleep 0.05; done; kill -USR1 1; pause",
        Judge::Says("member"),
    )
    .with(Options {
        pid1: &["--signal-group"],
        tini: Some(&["-g"]),
        dumb_init: Some(&[]),
        catatonit: Some(&["-g"]),
        ..NO_OPTIONS
    }),
    row(
        "stays when it may not signal the program",
        "( sleep 0.3; kill -USR1 1 ) & \
        exec setpriv --reuid=65534 --clear-groups sh -c 'sleep 0.8; exit 7'",
        Judge::Code(7),
    )
    .before(r#"exec setpriv --bounding-set=-kill "$@""#),
    row("reaps orphans", "exec $PROBE probe orphans 20", Judge::Says("0 zombies")),
    row(
        "what remains at the end gets SIGTERM and time to act on it",
        "remain :",
        Judge::Says("finished"),
    ),
    row("… what is stopped too", "remain 'kill -STOP $pid'", Judge::Says("finished")),
    row("leaves as soon as nothing is left", "setsid sleep 60 & exit 7", Judge::Says("at once"))
        .before(
            r#"timeout --signal=KILL 3 unshare --pid --fork --mount-proc --kill-child=KILL "$@"
            [ $? = 7 ] && echo at once"#,
        ),
    row(
        "waits for all that is left instead, if asked",
        "(sleep 0.5; echo last) & exit 7",
        Judge::Says("last"),
    )
    .with(Options { pid1: &["--wait-all"], ..NO_OPTIONS }),
    row(
        "ends though nobody reads what it says",
        "dd if=/dev/zero bs=4096 count=100 oflag=nonblock of=/proc/1/fd/2 2> /dev/null; exit 7",
        Judge::Code(7),
    )
    .before(r#"mkfifo $SCRATCH/full; exec 8<> $SCRATCH/full; exec "$@" 2>&8"#)
    .with(Options {
        pid1: &["-vvv"],
        tini: Some(&["-vvv"]),
        dumb_init: Some(&["-v"]),
        catatonit: Some(&[]),
        pid1_rs: Some(&[]),
        fpco_pid1: Some(&[]),
    }),
    row("lets Ctrl-Z stop what a shell runs", "=-- sh -i", Judge::Says("alive")).before(TYPED),
    row(
        "hands on ignored and blocked signals",
        // Not in a shell, which would have its own.
        "=-- grep -ozE SigBlk:.{14}[2367abef].{3}SigIgn:.{16}[13579bdf] /proc/self/status",
        Judge::Says("SigBlk"),
    )
    .before(r#"exec env --ignore-signal=HUP --block-signal=USR1 "$@""#),
    row(
        "hands on sockets (`LISTEN_PID`)",
        "[ $LISTEN_PID = $$ ] && echo mine",
        Judge::Says("mine"),
    )
    .before(r#"LISTEN_PID=1; export LISTEN_PID; exec "$@""#),
    row("runs where SIGCHLD was ignored", "exit 7", Judge::Code(7))
        // A shell would not keep it ignored over an exec.
        .before(r#"exec env --ignore-signal=CHLD "$@""#),
    row("runs with a closed stdin", "exit 7", Judge::Code(7)).before(r#"exec "$@" <&-"#),
    row("runs without /proc", "exit 7", Judge::Code(7))
        .before(r#"mount -t tmpfs none /proc; exec "$@""#),
    row("keeps no descriptor above 2 open", "closed", Judge::Says("closed"))
        .before(r#"exec "$@" 9</dev/null"#),
    row("sleeps while nothing happens", "idle", Judge::Says("idle")),
    row("its options end at the command (`ls -l`)", "=ls -l /dev/null", Judge::Says("crw")),
    row("a missing program is 127", "=/there/is/none", Judge::Code(127)),
    row("one that is not executable is 126", "=/etc/passwd", Judge::Code(126)),
    row("runs a script without `#!`", "=$SCRATCH/script", Judge::Code(7)),
    row(
        "runs the program as another user, itself as root",
        "read -r _ _ _ uid _ <<E\n$(grep ^Uid /proc/1/status | tr '\\t' ' ')\nE\n\
         echo $(id -u) of $uid",
        Judge::Says("65534 of 0"),
    )
    .with(Options {
        pid1: &["-u", "65534:65534"],
        pid1_rs: Some(&["-u", "65534", "-g", "65534"]),
        fpco_pid1: Some(&["-u", "nobody", "-g", "nogroup"]),
        ..NO_OPTIONS
    }),
    row(
        "changes one signal into another",
        "trap 'echo rewritten; exit' USR2; trap : USR1; kill -USR1 1; pause",
        Judge::Says("rewritten"),
    )
    .with(Options {
        pid1: &["--rewrite", "10:12"],
        dumb_init: Some(&["-r", "10:12"]),
        ..NO_OPTIONS
    }),
    row("changes one exit code into another", "exit 143", Judge::Code(0)).with(Options {
        pid1: &["--map-exit", "143:0"],
        tini: Some(&["-e", "143"]),
        ..NO_OPTIONS
    }),
    row(
        "ends a program that ignores SIGTERM",
        "trap 'echo ignored' TERM; kill -TERM 1; pause; echo stayed; exit 7",
        Judge::Code(137),
    )
    .with(Options {
        pid1: &["--kill-after", "0.2", "-t", "0.2"],
        pid1_rs: Some(&["-t", "1"]),
        fpco_pid1: Some(&["-t", "1"]),
        ..NO_OPTIONS
    }),
    row(
        "holds SIGTERM back for a while (drain)",
        "trap 'came=1' TERM; kill -TERM 1; sleep 0.2; [ $came ] || { pause; echo held $came; }",
        Judge::Says("held 1"),
    )
    .with(Options { pid1: &["--drain", "0.5"], ..NO_OPTIONS }),
    row("logs JSON", "exit 7", Judge::Says("{\""))
        .with(Options { pid1: &["-v", "--log", "json"], ..NO_OPTIONS }),
    row("adopts orphans where it is not PID 1", "adopted", Judge::Says("adopted"))
        .before(r#""$@"; exit $?"#)
        .with(Options {
            pid1: &["-s"],
            tini: Some(&["-s"]),
            dumb_init: Some(&[]),
            catatonit: Some(&[]),
            pid1_rs: Some(&[]),
            fpco_pid1: Some(&[]),
        }),
    row(
        "tells the program when its own parent dies",
        "trap 'echo orphaned; exit' USR1; : > $SCRATCH/ready; pause",
        Judge::Says("orphaned"),
    )
    .before(
        r#"sh -c '"$@" & wait' sh "$@" & parent=$!
        until [ -e $SCRATCH/ready ]; do sleep 0.05; done; kill -KILL $parent; sleep 1"#,
    )
    .with(Options {
        pid1: &["-s", "--parent-death-signal", "USR1"],
        tini: Some(&["-s", "-p", "SIGUSR1"]),
        ..NO_OPTIONS
    }),
];

impl Row {
    const fn before(mut self, before: &'static str) -> Row {
        self.before = before;
        self
    }

    const fn with(mut self, options: Options) -> Row {
        self.options = Some(options);
        self
    }
}

/// What the programs of the rows are written in.
pub const LIBRARY: &str = r#"
# Until a trap ends it, or 2 s.
pause() { i=0; while [ $i -lt 40 ]; do sleep 0.05; i=$((i + 1)); done; }
# Sends each of $signals to the init and says whether all came back, within 2 s.
count() {
  n=0 want=0 i=0
  for s in $signals; do want=$((want + 1)); trap 'n=$((n + 1))' $s; done
  for s in $signals; do kill -$s 1; done
  while [ $n -lt $want ] && [ $i -lt 40 ]; do sleep 0.05; i=$((i + 1)); done
  [ $n = $want ] && echo all came
}
# Leaves a process that needs 0.3 s to end, after $1 was done to it.
remain() {
  setsid sh -c 'trap "sleep 0.3; echo finished; exit" TERM
    echo $$ > $SCRATCH/half; mv $SCRATCH/half $SCRATCH/pid; while :; do sleep 0.05; done' &
  until [ -e $SCRATCH/pid ]; do sleep 0.05; done
  pid=$(cat $SCRATCH/pid)
  eval "$1"
}
# Whether the init lets go of descriptor 9, within 2 s: it may do so while the program runs already.
closed() {
  i=0
  while [ -e /proc/1/fd/9 ] && [ $i -lt 40 ]; do sleep 0.05; i=$((i + 1)); done
  [ -e /proc/1/fd/9 ] || echo closed
}
switches() { grep ^voluntary /proc/1/status; }
idle() { sleep 0.3; a=$(switches); sleep 2.2; [ "$a" = "$(switches)" ] && echo idle; }
adopted() {
  ( sleep 5 > /dev/null & echo $! > $SCRATCH/pid )
  [ $PPID != 1 ] || return 1
  grep -q "^PPid:.$PPID$" /proc/$(cat $SCRATCH/pid)/status && echo adopted
}
"#;

//! Hard use: a storm of signals, many orphans, and many inits one after the other.
//!
//! Each is bounded by a constant. `PID1_HARD=1` asks for the long form, which takes a minute or
//! two; without it they are short enough for every run.

use std::env;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::container::{Container, Running, sh};
use crate::limits::{arriving, is_instrumented};
use crate::running::{children, trappable};

/// How long the storm lasts.
const STORM: Duration = Duration::from_secs(3);
const LONG_STORM: Duration = Duration::from_secs(30);

/// How many orphans there are at a time: few enough for the process limits of an ordinary machine.
const BATCH: usize = 2_000;
const BATCHES: usize = 5;
/// 100,000 orphans.
const MANY_BATCHES: usize = 50;

/// How many inits are started and stopped one after the other.
const INITS: usize = 50;
const MANY_INITS: usize = 500;

/// The long form may take that long on a slow machine, under an emulator.
pub const LONG_DEADLINE: Duration = Duration::from_mins(5);

/// Says that the test runs in a process of its own.
const ALONE: &str = "PID1_TEST_IS_ALONE";

/// One of two, the latter if the long form is asked for.
fn either<T>(short: T, long: T) -> T {
    if env::var("PID1_HARD").is_ok_and(|it| it == "1") { long } else { short }
}

/// Notes down each signal that it gets, and does what it reads line by line. Meanwhile others fork
/// and leave orphans that die at once.
const NOTE_SIGNALS: &str = "
    n=1; while [ $n -le 64 ]; do
        case $n in 9|19|17|32|33) ;; *) trap \"seen$n=1\" $n ;; esac
        n=$((n + 1))
    done
    echo ready
    while :; do
        # Also over when a signal comes.
        read order || continue
        case $order in
        fork) while :; do (true & true &); done & forker=$! ;;
        stop) kill -KILL $forker; wait $forker ;;
        end) exit 7 ;;
        esac
        report=
        n=1; while [ $n -le 64 ]; do
            eval \"[ -z \\\"\\$seen$n\\\" ] || report=\\\"\\$report $n\\\"; seen$n=\"
            n=$((n + 1))
        done
        echo \"$order:$report\"
    done";

/// A container in the storm.
struct Storm {
    running: Running,
    child: String,
    random: u64,
}

impl Storm {
    fn start() -> Self {
        let container = Container::init(&sh(NOTE_SIGNALS)).deadline(LONG_DEADLINE);
        let mut running = container.stdin(Stdio::piped()).start();
        running.expect("ready");
        let path = format!("/proc/{0}/task/{0}/children", running.init);
        let child = fs::read_to_string(path).unwrap().trim().to_owned();
        Self { running, child, random: 0x9e37_79b9_7f4a_7c15 }
    }

    /// Gives the child an `order`. Tells which signals it has got since the one before.
    fn order(&mut self, order: &str) -> Vec<i32> {
        // A signal would cut the line short, so first all have to be there.
        self.running.wait_until_idle();
        let pending = |line: &str| line.contains("Pnd:") && !line.ends_with("\t0000000000000000");
        while fs::read_to_string(format!("/proc/{}/status", self.child))
            .unwrap()
            .lines()
            .any(pending)
        {
            thread::yield_now();
        }
        writeln!(self.running.stdin.as_ref().unwrap(), "{order}").unwrap();
        let line = self.running.line();
        let (answered, signals) = line.split_once(':').unwrap_or_else(|| panic!("{line:?}"));
        assert_eq!(answered, order);
        signals.split_whitespace().map(|it| it.parse().unwrap()).collect()
    }

    /// Sends each of `signals` once, in an order of chance.
    fn send(&mut self, mut signals: Vec<i32>) {
        while !signals.is_empty() {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let index = usize::try_from(self.random >> 33).unwrap() % signals.len();
            self.running.signal(signals.swap_remove(index));
        }
    }
}

/// Lasts 3 seconds, or 30 with `PID1_HARD=1`.
#[test]
fn in_a_storm_the_last_signal_of_each_kind_arrives() {
    let all = arriving("in_a_storm_the_last_signal_of_each_kind_arrives", trappable());
    // For the kernel, to stop is to take back what would continue, and the other way round.
    let is_stop = |signal: &i32| [20, 21, 22].contains(signal);
    let (stops, others): (Vec<_>, Vec<_>) = all.iter().copied().partition(is_stop);
    let kinds = [others, stops];
    let mut storm = Storm::start();
    storm.order("fork");
    let end = Instant::now() + either(STORM, LONG_STORM);
    while Instant::now() < end {
        for _ in 0..50 {
            storm.send(all.clone());
        }
        // From here on, whatever the child notes down was sent by the lines below, once.
        storm.order("forget");
        for kind in &kinds {
            storm.send(kind.clone());
            assert_eq!(storm.order("report"), *kind);
        }
    }
    storm.order("stop");
    let child_alone = |states: &[char]| states.len() == 1 && states != ['Z'];
    while !child_alone(&children(&storm.running)) {
        assert!(Instant::now() < end + LONG_DEADLINE, "{:?}", children(&storm.running));
        thread::yield_now();
    }
    writeln!(storm.running.stdin.as_ref().unwrap(), "end").unwrap();
    assert_eq!(storm.running.finish().status.code(), Some(7));
}

/// For each line that it reads, leaves as many orphans behind as the line says, and says so. Each
/// ends when it has got a line from descriptor 7.
const MANY_ORPHANS: &str = "
    echo ready
    while read count; do
        (while [ $count -gt 0 ]; do read line <&7 & count=$((count - 1)); done)
        echo born
    done";

/// What `/proc` says of the first process's memory: resident, and what is its own of it.
fn memory(running: &Running) -> Vec<String> {
    running.wait_until_idle();
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", running.init)).unwrap();
    let counted = |line: &&str| line.starts_with("Rss:") || line.starts_with("Anonymous:");
    rollup.lines().filter(counted).map(str::to_owned).collect()
}

/// How many descriptors the first process has open.
fn descriptors(running: &Running) -> usize {
    fs::read_dir(format!("/proc/{}/fd", running.init)).unwrap().count()
}

/// 10,000 in all, or 100,000 with `PID1_HARD=1`.
#[test]
fn ten_thousands_of_orphans_leave_nothing_with_init() {
    let container = Container::init(&sh(MANY_ORPHANS)).deadline(LONG_DEADLINE);
    let (mut release, container) = container.with_pipe_to_read();
    let mut running = container.stdin(Stdio::piped()).start();
    running.expect("ready");
    let (mut before, mut open) = (Vec::new(), 0);
    for batch in 0..either(BATCHES, MANY_BATCHES) {
        writeln!(running.stdin.as_ref().unwrap(), "{BATCH}").unwrap();
        running.expect("born");
        assert_eq!(children(&running).len(), 1 + BATCH);
        release.write_all(&[b'\n'; BATCH]).unwrap();
        let deadline = Instant::now() + LONG_DEADLINE;
        while children(&running).len() > 1 {
            assert!(Instant::now() < deadline, "{:?}", children(&running));
            thread::sleep(Duration::from_millis(1));
        }
        if batch == 0 {
            // By now it has run all that it will run.
            before = memory(&running);
            open = descriptors(&running);
        }
    }
    // An emulator's memory grows with what it has translated, a sanitizer's with what it has seen.
    assert!(is_instrumented() || memory(&running) == before, "{before:?} {:?}", memory(&running));
    assert_eq!(before.len(), 2);
    assert_eq!(descriptors(&running), open);
    drop(running.stdin.take());
    assert_eq!(running.finish().status.code(), Some(0));
}

/// What this process has open, and its children, dead or alive.
fn possessions() -> (usize, String) {
    let open = fs::read_dir("/proc/self/fd").unwrap().count();
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    (open, tasks.filter_map(|task| fs::read_to_string(task.join("children")).ok()).collect())
}

/// 50, or 500 with `PID1_HARD=1`.
#[test]
fn one_init_after_the_other_leaves_nothing_behind() {
    let test = "hard::one_init_after_the_other_leaves_nothing_behind";
    if env::var_os(ALONE).is_none() {
        // Other tests beside it have descriptors and children too.
        let mut alone = Command::new(env::current_exe().unwrap());
        let output = alone.args(["--exact", test]).env(ALONE, "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    // What is left over becomes ours.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let script = "(sleep 1000 & sleep 1000 & sleep 1000 &); exit 3";
    let run = || Container::init(&sh(script)).run_to(3);
    run();
    let before = possessions();
    assert_eq!(before.1, "");
    for _ in 0..either(INITS, MANY_INITS) {
        run();
    }
    assert_eq!(possessions(), before);
}

//! `cargo xtask bench`: pid1 beside the other inits and beside none, measured in one run.

mod images;
mod measure;
pub mod peers;
mod picture;
mod report;
mod sizes;

use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::unistd::sync;

use crate::{Context, files, flags, paths, platform};
use measure::Namespaces;
use peers::Peer;
use report::{Report, Row};

/// How often each init is started.
const STARTS: usize = 1000;

/// How often each is started to be signalled, and how often to be given orphans.
const ROUNDS: usize = 10;

/// How many signals it gets in a round.
const SIGNALS: usize = 400;

/// How many orphans it gets at once.
const ORPHANS: &str = "10000";

/// The command.
pub fn run(context: &Context, flags: &flags::Bench) -> Result<()> {
    match flags.what {
        flags::Measured::Inits => bench(context, flags),
        flags::Measured::Images => images::images(context, flags.readme),
        flags::Measured::Sizes => sizes::sizes(flags.readme),
    }
}

/// Measures everything, prints the table, writes `target/dist/bench.json`, and the README's table
/// if asked to.
fn bench(context: &Context, flags: &flags::Bench) -> Result<()> {
    let peers = peers::all(context)?;
    let rows = measure_all(context, &peers)?;
    let (kernel, date, machine) = (report::kernel()?, report::today(), report::machine());
    let report = Report { kernel, date, machine, rows };
    let json = paths::dist().join("bench.json");
    let text = serde_json::to_string_pretty(&report).context("cannot write the figures as JSON")?;
    files::write(&json, (text + "\n").as_bytes(), files::PLAIN)?;
    if flags.readme {
        report::write_readme(&report)?;
    }
    print!("{}", report::markdown(&report));
    Ok(())
}

fn measure_all(context: &Context, peers: &[Peer]) -> Result<Vec<Row>> {
    // A file that was just built has pages of its own until they are written back.
    sync();
    let probe = paths::binary(platform::host(), "docker-testing");
    let with = |words: &'static [&'static str]| -> Vec<&OsStr> {
        [probe.as_os_str()].into_iter().chain(words.iter().map(OsStr::new)).collect()
    };
    let nothing = with(&["probe", "exit", "0"]);
    let namespaces = Namespaces::new()?;
    context.ui.say(format!("starting each of {} inits {STARTS} times", peers.len()));
    let mut starts = measure::on_one_processor(|| {
        in_turns(context, peers, STARTS, |peer| Ok(vec![namespaces.start(peer, &nothing)?]))
    })?;
    context.ui.say(format!("sending each {} signals", ROUNDS * SIGNALS));
    let answering = with(&["probe", "answer", "10"]);
    let mut signals =
        in_turns(context, peers, ROUNDS, |peer| namespaces.latency(peer, &answering, SIGNALS))?;
    context.ui.say(format!("giving each {ORPHANS} orphans {ROUNDS} times"));
    let releasing = with(&["probe", "release", ORPHANS]);
    let mut reaps = in_turns(context, peers, ROUNDS, |peer| {
        let reap = peer.path.is_some().then(|| namespaces.reap(peer, &releasing)).transpose()?;
        Ok(Vec::from_iter(reap))
    })?;
    let mut rows = Vec::new();
    for (peer, (starts, (signals, reaps))) in
        peers.iter().zip(starts.iter_mut().zip(signals.iter_mut().zip(&mut reaps)))
    {
        context.interrupt.check()?;
        context.ui.say(format!("watching {} do nothing", peer.name));
        let idle = namespaces.idle(peer, &with(&["probe", "hang"]))?;
        let size = |path| fs::metadata(path).map(|it| it.len());
        let bytes = peer.path.as_ref().map(size).transpose().context("cannot read a size")?;
        rows.push(Row {
            name: peer.name.to_string(),
            bytes,
            resident_kb: idle.resident_kb,
            private_dirty_kb: idle.private_dirty_kb,
            system_calls: measure::system_calls(peer, &nothing)?,
            start_us: micros(percentile(starts, 50)),
            signal_p50_us: micros(percentile(signals, 50)),
            signal_p99_us: micros(percentile(signals, 99)),
            reap_us: peer.path.is_some().then(|| micros(percentile(reaps, 50))),
            wakeups_per_s: idle.wakeups_per_s,
        });
    }
    Ok(rows)
}

/// Measures every peer in turn, `rounds` times, so that whatever else the machine does, and
/// wherever it puts a process, meets all.
fn in_turns(
    context: &Context,
    peers: &[Peer],
    rounds: usize,
    measure: impl Fn(&Peer) -> Result<Vec<Duration>>,
) -> Result<Vec<Vec<Duration>>> {
    let mut all = vec![Vec::new(); peers.len()];
    for _ in 0..rounds {
        context.interrupt.check()?;
        for (peer, taken) in peers.iter().zip(&mut all) {
            taken.extend(measure(peer)?);
        }
    }
    Ok(all)
}

/// The value below which `percent` of all lie.
fn percentile(all: &mut [Duration], percent: usize) -> Duration {
    all.sort_unstable();
    all.get(all.len() * percent / 100).copied().unwrap_or_default()
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let mut all: Vec<_> = (1..=200).rev().map(Duration::from_micros).collect();
        assert_eq!(percentile(&mut all, 50), Duration::from_micros(101));
        assert_eq!(percentile(&mut all, 99), Duration::from_micros(199));
    }
}

//! `cargo xtask bench`: pid1 beside the other inits and beside none, measured in one run.

mod measure;
pub mod peers;
mod report;

use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{Context, files, flags, paths, platform};
use measure::Namespaces;
use peers::Peer;
use report::{Report, Row};

/// How often each init is started, how often it is signalled, how many orphans it gets at once.
const STARTS: usize = 1000;
const SIGNALS: usize = 2000;
const ORPHANS: &str = "10000";

/// Measures everything, prints the table, writes `target/dist/bench.json`, and the README's table
/// if asked to.
pub fn bench(context: &Context, flags: &flags::Bench) -> Result<()> {
    let peers = peers::all(context)?;
    let rows = measure_all(context, &peers)?;
    let report = Report { kernel: report::kernel()?, date: report::today(), rows };
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
    let probe = paths::binary(platform::host(), "docker-testing");
    let with = |words: &'static [&'static str]| -> Vec<&OsStr> {
        [probe.as_os_str()].into_iter().chain(words.iter().map(OsStr::new)).collect()
    };
    let nothing = with(&["probe", "exit", "0"]);
    let namespaces = Namespaces::new()?;
    let starts = starts(context, &namespaces, peers, &nothing)?;
    let mut rows = Vec::new();
    for (peer, mut starts) in peers.iter().zip(starts) {
        context.interrupt.check()?;
        context.ui.say(format!("measuring {}", peer.name));
        let idle = namespaces.idle(peer, &with(&["probe", "hang"]))?;
        let mut latency = namespaces.latency(peer, &with(&["probe", "answer", "10"]), SIGNALS)?;
        let reaps = peer.path.is_some();
        let releasing = with(&["probe", "release", ORPHANS]);
        let reap = reaps.then(|| namespaces.reap(peer, &releasing)).transpose()?;
        let size = |path| fs::metadata(path).map(|it| it.len());
        let bytes = peer.path.as_ref().map(size).transpose().context("cannot read a size")?;
        rows.push(Row {
            name: peer.name.to_string(),
            bytes,
            resident_kb: idle.resident_kb,
            private_dirty_kb: idle.private_dirty_kb,
            system_calls: measure::system_calls(peer, &nothing)?,
            start_us: micros(percentile(&mut starts, 50)),
            signal_p50_us: micros(percentile(&mut latency, 50)),
            signal_p99_us: micros(percentile(&mut latency, 99)),
            reap_us: reap.map(micros),
            wakeups_per_s: idle.wakeups_per_s,
        });
    }
    Ok(rows)
}

/// Starts every peer in turn, again and again, so that whatever else the machine does meets all.
fn starts(
    context: &Context,
    namespaces: &Namespaces,
    peers: &[Peer],
    nothing: &[&OsStr],
) -> Result<Vec<Vec<Duration>>> {
    let mut all = vec![Vec::with_capacity(STARTS); peers.len()];
    context.ui.say(format!("starting each of {} inits {STARTS} times", peers.len()));
    for _ in 0..STARTS {
        context.interrupt.check()?;
        for (peer, taken) in peers.iter().zip(&mut all) {
            taken.push(namespaces.start(peer, nothing)?);
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

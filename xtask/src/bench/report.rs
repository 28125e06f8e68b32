//! The figures as a table and as JSON.

use std::fs;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::picture::picture;
use crate::{files, paths};

/// All that one run found out.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The kernel it ran on.
    pub kernel: String,
    /// The day, as `2026-01-31`.
    pub date: String,
    /// What it ran on.
    pub machine: String,
    /// One row an init; pid1 is the first, no init the last.
    pub rows: Vec<Row>,
}

/// One init's figures. What cannot be said of it (the size of no init) is `None`.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: String,
    /// Size of the binary.
    pub bytes: Option<u64>,
    /// Idle, in KB of 1024 bytes.
    pub resident_kb: u64,
    /// Idle, in KB of 1024 bytes.
    pub private_dirty_kb: u64,
    /// Before the child's exec.
    pub system_calls: u64,
    /// Clone into a PID namespace, exec, wait; median.
    pub start_us: f64,
    /// From SIGUSR1 to the init until the program has answered; median.
    pub signal_p50_us: f64,
    /// The same, for the slowest in a hundred.
    pub signal_p99_us: f64,
    /// Until 10,000 orphans that end at once are reaped.
    pub reap_us: Option<f64>,
    /// While nothing happens.
    pub wakeups_per_s: u64,
}

const START: &str = "<!-- bench: written by `cargo xtask bench --readme` -->";
const END: &str = "<!-- /bench -->";

/// The kernel's release.
pub fn kernel() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    Ok(release.context("cannot read the kernel's release")?.trim().to_string())
}

/// The day, in UTC.
pub fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// Its architecture and its cores.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} cores", std::env::consts::ARCH)
}

/// The table, with each figure's ratio to pid1's behind it.
pub fn markdown(report: &Report) -> String {
    let Some(first) = report.rows.first() else { return String::new() };
    let base = report.rows.iter().find(|row| row.bytes.is_none()).map_or(0.0, |it| it.start_us);
    let mut text = String::from(
        "| init | bytes | resident KB | private dirty KB | system calls before exec | added start µs \
         | signal p50 µs | p99 µs | 10,000 orphans ms | idle wake-ups/s |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in &report.rows {
        let added = |row: &Row| row.bytes.map(|_| row.start_us - base);
        let cells = [
            row.name.clone(),
            ratio(row.bytes.map(whole), first.bytes.map(whole), 0),
            ratio(row.bytes.map(|_| whole(row.resident_kb)), Some(whole(first.resident_kb)), 0),
            ratio(
                row.bytes.map(|_| whole(row.private_dirty_kb)),
                Some(whole(first.private_dirty_kb)),
                0,
            ),
            ratio(row.bytes.map(|_| whole(row.system_calls)), Some(whole(first.system_calls)), 0),
            ratio(added(row), added(first), 0),
            ratio(Some(row.signal_p50_us), Some(first.signal_p50_us), 1),
            ratio(Some(row.signal_p99_us), Some(first.signal_p99_us), 1),
            ratio(row.reap_us.map(|it| it / 1e3), first.reap_us.map(|it| it / 1e3), 1),
            row.bytes.map_or_else(|| "-".to_string(), |_| row.wakeups_per_s.to_string()),
        ];
        text.extend(["| ", &cells.join(" | "), " |\n"]);
    }
    text + &format!(
        "\nMeasured on {}, Linux {}, {}, starts on one of them; behind each figure, how many times \
         pid1's it is.\n",
        report.date, report.kernel, report.machine
    )
}

#[expect(clippy::cast_precision_loss, reason = "sizes and counts are far below 2^52")]
fn whole(value: u64) -> f64 {
    value as f64
}

fn ratio(value: Option<f64>, first: Option<f64>, digits: usize) -> String {
    let Some(value) = value else { return "-".to_string() };
    match first.filter(|first| *first > 0.0) {
        Some(first) if (value - first).abs() > f64::EPSILON => {
            format!("{value:.digits$} (×{:.1})", value / first)
        }
        _ => format!("{value:.digits$}"),
    }
}

/// Puts the table between its marks in the README, and draws it.
pub fn write_readme(report: &Report) -> Result<()> {
    let table = markdown(report);
    files::write(&paths::picture(), picture(&table).as_bytes(), files::PLAIN)?;
    files::put_between(&paths::root().join("README.md"), START, END, &table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, bytes: Option<u64>, scale: u64) -> Row {
        Row {
            name: name.to_string(),
            bytes,
            resident_kb: 10 * scale,
            private_dirty_kb: 2 * scale,
            system_calls: 5 * scale,
            start_us: 100.0 + 50.0 * whole(scale),
            signal_p50_us: 7.0,
            signal_p99_us: 9.0,
            reap_us: bytes.map(|_| 1500.0 * whole(scale)),
            wakeups_per_s: scale - 1,
        }
    }

    #[test]
    fn figures_stand_beside_pid1_s() {
        let rows =
            vec![row("pid1", Some(1000), 1), row("other", Some(2500), 2), row("no init", None, 1)];
        let report = Report {
            kernel: "6.1".to_string(),
            date: "2026-01-31".to_string(),
            machine: "riscv64, 8 cores".to_string(),
            rows,
        };
        let table = markdown(&report);
        let last = "\nMeasured on 2026-01-31, Linux 6.1, riscv64, 8 cores, starts on one of them; ";
        assert!(table.contains(last), "{table}");
        let rows: Vec<_> = table.lines().skip(2).take(3).collect();
        assert_eq!(
            rows,
            [
                "| pid1 | 1000 | 10 | 2 | 5 | 0 | 7.0 | 9.0 | 1.5 | 0 |",
                "| other | 2500 (×2.5) | 20 (×2.0) | 4 (×2.0) | 10 (×2.0) | 50 | 7.0 | 9.0 | 3.0 (×2.0) | 1 |",
                "| no init | - | - | - | - | - | 7.0 | 9.0 | - | - |",
            ]
        );
    }
}

//! `cargo xtask bench images`: our builder beside `docker buildx build`, and a push of nothing new.

use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

use super::{percentile, report};
use crate::flags::Images;
use crate::plan::Plan;
use crate::{Context, files, image, paths};

/// How often each is measured, in turns.
const ROUNDS: usize = 5;

/// How long the registry may take to answer, and how often we look.
const START_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

const START: &str = "<!-- bench images: written by `cargo xtask bench images --readme` -->";
const END: &str = "<!-- /bench images -->";

/// All that one run found out.
#[derive(Serialize)]
struct Report {
    kernel: String,
    date: String,
    machine: String,
    images: usize,
    platforms: usize,
    /// Built by us, from ready binaries, into a fresh folder.
    build: Figures,
    /// Built by docker, from the same binaries and Dockerfiles, without its cache.
    buildx: Figures,
    /// A push that changes nothing, to a registry on this machine.
    push: Figures,
}

/// Of several runs, in ms.
#[derive(Serialize)]
struct Figures {
    fastest: f64,
    median: f64,
    slowest: f64,
}

impl Figures {
    fn of(all: &mut [Duration]) -> Figures {
        let mut at = |percent| percentile(all, percent).as_secs_f64() * 1e3;
        Figures { fastest: at(0), median: at(50), slowest: at(99) }
    }
}

/// Measures, prints the table, writes `target/dist/bench-images.json`, and the README's table if
/// asked to.
pub fn images(context: &Context, readme: bool) -> Result<()> {
    let plan = Plan::new(&Images::default(), &[])?;
    // Docker copies from the contexts that this leaves; binaries must be there.
    image::build_alone(context, &plan)?;
    let place = tempfile::tempdir().context("cannot make a folder")?;
    let registry = Local::start(place.path())?;
    let repository = format!("{}/pid1", registry.address);
    took(&mut push(&repository)?)?;

    let (mut build, mut buildx, mut pushes) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        context.interrupt.check()?;
        context.ui.say(format!("round {round} of {ROUNDS}"));
        build.push(build_ours(place.path())?);
        buildx.push(build_docker(&plan, place.path())?);
        pushes.push(took(&mut push(&repository)?)?);
    }
    let report = Report {
        kernel: report::kernel()?,
        date: report::today(),
        machine: report::machine(),
        images: plan.images.len(),
        platforms: plan.platforms().len(),
        build: Figures::of(&mut build),
        buildx: Figures::of(&mut buildx),
        push: Figures::of(&mut pushes),
    };
    let text = serde_json::to_string_pretty(&report).context("cannot write the figures as JSON")?;
    let json = paths::dist().join("bench-images.json");
    files::write(&json, (text + "\n").as_bytes(), files::PLAIN)?;
    let table = table(&report);
    if readme {
        files::put_between(&paths::root().join("README.md"), START, END, &table)?;
    }
    print!("{table}");
    Ok(())
}

/// From ready binaries into a folder that has nothing else.
fn build_ours(place: &Path) -> Result<Duration> {
    let target = tempfile::tempdir_in(place).context("cannot make a folder")?;
    let dist = target.path().join("dist");
    fs::create_dir(&dist)
        .and_then(|()| symlink(paths::dist().join("bin"), dist.join("bin")))
        .context("cannot prepare a folder")?;
    took(ourselves()?.args(["image", "--quiet"]).env("CARGO_TARGET_DIR", target.path()))
}

/// From the same files, into an archive for each image; those go again.
fn build_docker(plan: &Plan, place: &Path) -> Result<Duration> {
    let archive = place.join("archive.tar");
    let mut sum = Duration::ZERO;
    for image in &plan.images {
        let platforms: Vec<_> = image.platforms.iter().map(ToString::to_string).collect();
        let mut docker = Command::new("docker");
        docker.args(["buildx", "build", "--quiet", "--no-cache", "--provenance=false"]);
        docker.arg("--platform").arg(platforms.join(","));
        docker.arg("--output").arg(format!("type=oci,dest={}", archive.display()));
        docker.arg("--file").arg(paths::image(&image.name).join("Dockerfile"));
        sum += took(docker.arg(paths::context(&image.name)))?;
    }
    Ok(sum)
}

fn push(repository: &str) -> Result<Command> {
    let mut push = ourselves()?;
    push.args(["push", "--quiet", repository]);
    Ok(push)
}

fn ourselves() -> Result<Command> {
    std::env::current_exe().map(Command::new).context("cannot find ourselves")
}

/// How long it takes; a failure is an error.
fn took(command: &mut Command) -> Result<Duration> {
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output();
    let took = start.elapsed();
    let output = output.with_context(|| format!("cannot run `{name}`"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{name}` failed: {}: {}", output.status, complaint.trim());
    Ok(took)
}

/// Debian's registry on a free port; it ends with this value.
struct Local {
    address: String,
    child: Child,
}

impl Local {
    fn start(place: &Path) -> Result<Local> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let address = free.context("cannot find a free port")?.to_string();
        let config = serde_json::json!({
            "version": "0.1",
            "log": { "level": "error", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": place.join("registry") } },
            "http": { "addr": address, "secret": "of no use to anybody" },
        });
        let path = place.join("registry.json");
        files::write(&path, config.to_string().as_bytes(), files::PLAIN)?;
        let mut command = Command::new("docker-registry");
        // It would rather listen to the port in this variable.
        command.arg("serve").arg(&path).env_remove("PORT").stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child
            .context("cannot run `docker-registry`; on Debian 12, `.ci/install` installs it")?;
        let registry = Local { address, child };
        let start = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            if start.elapsed() > START_LIMIT {
                bail!("`docker-registry` does not answer at {}", registry.address);
            }
            thread::sleep(POLL);
        }
        Ok(registry)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // One that is gone already is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn table(report: &Report) -> String {
    let Report { images, platforms, build, buildx, push, .. } = report;
    let mut text = String::from("| | median ms | fastest | slowest |\n|---|---:|---:|---:|\n");
    let times = buildx.median / build.median;
    for (what, factor, figures) in [
        (format!("`cargo xtask image`: {images} images, {platforms} platforms each"), "", build),
        ("`docker buildx build` of the same".to_string(), &*format!(" (×{times:.1})"), buildx),
        ("`cargo xtask push` that changes nothing".to_string(), "", push),
    ] {
        let Figures { median, fastest, slowest } = figures;
        let _ = writeln!(text, "| {what} | {median:.0}{factor} | {fastest:.0} | {slowest:.0} |");
    }
    let Report { date, kernel, machine, .. } = report;
    let _ = writeln!(
        text,
        "\nFrom ready binaries into an empty folder, docker without its cache, the registry on the \
         same machine; {ROUNDS} runs in turns on {date}, Linux {kernel}, {machine}."
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_stands_beside_ours_with_its_factor() {
        let figures = |median| Figures { fastest: median - 1.0, median, slowest: median + 1.0 };
        let report = Report {
            kernel: "6.1".to_string(),
            date: "2026-01-31".to_string(),
            machine: "x86_64, 2 cores".to_string(),
            images: 3,
            platforms: 9,
            build: figures(200.0),
            buildx: figures(5000.0),
            push: figures(50.0),
        };
        let table = table(&report);
        let rows: Vec<_> = table.lines().skip(2).take(3).collect();
        assert_eq!(
            rows,
            [
                "| `cargo xtask image`: 3 images, 9 platforms each | 200 | 199 | 201 |",
                "| `docker buildx build` of the same | 5000 (×25.0) | 4999 | 5001 |",
                "| `cargo xtask push` that changes nothing | 50 | 49 | 51 |",
            ]
        );
    }
}

//! `podman run --init` with our binary in the place of podman's.

use std::fs;
use std::io::{Write, stderr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::built;
use crate::push::fixture::{Run, Running, comes_about, run};

/// Podman's patience is 10 s; who ends at once is told from who is killed by this.
const AT_ONCE: Duration = Duration::from_secs(3);

/// How long a container may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Limits that need no privilege, and nothing of a service manager's.
const CONFIGURATION: &str = r#"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"#;

/// A store of the test's own, and a configuration under which podman runs on bare machines.
pub struct Store {
    folder: TempDir,
}

impl Store {
    /// None, and that is said, where podman cannot run a container.
    #[track_caller]
    pub fn new(test: &str) -> Option<Store> {
        if !geteuid().is_root() {
            // Not `eprintln`: the test harness keeps that to itself.
            let _ = writeln!(stderr(), "NOT RUN: {test}: podman without cgroups needs root");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("p").tempdir_in("/tmp").unwrap();
        let place = |name: &str| folder.path().join(name).display().to_string();
        let configuration = format!("{CONFIGURATION}tmp_dir = {:?}\n", place("tmp"));
        fs::write(folder.path().join("containers.conf"), configuration).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            place("root"),
            place("run")
        );
        fs::write(folder.path().join("storage.conf"), storage).unwrap();
        Some(Store { folder })
    }

    /// What makes podman use it.
    pub fn variables(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("CONTAINERS_CONF", self.folder.path().join("containers.conf")),
            ("CONTAINERS_STORAGE_CONF", self.folder.path().join("storage.conf")),
        ]
    }
}

/// Podman with our image of test programs in its store.
struct Podman {
    store: Store,
    image: String,
}

impl Podman {
    /// None, and that is said, where it cannot run a container.
    #[track_caller]
    fn new(test: &str) -> Option<Podman> {
        let store = Store::new(test)?;
        for name in ["podman-init", "catatonit"] {
            fs::copy(built::pid1(), store.folder.path().join(name)).unwrap();
        }
        let mut podman = Podman { store, image: String::new() };
        let archive = built::archive("docker-testing");
        let loaded = podman.must(&["load", "--input", archive.path().to_str().unwrap()]);
        let name = loaded.trim().strip_prefix("Loaded image: ");
        name.expect("it says what it loaded").clone_into(&mut podman.image);
        Some(podman)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.envs(self.store.variables()).args(arguments);
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Run {
        run(&mut self.command(arguments))
    }

    #[track_caller]
    fn must(&self, arguments: &[&str]) -> String {
        let run = self.run(arguments);
        assert_eq!(run.code, Some(0), "podman {arguments:?}: {}", run.stderr);
        run.stdout
    }

    /// The words that run `program` of our image under our init, called `name`.
    fn init<'a>(&'a self, name: &str, words: &[&'a str], program: &'a str) -> Vec<String> {
        let path = self.store.folder.path().join(name);
        let init = format!("--init-path={}", path.display());
        let mut all = vec!["run", "--init", &init, "--network=none", "--entrypoint", program];
        all.extend(words);
        all.push(&self.image);
        all.into_iter().map(str::to_owned).collect()
    }
}

impl Drop for Podman {
    /// Whatever a failed test has left.
    fn drop(&mut self) {
        let _ = self.command(&["rm", "--all", "--force", "--time", "0"]).output();
    }
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn ours_is_the_first_process() {
    let Some(podman) = Podman::new("ours_is_the_first_process") else { return };
    for name in ["podman-init", "catatonit"] {
        let ps = podman.init(name, &["--rm"], "ps");
        let ps = podman.must(&[&words(&ps)[..], &["-o", "args", "1"]].concat());
        assert_eq!(ps, "/run/podman-init -- ps -o args 1\n");
    }
    let version = podman.init("podman-init", &["--rm"], "/run/podman-init");
    let version = podman.must(&[&words(&version)[..], &["--version"]].concat());
    assert_eq!(version, format!("tini version {}_pid1\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_program_dies_of_its_signal_as_it_does_outside() {
    let test = "a_program_dies_of_its_signal_as_it_does_outside";
    let Some(podman) = Podman::new(test) else { return };
    let run = podman.run(&words(&podman.init("podman-init", &["--rm"], "sigterm")));
    assert_eq!((run.code, run.stdout.as_str()), (Some(143), ""), "{}", run.stderr);
}

#[test]
fn orphans_are_reaped() {
    let Some(podman) = Podman::new("orphans_are_reaped") else { return };
    let output = podman.must(&words(&podman.init("podman-init", &["--rm"], "orphans")));
    assert!(output.contains("/run/podman-init -- orphans"), "{output}");
    assert!(!output.contains(" Z "), "{output}");
}

#[test]
fn children_get_sigterm_and_time() {
    let Some(podman) = Podman::new("children_get_sigterm_and_time") else { return };
    let output = podman.must(&words(&podman.init("podman-init", &["--rm"], "surviving")));
    assert_eq!(output.matches("Got a TERM\n").count(), 4, "{output}");
}

#[test]
fn stop_ends_a_program_at_once_with_143() {
    let Some(podman) = Podman::new("stop_ends_a_program_at_once_with_143") else { return };
    let run = podman.init("podman-init", &["--name=sleeper"], "sleep");
    let run = [&words(&run)[..], &["1000"]].concat();
    let running = Running::start(&mut podman.command(&run), b"");
    let state = ["ps", "--quiet", "--filter=status=running"];
    assert!(comes_about(PATIENCE, || !podman.must(&state).is_empty()), "{}", running.stderr());
    let start = Instant::now();
    podman.must(&["stop", "sleeper"]);
    let took = start.elapsed();
    assert_eq!(running.finish().code, Some(143));
    assert!(took < AT_ONCE, "it took {took:?}");
}

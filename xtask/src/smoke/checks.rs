//! What must be true of every image on every platform, as data.

use std::fmt;

use anyhow::Result;
use nix::libc::{SIGKILL, SIGTERM};
use oci_spec::image::ImageConfiguration;

use super::container::{Cue, Run};
use super::rootfs::Rootfs;
use super::sandbox::{self, PROBE, Ran, Status};
use crate::definition::Smoke;
use crate::process::Interrupt;
use crate::spec::ENTRYPOINT;

/// A real-time signal, as musl counts them: its first three are taken.
const REAL_TIME: i32 = 37;

/// An ordinary user, which distroless calls nonroot.
const NONROOT: &str = "65532:65532";

/// One thing to run, and what must come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The promise.
    pub name: String,
    run: Run,
    code: i32,
    stdout: Option<Text>,
    stderr: Option<Text>,
}

/// What must have been printed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Text {
    Exactly(String),
    Containing(String),
}

impl Text {
    fn is(&self, text: &str) -> bool {
        match self {
            Text::Exactly(expected) => text == expected,
            Text::Containing(expected) => text.contains(expected),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Text::Exactly(text) => write!(out, "{text:?}"),
            Text::Containing(text) => write!(out, "something with {text:?}"),
        }
    }
}

impl Check {
    fn new(name: &str, run: Run) -> Check {
        Check { name: name.to_string(), run, code: 0, stdout: None, stderr: None }
    }

    /// It exits with `code` instead of 0.
    fn exits(self, code: i32) -> Check {
        Check { code, ..self }
    }

    /// All that it prints is `text`.
    fn prints(self, text: &str) -> Check {
        Check { stdout: Some(Text::Exactly(text.to_string())), ..self }
    }

    /// Its complaints have `text` in them.
    fn complains(self, text: &str) -> Check {
        Check { stderr: Some(Text::Containing(text.to_string())), ..self }
    }

    /// What a definition asks for.
    fn of(smoke: &Smoke) -> Check {
        let text = |text: &Option<String>| text.clone().map(Text::Exactly);
        Check {
            name: smoke.name.clone(),
            run: Run::new(&smoke.run),
            code: smoke.exit,
            stdout: text(&smoke.stdout),
            stderr: text(&smoke.stderr),
        }
    }

    /// Runs it; gives what is wrong, if something is.
    pub fn failure(&self, rootfs: &Rootfs, interrupt: &Interrupt) -> Option<String> {
        match sandbox::run(rootfs, &self.run, interrupt) {
            Ok(ran) if self.is_met(&ran) => None,
            Ok(ran) => Some(self.explain(&rootfs.name, &ran)),
            Err(err) => Some(format!("{}\n      {err:#}", self.name)),
        }
    }

    fn is_met(&self, ran: &Ran) -> bool {
        let is = |text: &Option<Text>, got: &str| text.as_ref().is_none_or(|text| text.is(got));
        let has_ended = ran.status == Status::Exited(self.code);
        has_ended && is(&self.stdout, &ran.stdout) && is(&self.stderr, &ran.stderr)
    }

    fn explain(&self, image: &str, ran: &Ran) -> String {
        let mut lines = vec![self.name.clone(), format!("  $ {}", self.run.line(image))];
        let printed =
            [("stdout", &self.stdout, &ran.stdout), ("stderr", &self.stderr, &ran.stderr)];
        lines.push(format!("  expected exit code {}", self.code));
        for (stream, expected, _) in printed {
            lines.extend(expected.iter().map(|text| format!("  expected on {stream} {text}")));
        }
        lines.push(format!("  got {} after {} ms", ran.status, ran.took.as_millis()));
        for (stream, _, text) in printed {
            lines.push(format!("  got on {stream} {text:?}"));
        }
        lines.join("\n    ")
    }
}

/// All checks of one image: those of every image, then its definition's own.
pub fn all(own: &[Smoke]) -> Vec<Check> {
    let mut checks = exit_codes();
    checks.extend(supervision());
    checks.extend(circumstances());
    checks.extend(own.iter().map(Check::of));
    checks
}

/// What is wrong with the entrypoint: in shell form it would be run by a shell, which hands on
/// neither arguments nor signals.
pub fn entrypoint_failure(config: &ImageConfiguration) -> Option<String> {
    let entrypoint = config.config().as_ref().and_then(|it| it.entrypoint().clone());
    let entrypoint = entrypoint.unwrap_or_default();
    let is_right = entrypoint == ENTRYPOINT;
    (!is_right).then(|| {
        format!(
            "its entrypoint is {entrypoint:?}\n      it should be [\"/sbin/pid1\"], in exec form"
        )
    })
}

fn probe(words: &str) -> Run {
    let words: Vec<_> = [PROBE, "probe"].into_iter().chain(words.split(' ')).collect();
    Run::new(&words)
}

fn exit_codes() -> Vec<Check> {
    vec![
        Check::new("success is 0", probe("exit 0")),
        Check::new("an exit code passes through", probe("exit 42")).exits(42),
        Check::new("a missing program is 127", Run::new(&["no-such-program"]))
            .exits(127)
            .complains("pid1: cannot run `no-such-program`"),
        Check::new("what is no program is 126", Run::new(&["/proc"])).exits(126),
        Check::new("SIGTERM is 143", probe(&format!("die {SIGTERM}"))).exits(128 + SIGTERM),
        Check::new("SIGKILL is 137", probe(&format!("die {SIGKILL}"))).exits(128 + SIGKILL),
        Check::new("a real-time signal is 128 + its number", probe(&format!("die {REAL_TIME}")))
            .exits(128 + REAL_TIME),
        Check::new("an entrypoint in shell form is explained", shell_form())
            .exits(125)
            .complains("pid1: No arguments provided\n"),
    ]
}

/// What Docker makes of `ENTRYPOINT /sbin/pid1`. Where the image has no shell, the probe knows as
/// much of one as this takes.
fn shell_form() -> Run {
    let entrypoint = ["/bin/sh", "-c", "/sbin/pid1"].map(str::to_string);
    Run { entrypoint: Some(entrypoint.to_vec()), ..Run::default() }
}

fn supervision() -> Vec<Check> {
    let came = format!("ready\n{SIGTERM} came\n");
    let stop = Some((Cue::Printed("ready".to_string()), SIGTERM));
    let stopped = Run { signal: stop, ..probe(&format!("wait {SIGTERM}")) };
    vec![
        Check::new("pid1 is PID 1", probe("parent")).prints("1\n"),
        Check::new("without it, the program is", probe("parent").without_init()).prints("0\n"),
        Check::new("SIGTERM is forwarded", probe(&format!("forwarded {SIGTERM}"))),
        Check::new("a real-time signal is forwarded", probe(&format!("forwarded {REAL_TIME}"))),
        Check::new("SIGTERM from outside is forwarded", stopped).prints(&came),
        Check::new("orphans are reaped", probe("orphans 3")).prints("0 zombies\n"),
        Check::new("without an init they are not", probe("orphans 3").without_init())
            .prints("3 zombies\n"),
        Check::new("what is left may end in peace", probe("grace 2"))
            .prints("Got a TERM\nGot a TERM\n"),
        Check::new("without an init it may not", probe("grace 2").without_init()).prints(""),
    ]
}

fn circumstances() -> Vec<Check> {
    let as_user = |words: &str| Run { user: Some(NONROOT.to_string()), ..probe(words) };
    let read_only = |words: &str| Run { read_only: true, ..probe(words) };
    vec![
        Check::new("it runs as an ordinary user", as_user("ids")).prints("65532:65532\n"),
        Check::new("signals are forwarded for him", as_user(&format!("forwarded {SIGTERM}"))),
        Check::new("orphans are reaped for him", as_user("orphans 3")).prints("0 zombies\n"),
        Check::new("what is left may end in peace for him", as_user("grace 1"))
            .prints("Got a TERM\n"),
        Check::new("it runs from a read-only root", read_only("exit 42")).exits(42),
        Check::new("that is read-only", read_only("write /sbin/file"))
            .exits(1)
            .complains("Read-only file system"),
    ]
}

/// Runs the checks one after the other; gives how many were met, and what is wrong with the
/// others.
pub fn run(rootfs: &Rootfs, own: &[Smoke], interrupt: &Interrupt) -> Result<(usize, Vec<String>)> {
    let checks = all(own);
    let mut failures = Vec::from_iter(entrypoint_failure(&rootfs.config));
    for check in &checks {
        failures.extend(check.failure(rootfs, interrupt));
        interrupt.check()?;
    }
    Ok((checks.len() + 1 - failures.len(), failures))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ran(status: Status, stdout: &str, stderr: &str) -> Ran {
        let (stdout, stderr) = (stdout.to_string(), stderr.to_string());
        Ran { status, stdout, stderr, took: Duration::from_millis(7) }
    }

    #[test]
    fn a_failure_shows_command_expectation_and_result() {
        let check = Check::new("a promise", Run::new(&["a", "b"])).exits(3).prints("x\n");
        let check = check.complains("y");
        assert!(check.is_met(&ran(Status::Exited(3), "x\n", "z y\n")));
        for wrong in [
            ran(Status::Exited(0), "x\n", "y"),
            ran(Status::Killed(3), "x\n", "y"),
            ran(Status::TimedOut, "x\n", "y"),
            ran(Status::Exited(3), "x\nx\n", "y"),
            ran(Status::Exited(3), "x\n", "z"),
        ] {
            assert!(!check.is_met(&wrong), "{wrong:?}");
        }
        assert_eq!(
            check.explain("static", &ran(Status::Killed(9), "", "no\n")),
            r#"a promise
      $ run static a b
      expected exit code 3
      expected on stdout "x\n"
      expected on stderr something with "y"
      got signal 9 after 7 ms
      got on stdout ""
      got on stderr "no\n""#
        );
    }

    #[test]
    fn an_entrypoint_in_shell_form_is_wrong() {
        let failure = |entrypoint: &str| {
            let text = format!(
                r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},
                    "config":{{"Entrypoint":{entrypoint}}}}}"#
            );
            entrypoint_failure(&ImageConfiguration::from_reader(text.as_bytes()).unwrap())
        };
        assert_eq!(failure(r#"["/sbin/pid1"]"#), None);
        assert!(failure(r#"["/bin/sh","-c","/sbin/pid1"]"#).is_some());
        assert!(failure("[]").is_some());
    }

    #[test]
    fn every_promise_is_made_once() {
        let names: Vec<_> = all(&[]).into_iter().map(|check| check.name).collect();
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
    }
}

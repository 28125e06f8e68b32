//! One check: a run, and what must come of it.

use std::fmt;
use std::time::Duration;

use super::container::Run;
use super::place::Place;
use super::sandbox::{Ran, Status};
use crate::definition::Smoke;
use crate::process::Interrupt;

/// One thing to run, and what must come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The promise.
    pub name: String,
    run: Run,
    code: i32,
    stdout: Option<Text>,
    stderr: Option<Text>,
    within: Option<Duration>,
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
    /// That `run` exits with 0, whatever it prints.
    pub fn new(name: &str, run: Run) -> Check {
        Check { name: name.to_string(), run, code: 0, stdout: None, stderr: None, within: None }
    }

    /// It exits with `code` instead of 0.
    pub fn exits(self, code: i32) -> Check {
        Check { code, ..self }
    }

    /// All that it prints is `text`.
    pub fn prints(self, text: &str) -> Check {
        Check { stdout: Some(Text::Exactly(text.to_string())), ..self }
    }

    /// What it prints has `text` in it.
    pub fn mentions(self, text: &str) -> Check {
        Check { stdout: Some(Text::Containing(text.to_string())), ..self }
    }

    /// Its complaints have `text` in them.
    pub fn complains(self, text: &str) -> Check {
        Check { stderr: Some(Text::Containing(text.to_string())), ..self }
    }

    /// It complains of nothing.
    pub fn without_complaint(self) -> Check {
        Check { stderr: Some(Text::Exactly(String::new())), ..self }
    }

    /// It ends that soon after what is done to it.
    pub fn ends_within(self, limit: Duration) -> Check {
        Check { within: Some(limit), ..self }
    }

    /// What a definition asks for.
    pub fn of(smoke: &Smoke) -> Check {
        let text = |text: &Option<String>| text.clone().map(Text::Exactly);
        Check {
            name: smoke.name.clone(),
            run: Run::new(&smoke.run),
            code: smoke.exit,
            stdout: text(&smoke.stdout),
            stderr: text(&smoke.stderr),
            within: None,
        }
    }

    /// Runs it at `place`; gives what is wrong, if something is.
    pub fn failure(&self, place: &Place, interrupt: &Interrupt) -> Option<String> {
        match place.run(&self.run, interrupt) {
            Ok(ran) if self.is_met(&ran) => None,
            Ok(ran) => Some(self.explain(&place.line(&self.run), &ran)),
            Err(err) => Some(format!("{}\n      {err:#}", self.name)),
        }
    }

    fn is_met(&self, ran: &Ran) -> bool {
        let is = |text: &Option<Text>, got: &str| text.as_ref().is_none_or(|text| text.is(got));
        let has_ended = ran.status == Status::Exited(self.code);
        let in_time = self.within.is_none_or(|limit| ran.after.is_some_and(|after| after <= limit));
        has_ended && in_time && is(&self.stdout, &ran.stdout) && is(&self.stderr, &ran.stderr)
    }

    fn explain(&self, line: &str, ran: &Ran) -> String {
        let mut lines = vec![self.name.clone(), format!("  $ {line}")];
        let printed =
            [("stdout", &self.stdout, &ran.stdout), ("stderr", &self.stderr, &ran.stderr)];
        lines.push(format!("  expected exit code {}", self.code));
        if let (Some(limit), Some(after)) = (self.within, ran.after) {
            let (limit, after) = (limit.as_millis(), after.as_millis());
            lines.push(format!("  expected an end within {limit} ms, which came after {after} ms"));
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ran(status: Status, stdout: &str, stderr: &str) -> Ran {
        let (stdout, stderr) = (stdout.to_string(), stderr.to_string());
        let after = Some(Duration::from_millis(3));
        Ran { status, stdout, stderr, took: Duration::from_millis(7), after }
    }

    #[test]
    fn a_failure_shows_command_expectation_and_result() {
        let check = Check::new("a promise", Run::new(&["a", "b"])).exits(3).prints("x\n");
        let check = check.complains("y").ends_within(Duration::from_millis(3));
        assert!(check.is_met(&ran(Status::Exited(3), "x\n", "z y\n")));
        for wrong in [
            ran(Status::Exited(0), "x\n", "y"),
            ran(Status::Killed(3), "x\n", "y"),
            ran(Status::TimedOut, "x\n", "y"),
            ran(Status::Exited(3), "x\nx\n", "y"),
            ran(Status::Exited(3), "x\n", "z"),
            Ran { after: Some(Duration::from_millis(4)), ..ran(Status::Exited(3), "x\n", "y") },
            Ran { after: None, ..ran(Status::Exited(3), "x\n", "y") },
        ] {
            assert!(!check.is_met(&wrong), "{wrong:?}");
        }
        assert_eq!(
            check.explain("run static a b", &ran(Status::Killed(9), "", "no\n")),
            r#"a promise
      $ run static a b
      expected exit code 3
      expected an end within 3 ms, which came after 3 ms
      expected on stdout "x\n"
      expected on stderr something with "y"
      got signal 9 after 7 ms
      got on stdout ""
      got on stderr "no\n""#
        );
    }
}

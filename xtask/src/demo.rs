//! `cargo xtask demo`: what the blog post shows, live: each demonstration without pid1 and with it.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::libc::SIGTERM;
use nix::sys::signal::Signal;

use crate::oci::layout::Layout;
use crate::platform::Platform;
use crate::smoke::container::{Cue, Deed, Run};
use crate::smoke::sandbox::{Ran, Status};
use crate::smoke::{Engine, Loaded, Machine, Place, Rootfs};
use crate::{Context, flags, paths, platform};

/// The demonstrations, in the order of the post.
pub const NAMES: [&str; 5] = ["sigterm", "sleep", "orphans", "surviving", "entrypoint"];

const IMAGE: &str = "docker-testing";

/// How long something is shown that does not end: in the sandbox, and by an engine, which takes
/// half a second or more to start it.
const LIMIT: Duration = Duration::from_millis(2500);
const LIMIT_IN_ENGINE: Duration = Duration::from_secs(5);

/// What stands between two columns.
const GAP: &str = " │ ";

/// Something that goes wrong, and the same going well.
struct Demo {
    /// Two sentences, one a line.
    why: &'static str,
    sides: [Side; 2],
}

struct Side {
    title: &'static str,
    run: Run,
}

/// What there is to see of a side.
type Transcript = Vec<String>;

/// Shows the demonstrations that were asked for, or all of them.
pub fn demo(context: &Context, flags: &flags::Demo) -> Result<()> {
    let platform = platform::host();
    let machine = Machine::find(context, platform)?;
    let layout = Layout::open(&paths::layout(IMAGE)).map_err(|_| unbuilt(platform))?;
    let rootfs = Rootfs::unpack(IMAGE, &layout, platform, &machine)?;
    let engine = flags.engine.outside();
    let place = match engine {
        None => Place::Sandbox(&rootfs),
        Some(engine) => {
            engine.ensure_ready(context)?;
            Place::Engine(Loaded::new(context, engine, &layout, &rootfs)?)
        }
    };
    let is_wanted = |name: &str| flags.names.is_empty() || flags.names.iter().any(|it| it == name);
    for name in NAMES.into_iter().filter(|name| is_wanted(name)) {
        let demo = Demo::called(name, limit(engine));
        let mut transcripts = Vec::new();
        for side in &demo.sides {
            let spinner = context.ui.spinner(&format!("{name}, {}", side.title));
            let ran = place.run(&side.run, &context.interrupt);
            spinner.finish_and_clear();
            context.interrupt.check()?;
            transcripts.push(side.transcript(engine, &ran?));
        }
        show(&format!("{name}\n\n{}\n\n{}", demo.why, arranged(&transcripts, width())))?;
    }
    Ok(())
}

/// What the layout itself could say would lead to one command after the other.
fn unbuilt(platform: &Platform) -> anyhow::Error {
    anyhow!(
        "cannot show anything without the image `{IMAGE}`, run `cargo xtask dist {IMAGE} \
         --platform {platform}`"
    )
}

fn show(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("cannot print")
}

fn limit(engine: Option<&Engine>) -> Duration {
    engine.map_or(LIMIT, |_| LIMIT_IN_ENGINE)
}

/// The terminal's columns; none where the output goes elsewhere.
fn width() -> usize {
    let size = terminal_size::terminal_size_of(std::io::stdout());
    size.map_or(0, |(width, _)| width.0.into())
}

impl Demo {
    fn called(name: &str, limit: Duration) -> Demo {
        match name {
            "sigterm" => sigterm().limited(limit),
            "sleep" => sleep().limited(limit),
            "orphans" => orphans(),
            "surviving" => surviving(),
            _ => entrypoint(),
        }
    }

    /// `words` as PID 1 themselves, and under pid1.
    fn new(why: &'static str, words: &[&str]) -> Demo {
        let without = Run { entrypoint: Some(vec![words[0].to_string()]), ..Run::new(&words[1..]) };
        let side = |title, run| Side { title, run };
        Demo { why, sides: [side("without pid1", without), side("with pid1", Run::new(words))] }
    }

    /// Without pid1 it does not end by itself.
    fn limited(mut self, limit: Duration) -> Demo {
        self.sides[0].run.deadline = Some(limit);
        self
    }
}

fn sigterm() -> Demo {
    let why = "\
The kernel drops a signal that PID 1 has no handler for: the program lives for ever.
Under pid1 it is a process like any other, and ends of its SIGTERM.";
    Demo::new(why, &["sigterm"])
}

fn sleep() -> Demo {
    let why = "\
`docker kill -s TERM` is for PID 1 alone, and `sleep` as PID 1 sleeps on until it is killed.
pid1 hands the signal on to `sleep`, which ends at once.";
    let mut demo = Demo::new(why, &["sleep", "100"]);
    demo.sides[0].run.then = Some((Cue::Runs, Deed::Signal(SIGTERM)));
    demo.sides[1].run.then = Some((Cue::HasChild, Deed::Signal(SIGTERM)));
    demo
}

fn orphans() -> Demo {
    let why = "\
Who loses its parent becomes a child of PID 1, and a zombie unless that asks how it ended.
pid1 does so at once, and none is left.";
    Demo::new(why, &["orphans"])
}

fn surviving() -> Demo {
    let why = "\
When PID 1 ends, the kernel kills all else in the container, whatever that was doing.
pid1 sends SIGTERM first, and gives what remains time to act on it.";
    Demo::new(why, &["surviving"])
}

fn entrypoint() -> Demo {
    let why = "\
In shell form `/bin/sh -c` runs the entrypoint and drops the command: pid1 says so.
In exec form, with brackets, the command reaches it.";
    let shell = ["-c", "/sbin/pid1", "echo", "hello"];
    let shell = Run { entrypoint: Some(vec!["/bin/sh".to_string()]), ..Run::new(&shell) };
    let sides = [
        Side { title: "ENTRYPOINT /sbin/pid1", run: shell },
        Side { title: "ENTRYPOINT [\"/sbin/pid1\"]", run: Run::new(&["echo", "hello"]) },
    ];
    Demo { why, sides }
}

impl Side {
    fn transcript(&self, engine: Option<&Engine>, ran: &Ran) -> Transcript {
        let mut lines = vec![self.title.to_string(), format!("$ {}", self.line(engine))];
        if let Some((_, Deed::Signal(signal))) = self.run.then
            && ran.after.is_some()
        {
            lines.push(format!("-> {} is sent", name(signal)));
        }
        lines.extend(ran.stdout.lines().chain(ran.stderr.lines()).map(str::to_string));
        lines.push(format!("-> {}", ending(ran.status, self.run.deadline)));
        lines
    }

    /// What does the same, to be typed.
    fn line(&self, engine: Option<&Engine>) -> String {
        let program = |engine: &Engine| format!("{engine} run --rm");
        let mut words = vec![engine.map_or_else(|| "cargo xtask run".to_string(), program)];
        words.extend(self.run.entrypoint.iter().flatten().map(|it| format!("--entrypoint {it}")));
        words.push(IMAGE.to_string());
        words.extend(self.run.arguments.iter().cloned());
        words.join(" ")
    }
}

fn name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| signal.to_string(), |it| it.as_str().to_string())
}

fn ending(status: Status, limit: Option<Duration>) -> String {
    match status {
        Status::Exited(code @ 129..) => {
            format!("exit code {code}: 128 and {}", name(code - 128))
        }
        Status::Exited(code) => format!("exit code {code}"),
        Status::Killed(signal) => format!("ended by {}", name(signal)),
        Status::TimedOut => {
            let seconds = limit.unwrap_or(Run::DEADLINE).as_secs_f32();
            format!("does not end: killed by the demonstration after {seconds} s")
        }
    }
}

/// In two columns where `width` is enough for both, and otherwise one below the other.
fn arranged(transcripts: &[Transcript], width: usize) -> String {
    let longest = |lines: &Transcript| lines.iter().map(|it| it.chars().count()).max();
    let needed: Option<usize> = transcripts.iter().map(longest).sum();
    let needed = needed.unwrap_or_default() + GAP.chars().count();
    match transcripts {
        [left, right] if needed <= width => columns(left, right),
        _ => transcripts.iter().map(|lines| lines.join("\n") + "\n\n").collect(),
    }
}

fn columns(left: &Transcript, right: &Transcript) -> String {
    let width = left.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    let line = |index: usize| {
        let of = |lines: &Transcript| lines.get(index).cloned().unwrap_or_default();
        format!("{:width$}{GAP}{}", of(left), of(right)).trim_end().to_string() + "\n"
    };
    (0..left.len().max(right.len())).map(line).collect::<String>() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(lines: &[&str]) -> Transcript {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_fits_is_side_by_side_and_the_rest_one_below_the_other() {
        let pair = [transcript(&["left", "$ été", "end"]), transcript(&["right", "end"])];
        assert_eq!(arranged(&pair, 13), "left  │ right\n$ été │ end\nend   │\n\n");
        assert_eq!(arranged(&pair, 12), "left\n$ été\nend\n\nright\nend\n\n");
    }

    #[test]
    fn endings_say_what_a_code_means() {
        assert_eq!(ending(Status::Exited(0), None), "exit code 0");
        assert_eq!(ending(Status::Exited(143), None), "exit code 143: 128 and SIGTERM");
        assert_eq!(ending(Status::Killed(9), None), "ended by SIGKILL");
        assert_eq!(
            ending(Status::TimedOut, Some(LIMIT)),
            "does not end: killed by the demonstration after 2.5 s"
        );
    }

    #[test]
    fn every_demonstration_is_explained_in_two_sentences() {
        for demo in NAMES.map(|name| Demo::called(name, LIMIT)) {
            let lines: Vec<_> = demo.why.lines().collect();
            let is_right = |line: &&str| line.ends_with('.') && line.len() <= 100;
            assert!(lines.len() == 2 && lines.iter().all(is_right), "{}", demo.why);
        }
    }
}

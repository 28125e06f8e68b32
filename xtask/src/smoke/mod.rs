//! `cargo xtask smoke`: runs what was built, every image on every platform, with the bytes that
//! will be pushed.

pub mod container;
pub mod inside;
pub mod sandbox;

mod binfmt;
mod check;
mod checks;
mod engine;
mod looks;
mod machine;
mod memory;
mod place;
mod rootfs;
#[allow(unsafe_code, reason = "the one module that nix is not enough for")]
mod sys;
mod users;

use std::collections::HashMap;
use std::sync::Mutex;
use std::thread;

use anyhow::{Result, bail};

pub use engine::{Engine, Loaded};
pub use machine::Machine;
use memory::Occasion;
pub use place::Place;
pub use rootfs::Rootfs;

use crate::definition::Definition;
use crate::oci::layout::Layout;
use crate::plan::Plan;
use crate::platform::Platform;
use crate::{Context, flags, paths};

impl flags::Smoke {
    /// The engine, if it is not the sandbox.
    fn engine(&self) -> Option<&'static Engine> {
        self.engine.outside()
    }
}

impl flags::Engine {
    /// It, unless it is the sandbox.
    pub fn outside(self) -> Option<&'static Engine> {
        match self {
            flags::Engine::Sandbox => None,
            flags::Engine::Docker => Some(&engine::DOCKER),
            flags::Engine::Podman => Some(&engine::PODMAN),
        }
    }
}

/// What came of one image on one platform.
#[derive(Debug)]
pub struct Outcome {
    /// The image.
    pub image: String,
    pub platform: &'static Platform,
    pub result: Verdict,
}

/// Never confuses what passed with what was left out.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was run: how many checks were met, and what is wrong with the others.
    Ran { passed: usize, failures: Vec<String> },
    /// It was run before, with these very bytes and checks, and all were met.
    Before { passed: usize },
    /// It was not, and why.
    NotRun(String),
}

/// The command.
pub fn command(context: &Context, choice: &flags::Choice, options: &flags::Smoke) -> Result<()> {
    let plan = Plan::new(&choice.images, &choice.platforms.platforms)?;
    ensure_passed(&smoke(context, &plan, options, Memory::Ignore)?)
}

/// Whether what passed before is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// No: the same bytes do the same.
    Trust,
    /// Yes.
    Ignore,
}

/// Runs every check of every image on every platform of the plan but those left out on request,
/// and goes on after failures: they are in the outcomes.
pub fn smoke(
    context: &Context,
    plan: &Plan,
    options: &flags::Smoke,
    memory: Memory,
) -> Result<Vec<Outcome>> {
    let machines = machines(context, plan, options)?;
    let engine = match options.engine() {
        Some(engine) => Some((engine, engine.version(context)?)),
        None => None,
    };
    let jobs: Vec<_> = plan
        .images
        .iter()
        .flat_map(|image| image.platforms.iter().map(|platform| (image.name.as_str(), *platform)))
        .collect();
    let bar = context.ui.bar("smoke", jobs.len() as u64);
    let outcomes = in_parallel(&jobs, |(name, platform)| {
        let machine = machines.get(&platform.to_string());
        let definition = plan.definitions.iter().find(|it| it.name == *name);
        let definition = definition.expect("every planned image has its definition");
        let outcome = one(context, definition, platform, machine, engine.as_ref(), memory);
        bar.inc(1);
        tell(context, &outcome, options.engine());
        outcome
    });
    context.interrupt.check()?;
    Ok(outcomes)
}

/// Fails if anything was found wrong, naming all of it.
pub fn ensure_passed(outcomes: &[Outcome]) -> Result<()> {
    let mut lines = Vec::new();
    for Outcome { image, platform, result } in outcomes {
        if let Verdict::Ran { failures, .. } = result {
            lines.extend(failures.iter().map(|it| format!("  {image} for {platform}: {it}")));
        }
    }
    if !lines.is_empty() {
        bail!("{} smoke tests failed:\n{}", lines.len(), lines.join("\n"));
    }
    Ok(())
}

/// What runs each platform here. That one cannot be run is found before anything is.
fn machines(
    context: &Context,
    plan: &Plan,
    options: &flags::Smoke,
) -> Result<HashMap<String, Machine>> {
    let platforms = plan.platforms().into_iter();
    let wanted = platforms.filter(|platform| !options.no_smoke.contains(platform));
    let engine = options.engine();
    if let Some(engine) = engine {
        engine.ensure_ready(context)?;
    }
    let find = |platform| match engine {
        Some(engine) => engine.machine(platform),
        None => Machine::find(context, platform),
    };
    wanted.map(|it| Ok((it.to_string(), find(it)?))).collect()
}

/// One image on one platform.
fn one(
    context: &Context,
    definition: &Definition,
    platform: &'static Platform,
    machine: Option<&Machine>,
    engine: Option<&(&'static Engine, String)>,
    memory: Memory,
) -> Outcome {
    let run = |machine| -> Result<Verdict> {
        let occasion = Occasion::new(definition, platform, machine, engine)?;
        if let Some(passed) = occasion.passed().filter(|_| memory == Memory::Trust) {
            return Ok(Verdict::Before { passed });
        }
        let layout = Layout::open(&paths::layout(&definition.name))?;
        let rootfs = Rootfs::unpack(&definition.name, &layout, platform, machine)?;
        let place = match engine {
            Some((engine, _)) => Place::Engine(Loaded::new(context, engine, &layout, &rootfs)?),
            None => Place::Sandbox(&rootfs),
        };
        let (passed, failures) = checks::run(&place, &definition.smoke, &context.interrupt)?;
        if failures.is_empty() {
            occasion.remember(passed)?;
        }
        Ok(Verdict::Ran { passed, failures })
    };
    let result = match machine.map(run) {
        None => Verdict::NotRun(format!("--no-smoke {platform} was given")),
        Some(Ok(verdict)) => verdict,
        Some(Err(err)) => Verdict::Ran { passed: 0, failures: vec![format!("{err:#}")] },
    };
    Outcome { image: definition.name.clone(), platform, result }
}

fn tell(context: &Context, Outcome { image, platform, result }: &Outcome, engine: Option<&Engine>) {
    let by = engine.map(|engine| format!(" by {engine}")).unwrap_or_default();
    let line = |what: String| format!("smoke: {image} for {platform}{by}: {what}");
    match result {
        Verdict::NotRun(why) => context.ui.warn(line(format!("not run, {why}"))),
        Verdict::Before { passed } => {
            context.ui.say(line(format!("{passed} passed before, with these very bytes")));
        }
        Verdict::Ran { passed, failures } if failures.is_empty() => {
            context.ui.say(line(format!("{passed} passed")));
        }
        Verdict::Ran { passed, failures } => {
            context.ui.say(line(format!("{passed} passed, {} failed", failures.len())));
        }
    }
}

/// Works through `jobs` with as many threads as there are processors, and keeps the order.
fn in_parallel<J: Sync, R: Send>(jobs: &[J], work: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let next = Mutex::new(jobs.iter().enumerate());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let job = next.lock().expect("no worker panics here").next();
                    let Some((index, job)) = job else { break };
                    let result = work(job);
                    done.lock().expect("no worker panics here").push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no worker panics here");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallel_work_keeps_its_order() {
        let jobs: Vec<u32> = (0..100).collect();
        let doubled: Vec<u32> = jobs.iter().map(|it| it * 2).collect();
        assert_eq!(in_parallel(&jobs, |it| it * 2), doubled);
    }

    #[test]
    fn what_was_not_run_did_not_fail_and_what_failed_is_named() {
        let outcome = |result| Outcome {
            image: "static".to_string(),
            platform: &crate::platform::PLATFORMS[0],
            result,
        };
        let not_run = outcome(Verdict::NotRun("no".to_string()));
        assert!(ensure_passed(&[not_run]).is_ok());
        let failures = vec!["a".to_string(), "b".to_string()];
        let error = ensure_passed(&[outcome(Verdict::Ran { passed: 3, failures })]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "2 smoke tests failed:\n  static for linux/amd64: a\n  static for linux/amd64: b"
        );
    }
}

//! `cargo xtask dist`: binaries, images, smoke tests, push, release files, in this order.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Result;

use crate::build::crates::Facts;
use crate::flags::Images;
use crate::image::Built;
use crate::lock::Lock;
use crate::plan::Plan;
use crate::registry::Repository;
use crate::release::Release;
use crate::revision::Revision;
use crate::smoke::{Memory, Outcome, Verdict};
use crate::{Context, base, build, flags, generate, image, push, release, smoke};

/// Does all of it. Nothing is pushed unless everything passed.
pub fn dist(context: &Context, flags: &flags::Dist) -> Result<()> {
    let start = Instant::now();
    let choice = &flags.choice;
    let plan = Plan::new(&choice.images, &choice.platforms.platforms)?;
    // A wrong name is said before an hour is spent on the rest.
    let repository = match flags.push.as_ref().or(flags.repository.as_ref()) {
        Some(written) => Repository::parse(written)?,
        None => Repository::published()?,
    };

    let lock = Lock::read(&flags.bases)?;
    lock.covers(&plan)?;
    flags.builder.ensure_ready(context)?;
    let transport = &flags.options.registry.transport;
    let bases = base::pull(context, &plan, &lock, &flags.bases.mirrors.list, transport)?;

    let binaries = build::build(context, &plan.platforms())?;
    generate::write(context)?;
    let way = image::way(&flags.builder, &flags.bases, transport);
    let images = image::build(context, &plan, &lock, &bases, way)?;
    let outcomes = smoke::smoke(context, &plan, &flags.smoke, Memory::Trust)?;
    smoke::ensure_passed(&outcomes)?;
    match &flags.push {
        Some(repository) => {
            push::print(&push::push_built(context, &plan, &images, repository, &flags.options)?);
        }
        None => image::print(&images),
    }
    let release = Release {
        plan: &plan,
        revision: &Revision::current(context)?,
        repository: &repository,
        binaries: &binaries,
        facts: &Facts::current(context)?,
    };
    release::write(context, &release)?;
    if flags.push.is_some() {
        release::attach(context, &plan, &repository, &flags.options.registry)?;
    }

    context.ui.say(summary(&plan, &images, &outcomes));
    context.ui.say(format!("dist: done in {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}

/// The table at the end: a row an image, and a line for each thing that was not run.
fn summary(plan: &Plan, images: &[Built], outcomes: &[Outcome]) -> String {
    let mut text =
        format!("\n{:18} {:>9} {:>8}  {:24} {}\n", "image", "platforms", "KB", "smoke", "digest");
    for (image, built) in plan.images.iter().zip(images) {
        let of_image: Vec<_> = outcomes.iter().filter(|it| it.image == image.name).collect();
        let _ = writeln!(
            text,
            "{:18} {:>9} {:>8}  {:24} {}",
            image.name,
            image.platforms.len(),
            built.size.div_ceil(1024),
            tested(&of_image),
            built.digest
        );
    }
    for Outcome { image, platform, result } in outcomes {
        if let Verdict::NotRun(why) = result {
            let _ = writeln!(text, "not run: {image} for {platform}: {why}");
        }
    }
    text
}

fn tested(outcomes: &[&Outcome]) -> String {
    let checks = |it: &&Outcome| match it.result {
        Verdict::Ran { passed, .. } | Verdict::Before { passed } => passed,
        Verdict::NotRun(_) => 0,
    };
    let not_run = outcomes.iter().filter(|it| matches!(it.result, Verdict::NotRun(_))).count();
    let passed: usize = outcomes.iter().map(checks).sum();
    match not_run {
        0 => format!("{passed} passed"),
        _ => format!("{passed} passed, {not_run} not run"),
    }
}

/// What tests expect to find: all binaries and layouts, smoke-tested.
pub fn for_tests(context: &Context) -> Result<()> {
    let plan = Plan::new(&Images::default(), &[])?;
    build::build(context, &plan.platforms())?;
    image::build_alone(context, &plan)?;
    let nothing = flags::Smoke { engine: flags::Engine::Sandbox, no_smoke: Vec::new() };
    smoke::ensure_passed(&smoke::smoke(context, &plan, &nothing, Memory::Trust)?)
}

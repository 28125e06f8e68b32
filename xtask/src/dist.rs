//! `cargo xtask dist`: binaries, images, smoke tests, push, release files, in this order.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Result;

use crate::image::Built;
use crate::plan::Plan;
use crate::registry::Repository;
use crate::smoke::{Memory, Outcome, Verdict};
use crate::{Context, build, flags, generate, image, push, release, smoke};

/// Does all of it. Nothing is pushed unless everything passed.
pub fn dist(context: &Context, flags: &flags::Dist) -> Result<()> {
    let start = Instant::now();
    let choice = &flags.choice;
    let plan = Plan::new(&choice.images, &choice.platforms.platforms)?;
    // A wrong name is said before an hour is spent on the rest.
    flags.push.as_deref().map(Repository::parse).transpose()?;

    let binaries = build::build(context, &plan.platforms())?;
    generate::write(context)?;
    let images = image::build(context, &plan)?;
    let outcomes = smoke::smoke(context, &plan, &flags.smoke, Memory::Trust)?;
    smoke::ensure_passed(&outcomes)?;
    match &flags.push {
        Some(repository) => push::print(&push::push(context, &plan, repository, &flags.registry)?),
        None => image::print(&images),
    }
    release::write(context, &binaries)?;

    context.ui.say(summary(&plan, &images, &outcomes));
    context.ui.say(format!("dist: done in {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}

/// The table at the end: a row an image, and a line for each thing that was not run.
fn summary(plan: &Plan, images: &[Built], outcomes: &[Outcome]) -> String {
    let mut text =
        format!("\n{:16} {:>9} {:>8}  {:24} {}\n", "image", "platforms", "KB", "smoke", "digest");
    for (image, built) in plan.images.iter().zip(images) {
        let of_image: Vec<_> = outcomes.iter().filter(|it| it.image == image.name).collect();
        let _ = writeln!(
            text,
            "{:16} {:>9} {:>8}  {:24} {}",
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
    let plan = Plan::new(&[], &[])?;
    build::build(context, &plan.platforms())?;
    image::build(context, &plan)?;
    let nothing = flags::Smoke { no_smoke: Vec::new() };
    smoke::ensure_passed(&smoke::smoke(context, &plan, &nothing, Memory::Trust)?)
}

//! `cargo xtask refresh`: images whose base has moved since they were pushed, built anew around the
//! binaries of the release.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::build::crates::Facts;
use crate::builder::Way;
use crate::flags::{self, Images};
use crate::lock::{Lock, wanted};
use crate::oci::layout::sha256;
use crate::plan::{self, ImagePlan, Plan};
use crate::push::Tags;
use crate::registry::Repository;
use crate::release::Release;
use crate::revision::Revision;
use crate::smoke::Memory;
use crate::tags::{Published, Same, judge};
use crate::{Context, base, build, files, image, paths, push, release, sign, smoke, tags};

/// Looks what the published images stand on, and builds, tests and pushes those whose base is
/// another one now. Prints one reference a line; none, if no base has moved.
pub fn refresh(context: &Context, flags: &flags::Refresh) -> Result<()> {
    let repository = Repository::parse(&flags.repository)?;
    let options = &flags.options.registry;
    let transport = &options.transport;
    let mut plan = on_registries(flags)?;
    let there = tags::look(context, &plan, &repository, options)?;
    plan.images.retain(|it| is_published(context, it, &there));
    let now = base::resolve(context, &wanted(&plan), &flags.mirrors.list, transport)?;
    let moved = moved(context, &plan, &there, &now)?;
    plan.images.retain(|it| moved.contains(&it.name));
    forget_subjects()?;
    if plan.images.is_empty() {
        context.ui.say("no base has moved, nothing to do");
        return Ok(());
    }
    let date = jiff::Timestamp::now().strftime("%Y%m%d").to_string();
    for image in &mut plan.images {
        // The version's own tag stays where the release put it; the others move.
        image.tags[0] = format!("{}-{date}", image.tags[0]);
    }

    let bases = base::pull(context, &plan, &now, &flags.mirrors.list, transport)?;
    // The smoke tests need the probe, which is in no release.
    let binaries = build::build(context, &plan.platforms())?;
    adopt(context, &plan, &flags.binaries)?;
    image::build(context, &plan, &now, &bases, Way::built_in())?;
    let outcomes = smoke::smoke(context, &plan, &flags.smoke, Memory::Trust)?;
    smoke::ensure_passed(&outcomes)?;
    let bills = Release {
        plan: &plan,
        revision: &Revision::current(context)?,
        repository: &repository,
        binaries: &binaries,
        facts: &Facts::current(context)?,
    };
    release::write_bills(&bills)?;
    let references = push::push(context, &plan, &flags.repository, &flags.options, Tags::Keep)?;
    release::attach(context, &plan, &repository, options)?;
    // Before the tags move: whatever fails there, what people get is signed.
    let subjects = sign::subjects(&plan, &repository)?;
    files::write(&paths::subjects(), subjects.as_bytes(), files::PLAIN)?;
    leave_higher(context, &mut plan, &there)?;
    push::push(context, &plan, &flags.repository, &flags.options, Tags::Move)?;
    push::print(&references);
    Ok(())
}

/// The plan for the images that stand on one in a registry.
fn on_registries(flags: &flags::Refresh) -> Result<Plan> {
    let images = Images { names: flags.names.clone(), all: flags.names.is_empty() };
    let mut plan = Plan::new(&images, &flags.platforms.platforms)?;
    ensure!(plan.version.pre.is_empty(), "cannot refresh a prerelease: no tag moves with one");
    let stands_on_registry = |it: &ImagePlan| plan::base(&plan.chain(&it.name)).is_some();
    let images: Vec<_> = plan.images.iter().filter(|it| stands_on_registry(it)).cloned().collect();
    plan.images = images;
    Ok(plan)
}

/// What was never released has nothing to be built anew.
fn is_published(context: &Context, image: &ImagePlan, there: &BTreeMap<String, Published>) -> bool {
    let is_published = there.contains_key(&image.name);
    if !is_published {
        context.ui.say(format!("{}: left out, as no release has published it yet", image.name));
    }
    is_published
}

/// The images that are published on another base than is there `now`, by name.
fn moved(
    context: &Context,
    plan: &Plan,
    there: &BTreeMap<String, Published>,
    now: &Lock,
) -> Result<Vec<String>> {
    let mut moved = Vec::new();
    for image in &plan.images {
        let base = plan::base(&plan.chain(&image.name)).expect("it stands on a base").clone();
        let is = &now.get(&base).context("every base was asked for")?.index;
        let was = there[&image.name].base.as_deref().unwrap_or("one that it does not name");
        if was != is {
            context.ui.say(format!("{}: its base {base} was {was}, is {is}", image.name));
            moved.push(image.name.clone());
        }
    }
    Ok(moved)
}

/// What is to be signed is what this run pushes, and nothing that lies here from another.
fn forget_subjects() -> Result<()> {
    let path = paths::subjects();
    match fs::remove_file(&path) {
        Err(err) if err.kind() != ErrorKind::NotFound => {
            Err(err).with_context(|| format!("cannot remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// Takes out of the plan the tags that a higher version has.
fn leave_higher(
    context: &Context,
    plan: &mut Plan,
    there: &BTreeMap<String, Published>,
) -> Result<()> {
    let digests = sign::digests(plan)?;
    for (image, (_, digest)) in plan.images.iter_mut().zip(digests) {
        let judged = judge(&image.tags, (&plan.version, &digest), there, Same::Moves);
        tags::say_left(context, &judged);
        image.tags = judged.free;
    }
    Ok(())
}

/// Puts the binaries of a release, checked against its `SHA256SUMS`, in the place of those that
/// were built.
fn adopt(context: &Context, plan: &Plan, folder: &Path) -> Result<()> {
    let list = folder.join("SHA256SUMS");
    let sums = fs::read_to_string(&list).with_context(|| {
        format!("cannot read `{}`: `gh release download` puts it there", list.display())
    })?;
    for platform in plan.platforms() {
        let [name, _] = release::names(platform);
        let path = folder.join(&name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let sum = sha256(&bytes).replacen("sha256:", "", 1);
        ensure!(
            sums.lines().any(|line| line == format!("{sum}  {name}")),
            "cannot use `{}`: its SHA-256 {sum} is not that in SHA256SUMS; download it again",
            path.display()
        );
        build::elf::check(&bytes, platform)
            .with_context(|| format!("cannot use `{}` for {platform}", path.display()))?;
        files::write(&paths::binary(platform, "pid1"), &bytes, files::EXECUTABLE)?;
    }
    context.ui.say(format!("took the binaries of the release in {}", folder.display()));
    Ok(())
}

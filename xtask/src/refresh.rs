//! `cargo xtask refresh`: images whose base has moved since they were pushed, built anew around the
//! binaries of the release.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use oci_spec::image::{ANNOTATION_BASE_IMAGE_DIGEST, ImageIndex};

use crate::builder::Way;
use crate::flags::{self, Images};
use crate::lock::{Lock, wanted};
use crate::oci::layout::sha256;
use crate::plan::{self, ImagePlan, Plan};
use crate::push::Tags;
use crate::registry::{Registry, Repository};
use crate::smoke::Memory;
use crate::{Context, base, build, files, image, paths, push, release, smoke};

/// Looks what the published images stand on, and builds, tests and pushes those whose base is
/// another one now. Prints one reference a line; none, if no base has moved.
pub fn refresh(context: &Context, flags: &flags::Refresh) -> Result<()> {
    let images = Images { names: flags.names.clone(), all: flags.names.is_empty() };
    let mut plan = Plan::new(&images, &flags.platforms.platforms)?;
    ensure!(plan.version.pre.is_empty(), "cannot refresh a prerelease: no tag moves with one");
    let stands_on_registry = |it: &ImagePlan| plan::base(&plan.chain(&it.name)).is_some();
    let images: Vec<_> = plan.images.iter().filter(|it| stands_on_registry(it)).cloned().collect();
    plan.images = images;
    let transport = &flags.options.registry.transport;
    let now = base::resolve(context, &wanted(&plan), &flags.mirrors.list, transport)?;
    let moved = moved(context, flags, &plan, &now)?;
    plan.images.retain(|it| moved.contains(&it.name));
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
    build::build(context, &plan.platforms())?;
    adopt(context, &plan, &flags.binaries)?;
    image::build(context, &plan, &now, &bases, Way::built_in())?;
    let outcomes = smoke::smoke(context, &plan, &flags.smoke, Memory::Trust)?;
    smoke::ensure_passed(&outcomes)?;
    push::print(&push::push(context, &plan, &flags.repository, &flags.options, Tags::Move)?);
    Ok(())
}

/// The images that are not published on the base that is there `now`, by name.
fn moved(
    context: &Context,
    flags: &flags::Refresh,
    plan: &Plan,
    now: &Lock,
) -> Result<Vec<String>> {
    let repository = Repository::parse(&flags.repository)?;
    let transport = &flags.options.registry.transport;
    let registry = Registry::to_pull(&context.ui, repository.clone(), transport)?;
    let work = async {
        let registry = Arc::new(registry.connect(transport).await?);
        let mut moved = Vec::new();
        for image in &plan.images {
            let base = plan::base(&plan.chain(&image.name)).expect("it stands on a base").clone();
            let is = &now.get(&base).context("every base was asked for")?.index;
            let was = published(&registry, image).await?;
            if was.as_ref() == Some(is) {
                continue;
            }
            let was = was.unwrap_or_else(|| "nothing that was published".to_string());
            context.ui.say(format!("{}: its base {base} was {was}, is {is}", image.name));
            moved.push(image.name.clone());
        }
        Ok(moved)
    };
    base::wait_for(context, work)
        .with_context(|| format!("cannot tell what the images in `{repository}` stand on"))
}

/// The digest of the base of what the tag of that name points at, if there is one.
async fn published(registry: &Registry, image: &ImagePlan) -> Result<Option<String>> {
    let what = format!("the image `{}`", image.name);
    let Some(digest) = registry.digest_of(&image.name, &what).await? else { return Ok(None) };
    let document = registry.document(&digest, &what).await?;
    let index = ImageIndex::from_reader(document.bytes.as_slice())
        .with_context(|| format!("cannot read {what}"))?;
    let annotations = index.annotations().clone().unwrap_or_default();
    Ok(annotations.get(ANNOTATION_BASE_IMAGE_DIGEST).cloned())
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

//! `cargo xtask image`: builds the images into OCI layouts, and the contexts of their Dockerfiles.

use std::thread;

use anyhow::{Context as _, Result};

use crate::flags::Choice;
use crate::folder::{self, Files, Outcome};
use crate::oci::image::{Image, Stack};
use crate::oci::layer::Layer;
use crate::plan::{ImagePlan, Plan};
use crate::revision::Revision;
use crate::spec::{ImageSpec, Part};
use crate::{Context, contents, paths};

/// An image that was built.
#[derive(Debug)]
pub struct Built {
    /// Its name.
    pub name: String,
    /// The digest of its image index.
    pub digest: String,
    /// The size of all its blobs, in bytes.
    pub size: u64,
}

/// Builds what was chosen; prints one `name@digest` a line.
pub fn run(context: &Context, choice: &Choice) -> Result<()> {
    let plan = Plan::new(&choice.images, &choice.platforms.platforms)?;
    print(&build(context, &plan)?);
    Ok(())
}

/// Prints `name@digest`, a line for every image.
pub fn print(images: &[Built]) {
    for Built { name, digest, .. } in images {
        println!("{name}@{digest}");
    }
}

/// Builds every image of `plan` from the binaries that the build left.
pub fn build(context: &Context, plan: &Plan) -> Result<Vec<Built>> {
    let revision = Revision::current(context)?;
    let specs: Vec<_> =
        plan.images.iter().map(|image| ImageSpec::new(plan.chain(&image.name))).collect();
    let layers = Layers::pack(plan, &specs, &revision)?;
    let mut images = Vec::new();
    for (image, spec) in plan.images.iter().zip(&specs) {
        context.interrupt.check()?;
        let labels = spec.build_labels(&plan.version, &revision);
        let stacks = layers.stacks(image, spec);
        let built = Image::new(spec, &labels, &image.tags[0], &stacks)
            .with_context(|| format!("cannot build image `{}`", image.name))?;
        write_context(context, image, spec, &layers)?;
        images.push(write(context, image, &built)?);
    }
    Ok(images)
}

/// The layers of all images, each made once.
struct Layers<'a>(Vec<(Part<'a>, Layer)>);

impl<'a> Layers<'a> {
    fn pack(plan: &Plan, specs: &[ImageSpec<'a>], revision: &Revision) -> Result<Layers<'a>> {
        let mut parts: Vec<Part> = Vec::new();
        for (image, spec) in plan.images.iter().zip(specs) {
            for part in image.platforms.iter().flat_map(|platform| spec.parts(platform)) {
                if !parts.contains(&part) {
                    parts.push(part);
                }
            }
        }
        let pack = |part| Layer::pack(&contents::tree(part)?, revision.time);
        let layers: Result<Vec<_>> = thread::scope(|scope| {
            let threads: Vec<_> =
                parts.iter().map(|part| (*part, scope.spawn(move || pack(*part)))).collect();
            let done = threads.into_iter().map(|(part, thread)| {
                Ok((part, thread.join().expect("packing a layer does not panic")?))
            });
            done.collect()
        });
        Ok(Layers(layers?))
    }

    fn get(&self, part: Part) -> &Layer {
        let found = self.0.iter().find(|(it, _)| *it == part);
        &found.expect("the layers of every part were packed").1
    }

    fn stacks(&self, image: &ImagePlan, spec: &ImageSpec) -> Vec<Stack<'_>> {
        let stack = |platform| {
            let parts = spec.parts(platform).into_iter();
            let layers = parts.map(|part| (part.summary(), self.get(part))).collect();
            Stack { platform, layers }
        };
        image.platforms.iter().map(|platform| stack(platform)).collect()
    }
}

fn write(context: &Context, image: &ImagePlan, built: &Image) -> Result<Built> {
    let place = paths::layout(&image.name);
    let files = built.files();
    let outcome = folder::put(&context.interrupt, &place, &files)?;
    let what = match outcome {
        Outcome::Written => "built for",
        Outcome::UpToDate => "up to date for",
    };
    context.ui.say(format!("image {}: {what} {} platforms", image.name, image.platforms.len()));
    Ok(Built {
        name: image.name.clone(),
        digest: built.descriptor.digest().to_string(),
        size: files.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
    })
}

/// Writes what the Dockerfile copies: `docker buildx build -f images/NAME/Dockerfile CONTEXT`.
fn write_context(
    context: &Context,
    image: &ImagePlan,
    spec: &ImageSpec,
    layers: &Layers,
) -> Result<()> {
    let mut binaries = Vec::new();
    for platform in &image.platforms {
        let init = Part::Init(platform).context_path(&platform.to_string());
        binaries.push((init, contents::binary(platform, "pid1")?));
    }
    let mut files: Files =
        binaries.iter().map(|(path, bytes)| (path.clone(), bytes.as_slice())).collect();
    for platform in &image.platforms {
        for part in spec.parts(platform).into_iter().skip(1) {
            let path = part.context_path(&platform.to_string());
            if !files.iter().any(|(it, _)| *it == path) {
                files.push((path, &layers.get(part).blob));
            }
        }
    }
    folder::put(&context.interrupt, &paths::context(&image.name), &files)?;
    Ok(())
}

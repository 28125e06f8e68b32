//! `cargo xtask image`: builds the images into OCI layouts, and the contexts of their Dockerfiles.

use std::thread;

use anyhow::{Context as _, Result};

use crate::base::Bases;
use crate::builder::{self, Builder, Job, Way};
use crate::folder::{self, Files, Outcome, Source};
use crate::lock::Lock;
use crate::oci::image::{Image, Stack};
use crate::oci::layer::Layer;
use crate::plan::{ImagePlan, Plan};
use crate::registry::{Mirror, mirrored};
use crate::revision::Revision;
use crate::spec::{BUILD_LABELS, ImageSpec, Labels, Part};
use crate::{Context, base, contents, flags, generate, paths};

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
pub fn run(context: &Context, flags: &flags::Image) -> Result<()> {
    let plan = Plan::new(&flags.choice.images, &flags.choice.platforms.platforms)?;
    let lock = Lock::read(&flags.bases)?;
    lock.covers(&plan)?;
    flags.builder.ensure_ready(context)?;
    let bases = base::pull(context, &plan, &lock, &flags.bases.mirrors.list, &flags.transport)?;
    let way = way(&flags.builder, &flags.bases, &flags.transport);
    print(&build(context, &plan, &lock, &bases, way)?);
    Ok(())
}

/// Who builds, as the flags say it.
pub fn way<'a>(
    builder: &'a Builder,
    bases: &'a flags::BaseOptions,
    transport: &flags::Transport,
) -> Way<'a> {
    Way { builder, mirrors: &bases.mirrors.list, plain_http: transport.plain_http }
}

/// Prints `name@digest`, a line for every image.
pub fn print(images: &[Built]) {
    for Built { name, digest, .. } in images {
        println!("{name}@{digest}");
    }
}

/// The same as [`build`], for a plan of images that stand on nothing of a registry.
pub fn build_alone(context: &Context, plan: &Plan) -> Result<Vec<Built>> {
    build(context, plan, &Lock::default(), &Bases::default(), Way::built_in())
}

/// Builds every image of `plan` from the binaries that the build left, on `bases`, which are those
/// of `lock`.
pub fn build(
    context: &Context,
    plan: &Plan,
    lock: &Lock,
    bases: &Bases,
    way: Way,
) -> Result<Vec<Built>> {
    let revision = Revision::current(context)?;
    let specs: Vec<_> =
        plan.images.iter().map(|image| ImageSpec::new(plan.chain(&image.name), lock)).collect();
    let layers = Layers::pack(plan, &specs, bases, &revision)?;
    let mut images = Vec::new();
    for (image, spec) in plan.images.iter().zip(&specs) {
        context.interrupt.check()?;
        let labels = spec.build_labels(&plan.version, &revision);
        write_context(context, image, spec, &layers)?;
        let tag = &image.tags[0];
        let written = if *way.builder == Builder::BuiltIn {
            let stacks = layers.stacks(image, spec, bases);
            let built = Image::new(spec, &labels, tag, &stacks)
                .with_context(|| format!("cannot build image `{}`", image.name))?;
            write(context, image, &built)
        } else {
            let dockerfile = generate::dockerfile(plan.chain(&image.name), lock, way.mirrors)?;
            let plain_http = way.plain_http || is_on_this_machine(spec, way.mirrors);
            let job = Job { dockerfile, plain_http, ..job(image, &labels, &revision) };
            let mut output = builder::build(context, way.builder, &job)?;
            for made in &mut output.made {
                if let Some(base) = spec.base {
                    builder::keep_base(made, bases.get(base.reference, made.platform))?;
                }
            }
            write(context, image, &Image::of(&labels, tag, &output.made)?)
        };
        images.push(written?);
    }
    Ok(images)
}

/// Whether the base comes from a registry here, which docker takes for one without TLS unasked.
fn is_on_this_machine(spec: &ImageSpec, mirrors: &[Mirror]) -> bool {
    let repository = spec.base.and_then(|it| mirrored(&it.reference.repository, mirrors).ok());
    repository.is_some_and(|it| it.is_on_this_machine())
}

/// What another builder is to be told of an image.
fn job<'a>(image: &'a ImagePlan, labels: &Labels, revision: &Revision) -> Job<'a> {
    let value = |label| labels.get(label).cloned().unwrap_or_default();
    Job {
        name: &image.name,
        platforms: &image.platforms,
        dockerfile: String::new(),
        plain_http: false,
        arguments: BUILD_LABELS.iter().map(|(label, name)| (*name, value(label))).collect(),
        epoch: revision.time.as_second(),
    }
}

/// The layers of all images, each made once.
struct Layers<'a>(Vec<(Part<'a>, Layer)>);

impl<'a> Layers<'a> {
    fn pack(
        plan: &Plan,
        specs: &[ImageSpec<'a>],
        bases: &Bases,
        revision: &Revision,
    ) -> Result<Layers<'a>> {
        let mut parts: Vec<Part> = Vec::new();
        for (image, spec) in plan.images.iter().zip(specs) {
            for part in image.platforms.iter().flat_map(|platform| spec.parts(platform)) {
                if !parts.contains(&part) {
                    parts.push(part);
                }
            }
        }
        let pack = |part| Layer::pack(&bases.place(part, contents::tree(part)?)?, revision.time);
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

    fn stacks<'s>(
        &'s self,
        image: &ImagePlan,
        spec: &ImageSpec,
        bases: &'s Bases,
    ) -> Vec<Stack<'s>> {
        let stack = |platform| {
            let base = spec.base.map(|base| bases.get(base.reference, platform));
            let parts = spec.parts(platform).into_iter();
            let layers = parts.map(|part| (part.summary(), self.get(part))).collect();
            Stack { platform, base, layers }
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
        size: files.iter().map(|(_, source)| source.size()).sum(),
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
        let init = Part::Init { platform, base: None }.context_path(&platform.to_string());
        binaries.push((init, contents::binary(platform, "pid1")?));
    }
    let mut files: Files =
        binaries.iter().map(|(path, bytes)| (path.clone(), Source::Bytes(bytes))).collect();
    for platform in &image.platforms {
        for part in spec.parts(platform).into_iter().skip(1) {
            let path = part.context_path(&platform.to_string());
            if !files.iter().any(|(it, _)| *it == path) {
                files.push((path, Source::Bytes(&layers.get(part).blob)));
            }
        }
    }
    folder::put(&context.interrupt, &paths::context(&image.name), &files)?;
    Ok(())
}

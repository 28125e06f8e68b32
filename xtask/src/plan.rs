//! `cargo xtask plan`: what `dist` would build, as data.

use anyhow::{Result, bail};
use serde::Serialize;

use crate::definition::{self, Base, Definition};
use crate::flags::Images;
use crate::platform::Platform;
use crate::registry::Reference;
use crate::version;

/// Everything one run is about, decided before anything is done.
#[derive(Debug)]
pub struct Plan {
    /// The version in `Cargo.toml`.
    pub version: semver::Version,
    /// Which images, bases before what stands on them.
    pub images: Vec<ImagePlan>,
    /// Every definition there is: an image's base need not be among the images asked for.
    pub definitions: Vec<Definition>,
}

/// One image to build.
#[derive(Debug, Clone, Serialize)]
pub struct ImagePlan {
    /// Its name.
    pub name: String,
    /// The definition's line about it.
    pub summary: String,
    /// For which platforms.
    #[serde(serialize_with = "names")]
    pub platforms: Vec<&'static Platform>,
    /// The tags it gets when it is pushed.
    pub tags: Vec<String>,
}

fn names<S: serde::Serializer>(platforms: &[&Platform], out: S) -> Result<S::Ok, S::Error> {
    out.collect_seq(platforms.iter().map(ToString::to_string))
}

impl Plan {
    /// Reads the definitions and picks `images` and `platforms` (all, if none is named).
    pub fn new(images: &Images, platforms: &[&'static Platform]) -> Result<Plan> {
        plan(version::current()?, definition::all()?, images, platforms)
    }

    /// The platforms that any of the images needs a binary for, in table order.
    pub fn platforms(&self) -> Vec<&'static Platform> {
        let wanted = |it: &&Platform| self.images.iter().any(|image| image.platforms.contains(it));
        crate::platform::PLATFORMS.iter().filter(wanted).collect()
    }

    /// The definition of `name` with those it stands on, the lowest first.
    pub fn chain(&self, name: &str) -> Vec<&Definition> {
        chain(&self.definitions, name)
    }
}

fn chain<'a>(definitions: &'a [Definition], name: &str) -> Vec<&'a Definition> {
    let find = |name: &str| definitions.iter().find(|it| it.name == name);
    let mut chain = Vec::new();
    let mut next = find(name);
    while let Some(definition) = next {
        chain.insert(0, definition);
        next = match &definition.base {
            Base::Image(base) => find(base),
            Base::Scratch | Base::Registry(_) => None,
        };
    }
    chain
}

/// The image in a registry that the lowest of `chain` stands on, if it does.
pub fn base<'a>(chain: &[&'a Definition]) -> Option<&'a Reference> {
    match chain.first().map(|it| &it.base) {
        Some(Base::Registry(reference)) => Some(reference),
        _ => None,
    }
}

fn plan(
    version: semver::Version,
    definitions: Vec<Definition>,
    images: &Images,
    platforms: &[&'static Platform],
) -> Result<Plan> {
    for name in &images.names {
        if !definitions.iter().any(|it| it.name == *name) {
            let known: Vec<_> = definitions.iter().map(|it| it.name.as_str()).collect();
            bail!("no such image `{name}`, the images are {}", known.join(", "));
        }
    }
    let is_wanted = |name: &String| match images.names.as_slice() {
        [] => images.all || base(&chain(&definitions, name)).is_none(),
        names => names.contains(name),
    };
    let mut planned = Vec::new();
    for definition in definitions.iter().filter(|it| is_wanted(&it.name)) {
        let Definition { name, summary, .. } = definition;
        let chosen = |it: &&'static Platform| platforms.is_empty() || platforms.contains(it);
        let platforms: Vec<_> = definition.platforms.iter().copied().filter(chosen).collect();
        if platforms.is_empty() && images.all {
            continue;
        }
        if platforms.is_empty() {
            let known: Vec<_> = definition.platforms.iter().map(ToString::to_string).collect();
            bail!("image `{name}` has none of these platforms, it has {}", known.join(", "));
        }
        let tags = version::tags(&version, name, definition.default);
        planned.push(ImagePlan { name: name.clone(), summary: summary.clone(), platforms, tags });
    }
    Ok(Plan { version, images: planned, definitions })
}

/// Prints the plan, as a table or as JSON.
pub fn print(choice: &crate::flags::Choice, json: bool) -> Result<()> {
    let plan = Plan::new(&choice.images, &choice.platforms.platforms)?;
    if json {
        let value =
            serde_json::json!({ "version": plan.version.to_string(), "images": plan.images });
        println!("{value:#}");
    } else {
        for image in &plan.images {
            let platforms: Vec<_> = image.platforms.iter().map(ToString::to_string).collect();
            println!("{:18} {}", image.name, platforms.join(" "));
        }
    }
    Ok(())
}

/// A job of CI.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Job<'a> {
    /// The image it builds and runs.
    image: &'a str,
    /// The machine: 64-bit ARM has its own, so that one platform more is run without an emulator.
    runner: &'static str,
    /// As `--platform` takes them.
    platforms: String,
}

/// Prints the jobs of CI as GitHub takes the output of a step.
pub fn print_matrix(choice: &crate::flags::Choice) -> Result<()> {
    let plan = Plan::new(&choice.images, &choice.platforms.platforms)?;
    println!("matrix={}", serde_json::json!({ "include": jobs(&plan.images) }));
    Ok(())
}

fn jobs(images: &[ImagePlan]) -> Vec<Job<'_>> {
    let mut jobs = Vec::new();
    for image in images {
        for (runner, is_arm) in [("ubuntu-24.04", false), ("ubuntu-24.04-arm", true)] {
            let its = image.platforms.iter().filter(|it| (it.architecture == "arm64") == is_arm);
            let platforms = its.map(ToString::to_string).collect::<Vec<_>>().join(",");
            if !platforms.is_empty() {
                jobs.push(Job { image: &image.name, runner, platforms });
            }
        }
    }
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_of_every_image_is_in_one_job_and_arm_on_its_own_machine() {
        let plan = Plan::new(&crate::flags::Images::default(), &[]).unwrap();
        for image in &plan.images {
            let jobs = jobs(std::slice::from_ref(image));
            let platforms: Vec<_> = jobs.iter().flat_map(|it| it.platforms.split(',')).collect();
            assert_eq!(platforms.len(), image.platforms.len());
            let expected = Job {
                image: &image.name,
                runner: "ubuntu-24.04-arm",
                platforms: "linux/arm64".to_string(),
            };
            assert_eq!(jobs[1], expected);
        }
    }

    #[track_caller]
    fn stands_on(name: &str, expected: &[&str]) {
        let plan = Plan::new(&Images::all(), &[]).unwrap();
        let names: Vec<_> = plan.chain(name).iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn the_image_scratch_stands_on_nothing() {
        stands_on("scratch", &["scratch"]);
    }

    #[test]
    fn a_chain_begins_with_the_lowest() {
        stands_on("docker-testing", &["static", "docker-testing"]);
    }

    #[track_caller]
    fn plans(images: &Images, platform: &str, expected: &[&str]) {
        let plan = Plan::new(images, &[platform.parse().unwrap()]).unwrap();
        let names: Vec<_> = plan.images.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn images_on_distributions_are_planned_when_asked_for() {
        let own = ["scratch", "static", "docker-testing"];
        plans(&Images::default(), "linux/amd64", &own);
        let named = Images { names: vec!["debian".to_string()], all: false };
        plans(&named, "linux/amd64", &["debian"]);
        // Of the distributions, none has this platform.
        plans(&Images::all(), "linux/loong64", &own);
    }
}

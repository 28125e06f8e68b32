//! `cargo xtask plan`: what `dist` would build, as data.

use anyhow::{Result, bail};
use serde::Serialize;

use crate::definition::{self, Definition};
use crate::platform::Platform;
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
    /// Reads the definitions and picks `images` (all, if none is named) and `platforms` (likewise).
    pub fn new(images: &[String], platforms: &[&'static Platform]) -> Result<Plan> {
        plan(version::current()?, definition::all()?, images, platforms)
    }

    /// The platforms that any of the images needs a binary for, in table order.
    pub fn platforms(&self) -> Vec<&'static Platform> {
        let wanted = |it: &&Platform| self.images.iter().any(|image| image.platforms.contains(it));
        crate::platform::PLATFORMS.iter().filter(wanted).collect()
    }

    /// The definition of `name` with those it stands on, the lowest first.
    pub fn chain(&self, name: &str) -> Vec<&Definition> {
        let mut chain = Vec::new();
        let mut next = self.definitions.iter().find(|it| it.name == name);
        while let Some(definition) = next {
            chain.insert(0, definition);
            next = match definition.base.as_str() {
                // As a base it means nothing, not the image of that name.
                "scratch" => None,
                base => self.definitions.iter().find(|it| it.name == base),
            };
        }
        chain
    }
}

fn plan(
    version: semver::Version,
    definitions: Vec<Definition>,
    images: &[String],
    platforms: &[&'static Platform],
) -> Result<Plan> {
    for name in images {
        if !definitions.iter().any(|it| it.name == *name) {
            let known: Vec<_> = definitions.iter().map(|it| it.name.as_str()).collect();
            bail!("no such image `{name}`, the images are {}", known.join(", "));
        }
    }
    let mut planned = Vec::new();
    for definition in &definitions {
        let Definition { name, summary, .. } = definition;
        let chosen = |it: &&'static Platform| platforms.is_empty() || platforms.contains(it);
        let platforms: Vec<_> = definition.platforms.iter().copied().filter(chosen).collect();
        if images.is_empty() || images.contains(name) {
            if platforms.is_empty() {
                let known: Vec<_> = definition.platforms.iter().map(ToString::to_string).collect();
                bail!("image `{name}` has none of these platforms, it has {}", known.join(", "));
            }
            let tags = version::tags(&version, name, definition.default);
            planned.push(ImagePlan {
                name: name.clone(),
                summary: summary.clone(),
                platforms,
                tags,
            });
        }
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
            println!("{:16} {}", image.name, platforms.join(" "));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn stands_on(name: &str, expected: &[&str]) {
        let plan = Plan::new(&[], &[]).unwrap();
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
}

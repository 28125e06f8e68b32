//! `cargo xtask lock`: finds out what the bases are now, and writes it down for every build to
//! come.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::flags::{self, BaseOptions, Images};
use crate::plan::{self, Plan};
use crate::platform::Platform;
use crate::registry::Reference;
use crate::{Context, base, files, paths};

const HEAD: &str = "\
# Written by `cargo xtask lock`: images are built on these digests and on no others.
";

/// The bases, each by its reference.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lock(BTreeMap<String, Entry>);

/// What a reference meant when it was locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The digest of what the tag pointed at.
    pub index: String,
    /// The digest of each platform's manifest.
    pub platforms: BTreeMap<String, String>,
}

/// A base, and what is built on it.
pub struct Wanted<'a> {
    /// The base.
    pub reference: &'a Reference,
    /// The images.
    pub images: Vec<&'a str>,
    /// All platforms that one of them has.
    pub platforms: Vec<&'static Platform>,
}

/// The command.
pub fn command(context: &Context, flags: &flags::Lock) -> Result<()> {
    let images = Images { names: flags.names.clone(), all: flags.names.is_empty() };
    let plan = Plan::new(&images, &[])?;
    let path = path(&flags.bases);
    let old = if path.exists() { Lock::read(&flags.bases)? } else { Lock::default() };
    let whole = Plan::new(&Images::all(), &[])?;
    let wanted = of_the_same_bases(&plan, &whole);
    let found = base::resolve(context, &wanted, &flags.bases.mirrors.list, &flags.transport)?;
    if flags.check {
        return check(context, &old, &found);
    }
    // Bases of images that were not named stay; those of images that are no more go.
    let known: Vec<_> = self::wanted(&whole).iter().map(|it| it.reference.to_string()).collect();
    let mut new = old.clone();
    new.0.extend(found.0);
    new.0.retain(|reference, _| known.contains(reference));
    for reference in new.moved_from(&old) {
        context.ui.say(format!("locked {reference} at {}", new.0[&reference].index));
    }
    files::write(&path, new.render()?.as_bytes(), files::PLAIN)
}

fn check(context: &Context, old: &Lock, found: &Lock) -> Result<()> {
    let moved = found.moved_from(old);
    if moved.is_empty() {
        context.ui.say(format!("{} bases are where they were", found.0.len()));
        return Ok(());
    }
    let line = |reference: &String| match old.0.get(reference) {
        None => format!("  {reference} is not locked"),
        Some(entry) if entry.index == found.0[reference].index => {
            format!("  {reference} is locked for other platforms")
        }
        Some(entry) => {
            format!("  {reference} was {}, is {}", entry.index, found.0[reference].index)
        }
    };
    let lines: Vec<_> = moved.iter().map(line).collect();
    bail!("bases have moved, run `cargo xtask lock`:\n{}", lines.join("\n"))
}

/// The bases of the plan's images, with all that stands on them in the `whole`: an entry is for
/// all of it.
fn of_the_same_bases<'a>(plan: &Plan, whole: &'a Plan) -> Vec<Wanted<'a>> {
    let named = wanted(plan);
    let mut all = wanted(whole);
    all.retain(|base| named.iter().any(|it| it.reference == base.reference));
    all
}

/// The bases of the plan's images, each once.
pub fn wanted(plan: &Plan) -> Vec<Wanted<'_>> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for image in &plan.images {
        let Some(reference) = plan::base(&plan.chain(&image.name)) else { continue };
        let place = wanted.iter().position(|it| it.reference == reference);
        let place = place.unwrap_or_else(|| {
            wanted.push(Wanted { reference, images: Vec::new(), platforms: Vec::new() });
            wanted.len() - 1
        });
        wanted[place].images.push(&image.name);
        for platform in &image.platforms {
            if !wanted[place].platforms.contains(platform) {
                wanted[place].platforms.push(platform);
            }
        }
    }
    wanted
}

/// The file that `options` mean.
pub fn path(options: &BaseOptions) -> PathBuf {
    options.lock_file.clone().unwrap_or_else(paths::lock)
}

impl Lock {
    /// The lock that is committed.
    pub fn committed() -> Result<Lock> {
        Lock::read_from(&paths::lock())
    }

    /// The lock that `options` mean.
    pub fn read(options: &BaseOptions) -> Result<Lock> {
        Lock::read_from(&path(options))
    }

    /// The lock in a file.
    pub fn read_from(path: &Path) -> Result<Lock> {
        let text = match fs::read_to_string(path) {
            // Nothing is locked yet.
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Lock::default()),
            text => text.with_context(|| format!("cannot read `{}`", path.display()))?,
        };
        toml::from_str(&text).with_context(|| format!("cannot use `{}`", path.display()))
    }

    /// As a file has it.
    pub fn render(&self) -> Result<String> {
        let entries = toml::to_string(self).context("cannot write the lock")?;
        Ok(if entries.is_empty() { HEAD.to_string() } else { format!("{HEAD}\n{entries}") })
    }

    /// What is locked of the base.
    pub fn get(&self, reference: &Reference) -> Option<&Entry> {
        self.0.get(&reference.to_string())
    }

    /// Notes down what a base is.
    pub fn insert(&mut self, reference: &Reference, entry: Entry) {
        self.0.insert(reference.to_string(), entry);
    }

    /// Which bases are not what they are in `old`.
    fn moved_from(&self, old: &Lock) -> Vec<String> {
        let moved = self.0.iter().filter(|(reference, entry)| old.0.get(*reference) != Some(entry));
        moved.map(|(reference, _)| reference.clone()).collect()
    }

    /// Fails unless all of the plan's bases are locked for all its platforms.
    pub fn covers(&self, plan: &Plan) -> Result<()> {
        for Wanted { reference, images, platforms } in wanted(plan) {
            let image = images[0];
            let Some(entry) = self.get(reference) else {
                bail!(
                    "cannot build the image `{image}`: its base `{reference}` is not locked, run \
                     `cargo xtask lock {image}`"
                );
            };
            let missing =
                platforms.iter().find(|it| !entry.platforms.contains_key(&it.to_string()));
            if let Some(platform) = missing {
                bail!(
                    "cannot build the image `{image}` for {platform}: its base `{reference}` is \
                     not locked for that, run `cargo xtask lock {image}`"
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Base;

    fn lock() -> Lock {
        let platforms = [("linux/amd64", "sha256:b"), ("linux/arm/v7", "sha256:c")];
        let platforms = platforms.map(|(name, digest)| (name.to_string(), digest.to_string()));
        let mut lock = Lock::default();
        let entry = Entry { index: "sha256:a".to_string(), platforms: platforms.into() };
        lock.insert(&"docker.io/library/debian:trixie".parse().unwrap(), entry);
        lock
    }

    #[test]
    fn a_lock_is_read_as_it_was_written() {
        let text = lock().render().unwrap();
        let expected = r#"
["docker.io/library/debian:trixie"]
index = "sha256:a"

["docker.io/library/debian:trixie".platforms]
"linux/amd64" = "sha256:b"
"linux/arm/v7" = "sha256:c"
"#;
        assert_eq!(text, format!("{HEAD}{expected}"));
        assert_eq!(toml::from_str::<Lock>(&text).unwrap(), lock());
        assert_eq!(Lock::default().render().unwrap(), HEAD);
    }

    #[test]
    fn a_base_is_locked_for_all_that_stand_on_it() {
        // As if all stood on the same; `debian` has linux/386, `ubuntu` does not.
        let plan = |names: &[&str]| {
            let names = names.iter().map(ToString::to_string).collect();
            let mut plan = Plan::new(&Images { names, all: false }, &[]).unwrap();
            for definition in &mut plan.definitions {
                definition.base = Base::Registry("r.io/base:1".parse().unwrap());
            }
            plan
        };
        let (plan, whole) = (plan(&["ubuntu"]), plan(&["debian", "ubuntu"]));
        let wanted = of_the_same_bases(&plan, &whole);
        let [base] = wanted.as_slice() else { panic!("{} bases", wanted.len()) };
        assert_eq!(base.images, ["debian", "ubuntu"]);
        assert!(base.platforms.contains(&"linux/386".parse().unwrap()));
    }

    #[test]
    fn the_committed_lock_is_as_it_is_written() {
        let text = fs::read_to_string(paths::lock()).unwrap();
        assert_eq!(Lock::committed().unwrap().render().unwrap(), text);
    }
}

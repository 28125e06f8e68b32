//! `cargo xtask release`: from a tag to images and files that anybody can check, one step after the
//! other.
//!
//! Each step looks whether it was done before: after a failure, the same command is given again.
//! Nothing can be found by name before all of it has been run as it came out of the registry, and
//! the release can be seen by nobody before all of it is there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use xshell::{Shell, cmd};

use crate::builder::Builder;
use crate::flags::{self, Choice, Images, Platforms};
use crate::lock::Lock;
use crate::plan::Plan;
use crate::push::{Tags, push};
use crate::registry::Repository;
use crate::revision::Revision;
use crate::sign::Outside;
use crate::smoke::{Memory, ensure_passed, smoke};
use crate::tags::{Judged, Same, judge};
use crate::version::LATEST;
use crate::{Context, dist, files, paths, pull, release, sign, tags};

/// In the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// See that the tag, the tree and the changelog are those of this version
    Check,
    /// Build, smoke-test and package everything
    Dist,
    /// Push the images, without tags
    Push,
    /// Pull what was pushed, and run it
    Smoke,
    /// Move the tags
    Tag,
    /// Make a draft of the release, with all files
    Draft,
    /// Sign images and checksums, as the workflow that does it
    Sign,
    /// Let everybody see the release
    Publish,
}

/// What all steps have to know.
struct Release<'a> {
    context: &'a Context,
    outside: Outside<'a>,
    flags: &'a flags::Release,
    images: Images,
    plan: Plan,
    repository: Repository,
    /// The git tag, which names the release.
    tag: String,
    /// `OWNER/NAME` on GitHub.
    project: String,
}

/// What there is on GitHub under the release's name.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Absent,
    Draft,
    Published,
}

/// Takes the steps that were asked for, all if none was, in their order.
pub fn release(context: &Context, flags: &flags::Release) -> Result<()> {
    let release = Release::new(context, flags)?;
    for step in Step::value_variants() {
        if flags.steps.is_empty() || flags.steps.contains(step) {
            context.ui.say(format!("release: {}", name(*step)));
            release.take(*step).with_context(|| {
                format!("cannot release {}: step `{}`", release.tag, name(*step))
            })?;
        }
    }
    Ok(())
}

fn name(step: Step) -> String {
    format!("{step:?}").to_lowercase()
}

impl Release<'_> {
    fn new<'a>(context: &'a Context, flags: &'a flags::Release) -> Result<Release<'a>> {
        let published = Repository::published()?;
        let repository = match &flags.repository {
            Some(written) => Repository::parse(written)?,
            None => published.clone(),
        };
        if flags.dry_run && repository == published {
            bail!("cannot rehearse in `{published}`, where people find images; name another");
        }
        if !flags.dry_run && !flags.platforms.platforms.is_empty() {
            bail!("cannot release for some platforms only; `--platform` is for rehearsals");
        }
        let images = images(context, flags)?;
        let plan = Plan::new(&images, &flags.platforms.platforms)?;
        let tag = format!("v{}", plan.version);
        let project = env!("CARGO_PKG_REPOSITORY").trim_start_matches("https://github.com/");
        let project = project.to_string();
        let outside = Outside { context, is_rehearsal: flags.dry_run };
        Ok(Release { context, outside, flags, images, plan, repository, tag, project })
    }

    fn take(&self, step: Step) -> Result<()> {
        match step {
            Step::Check => self.check(),
            Step::Dist => self.dist(),
            Step::Push => {
                // It is known already whether the tags can be moved, and nobody has seen anything.
                self.movable(|_| {})?;
                self.push(&self.plan, Tags::Keep)?;
                let options = &self.flags.options.registry;
                release::attach(self.context, &self.plan, &self.repository, options)
            }
            Step::Smoke => self.smoke(),
            Step::Tag => self.tag(),
            Step::Draft => self.draft(),
            Step::Sign => self.sign(),
            Step::Publish => self.publish(),
        }
    }

    fn check(&self) -> Result<()> {
        let sh = Shell::new()?;
        sh.change_dir(paths::root());
        let tags = self.outside.ask(cmd!(sh, "git tag --points-at HEAD"))?;
        let revision = Revision::current(self.context)?;
        let changelog = fs::read_to_string(paths::root().join("CHANGELOG.md"))
            .context("cannot read `CHANGELOG.md`")?;
        let commit = revision.commit.unwrap_or_default();
        let problems = problems(&self.plan.version.to_string(), &tags, &commit, &changelog);
        match problems.as_slice() {
            [] => {}
            // A rehearsal is for what is not ready yet.
            _ if self.flags.dry_run => {
                for problem in problems {
                    self.context.ui.warn(format!("a release would end here: {problem}"));
                }
            }
            _ => bail!("{}", problems.join("; ")),
        }
        Ok(())
    }

    fn dist(&self) -> Result<()> {
        let platforms = Platforms { platforms: self.flags.platforms.platforms.clone() };
        let flags = flags::Dist {
            choice: Choice { images: self.images.clone(), platforms },
            // A release is what anybody can build again, bit for bit.
            builder: Builder::BuiltIn,
            bases: self.flags.bases.clone(),
            smoke: self.flags.smoke.clone(),
            push: None,
            repository: self.flags.repository.clone(),
            options: self.flags.options.clone(),
        };
        dist::dist(self.context, &flags)
    }

    fn push(&self, plan: &Plan, tags: Tags) -> Result<()> {
        let repository = self.repository.to_string();
        push(self.context, plan, &repository, &self.flags.options, tags).map(drop)
    }

    fn tag(&self) -> Result<()> {
        let plan = self.movable(|judged| tags::say_left(self.context, judged))?;
        self.push(&plan, Tags::Move)
    }

    /// The plan with those tags that may move; `tell` hears of each image's others. Fails if this
    /// version is published, and as something else.
    fn movable(&self, tell: impl Fn(&Judged)) -> Result<Plan> {
        let options = &self.flags.options.registry;
        let there = tags::look(self.context, &self.plan, &self.repository, options)?;
        let mut plan = Plan::new(&self.images, &self.flags.platforms.platforms)?;
        for (image, (_, digest)) in plan.images.iter_mut().zip(sign::digests(&self.plan)?) {
            let ours = (&self.plan.version, digest.as_str());
            let judged = judge(&image.tags, ours, &there, Same::Stays);
            if let Some((tag, its)) = judged.taken.first() {
                let problem = format!(
                    "cannot move `{tag}`: it is {its}, and {digest} here; what is published never \
                     changes, so give this a version of its own"
                );
                if !self.flags.dry_run {
                    bail!("{problem}");
                }
                self.context.ui.warn(format!("a release would end here: {problem}"));
                continue;
            }
            tell(&judged);
            image.tags = judged.free;
        }
        Ok(plan)
    }

    fn smoke(&self) -> Result<()> {
        let transport = &self.flags.options.registry.transport;
        pull::pull(self.context, &self.plan, &self.repository, transport)?;
        ensure_passed(&smoke(self.context, &self.plan, &self.flags.smoke, Memory::Ignore)?)
    }

    fn draft(&self) -> Result<()> {
        files::write(&paths::subjects(), self.subjects()?.as_bytes(), files::PLAIN)?;
        let Release { tag, project, .. } = self;
        let notes = paths::release().join("NOTES.md");
        let files = listed(&paths::release())?;
        let sh = Shell::new()?;
        let create = cmd!(sh, "gh release create {tag} --repo {project} --draft --verify-tag");
        let edit = cmd!(sh, "gh release edit {tag} --repo {project}");
        let describe = match self.state()? {
            State::Published => return Ok(()),
            State::Absent => create,
            // What an earlier attempt has left may be another build's.
            State::Draft => {
                self.remove_others(&files)?;
                edit
            }
        };
        self.outside.act(describe.args(["--title", tag, "--notes-file"]).arg(notes))?;
        self.upload(&files)
    }

    /// Removes from the draft what is neither one of `files` nor a signature.
    fn remove_others(&self, files: &[PathBuf]) -> Result<()> {
        let Release { tag, project, .. } = self;
        let sh = Shell::new()?;
        let names = cmd!(sh, "gh release view {tag} --repo {project} --json assets --jq");
        let names = self.outside.ask(names.arg(".assets[].name"))?;
        for name in others(&names, files) {
            let remove = cmd!(sh, "gh release delete-asset {tag} {name} --repo {project} --yes");
            self.outside.act(remove)?;
        }
        Ok(())
    }

    fn sign(&self) -> Result<()> {
        if self.state()? == State::Published {
            return Ok(());
        }
        let digests = sign::digests(&self.plan)?.into_iter();
        let images = digests.map(|(_, digest)| format!("{}@{digest}", self.repository));
        sign::images(&self.outside, sign::RELEASE, images)?;
        let sums = paths::release().join("SHA256SUMS");
        let bundle = paths::signature();
        let folder = bundle.parent().context("a file has a folder")?;
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
        let sh = Shell::new()?;
        self.outside.act(cmd!(sh, "cosign sign-blob --yes --bundle {bundle} {sums}"))?;
        self.upload(&[bundle])
    }

    fn publish(&self) -> Result<()> {
        if self.state()? == State::Published {
            return Ok(());
        }
        if let Some(attestation) = &self.flags.attestation {
            let bytes = fs::read(attestation)
                .with_context(|| format!("cannot read `{}`", attestation.display()))?;
            // Under a name that does not change.
            files::write(&paths::attestation(), &bytes, files::PLAIN)?;
            self.upload(&[paths::attestation()])?;
        }
        let Release { tag, project, .. } = self;
        let is_prerelease = !self.plan.version.pre.is_empty();
        // What GitHub shows as the latest is what the images call so. It would take any that is
        // published last.
        let plan = self.movable(|_| {})?;
        let is_latest = plan.images.iter().any(|it| it.tags.iter().any(|tag| tag == LATEST));
        let sh = Shell::new()?;
        let edit = cmd!(sh, "gh release edit {tag} --repo {project} --draft=false");
        let edit = edit.arg(format!("--prerelease={is_prerelease}"));
        self.outside.act(edit.arg(format!("--latest={is_latest}")))
    }

    fn upload(&self, files: &[PathBuf]) -> Result<()> {
        let Release { tag, project, .. } = self;
        let sh = Shell::new()?;
        self.outside.act(cmd!(sh, "gh release upload {tag} --repo {project} --clobber {files...}"))
    }

    /// What there is. What is published never changes: people may have got it already.
    fn state(&self) -> Result<State> {
        if self.flags.dry_run {
            return Ok(State::Absent);
        }
        let Release { tag, project, .. } = self;
        let sh = Shell::new()?;
        let view = cmd!(sh, "gh release view {tag} --repo {project} --json isDraft");
        let state = state(self.outside.ask(view))?;
        if state == State::Published {
            self.context.ui.say(format!("{tag} is published, and stays as it is"));
        }
        Ok(state)
    }

    /// The checksums that are attested: those of the files, and the digests of the images.
    fn subjects(&self) -> Result<String> {
        let path = paths::release().join("SHA256SUMS");
        let sums = fs::read_to_string(&path);
        let sums = sums.with_context(|| format!("cannot read `{}`", path.display()))?;
        Ok(sums + &sign::subjects(&self.plan, &self.repository)?)
    }
}

/// Every image, unless somebody said that those on distributions are to be left out.
fn images(context: &Context, flags: &flags::Release) -> Result<Images> {
    if flags.without_distributions {
        context.ui.warn("released without the images on distributions");
        return Ok(Images::default());
    }
    let all = Images::all();
    Lock::read(&flags.bases)?.covers(&Plan::new(&all, &[])?).context(
        "cannot release every image; `--without-distributions` leaves out those on distributions",
    )?;
    Ok(all)
}

/// All that keeps `version` from being released.
fn problems(version: &str, tags: &str, commit: &str, changelog: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !tags.lines().any(|tag| tag == format!("v{version}")) {
        problems.push(format!("this commit is not tagged, run `git tag v{version}`"));
    }
    if commit.is_empty() || commit.ends_with("-dirty") {
        problems.push("something is not committed, see `git status`".to_string());
    }
    if !changelog.contains(&format!("\n## [{version}]")) {
        problems.push(format!("CHANGELOG.md has no section [{version}]"));
    }
    problems
}

/// What gh's answer, or its complaint, means.
fn state(answer: Result<String>) -> Result<State> {
    match answer {
        Ok(text) if text.contains("true") => Ok(State::Draft),
        Ok(_) => Ok(State::Published),
        Err(err) if format!("{err:#}").contains("release not found") => Ok(State::Absent),
        Err(err) => Err(err),
    }
}

/// Those of the assets `names` that are neither one of `files` nor a signature.
fn others<'a>(names: &'a str, files: &[PathBuf]) -> Vec<&'a str> {
    let is_file = |name: &str| files.iter().any(|it| it.ends_with(name));
    let is_ours = |name: &&str| is_file(name) || release::SIGNATURES.contains(name);
    names.lines().filter(|name| !is_ours(name)).collect()
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    const CHANGELOG: &str = "# Changelog\n\n## [1.2.3] - 2026-01-01\n";

    #[test]
    fn a_tagged_and_described_commit_may_be_released() {
        assert!(problems("1.2.3", "v1.2.3\nother\n", "abc", CHANGELOG).is_empty());
    }

    #[test]
    fn all_that_is_wrong_is_named_at_once() {
        let found = problems("1.2.4", "v1.2.40\n", "abc-dirty", CHANGELOG);
        let expected = [
            "this commit is not tagged, run `git tag v1.2.4`",
            "something is not committed, see `git status`",
            "CHANGELOG.md has no section [1.2.4]",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn only_a_release_that_is_not_there_is_made() {
        let is = |answer: Result<&str>| state(answer.map(ToString::to_string)).ok();
        assert_eq!(is(Ok("{\"isDraft\":true}\n")), Some(State::Draft));
        assert_eq!(is(Ok("{\"isDraft\":false}\n")), Some(State::Published));
        assert_eq!(is(Err(anyhow!("`gh` failed: release not found"))), Some(State::Absent));
        assert_eq!(is(Err(anyhow!("`gh` failed: HTTP 502"))), None);
    }

    #[test]
    fn what_another_attempt_has_left_in_the_draft_goes() {
        let files = ["/x/release/SHA256SUMS", "/x/release/pid1-linux-amd64"].map(PathBuf::from);
        let names = "SHA256SUMS\nSHA256SUMS.sigstore.json\nlinux-amd64\npid1-linux-amd64\n";
        assert_eq!(others(names, &files), ["linux-amd64"]);
    }
}

//! `cargo xtask release`: from a tag to images and files that anybody can check, one step after the
//! other.
//!
//! Each step looks whether it was done before: after a failure, the same command is given again.
//! Nothing can be found by name before all of it has been run as it came out of the registry, and
//! the release can be seen by nobody before all of it is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use xshell::{Cmd, Shell, cmd};

use crate::builder::Builder;
use crate::flags::{self, Choice, Images, Platforms};
use crate::lock::Lock;
use crate::oci::layout::Layout;
use crate::plan::Plan;
use crate::push::{Tags, push};
use crate::registry::Repository;
use crate::revision::Revision;
use crate::smoke::{Memory, ensure_passed, smoke};
use crate::ui::pasteable;
use crate::{Context, dist, files, paths, process, pull, release};

/// How long a question to git, GitHub or a registry may take.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// Who vouches for whom a signature is by.
const ISSUER: &str = "https://token.actions.githubusercontent.com";

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
        let images = images(context, &Lock::read(&flags.bases)?)?;
        let plan = Plan::new(&images, &flags.platforms.platforms)?;
        let tag = format!("v{}", plan.version);
        let project = env!("CARGO_PKG_REPOSITORY").trim_start_matches("https://github.com/");
        let project = project.to_string();
        Ok(Release { context, flags, images, plan, repository, tag, project })
    }

    fn take(&self, step: Step) -> Result<()> {
        match step {
            Step::Check => self.check(),
            Step::Dist => self.dist(),
            Step::Push => {
                self.push(Tags::Keep)?;
                let options = &self.flags.options.registry;
                release::attach(self.context, &self.plan, &self.repository, options)
            }
            Step::Smoke => self.smoke(),
            Step::Tag => self.push(Tags::Move),
            Step::Draft => self.draft(),
            Step::Sign => self.sign(),
            Step::Publish => self.publish(),
        }
    }

    fn check(&self) -> Result<()> {
        let sh = Shell::new()?;
        sh.change_dir(paths::root());
        let tags = self.ask(cmd!(sh, "git tag --points-at HEAD"))?;
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

    fn push(&self, tags: Tags) -> Result<()> {
        let repository = self.repository.to_string();
        push(self.context, &self.plan, &repository, &self.flags.options, tags).map(drop)
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
        let sh = Shell::new()?;
        if self.is_published()? {
            return Ok(());
        }
        if self.state()? == State::Absent {
            let create = cmd!(sh, "gh release create {tag} --repo {project} --draft");
            let create = create.args(["--verify-tag", "--title", tag, "--notes-file"]);
            self.act(create.arg(notes))?;
        }
        self.upload(&listed(&paths::release())?)
    }

    fn sign(&self) -> Result<()> {
        if self.is_published()? {
            return Ok(());
        }
        let sh = Shell::new()?;
        let identity = format!("^https://github.com/{}/", self.project);
        for (_, digest) in self.digests()? {
            let image = format!("{}@{digest}", self.repository);
            let verify = cmd!(sh, "cosign verify --certificate-identity-regexp {identity}");
            let verify = verify.args(["--certificate-oidc-issuer", ISSUER, &image]);
            if self.flags.dry_run || self.ask(verify).is_err() {
                self.act(cmd!(sh, "cosign sign --yes {image}"))?;
            }
        }
        let sums = paths::release().join("SHA256SUMS");
        let bundle = paths::signature();
        let folder = bundle.parent().context("a file has a folder")?;
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
        self.act(cmd!(sh, "cosign sign-blob --yes --bundle {bundle} {sums}"))?;
        self.upload(&[bundle])
    }

    fn publish(&self) -> Result<()> {
        if self.is_published()? {
            return Ok(());
        }
        if let Some(attestation) = &self.flags.attestation {
            self.upload(std::slice::from_ref(attestation))?;
        }
        let Release { tag, project, .. } = self;
        let is_prerelease = !self.plan.version.pre.is_empty();
        let sh = Shell::new()?;
        let edit = cmd!(sh, "gh release edit {tag} --repo {project} --draft=false");
        self.act(edit.arg(format!("--prerelease={is_prerelease}")))
    }

    fn upload(&self, files: &[PathBuf]) -> Result<()> {
        let Release { tag, project, .. } = self;
        let sh = Shell::new()?;
        self.act(cmd!(sh, "gh release upload {tag} --repo {project} --clobber {files...}"))
    }

    /// Whether there is nothing left to do: what people may have got already never changes.
    fn is_published(&self) -> Result<bool> {
        let is_published = self.state()? == State::Published;
        if is_published {
            self.context.ui.say(format!("{} is published, and stays as it is", self.tag));
        }
        Ok(is_published)
    }

    fn state(&self) -> Result<State> {
        if self.flags.dry_run {
            return Ok(State::Absent);
        }
        let Release { tag, project, .. } = self;
        let sh = Shell::new()?;
        state(self.ask(cmd!(sh, "gh release view {tag} --repo {project} --json isDraft")))
    }

    /// The checksums that are attested: those of the files, and the digests of the images.
    fn subjects(&self) -> Result<String> {
        let path = paths::release().join("SHA256SUMS");
        let sums = fs::read_to_string(&path);
        let sums = sums.with_context(|| format!("cannot read `{}`", path.display()))?;
        let line = |(tag, digest): (String, String)| {
            format!("{}  {}:{tag}\n", digest.trim_start_matches("sha256:"), self.repository)
        };
        Ok(sums + &self.digests()?.into_iter().map(line).collect::<String>())
    }

    /// The fullest tag and the digest of each image.
    fn digests(&self) -> Result<Vec<(String, String)>> {
        let digest = |name| Layout::open(&paths::layout(name))?.index_descriptor();
        let images = self.plan.images.iter();
        images.map(|it| Ok((it.tags[0].clone(), digest(&it.name)?.digest().to_string()))).collect()
    }

    /// Runs what changes something outside; a rehearsal only names it.
    fn act(&self, command: Cmd) -> Result<()> {
        let command = Command::from(command);
        if self.flags.dry_run {
            println!("{}", pasteable(&command));
            return Ok(());
        }
        process::run(&self.context.ui, &self.context.interrupt, command)
    }

    fn ask(&self, command: Cmd) -> Result<String> {
        let Context { ui, interrupt } = self.context;
        process::output(ui, interrupt, Command::from(command), ANSWER_LIMIT)
    }
}

/// Every image, if all bases are locked, otherwise those that need none.
fn images(context: &Context, lock: &Lock) -> Result<Images> {
    let all = Images::all();
    if let Err(err) = lock.covers(&Plan::new(&all, &[])?) {
        context.ui.warn(format!("released without the images on distributions: {err:#}"));
        return Ok(Images::default());
    }
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
}

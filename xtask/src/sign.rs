//! `cargo xtask sign`: signatures of images by cosign, in the name of the workflow that asks for
//! them, and the list of what that attests.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use xshell::{Cmd, Shell, cmd};

use crate::oci::layout::Layout;
use crate::plan::Plan;
use crate::registry::Repository;
use crate::ui::pasteable;
use crate::{Context, flags, paths, process};

/// Who vouches for whom a signature is by.
const ISSUER: &str = "https://token.actions.githubusercontent.com";

/// How long a question to git, GitHub or a registry may take.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// The workflow that releases, as GitHub names it in certificates: only for tags of versions.
pub const RELEASE: &str = "release.yml@refs/tags/v";

/// The workflow that builds images anew on bases that have moved: only on the branch of releases.
const BASES: &str = "bases.yml@refs/heads/main$";

/// Signs the images that `refresh` has pushed.
pub fn command(context: &Context, flags: &flags::Sign) -> Result<()> {
    let path = paths::subjects();
    let subjects = fs::read_to_string(&path).with_context(|| {
        format!("cannot read `{}`, which `cargo xtask refresh` writes", path.display())
    })?;
    let outside = Outside { context, is_rehearsal: flags.dry_run };
    images(&outside, BASES, subjects.lines().filter_map(image))
}

/// Signs each of the images, `REPOSITORY@DIGEST`, that `workflow` has not signed before.
pub fn images(
    outside: &Outside,
    workflow: &str,
    images: impl IntoIterator<Item = String>,
) -> Result<()> {
    let identity = identity(workflow);
    let sh = Shell::new()?;
    for image in images {
        let verify = cmd!(sh, "cosign verify --certificate-identity-regexp {identity}");
        let verify = verify.args(["--certificate-oidc-issuer", ISSUER, &image]);
        if outside.is_rehearsal || outside.ask(verify).is_err() {
            outside.act(cmd!(sh, "cosign sign --yes {image}"))?;
        }
    }
    Ok(())
}

/// The regular expression of the names that `workflow` signs with, and nobody else.
fn identity(workflow: &str) -> String {
    let place = format!("{}/.github/workflows/{workflow}", env!("CARGO_PKG_REPOSITORY"));
    format!("^{}", place.replace('.', r"\."))
}

/// The plan's images that were built: the fullest tag of each, and its digest.
pub fn digests(plan: &Plan) -> Result<Vec<(String, String)>> {
    let digest = |name| Layout::open(&paths::layout(name))?.index_descriptor();
    let images = plan.images.iter();
    images.map(|it| Ok((it.tags[0].clone(), digest(&it.name)?.digest().to_string()))).collect()
}

/// The digests of the plan's images as lines of checksums, which is how they are attested.
pub fn subjects(plan: &Plan, repository: &Repository) -> Result<String> {
    let line = |(tag, digest): (String, String)| {
        format!("{}  {repository}:{tag}\n", digest.trim_start_matches("sha256:"))
    };
    Ok(digests(plan)?.into_iter().map(line).collect())
}

/// The image of a line of [`subjects`].
fn image(line: &str) -> Option<String> {
    let (digest, name) = line.split_once("  ")?;
    // Those of files have a name without a repository.
    let (repository, _) = name.rsplit_once(':').filter(|(it, _)| it.contains('/'))?;
    Some(format!("{repository}@sha256:{digest}"))
}

/// Where commands are run that change something outside, or only named.
pub struct Outside<'a> {
    /// Where to report.
    pub context: &'a Context,
    /// Whether they are only named.
    pub is_rehearsal: bool,
}

impl Outside<'_> {
    /// Runs what changes something outside; a rehearsal only names it.
    pub fn act(&self, command: Cmd) -> Result<()> {
        let command = Command::from(command);
        if self.is_rehearsal {
            println!("{}", pasteable(&command));
            return Ok(());
        }
        process::run(&self.context.ui, &self.context.interrupt, command)
    }

    /// Runs what changes nothing, and gives what it says.
    pub fn ask(&self, command: Cmd) -> Result<String> {
        let Context { ui, interrupt } = self.context;
        process::output(ui, interrupt, Command::from(command), ANSWER_LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_by_one_workflow_and_none_that_anybody_may_start() {
        let expected = format!(
            r"^{}/\.github/workflows/release\.yml@refs/tags/v",
            env!("CARGO_PKG_REPOSITORY").replace('.', r"\.")
        );
        assert_eq!(identity(RELEASE), expected);
        assert!(identity(BASES).ends_with(r"/\.github/workflows/bases\.yml@refs/heads/main$"));
    }

    #[test]
    fn of_what_is_attested_the_images_are_signed() {
        let image = |line| image(line).unwrap_or_default();
        assert_eq!(image("00ff  127.0.0.1:5000/pid1:1.2.3"), "127.0.0.1:5000/pid1@sha256:00ff");
        assert_eq!(image("00ff  pid1-linux-amd64"), "");
    }
}

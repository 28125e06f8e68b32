//! `cargo xtask attach`: files, such as SBOMs, that a registry lists beside an image.

use anyhow::{Context as _, Result, ensure};
use tokio::runtime;

use crate::flags::{self, RegistryOptions};
use crate::registry::work::unless;
use crate::registry::{Artifact, Registry, Repository};
use crate::{Context, push};

/// The command: prints one reference a line.
pub fn run(context: &Context, flags: &flags::Attach) -> Result<()> {
    let (repository, reference) = image(&flags.image)?;
    let read = |path: &std::path::PathBuf| Artifact::read(path, &flags.media_type);
    let artifacts = flags.files.iter().map(read).collect::<Result<Vec<_>>>()?;
    push::print(&attach(context, &repository, &reference, &artifacts, &flags.registry)?);
    Ok(())
}

/// Attaches `artifacts` to what `reference`, a tag or a digest, points at in `repository`. Gives a
/// `repository@digest` for each.
pub fn attach(
    context: &Context,
    repository: &Repository,
    reference: &str,
    artifacts: &[Artifact],
    options: &RegistryOptions,
) -> Result<Vec<String>> {
    let registry = Registry::new(&context.ui, repository.clone(), options)?;
    let work = async {
        let registry = registry.connect(&options.transport).await?;
        let subject = registry.subject(reference).await?;
        let mut references = Vec::new();
        for artifact in artifacts {
            let attached = registry.attach(&subject, artifact).await?;
            let by = attached.tag.map_or_else(
                || "the registry lists it".to_string(),
                |tag| format!("the tag {tag} lists it, as the registry has no referrers API"),
            );
            context.ui.say(format!("attached {artifact} to {}: {by}", subject.digest()));
            references.push(format!("{repository}@{}", attached.digest));
        }
        Ok(references)
    };
    let runtime = runtime::Runtime::new().context("cannot start the runtime")?;
    let done = runtime.block_on(unless(&context.interrupt, work));
    runtime.shutdown_background();
    done.with_context(|| format!("cannot attach to `{reference}` in `{repository}`"))
}

/// Repository and tag or digest of `REPOSITORY:TAG` or `REPOSITORY@DIGEST`. Of
/// `REPOSITORY:TAG@DIGEST` it is the digest, which cannot move.
pub fn image(written: &str) -> Result<(Repository, String)> {
    let (repository, reference) = match written.split_once('@') {
        Some((named, digest)) => {
            (tagged(named).map_or(named, |(repository, _)| repository), digest)
        }
        None => tagged(written).unwrap_or_default(),
    };
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "_-.:".contains(it);
    ensure!(
        reference.chars().all(is_plain) && !reference.is_empty() && !reference.starts_with('.'),
        "cannot use the image `{written}`: it should be REPOSITORY:TAG or REPOSITORY@sha256:…"
    );
    Ok((Repository::parse(repository)?, reference.to_string()))
}

/// The tag that the image is asked for by, if it is.
pub fn tag(written: &str) -> Option<&str> {
    tagged(written.split('@').next()?).map(|(_, tag)| tag)
}

fn tagged(named: &str) -> Option<(&str, &str)> {
    named.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &str, expected: Option<(&str, &str)>) {
        let parsed = image(written).ok();
        let parsed = parsed.map(|(repository, reference)| (repository.to_string(), reference));
        let expected = expected.map(|(it, reference)| (it.to_string(), reference.to_string()));
        assert_eq!(parsed, expected);
    }

    #[test]
    fn an_image_is_named_by_tag_or_digest() {
        check("127.0.0.1:5000/pid1:static", Some(("127.0.0.1:5000/pid1", "static")));
        check("r.io/a/b@sha256:00", Some(("r.io/a/b", "sha256:00")));
        check("r.io:1/a:1.2@sha256:00", Some(("r.io:1/a", "sha256:00")));
        check("r.io:1/a@sha256:00", Some(("r.io:1/a", "sha256:00")));
        for wrong in ["127.0.0.1:5000/pid1", "r.io/pid1", "r.io/pid1:", "r.io/p:..", "r.io/p:a@b/c"]
        {
            check(wrong, None);
        }
    }
}

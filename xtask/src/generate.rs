//! `cargo xtask generate`: a Dockerfile beside each definition, for the same image as ours.

use std::fs;

use anyhow::{Context as _, Result, bail};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, context};

use crate::definition::Definition;
use crate::flags::Images;
use crate::lock::Lock;
use crate::plan::{ImagePlan, Plan};
use crate::registry::{Mirror, Reference, mirrored};
use crate::spec::{BUILD_LABELS, Base, ENTRYPOINT, ImageSpec};
use crate::{Context, paths};

const TEMPLATE: &str = include_str!("Dockerfile.jinja");

/// Writes every Dockerfile that is not as it should be.
pub fn write(context: &Context) -> Result<()> {
    for Dockerfile { image, text } in stale()? {
        fs::write(paths::image(&image).join("Dockerfile"), text)
            .with_context(|| format!("cannot write `images/{image}/Dockerfile`"))?;
        context.ui.say(format!("wrote images/{image}/Dockerfile"));
    }
    Ok(())
}

/// Fails if a Dockerfile is not as it should be.
pub fn check() -> Result<()> {
    refuse(&stale()?)
}

fn refuse(stale: &[Dockerfile]) -> Result<()> {
    let files: Vec<_> =
        stale.iter().map(|it| format!("`images/{}/Dockerfile`", it.image)).collect();
    match files.len() {
        0 => Ok(()),
        1 => bail!("{} is out of date, run `cargo xtask generate`", files[0]),
        _ => bail!("{} are out of date, run `cargo xtask generate`", files.join(", ")),
    }
}

/// What the Dockerfile of an image should say.
struct Dockerfile {
    image: String,
    text: String,
}

/// The Dockerfiles that are missing or say something else.
fn stale() -> Result<Vec<Dockerfile>> {
    let plan = Plan::new(&Images::all(), &[])?;
    let lock = Lock::committed()?;
    let mut stale = Vec::new();
    for ImagePlan { name, .. } in &plan.images {
        let text = dockerfile(plan.chain(name), &lock, &[])
            .with_context(|| format!("cannot generate `images/{name}/Dockerfile`"))?;
        // One that cannot be read is as good as missing.
        let there = fs::read_to_string(paths::image(name).join("Dockerfile")).ok();
        if there.as_ref() != Some(&text) {
            stale.push(Dockerfile { image: name.clone(), text });
        }
    }
    Ok(stale)
}

/// The Dockerfile of the last of `chain`, on the digests of `lock`, from `mirrors` where there are
/// any.
///
/// `COPY --link` is left out on purpose: podman 4 refuses it, and where a base has `/sbin` as a
/// link it would put a folder in the link's place.
pub fn dockerfile(chain: Vec<&Definition>, lock: &Lock, mirrors: &[Mirror]) -> Result<String> {
    let last = *chain.last().context("it has no definition")?;
    let spec = ImageSpec::new(chain, lock);
    let parts = spec.parts(last.platforms[0]);
    let mut paths = parts.iter().map(|part| part.context_path("$TARGETPLATFORM"));
    let labels = spec.labels.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
    let build_labels = BUILD_LABELS.iter().map(|(name, arg)| format!("{name}=\"${arg}\""));
    let variables = spec.env.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(syntax.context("cannot set up the template")?);
    let text = environment.render_str(
        TEMPLATE,
        context! {
            name => spec.name,
            from => from(&spec, mirrors)?,
            init => paths.next(),
            archives => paths.collect::<Vec<_>>(),
            env => variables.collect::<Vec<_>>(),
            workdir => spec.workdir.map(quoted),
            user => spec.user.map(quoted),
            entrypoint => exec_form(&ENTRYPOINT)?,
            cmd => if spec.cmd.is_empty() { None } else { Some(exec_form(spec.cmd)?) },
            arguments => BUILD_LABELS.map(|(_, arg)| arg),
            labels => labels.chain(build_labels).collect::<Vec<_>>(),
        },
    )?;
    Ok(text)
}

/// What stands behind `FROM`.
fn from(spec: &ImageSpec, mirrors: &[Mirror]) -> Result<String> {
    let Some(Base { reference, digest }) = spec.base else { return Ok("scratch".to_string()) };
    let digest = digest.map_or_else(String::new, |digest| format!("@{digest}"));
    let repository = mirrored(&reference.repository, mirrors)?;
    Ok(format!("{}{digest}", Reference { repository, tag: reference.tag.clone() }))
}

/// A word between quotes, in which a Dockerfile would still see `$`, `\` and `"`.
fn quoted(word: &str) -> String {
    let escaped = word.chars().flat_map(|it| {
        let escape = matches!(it, '$' | '\\' | '"').then_some('\\');
        escape.into_iter().chain([it])
    });
    format!("\"{}\"", escaped.collect::<String>())
}

/// `["a", "b"]`, which no shell comes between.
fn exec_form(words: &[impl AsRef<str>]) -> Result<String> {
    let words: Result<Vec<_>, _> =
        words.iter().map(|word| serde_json::to_string(word.as_ref())).collect();
    Ok(format!("[{}]", words?.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::lock::Entry;

    #[test]
    fn a_word_stays_itself_between_quotes() {
        assert_eq!(quoted(r#"a $b "c" \d"#), r#""a \$b \"c\" \\d""#);
    }

    #[test]
    fn everything_a_definition_says_is_in_its_dockerfile() {
        let definition = crate::definition::parse(
            "all",
            "summary = 'It costs \"$5\"'\ncontents = ['tmp', 'test-programs']\ncmd = ['sh', '-c', \
             'echo \"$HOME\"']\nuser = 'nonroot'\nworkdir = '/a b'\n[env]\nPATH = '/bin'\nA = 'b c'",
        );
        let text = dockerfile(vec![&definition.unwrap()], &Lock::default(), &[]).unwrap();
        let instructions: Vec<_> = text.lines().skip_while(|it| it.starts_with('#')).collect();
        let expected = r#"FROM scratch
ARG TARGETPLATFORM
COPY --chmod=0755 $TARGETPLATFORM/pid1 /sbin/pid1
ADD $TARGETPLATFORM/all.tar.gz /
ENV PATH="/bin"
ENV A="b c"
WORKDIR "/a b"
USER "nonroot"
ENTRYPOINT ["/sbin/pid1"]
CMD ["sh", "-c", "echo \"$HOME\""]
ARG VERSION
ARG REVISION
ARG CREATED
LABEL org.opencontainers.image.description="It costs \"\$5\"" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="SOURCE" \
      org.opencontainers.image.title="pid1 all" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED""#;
        let expected = expected.replace("SOURCE", env!("CARGO_PKG_REPOSITORY"));
        assert_eq!(instructions.join("\n"), expected);
    }

    #[test]
    fn a_base_is_named_with_its_digest_and_keeps_what_nobody_changes() {
        let definition = "summary = 'x'\nbase = 'docker.io/library/debian:trixie'\ncmd = ['bash']";
        let definition = crate::definition::parse("debian", definition).unwrap();
        let mut lock = Lock::default();
        let entry = Entry { index: "sha256:0".to_string(), platforms: BTreeMap::new() };
        lock.insert(&"docker.io/library/debian:trixie".parse().unwrap(), entry);
        let text = dockerfile(vec![&definition], &lock, &[]).unwrap();
        let instructions: Vec<_> = text.lines().skip_while(|it| it.starts_with('#')).collect();
        let expected = r#"FROM docker.io/library/debian:trixie@sha256:0
ARG TARGETPLATFORM
COPY --chmod=0755 $TARGETPLATFORM/pid1 /sbin/pid1
ENTRYPOINT ["/sbin/pid1"]
CMD ["bash"]
ARG VERSION
ARG REVISION
ARG CREATED
LABEL org.opencontainers.image.base.digest="sha256:0" \
      org.opencontainers.image.base.name="docker.io/library/debian:trixie" \"#;
        assert_eq!(instructions[..10].join("\n"), expected);
        assert!(!text.contains("licenses"), "{text}");
    }

    #[test]
    fn each_stale_file_is_named_with_the_remedy() {
        let stale = |image: &str| Dockerfile { image: image.to_string(), text: String::new() };
        let error = refuse(&[stale("a"), stale("b")]).unwrap_err().to_string();
        let files = "`images/a/Dockerfile`, `images/b/Dockerfile`";
        assert_eq!(error, format!("{files} are out of date, run `cargo xtask generate`"));
    }

    #[test]
    fn the_committed_dockerfiles_are_fresh() {
        check().unwrap();
    }
}

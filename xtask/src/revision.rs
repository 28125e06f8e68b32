//! Which state of the source is being built, and the time that stands for it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use crate::{Context, paths, process};

/// How long git may take to answer.
const GIT_LIMIT: Duration = Duration::from_secs(30);

/// The state of the source.
#[derive(Debug, Clone)]
pub struct Revision {
    /// The commit, with `-dirty` behind it if a tracked file differs from it. Nothing without git.
    pub commit: Option<String>,
    /// The time that everything in an image is dated with, in whole seconds.
    pub time: Timestamp,
}

impl Revision {
    /// Asks git about the repository. `SOURCE_DATE_EPOCH` goes before the commit's time
    /// (<https://reproducible-builds.org/specs/source-date-epoch/>).
    pub fn current(context: &Context) -> Result<Revision> {
        let epoch = std::env::var_os("SOURCE_DATE_EPOCH");
        let given = epoch.map(|it| parse(&it.to_string_lossy())).transpose()?;
        // Files that git does not know are left out: notes lying about do not change an image.
        let describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"];
        let commit = git(context, &describe);
        let committed = git(context, &["log", "--max-count=1", "--format=%ct"]);
        let commit_time = committed.as_deref().and_then(|it| parse(it).ok());
        let time = given.or(commit_time).unwrap_or_else(|| {
            context
                .ui
                .warn("git knows no commit here: images are dated 1970; set SOURCE_DATE_EPOCH");
            Timestamp::UNIX_EPOCH
        });
        Ok(Revision { commit, time })
    }
}

fn parse(seconds: &str) -> Result<Timestamp> {
    let whole = seconds.parse().context("it is no number");
    let time = whole.and_then(|it: u32| Ok(Timestamp::from_second(it.into())?));
    time.with_context(|| format!("cannot use SOURCE_DATE_EPOCH `{seconds}`, give whole seconds"))
}

/// What git answers, or nothing where there is no git or no repository.
fn git(context: &Context, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    // Without the option, looking would rewrite the index and could block somebody's commit.
    command.arg("--no-optional-locks").args(arguments).current_dir(paths::root());
    let answer = process::output(&context.ui, &context.interrupt, command, GIT_LIMIT).ok()?;
    Some(answer.trim().to_string())
}

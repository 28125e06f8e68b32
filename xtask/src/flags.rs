//! The whole command line.

use clap::builder::FalseyValueParser;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::platform::{PLATFORMS, Platform};

/// Builds, tests, pushes and releases the images around pid1.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "\
Examples:
  cargo xtask dist                              build, smoke-test and package everything
  cargo xtask dist --push 127.0.0.1:5000/pid1   and push it
  cargo xtask image static --platform linux/arm64
  cargo xtask test                              run every test this machine can run"
)]
pub struct Flags {
    /// Show errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print what `dist` would build
    Plan {
        #[command(flatten)]
        choice: Choice,
        /// As JSON: the matrix of CI
        #[arg(long)]
        json: bool,
    },
    /// Cross-compile to target/dist/bin/PLATFORM/pid1
    Build {
        #[command(flatten)]
        platforms: Platforms,
    },
    /// Write the Dockerfile of every image
    Generate {
        /// Change nothing; fail if one is out of date
        #[arg(long)]
        check: bool,
    },
    /// Build OCI layouts under target/dist/oci/NAME
    Image(Choice),
    /// Run the images that were built
    Smoke {
        #[command(flatten)]
        choice: Choice,
        #[command(flatten)]
        smoke: Smoke,
    },
    /// Run a command in an image that was built, as `docker run` would
    Run(Run),
    /// The far side of the sandbox, which xtask starts itself
    #[command(hide = true)]
    Inside,
    /// Push the images that were built; prints one `reference@digest` a line
    Push(Push),
    /// All of it: build, image, smoke, push if asked to, release files
    Dist(Dist),
    /// Run every test this machine can run
    Test(Test),
    /// Check format, lints and scripts
    Lint,
    /// Measure pid1 beside tini, dumb-init, catatonit and no init (as root, with Debian's strace)
    Bench(Bench),
    /// Run each init through what pid1 promises, and print the table (as root)
    Compare(Compare),
}

/// Which images, for which platforms.
#[derive(Debug, Clone, Args)]
pub struct Choice {
    /// The images; all that need no registry, if none is named
    #[arg(value_name = "NAME")]
    pub images: Vec<String>,
    #[command(flatten)]
    pub platforms: Platforms,
}

/// Which platforms.
#[derive(Debug, Clone, Args)]
pub struct Platforms {
    /// Only this platform, such as linux/arm64; may be given again
    #[arg(long = "platform", value_name = "PLATFORM", value_parser = platform)]
    pub platforms: Vec<&'static Platform>,
}

impl Platforms {
    /// Those that were named, all nine if none was; each once, in table order.
    pub fn chosen(&self) -> Vec<&'static Platform> {
        let is_chosen = |it: &&Platform| self.platforms.is_empty() || self.platforms.contains(it);
        PLATFORMS.iter().filter(is_chosen).collect()
    }
}

/// How smoke tests run.
#[derive(Debug, Clone, Args)]
// Its name is also the command's, and clap makes a group of each.
#[group(skip)]
pub struct Smoke {
    /// Do not run the images of this platform, and say so; may be given again
    #[arg(long = "no-smoke", value_name = "PLATFORM", value_parser = platform)]
    pub no_smoke: Vec<&'static Platform>,
}

/// How a registry is reached, and who we are there.
#[derive(Debug, Clone, Args)]
pub struct RegistryOptions {
    /// Log in as NAME, not as docker's or podman's configuration says
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    pub username: Option<String>,
    /// Read the password from stdin
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
    /// Trust the certificates in this PEM file too (`SSL_CERT_FILE` is read as well)
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Do without TLS where the registry is not on this machine
    #[arg(long)]
    pub plain_http: bool,
    /// How long the registry may be silent before the request fails
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct Run {
    /// The platform; this machine's own, if none is given
    #[arg(long, value_name = "PLATFORM", value_parser = platform)]
    pub platform: Option<&'static Platform>,
    /// Replace the image's entrypoint; with '' by nothing, so that COMMAND is PID 1
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// As this user, and group if one follows a colon
    #[arg(long, short, value_name = "USER")]
    pub user: Option<String>,
    /// With a root that cannot be written to
    #[arg(long)]
    pub read_only: bool,
    /// Send PID 1 the signal of this number when it has started something, or, with @TEXT, when
    /// TEXT has been printed
    #[arg(long, value_name = "NUMBER[@TEXT]")]
    pub signal: Option<String>,
    /// Kill it all after this time
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub deadline: u64,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// What to run in it; the image's cmd, if nothing is given
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Push {
    /// Where to, such as 127.0.0.1:5000/pid1
    #[arg(value_name = "REPOSITORY")]
    pub repository: String,
    /// The images; all that need no registry, if none is named
    #[arg(value_name = "NAME")]
    pub images: Vec<String>,
    #[command(flatten)]
    pub registry: RegistryOptions,
    /// Print what would be uploaded, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Dist {
    #[command(flatten)]
    pub choice: Choice,
    #[command(flatten)]
    pub smoke: Smoke,
    /// Push what passed to this repository, such as 127.0.0.1:5000/pid1
    #[arg(long, value_name = "REPOSITORY")]
    pub push: Option<String>,
    #[command(flatten)]
    pub registry: RegistryOptions,
}

#[derive(Debug, Args)]
pub struct Bench {
    /// Put the table into README.md too
    #[arg(long)]
    pub readme: bool,
}

#[derive(Debug, Args)]
pub struct Compare {
    /// Put the table into pid1/README.md too
    #[arg(long, conflicts_with = "own")]
    pub readme: bool,
    /// Only pid1, which needs no other init
    #[arg(long)]
    pub own: bool,
}

#[derive(Debug, Args)]
pub struct Test {
    /// Fail if this machine lacks something that a test needs (an engine, a registry, qemu)
    #[arg(long, env = "CI", value_parser = FalseyValueParser::new())]
    pub require_all: bool,
    /// Handed to `cargo test` as the filter of names
    #[arg(value_name = "FILTER")]
    pub filter: Option<String>,
}

fn platform(name: &str) -> Result<&'static Platform, String> {
    name.parse()
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|it| *it > 0.0);
    seconds
        .and_then(|it| Duration::try_from_secs_f64(it).ok())
        .ok_or_else(|| "it should be a number of seconds above 0, such as 60".to_string())
}

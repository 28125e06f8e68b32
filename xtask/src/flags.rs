//! The whole command line.

use clap::builder::{FalseyValueParser, PossibleValuesParser};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::builder::Builder;
use crate::demo;
use crate::platform::{PLATFORMS, Platform};
use crate::publish::Step;
use crate::registry::Mirror;

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
        /// As JSON
        #[arg(long)]
        json: bool,
        /// As a line for GitHub: the jobs of CI
        #[arg(long, conflicts_with = "json")]
        matrix: bool,
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
    /// Find out the digests of the bases, and write them to images/bases.lock
    Lock(Lock),
    /// Build and push anew what stands on a base that has moved, around a release's binaries
    Refresh(Refresh),
    /// Build OCI layouts under target/dist/oci/NAME
    Image(Image),
    /// Run the images that were built
    Smoke {
        #[command(flatten)]
        choice: Choice,
        #[command(flatten)]
        smoke: Smoke,
        #[command(flatten)]
        from: From,
    },
    /// Run a command in an image that was built, as `docker run` would
    Run(Run),
    /// The far side of the sandbox, which xtask starts itself
    #[command(hide = true)]
    Inside,
    /// Push the images that were built; prints one `reference@digest` a line
    Push(Push),
    /// Attach files to an image that was pushed; prints one `reference@digest` a line
    Attach(Attach),
    /// Build again what was published, from the commit it names, and compare every byte
    Reproduce(Reproduce),
    /// All of it: build, image, smoke, push if asked to, release files
    Dist(Dist),
    /// Release this version, step by step (with cosign and gh); to be repeated after a failure
    Release(Release),
    /// Sign the images that `refresh` pushed, as the workflow that does it (with cosign)
    Sign(Sign),
    /// Run every test this machine can run
    Test(Test),
    /// Check format, scripts, workflows, dependencies and lints
    Lint(Lint),
    /// Show what goes wrong without pid1, and how it goes with it
    Demo(Demo),
    /// Measure pid1 beside other inits (as root, with Debian's strace), or the building of images
    Bench(Bench),
    /// Run each init through what pid1 promises, and print the table (as root)
    Compare(Compare),
}

/// Which images.
#[derive(Debug, Clone, Default, Args)]
// It is a field of groups that clap would name alike.
#[group(skip)]
pub struct Images {
    /// The images; all that need no registry, if none is named
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Those on bases in a registry too
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
}

impl Images {
    /// Every image there is.
    pub fn all() -> Images {
        Images { all: true, ..Images::default() }
    }
}

/// Which images, for which platforms.
#[derive(Debug, Clone, Args)]
pub struct Choice {
    #[command(flatten)]
    pub images: Images,
    #[command(flatten)]
    pub platforms: Platforms,
}

/// Which platforms.
#[derive(Debug, Clone, Args)]
pub struct Platforms {
    /// Only this platform, such as linux/arm64; may be given again, or several with commas
    #[arg(
        long = "platform",
        value_name = "PLATFORM",
        value_delimiter = ',',
        value_parser = platform
    )]
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
    /// What runs them; an engine must be on this machine
    #[arg(long, value_enum, default_value_t = Engine::Sandbox)]
    pub engine: Engine,
    /// Do not run the images of this platform, and say so; may be given again
    #[arg(long = "no-smoke", value_name = "PLATFORM", value_parser = platform)]
    pub no_smoke: Vec<&'static Platform>,
}

/// What runs an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Namespaces that xtask makes itself
    Sandbox,
    /// The docker that `DOCKER_HOST` or its context names
    Docker,
    /// Podman
    Podman,
}

/// How a registry is reached, and who we are there.
#[derive(Debug, Clone, Args)]
pub struct RegistryOptions {
    #[command(flatten)]
    pub transport: Transport,
    /// Log in as NAME, not as docker's or podman's configuration says
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    pub username: Option<String>,
    /// Read the password from stdin
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
}

/// Where the bases of images come from.
#[derive(Debug, Clone, Args)]
pub struct BaseOptions {
    /// Take the digests of bases from FILE, not from images/bases.lock
    #[arg(long, value_name = "FILE", env = "PID1_LOCK_FILE")]
    pub lock_file: Option<PathBuf>,
    #[command(flatten)]
    pub mirrors: Mirrors,
}

/// Where registries cannot be reached, or should not.
#[derive(Debug, Clone, Args)]
pub struct Mirrors {
    /// Ask for bases of the registry FROM at TO, such as docker.io=127.0.0.1:5000/hub; may be given
    /// again
    #[arg(
        long = "mirror",
        value_name = "FROM=TO",
        env = "PID1_MIRRORS",
        value_delimiter = ',',
        value_parser = mirror
    )]
    pub list: Vec<Mirror>,
}

/// How a registry is reached.
#[derive(Debug, Clone, Args)]
pub struct Transport {
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

/// How images are pushed.
#[derive(Debug, Clone, Args)]
pub struct PushOptions {
    #[command(flatten)]
    pub registry: RegistryOptions,
    /// Take blobs from this repository of the same registry, where it has them, and upload the rest
    #[arg(long, value_name = "REPOSITORY")]
    pub mount_from: Option<String>,
}

#[derive(Debug, Args)]
pub struct Refresh {
    /// Where the images are, such as 127.0.0.1:5000/pid1
    #[arg(value_name = "REPOSITORY")]
    pub repository: String,
    /// The images; all on bases in a registry, if none is named
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// The folder with the binaries of the release and their SHA256SUMS
    #[arg(long, value_name = "FOLDER")]
    pub binaries: PathBuf,
    #[command(flatten)]
    pub platforms: Platforms,
    #[command(flatten)]
    pub mirrors: Mirrors,
    #[command(flatten)]
    pub smoke: Smoke,
    #[command(flatten)]
    pub options: PushOptions,
}

#[derive(Debug, Args)]
pub struct Lock {
    /// Only the bases of these images
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Change nothing; fail if a base has moved, naming it
    #[arg(long)]
    pub check: bool,
    #[command(flatten)]
    pub bases: BaseOptions,
    #[command(flatten)]
    pub transport: Transport,
}

#[derive(Debug, Args)]
pub struct Image {
    #[command(flatten)]
    pub choice: Choice,
    /// Who builds: built-in, docker, docker:NAME (any builder of buildx) or podman
    #[arg(long, value_name = "BUILDER", default_value = "built-in")]
    pub builder: Builder,
    #[command(flatten)]
    pub bases: BaseOptions,
    #[command(flatten)]
    pub transport: Transport,
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
    #[command(flatten)]
    pub images: Images,
    #[command(flatten)]
    pub options: PushOptions,
    /// Print what would be uploaded, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Upload all of it, but move no tag: it can be had by digest
    #[arg(long, conflicts_with = "dry_run")]
    pub untagged: bool,
}

/// Where smoke tests take images from.
#[derive(Debug, Args)]
pub struct From {
    /// Pull what was pushed there into the place of what was built, and run that
    #[arg(long, value_name = "REPOSITORY")]
    pub from: Option<String>,
    #[command(flatten)]
    pub transport: Transport,
}

#[derive(Debug, Args)]
pub struct Attach {
    /// The image, as REPOSITORY:TAG or REPOSITORY@DIGEST
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// What to attach
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// What the files are, such as application/spdx+json
    #[arg(long = "type", value_name = "TYPE", value_parser = media_type)]
    pub media_type: String,
    #[command(flatten)]
    pub registry: RegistryOptions,
}

#[derive(Debug, Args)]
pub struct Reproduce {
    /// What was published: REPOSITORY:TAG, REPOSITORY@DIGEST, or the folder of an OCI layout or of
    /// a release
    #[arg(value_name = "REFERENCE", required = true)]
    pub references: Vec<String>,
    #[command(flatten)]
    pub platforms: Platforms,
    /// Take the commit from the git repository in FOLDER, not from the one here
    #[arg(long, value_name = "FOLDER")]
    pub source: Option<PathBuf>,
    /// Share nothing with earlier builds: fetch zig and compile std again, which takes long
    #[arg(long)]
    pub fresh: bool,
    #[command(flatten)]
    pub bases: BaseOptions,
    #[command(flatten)]
    pub transport: Transport,
}

#[derive(Debug, Args)]
pub struct Dist {
    #[command(flatten)]
    pub choice: Choice,
    /// Who builds: built-in, docker, docker:NAME (any builder of buildx) or podman
    #[arg(long, value_name = "BUILDER", default_value = "built-in")]
    pub builder: Builder,
    #[command(flatten)]
    pub bases: BaseOptions,
    #[command(flatten)]
    pub smoke: Smoke,
    /// Push what passed to this repository, such as 127.0.0.1:5000/pid1
    #[arg(long, value_name = "REPOSITORY")]
    pub push: Option<String>,
    /// What the release files call the repository, if nothing is pushed yet
    #[arg(long, value_name = "REPOSITORY", conflicts_with = "push")]
    pub repository: Option<String>,
    #[command(flatten)]
    pub options: PushOptions,
}

#[derive(Debug, Args)]
pub struct Release {
    /// The steps to take; all, if none is named
    #[arg(value_name = "STEP", value_enum)]
    pub steps: Vec<Step>,
    /// Where the images go, if not where people find them
    #[arg(long, value_name = "REPOSITORY")]
    pub repository: Option<String>,
    /// Rehearse: push to another repository, and only print what gh and cosign would be told
    #[arg(long, requires = "repository")]
    pub dry_run: bool,
    /// Leave out the images on distributions
    #[arg(long)]
    pub without_distributions: bool,
    /// Publish this file beside the others, as attestation.sigstore.json
    #[arg(long, value_name = "FILE")]
    pub attestation: Option<PathBuf>,
    #[command(flatten)]
    pub platforms: Platforms,
    #[command(flatten)]
    pub bases: BaseOptions,
    #[command(flatten)]
    pub smoke: Smoke,
    #[command(flatten)]
    pub options: PushOptions,
}

#[derive(Debug, Args)]
pub struct Sign {
    /// Only print what cosign would be told
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Lint {
    /// Only the workflows in this folder
    #[arg(long, value_name = "FOLDER")]
    pub workflows: Option<PathBuf>,
    /// Also look for known holes in the dependencies, which needs github.com
    #[arg(long, conflicts_with = "workflows")]
    pub advisories: bool,
}

#[derive(Debug, Args)]
pub struct Demo {
    /// The demonstrations; all, if none is named
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(demo::NAMES))]
    pub names: Vec<String>,
    /// What runs them; an engine must be on this machine
    #[arg(long, value_enum, default_value_t = Engine::Sandbox)]
    pub engine: Engine,
}

#[derive(Debug, Args)]
pub struct Bench {
    /// What to measure
    #[arg(value_name = "WHAT", value_enum, default_value_t = Measured::Inits)]
    pub what: Measured,
    /// Put the table into README.md too
    #[arg(long)]
    pub readme: bool,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Measured {
    /// pid1 beside tini, dumb-init, catatonit and no init
    Inits,
    /// Building all images beside `docker buildx build`, and a push that changes nothing
    Images,
    /// What a machine has to fetch of each image that was built
    Sizes,
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

fn media_type(text: &str) -> Result<String, String> {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "!#$&-^_.+".contains(it);
    let is_part = |part: &str| part.starts_with(|it: char| it.is_ascii_alphanumeric());
    let is_type = text.split('/').count() == 2
        && text.split('/').all(|part| is_part(part) && part.chars().all(is_plain));
    let expected = || "it should be a media type, such as application/spdx+json".to_string();
    is_type.then(|| text.to_string()).ok_or_else(expected)
}

fn mirror(text: &str) -> Result<Mirror, String> {
    text.parse().map_err(|err: anyhow::Error| format!("{err:#}"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|it| *it > 0.0);
    seconds
        .and_then(|it| Duration::try_from_secs_f64(it).ok())
        .ok_or_else(|| "it should be a number of seconds above 0, such as 60".to_string())
}

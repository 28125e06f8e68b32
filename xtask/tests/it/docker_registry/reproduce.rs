//! `cargo xtask reproduce`, of images that were built from a commit of the tests' own: the tree as
//! it is, committed or not.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::server::{Door, INDEX, MANIFEST, Server};
use crate::built::{Done, copy, done, host, target};
use crate::push::fixture::{Project, Running, comes_about, tool};
use crate::standins::sha256;

const REVISION: &str = "org.opencontainers.image.revision";

/// How long something may take to come about that must.
const PATIENCE: Duration = Duration::from_mins(2);

/// A repository of one commit, and the images that were built from it.
pub struct Published {
    folder: TempDir,
    commit: String,
}

/// Made once for all tests.
pub fn published() -> &'static Published {
    static PUBLISHED: OnceLock<Published> = OnceLock::new();
    PUBLISHED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        let commit = commit(&source);
        let published = Published { folder, commit };
        let xtask = || Command::new(env!("CARGO_BIN_EXE_xtask"));
        must(xtask().args(["build", "--platform", &host()]));
        let dist = published.target().join("dist");
        fs::create_dir_all(&dist).unwrap();
        copy(&target().join("dist/bin"), &dist.join("bin"));
        // Where nothing has to be compiled again for the files of a release.
        for part in ["cross", "tools"] {
            let real = fs::canonicalize(target()).unwrap().join(part);
            symlink(real, published.target().join(part)).unwrap();
        }
        let images = ["image", "scratch", "static", "--platform", &host()];
        must(published.built_from_it(&mut xtask()).args(images));
        published
    })
}

/// Commits the tree as it is into a new repository.
pub fn commit(source: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let files =
        tool("git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"], root);
    for file in files.split_terminator('\0').filter(|file| root.join(file).is_file()) {
        fs::create_dir_all(source.join(file).parent().unwrap()).unwrap();
        fs::copy(root.join(file), source.join(file)).unwrap();
    }
    let git = |arguments: &[&str]| {
        let who = ["-c", "user.name=test", "-c", "user.email=test@localhost"];
        tool("git", &[who.as_slice(), arguments].concat(), source)
    };
    git(&["init", "--quiet"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--no-verify", "--no-gpg-sign", "--message=test"]);
    git(&["rev-parse", "HEAD"]).trim().to_string()
}

impl Published {
    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    pub fn layout(&self, name: &str) -> PathBuf {
        self.target().join("dist/oci").join(name)
    }

    /// Makes `xtask` build the images as if it had been compiled from the commit, whose files are
    /// those it was compiled from.
    pub fn built_from_it<'a>(&self, xtask: &'a mut Command) -> &'a mut Command {
        xtask.env("GIT_DIR", self.source().join(".git")).env("GIT_WORK_TREE", self.source());
        xtask.env("CARGO_TARGET_DIR", self.target()).env_remove("SOURCE_DATE_EPOCH")
    }

    pub fn reproduce(&self, references: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg("reproduce").args(references).arg("--source").arg(self.source());
        command
    }

    /// Puts the image `name` into the registry, for this machine's platform and as `change` makes
    /// it: the layers (as tars), the configuration, and the annotations of manifest and index. All
    /// digests are right again.
    fn push(&self, server: &Server, name: &str, tag: &str, change: impl FnOnce(&mut Parts)) {
        let layout = self.layout(name);
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            fs::read(layout.join("blobs").join(digest.replace(':', "/"))).unwrap()
        };
        let json = |bytes: Vec<u8>| -> Value { serde_json::from_slice(&bytes).unwrap() };
        let top = json(fs::read(layout.join("index.json")).unwrap());
        let index = json(blob(&top["manifests"][0]));
        let manifest = json(blob(&index["manifests"][0]));
        let layers = manifest["layers"].as_array().unwrap().iter().map(blob);
        let config = json(blob(&manifest["config"]));
        let mut parts =
            Parts { layers: layers.map(|it| gunzip(&it)).collect(), config, manifest, index };
        let before = parts.layers.clone();
        change(&mut parts);
        let Parts { layers, mut config, mut manifest, mut index } = parts;
        for (at, tar) in layers.iter().enumerate() {
            let changed =
                if *tar == before[at] { blob(&manifest["layers"][at]) } else { gzip(tar) };
            config["rootfs"]["diff_ids"][at] = json!(sha256(tar));
            let descriptor = &mut manifest["layers"][at];
            server.put_blob("pid1", &describe(descriptor, &changed), &changed);
        }
        let config = config.to_string().into_bytes();
        server.put_blob("pid1", &describe(&mut manifest["config"], &config), &config);
        let manifest = manifest.to_string().into_bytes();
        let digest = describe(&mut index["manifests"][0], &manifest);
        server.put_manifest("pid1", &digest, MANIFEST, &manifest);
        server.put_manifest("pid1", tag, INDEX, index.to_string().as_bytes());
    }
}

/// An image, taken apart.
struct Parts {
    layers: Vec<Vec<u8>>,
    config: Value,
    manifest: Value,
    index: Value,
}

/// Makes `descriptor` one of these bytes, and gives their digest.
fn describe(descriptor: &mut Value, bytes: &[u8]) -> String {
    descriptor["digest"] = json!(sha256(bytes));
    descriptor["size"] = json!(bytes.len());
    sha256(bytes)
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut tar).unwrap();
    tar
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Makes the first of these words in the tar another one of the same length.
fn replace(tar: &mut [u8], word: &[u8], other: &[u8]) {
    let at = tar.windows(word.len()).position(|it| it == word).unwrap();
    tar[at..at + word.len()].copy_from_slice(other);
}

#[track_caller]
fn must(command: &mut Command) -> Done {
    let done = done(command);
    assert_eq!(done.code, Some(0), "{command:?}: {}", done.stderr);
    done
}

/// The command fails with `expected` as its last words.
#[track_caller]
fn fails(command: &mut Command, expected: &str) {
    let done = done(command);
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{}", done.stderr);
    assert!(done.stderr.ends_with(&format!("error: {expected}\n")), "{}", done.stderr);
}

/// A rebuild has left nothing, neither here nor in the repository it was from.
#[track_caller]
fn nothing_is_left(published: &Published) {
    assert!(!target().join("reproduce/work").exists());
    let list = tool("git", &["worktree", "list", "--porcelain"], &published.source());
    assert_eq!(list.matches("worktree ").count(), 1, "{list}");
}

/// Pushes an image as it was published, and others that differ in one thing each.
fn push_changed(server: &Server, published: &Published) {
    published.push(server, "static", "static", |_| {});
    published.push(server, "static", "byte", |parts| {
        replace(&mut parts.layers[1], b"nobody:x:65534:65534", b"nobody:x:00000:65534");
    });
    published.push(server, "scratch", "label", |parts| {
        parts.config["config"]["Labels"]["org.opencontainers.image.title"] = json!("other");
    });
    published.push(server, "scratch", "annotation", |parts| {
        parts.index["annotations"]["more"] = json!("than there was");
    });
    published.push(server, "scratch", "version", |parts| {
        parts.index["annotations"]["org.opencontainers.image.version"] = json!("99.0.0");
    });
}

#[test]
fn what_was_published_is_reproduced_and_what_was_changed_is_named() {
    let (server, published) = (Server::start(&Door::Open), published());
    push_changed(&server, published);
    let repository = format!("{}/pid1", server.address);
    let reference = |tag: &str| {
        let (_, index) = server.get("pid1", &format!("manifests/{tag}"));
        format!("{repository}:{tag}@{}", sha256(&index))
    };
    let tag = |tag: &str| format!("{repository}:{tag}");
    // The first as a verdict has it.
    let tags = [reference("static"), tag("byte"), tag("label"), tag("annotation"), tag("version")];
    let layout = published.layout("scratch").display().to_string();
    let mut asked: Vec<_> = tags.iter().map(String::as_str).collect();
    asked.push(&layout);

    let done = done(&mut published.reproduce(&asked));
    let top = fs::read(published.layout("scratch").join("index.json")).unwrap();
    let top: Value = serde_json::from_slice(&top).unwrap();
    let digest = top["manifests"][0]["digest"].as_str().unwrap();
    let expected = format!("reproduced {}\nreproduced {layout}@{digest}\n", reference("static"));
    assert_eq!((done.code, done.stdout), (Some(1), expected), "{}", done.stderr);
    let faults: Vec<_> =
        done.stderr.lines().filter_map(|it| it.strip_prefix("error: cannot reproduce ")).collect();
    let host = host();
    let expected = [
        format!(
            "`{}`: {host}: layer 2 of the image: `/etc/passwd`: the byte at offset ",
            reference("byte")
        ),
        format!(
            "`{}`: {host}: the configuration: `/config/Labels/org.opencontainers.image.title` is \
             \"other\", rebuilt \"pid1 scratch\"",
            reference("label")
        ),
        format!(
            "`{}`: the index: `/annotations/more` is \"than there was\", rebuilt nothing",
            reference("annotation")
        ),
        format!(
            "`{}`: the index: `/annotations/org.opencontainers.image.version` is \"99.0.0\", \
             rebuilt \"{}\"",
            reference("version"),
            env!("CARGO_PKG_VERSION")
        ),
    ];
    assert_eq!(faults.len(), 4, "{}", done.stderr);
    for (fault, expected) in faults.iter().zip(&expected) {
        assert!(fault.starts_with(expected), "{fault}\n{expected}");
    }
    let compared = "compared static: the index, 1 manifests, 1 configurations, 2 layers with ";
    assert!(done.stderr.contains(compared), "{}", done.stderr);
    let grounds = format!("this rests on commit {}", published.commit);
    assert!(done.stderr.contains(&grounds), "{}", done.stderr);
    nothing_is_left(published);
}

#[test]
fn the_files_of_a_release_are_reproduced_and_a_changed_one_is_named() {
    let published = published();
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let dist = published.built_from_it(&mut xtask).args(["dist", "scratch", "--platform", &host()]);
    must(dist.args(["--no-smoke", &host(), "--repository", "registry.test/pid1"]));
    let folder = TempDir::new().unwrap();
    copy(&published.target().join("dist/release"), &folder.path().join("release"));
    let folder = folder.path().join("release");
    fs::write(folder.join("SHA256SUMS.sigstore.json"), "").unwrap();
    fs::remove_file(folder.join("NOTES.md")).unwrap();
    let written = folder.display().to_string();

    let same = must(&mut published.reproduce(&[&written]));
    assert_eq!(same.stdout, format!("reproduced {written} without NOTES.md, which it lacks\n"));
    let unseen = "not compared, as no build makes signatures: SHA256SUMS.sigstore.json\n";
    for expected in [" files (", unseen] {
        assert!(same.stderr.contains(expected), "{}", same.stderr);
    }

    fs::write(folder.join("pid1-linux-amd65"), "").unwrap();
    let more = done(&mut published.reproduce(&[&written]));
    let expected =
        format!("error: cannot reproduce `{written}`: no build has made these files: pid1-linux-");
    assert_eq!((more.code, more.stdout.as_str()), (Some(1), ""));
    assert!(more.stderr.contains(&expected), "{}", more.stderr);
    fs::write(folder.join("SHA256SUMS"), "changed").unwrap();
    let changed = done(&mut published.reproduce(&[&written]));
    let expected =
        format!("error: cannot reproduce `{written}`: `SHA256SUMS`: the byte at offset ");
    assert_eq!((changed.code, changed.stdout.as_str()), (Some(1), ""));
    assert!(changed.stderr.contains(&expected), "{}", changed.stderr);
    let less = done(published.reproduce(&[&written]).args(["--platform", &host()]));
    assert!(less.stderr.contains("leave out `--platform`"), "{}", less.stderr);
    nothing_is_left(published);
}

#[test]
fn only_the_chosen_platform_is_rebuilt_and_the_verdict_says_so() {
    let (server, published) = (Server::start(&Door::Open), published());
    published.push(&server, "scratch", "two", |parts| {
        let mut other = parts.index["manifests"][0].clone();
        other["platform"] = json!({ "os": "linux", "architecture": "s390x" });
        parts.index["manifests"].as_array_mut().unwrap().push(other);
    });
    let reference = format!("{}/pid1:two", server.address);
    let run =
        |platform: &str| done(published.reproduce(&[&reference]).args(["--platform", platform]));
    let one = run(&host());
    assert_eq!(one.code, Some(0), "{}", one.stderr);
    assert!(one.stdout.ends_with(&format!(" for {}\n", host())), "{}", one.stdout);
    let other = run("linux/riscv64");
    let expected = format!(
        "error: cannot reproduce `{reference}`: it is not for linux/riscv64, it is for {}, \
         linux/s390x\n",
        host()
    );
    assert_eq!((other.code, other.stderr), (Some(1), expected));
}

/// By another user, who may use our toolchain: in another time zone and language, and with another
/// name and mask of modes. The clock is varied elsewhere, as rustc does not
/// start under libfaketime.
fn elsewhere(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=65534", "--map-group=65534", "sh", "-c"]);
    command.arg(format!("umask 077; {script}")).arg(env!("CARGO_BIN_EXE_xtask"));
    command.env("TZ", "Asia/Tokyo").env("LC_ALL", "tr_TR.UTF-8");
    command.env("USER", "somebody").env("LOGNAME", "somebody");
    command
}

#[test]
fn somebody_else_in_another_place_builds_the_same_bytes() {
    let published = published();
    let varied = must(&mut elsewhere("id -u; umask; date +%Z"));
    assert_eq!(varied.stdout, "65534\n0077\nJST\n");
    let layout = published.layout("static").display().to_string();
    let mut command = elsewhere(r#"exec "$0" reproduce "$@""#);
    let done = must(command.arg(&layout).arg("--source").arg(published.source()));
    assert!(done.stdout.starts_with(&format!("reproduced {layout}@")), "{}", done.stdout);
    nothing_is_left(published);
}

#[test]
fn an_interrupt_leaves_nothing() {
    let published = published();
    let layout = published.layout("scratch").display().to_string();
    let running = Running::start(&mut published.reproduce(&[&layout]), b"");
    let starts = comes_about(PATIENCE, || running.stderr().contains(" xtask build "));
    assert!(starts, "{}", running.stderr());
    kill(Pid::from_raw(running.child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let run = running.finish();
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{}", run.stderr);
    let last = run.stderr.lines().last().unwrap();
    assert!(last.ends_with("interrupted; what was half made has been removed"), "{}", run.stderr);
    nothing_is_left(published);
}

#[test]
fn a_commit_that_is_not_here_is_asked_for() {
    let published = published();
    let layout = published.layout("scratch").display().to_string();
    let other = tempfile::tempdir().unwrap();
    tool("git", &["init", "--quiet"], other.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    fails(
        command.args(["reproduce", &layout, "--source"]).arg(other.path()),
        &format!(
            "cannot rebuild commit {}: it is not in `{}`; run `git fetch --tags` there, or name \
             another repository with `--source`",
            published.commit,
            other.path().display()
        ),
    );
}

#[test]
fn an_image_of_another_time_than_its_commit_is_not_rebuilt() {
    let published = published();
    let server = Server::start(&Door::Open);
    published.push(&server, "scratch", "old", |parts| {
        parts.index["annotations"]["org.opencontainers.image.created"] =
            json!("2026-01-02T03:04:05Z");
    });
    let reference = format!("{}/pid1:old", server.address);
    let done = done(&mut published.reproduce(&[&reference]));
    let expected = ": it is dated 2026-01-02T03:04:05Z, its commit ";
    assert!(done.code == Some(1) && done.stderr.contains(expected), "{}", done.stderr);
}

#[test]
fn a_tag_of_another_version_than_its_image_is_named() {
    let (server, published) = (Server::start(&Door::Open), published());
    published.push(&server, "scratch", "99.0.0-scratch", |_| {});
    let reference = format!("{}/pid1:99.0.0-scratch", server.address);
    fails(
        &mut published.reproduce(&[&reference]),
        &format!(
            "cannot reproduce `{reference}`: under the tag `99.0.0-scratch` there is {} of \
             `scratch`",
            env!("CARGO_PKG_VERSION")
        ),
    );
}

#[test]
fn what_does_not_say_where_it_comes_from_cannot_be_rebuilt() {
    let (server, published) = (Server::start(&Door::Open), published());
    let project = Project::new(&["scratch"], &["linux/amd64"], 100);
    let reference = format!("{}/pid1:scratch", server.address);
    project.push(&[&format!("{}/pid1", server.address), "scratch"]);
    fails(
        &mut published.reproduce(&[&reference]),
        &format!(
            "cannot reproduce `{reference}`: it does not say what it was built from: its index has \
             no `{REVISION}`"
        ),
    );
    published.push(&server, "scratch", "dirty", |parts| {
        parts.index["annotations"][REVISION] = json!(format!("{}-dirty", published.commit));
    });
    let reference = format!("{}/pid1:dirty", server.address);
    fails(
        &mut published.reproduce(&[&reference]),
        &format!(
            "cannot reproduce `{reference}`: it was built from a changed tree, which nobody else \
             has, on top of {}",
            published.commit
        ),
    );
}

#[test]
fn a_registry_that_cannot_be_reached_is_named() {
    let reference = "127.0.0.1:1/pid1:static";
    let done = done(&mut published().reproduce(&[reference]));
    let expected = format!(
        "error: cannot reproduce `{reference}`: cannot pull `static` from `127.0.0.1:1/pid1`: \
         cannot reach the registry `127.0.0.1:1`: "
    );
    assert!(done.code == Some(1) && done.stderr.starts_with(&expected), "{}", done.stderr);
}

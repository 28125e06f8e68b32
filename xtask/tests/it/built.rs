//! The images, built once for this machine's platform, into a target folder of the tests' own:
//! what lies in the real one may be for all nine.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::{env, fs};

use tempfile::{NamedTempFile, TempDir};

/// What a command of the xtask did.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// What is left of a process that was waited for.
    pub fn of(output: &Output) -> Done {
        Done {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The real target folder, as the xtask finds it.
pub fn target() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target");
    env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from)
}

/// A target folder with this machine's binaries, and the images built from them. Everybody may
/// read it, and it holds a copy of the xtask that everybody may run.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER.get_or_init(build).path()
}

fn build() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    readable(folder.path());
    let host = host();
    succeeds(Command::new(env!("CARGO_BIN_EXE_xtask")).args(["build", "--platform", &host]));
    fs::create_dir(folder.path().join("dist")).unwrap();
    copy(&target().join("dist/bin"), &folder.path().join("dist/bin"));
    fs::copy(env!("CARGO_BIN_EXE_xtask"), folder.path().join("xtask")).unwrap();
    succeeds(xtask_in(folder.path()).args(["image", "--platform", &host]));
    folder
}

/// The first platform of `plan` that runs here: the table starts with the commonest.
pub fn host() -> String {
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    };
    format!("linux/{architecture}")
}

/// Our init for this machine.
pub fn pid1() -> PathBuf {
    folder().join("dist/bin").join(host().replace('/', "-")).join("pid1")
}

/// The layout of `image` as an archive, which engines load.
pub fn archive(image: &str) -> NamedTempFile {
    let archive = NamedTempFile::new().unwrap();
    let mut builder = tar::Builder::new(archive.as_file());
    builder.append_dir_all(".", folder().join("dist/oci").join(image)).unwrap();
    builder.finish().unwrap();
    drop(builder);
    archive
}

/// The same under the name `repository`, for a docker that others use, too.
pub fn archive_as(image: &str, repository: &str) -> NamedTempFile {
    let layout = folder().join("dist/oci").join(image);
    let top = fs::read_to_string(layout.join("index.json")).unwrap();
    let renamed =
        top.replace("docker.io/library/pid1:", &format!("docker.io/library/{repository}:"));
    assert_ne!(renamed, top);
    let archive = NamedTempFile::new().unwrap();
    let mut builder = tar::Builder::new(archive.as_file());
    builder.append_dir_all("blobs", layout.join("blobs")).unwrap();
    builder.append_path_with_name(layout.join("oci-layout"), "oci-layout").unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(renamed.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "index.json", renamed.as_bytes()).unwrap();
    builder.finish().unwrap();
    drop(builder);
    archive
}

/// A command of the xtask, on the images of [`folder`].
pub fn xtask() -> Command {
    xtask_in(folder())
}

/// A command of the xtask, on the images of `folder`.
pub fn xtask_in(folder: &Path) -> Command {
    let copy = folder.join("xtask");
    let mut command = Command::new(if copy.exists() { copy } else { self::folder().join("xtask") });
    command.env("CARGO_TARGET_DIR", folder).env_remove("SOURCE_DATE_EPOCH");
    command
}

/// Runs it to its end.
pub fn done(command: &mut Command) -> Done {
    Done::of(&command.output().unwrap())
}

/// Runs it to its end, which must be a success.
#[track_caller]
pub fn succeeds(command: &mut Command) -> Done {
    let done = done(command);
    assert_eq!(done.code, Some(0), "{command:?}: {}", done.stderr);
    done
}

/// A copy of [`folder`]'s images, to be spoiled.
pub fn copied() -> TempDir {
    let copied = tempfile::tempdir().unwrap();
    readable(copied.path());
    symlink(folder().join("xtask"), copied.path().join("xtask")).unwrap();
    fs::create_dir(copied.path().join("dist")).unwrap();
    for part in ["dist/bin", "dist/oci"] {
        copy(&folder().join(part), &copied.path().join(part));
    }
    copied
}

/// Copies a folder, as everybody may read it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    readable(to);
    for entry in fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

fn readable(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

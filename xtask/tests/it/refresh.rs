//! Images whose base has moved, built anew around a release's binaries: on stand-ins of Debian's.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::built::{Done, copy, done, host, target};
use crate::docker_registry::server::{Door, Server, get};
use crate::standins::{packages::debian, sha256};

/// A registry with a base and the image on it, a target folder, and the files of a release.
struct Setting {
    server: Server,
    place: TempDir,
}

impl Setting {
    fn new() -> Setting {
        let (server, place) = (Server::start(&Door::Open), TempDir::new().unwrap());
        fs::create_dir(place.path().join("dist")).unwrap();
        for part in ["cross", "tools"] {
            let real = fs::canonicalize(target()).unwrap().join(part);
            symlink(real, place.path().join(part)).unwrap();
        }
        copy(&target().join("dist/bin"), &place.path().join("dist/bin"));
        debian().push(&server, "hub/library/debian", "trixie-slim");
        let setting = Setting { server, place };
        setting.release();
        setting
    }

    /// What a release has of this machine's binary, and its checksums.
    fn release(&self) {
        let folder = self.place.path().join("release");
        fs::create_dir(&folder).unwrap();
        let built = target().join("dist/bin").join(host().replace('/', "-")).join("pid1");
        let name = format!("pid1-{}-unknown-linux-musl", std::env::consts::ARCH);
        fs::copy(built, folder.join(&name)).unwrap();
        let mut sums = Command::new("sha256sum");
        let sums = sums.arg(&name).current_dir(&folder).output().unwrap();
        fs::write(folder.join("SHA256SUMS"), sums.stdout).unwrap();
    }

    fn repository(&self) -> String {
        format!("{}/pid1", self.server.address)
    }

    fn xtask(&self, arguments: &[&str]) -> Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(arguments).env("CARGO_TARGET_DIR", self.place.path());
        command.env("PID1_LOCK_FILE", self.place.path().join("a.lock"));
        let to = |from, to| format!("{from}={}/{to}", self.server.address);
        command.env("PID1_MIRRORS", [to("docker.io", "hub"), to("gcr.io", "google")].join(","));
        done(&mut command)
    }

    fn refresh(&self) -> Done {
        let folder = format!("--binaries={}", self.place.path().join("release").display());
        let platform = format!("--platform={}", host());
        self.xtask(&["refresh", &self.repository(), "debian", &folder, &platform])
    }

    /// What a tag points at.
    fn digest(&self, tag: &str) -> String {
        let path = format!("/v2/pid1/manifests/{tag}");
        let accept = "Accept: application/vnd.oci.image.index.v1+json\r\n";
        let (status, manifest) = get(&self.server.address, &path, accept);
        assert_eq!(status, 200);
        sha256(&manifest)
    }
}

#[track_caller]
fn succeeds(done: Done) -> Done {
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    done
}

#[test]
fn an_image_is_pushed_anew_only_if_its_base_has_moved() {
    let setting = Setting::new();
    let own = format!("{}-debian", env!("CARGO_PKG_VERSION"));
    succeeds(setting.xtask(&["lock", "debian"]));
    succeeds(setting.xtask(&["image", "debian", "--platform", &host()]));
    succeeds(setting.xtask(&["push", &setting.repository(), "debian"]));
    let (tags, released) = (setting.server.tags("pid1"), setting.digest("debian"));
    assert_eq!(setting.digest(&own), released);

    let idle = succeeds(setting.refresh());
    assert_eq!(idle.stdout, "");
    assert!(idle.stderr.contains("no base has moved"), "{}", idle.stderr);
    assert_eq!(setting.server.tags("pid1"), tags);

    let mut base = debian();
    base.config["Labels"] = json!({ "is": "another" });
    let base = base.push(&setting.server, "hub/library/debian", "trixie-slim");
    let moved = succeeds(setting.refresh());
    let anew = setting.digest("debian");
    assert_eq!(moved.stdout, format!("{}@{anew}\n", setting.repository()));
    assert!(moved.stderr.contains(&format!(", is {base}")), "{}", moved.stderr);
    assert!(anew != released && setting.digest(&own) == released);
    let dated: Vec<_> =
        setting.server.tags("pid1").into_iter().filter(|tag| !tags.contains(tag)).collect();
    assert!(dated.len() == 1 && dated[0].starts_with(&format!("{own}-20")), "{dated:?}");
    assert_eq!(setting.digest(&dated[0]), anew);

    assert_eq!(succeeds(setting.refresh()).stdout, "");
}

#[test]
fn a_binary_that_is_not_the_releases_is_refused() {
    let setting = Setting::new();
    let folder = setting.place.path().join("release");
    fs::write(folder.join("SHA256SUMS"), "").unwrap();
    let refused = setting.refresh();
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("is not that in SHA256SUMS"), "{}", refused.stderr);
    assert_eq!(setting.server.tags("pid1"), Vec::<String>::new());
    fs::remove_file(folder.join("SHA256SUMS")).unwrap();
    let refused = setting.refresh();
    assert!(refused.stderr.contains("`gh release download`"), "{}", refused.stderr);
}

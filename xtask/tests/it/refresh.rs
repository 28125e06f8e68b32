//! Images whose base has moved, built anew around a release's binaries: on stand-ins of Debian's.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::built::{Done, copy, done, host, target};
use crate::dist::succeeds;
use crate::docker_registry::bills::attached;
use crate::docker_registry::reproduce::published;
use crate::docker_registry::server::{Door, INDEX, Server, get};
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

    /// What a release has done before.
    fn publish(&self) {
        succeeds(self.xtask(&["lock", "debian"]));
        succeeds(self.xtask(&["image", "debian", "--platform", &host()]));
        succeeds(self.xtask(&["push", &self.repository(), "debian"]));
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

#[test]
fn an_image_is_pushed_anew_only_if_its_base_has_moved() {
    let setting = Setting::new();
    let own = format!("{}-debian", env!("CARGO_PKG_VERSION"));
    setting.publish();
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
    let bill = fs::read(setting.place.path().join("dist/release/image-debian.cdx.json")).unwrap();
    assert_eq!(attached(&setting.server, &anew), bill);
    assert!(String::from_utf8_lossy(&bill).contains(&base), "it does not name the base");
    assert!(moved.stderr.contains(&format!(", is {base}")), "{}", moved.stderr);
    assert!(anew != released && setting.digest(&own) == released);
    let dated: Vec<_> =
        setting.server.tags("pid1").into_iter().filter(|tag| !tags.contains(tag)).collect();
    // This registry lists what is attached to an image by a tag.
    let dated: Vec<_> = dated.into_iter().filter(|tag| !tag.starts_with("sha256-")).collect();
    assert!(dated.len() == 1 && dated[0].starts_with(&format!("{own}-20")), "{dated:?}");
    assert_eq!(setting.digest(&dated[0]), anew);
    let sign = succeeds(setting.xtask(&["sign", "--dry-run"]));
    assert_eq!(sign.stdout, format!("cosign sign --yes {}@{anew}\n", setting.repository()));

    assert_eq!(succeeds(setting.refresh()).stdout, "");
    let nothing = setting.xtask(&["sign", "--dry-run"]);
    assert!(nothing.stderr.contains("which `cargo xtask refresh` writes"), "{}", nothing.stderr);
}

#[test]
fn what_was_never_published_is_not_refreshed() {
    let setting = Setting::new();
    let idle = succeeds(setting.refresh());
    assert!(idle.stderr.contains("debian: left out, as no release has"), "{}", idle.stderr);
    assert_eq!(setting.server.tags("pid1"), Vec::<String>::new());
}

#[test]
fn a_refresh_moves_no_tag_of_a_higher_version() {
    let setting = Setting::new();
    setting.publish();
    let (status, bytes) = setting.server.get("pid1", "manifests/debian");
    assert_eq!(status, 200);
    let mut index: Value = serde_json::from_slice(&bytes).unwrap();
    index["annotations"]["org.opencontainers.image.version"] = json!("99.0.0");
    setting.server.put_manifest("pid1", "debian", INDEX, index.to_string().as_bytes());
    let higher = setting.digest("debian");
    let mut base = debian();
    base.config["Labels"] = json!({ "is": "another" });
    base.push(&setting.server, "hub/library/debian", "trixie-slim");
    let moved = succeeds(setting.refresh());
    assert!(moved.stderr.contains("debian: left where it is, at version 99"), "{}", moved.stderr);
    assert_eq!(setting.digest("debian"), higher);
}

#[test]
fn a_binary_that_is_not_the_releases_is_refused() {
    let setting = Setting::new();
    setting.publish();
    let tags = setting.server.tags("pid1");
    let mut base = debian();
    base.config["Labels"] = json!({ "is": "another" });
    base.push(&setting.server, "hub/library/debian", "trixie-slim");
    let folder = setting.place.path().join("release");
    fs::write(folder.join("SHA256SUMS"), "").unwrap();
    let refused = setting.refresh();
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("is not that in SHA256SUMS"), "{}", refused.stderr);
    assert_eq!(setting.server.tags("pid1"), tags);
    fs::remove_file(folder.join("SHA256SUMS")).unwrap();
    let refused = setting.refresh();
    assert!(refused.stderr.contains("`gh release download`"), "{}", refused.stderr);
}

#[test]
fn what_was_refreshed_is_reproduced_on_the_base_that_it_names() {
    let setting = Setting::new();
    let published = published();
    let (old, new) = (setting.place.path().join("old"), setting.place.path().join("new"));
    let lock = |path: &Path| {
        let path = path.display().to_string();
        succeeds(setting.xtask(&["lock", "debian", "--lock-file", &path]));
    };
    lock(&old);
    let mut base = debian();
    base.config["Labels"] = json!({ "is": "another" });
    base.push(&setting.server, "hub/library/debian", "trixie-slim");
    lock(&new);
    // The tag has moved on from what the image stands on, which is there by its digest only.
    base.config["Labels"] = json!({ "is": "a third" });
    base.push(&setting.server, "hub/library/debian", "trixie-slim");
    let mirror = format!("--mirror=docker.io={}/hub", setting.server.address);
    let mut build = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let build = published.built_from_it(&mut build).args(["image", "debian", &mirror]);
    succeeds(done(build.args(["--platform", &host(), "--lock-file"]).arg(&new)));

    let layout = published.layout("debian").display().to_string();
    let mut reproduce = published.reproduce(&[&layout]);
    let same = succeeds(done(reproduce.arg(&mirror).arg("--lock-file").arg(&old)));
    assert!(same.stdout.starts_with(&format!("reproduced {layout}@")), "{}", same.stdout);
}

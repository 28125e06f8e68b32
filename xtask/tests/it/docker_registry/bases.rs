//! Images on bases from a registry, which holds stand-ins of the real ones.

mod docker;
mod podman;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};

use super::server::{Door, Server, certificates};
use crate::image::place::{File, Place, blob_path, entries, fails, listing, stderr, succeeds};
use crate::push::fixture::{Running, comes_about, tool};
use crate::push::proxy::{Fault, Proxy, Stage};
use crate::standins::{GZIP, Layer, PLATFORMS, Standin, gzip, sha256, tar};

const DEBIAN: &str = "docker.io/library/debian:trixie-slim";

/// Where the mirror has it.
const REPOSITORY: &str = "hub/library/debian";
const TAG: &str = "trixie-slim";

/// The platforms of the image `debian`, as its definition has them.
const LOCKED: [&str; 7] = [
    "linux/386",
    "linux/amd64",
    "linux/arm/v7",
    "linux/arm64",
    "linux/ppc64le",
    "linux/riscv64",
    "linux/s390x",
];

/// A build for three of them.
const BUILDS: [&str; 8] = [
    "image",
    "debian",
    "--platform",
    "linux/amd64",
    "--platform",
    "linux/arm64",
    "--platform",
    "linux/arm/v7",
];

/// That `theirs` begins with the layers of the base, as ours does.
#[track_caller]
fn are_on_the_same_layers(ours: &Place, theirs: &Place) {
    for (ours, theirs) in ours.manifests("debian").iter().zip(theirs.manifests("debian")) {
        let layers = |it: &Value| it["layers"].as_array().unwrap().clone();
        let (ours, theirs) = (layers(ours), layers(&theirs));
        assert_eq!(theirs[..2], ours[..2]);
        assert_ne!(theirs[2], ours[2]);
    }
}

/// How long something may take to come about that must.
const PATIENCE: Duration = Duration::from_secs(30);

/// A registry with a stand-in for Debian, and a target folder without anything of it.
struct Setting {
    server: Server,
    place: Place,
    index: String,
}

impl Setting {
    fn new(standin: &Standin) -> Setting {
        let server = Server::start(&Door::Open);
        let index = standin.push(&server, REPOSITORY, TAG);
        Setting { server, place: Place::new(), index }
    }

    fn locked(standin: &Standin) -> Setting {
        let setting = Setting::new(standin);
        succeeds(&mut setting.xtask(&["lock", "debian"]));
        setting
    }

    fn lock_file(&self) -> PathBuf {
        self.place.path().join("a.lock")
    }

    fn xtask(&self, arguments: &[&str]) -> Command {
        self.xtask_at(&self.server.address, arguments)
    }

    /// With the mirror at `address`.
    fn xtask_at(&self, address: &str, arguments: &[&str]) -> Command {
        let mut command = self.place.xtask(arguments);
        command.env("HOME", self.place.path()).env_remove("DOCKER_CONFIG");
        command.env("PID1_LOCK_FILE", self.lock_file());
        command.env("PID1_MIRRORS", format!("docker.io={address}/hub"));
        command
    }

    /// `image debian` for one platform.
    fn image(&self) -> Command {
        self.xtask(&["image", "debian", "--platform", "linux/amd64"])
    }

    /// A failed build has left nothing behind.
    #[track_caller]
    fn has_nothing(&self) {
        assert!(!self.place.layout("debian").exists());
        assert_eq!(self.unfinished(), 0);
    }

    /// How many downloads are under way, or were left lying.
    fn unfinished(&self) -> usize {
        let bases = self.place.path().join("bases");
        let files = if bases.exists() { listing(&bases) } else { listing(self.place.path()) };
        files.keys().filter(|it| it.to_string_lossy().contains(".unfinished")).count()
    }
}

#[test]
fn lock_writes_down_what_every_platform_is() {
    let setting = Setting::new(&Standin::debian());
    succeeds(&mut setting.xtask(&["lock", "debian"]));
    let text = fs::read_to_string(setting.lock_file()).unwrap();
    let lock: toml::Table = text.parse().unwrap();
    let entry = &lock[DEBIAN];
    assert_eq!(entry["index"].as_str(), Some(setting.index.as_str()));
    let platforms = entry["platforms"].as_table().unwrap();
    assert_eq!(platforms.keys().collect::<Vec<_>>(), LOCKED);
    for (_, digest) in platforms {
        let found =
            setting.server.get(REPOSITORY, &format!("manifests/{}", digest.as_str().unwrap()));
        assert_eq!(found.0, 200);
    }
}

#[test]
fn a_base_that_has_moved_is_named_and_builds_stay_where_they_were() {
    let setting = Setting::locked(&Standin::debian());
    let before = fs::read(setting.lock_file()).unwrap();
    succeeds(&mut setting.xtask(&["lock", "debian", "--check"]));
    let mut other = Standin::debian();
    other.layers.push(gzip(&["new=new"]));
    let moved = other.push(&setting.server, REPOSITORY, TAG);
    let error = fails(&mut setting.xtask(&["lock", "debian", "--check"]));
    let expected = format!(
        "bases have moved, run `cargo xtask lock`:\n  {DEBIAN} was {}, is {moved}",
        setting.index
    );
    assert_eq!(error, expected);
    assert_eq!(fs::read(setting.lock_file()).unwrap(), before);
    succeeds(&mut setting.image());
    let annotations = &setting.place.index("debian")["annotations"];
    assert_eq!(annotations["org.opencontainers.image.base.digest"], json!(setting.index));
}

#[test]
fn an_image_without_a_locked_base_says_what_to_run() {
    let setting = Setting::new(&Standin::debian());
    let expected = format!(
        "cannot build the image `debian`: its base `{DEBIAN}` is not locked, run `cargo xtask lock \
         debian`"
    );
    assert_eq!(fails(&mut setting.image()), expected);
    setting.has_nothing();
}

#[test]
fn a_base_without_a_platform_is_named_with_those_it_has() {
    let mut standin = Standin::debian();
    standin.platforms = vec!["linux/amd64", "linux/arm/v7"];
    let setting = Setting::new(&standin);
    let expected = format!(
        "cannot lock the base `{DEBIAN}`: it has no linux/arm64, it has linux/amd64, linux/arm/v7; \
         leave linux/arm64 out of `images/debian/image.toml`"
    );
    assert_eq!(fails(&mut setting.xtask(&["lock", "debian"])), expected);
    assert!(!setting.lock_file().exists());
}

#[test]
fn a_base_keeps_its_layers_and_gets_one_more_behind_its_links() {
    let standin = Standin::debian();
    let setting = Setting::locked(&standin);
    succeeds(&mut setting.xtask(&["image", "debian"]));
    let own = gzip(&["etc/", "etc/platform=linux/amd64"]);
    let place = &setting.place;
    assert_eq!(place.manifests("debian").len(), LOCKED.len());
    let manifest = &place.manifests("debian")[0];
    let layers: Vec<_> = manifest["layers"].as_array().unwrap().iter().collect();
    let digests: Vec<_> = layers.iter().map(|it| it["digest"].as_str().unwrap()).collect();
    assert_eq!(digests[..2], [standin.layers[0].digest(), own.digest()]);
    for layer in &layers {
        assert_eq!(sha256(&place.blob("debian", layer)), layer["digest"].as_str().unwrap());
    }
    let ours = entries(&place.blob("debian", layers[2]));
    let names: Vec<_> = ours.iter().map(|(path, file)| (path.as_str(), file.mode)).collect();
    assert_eq!(names, [("usr", 0o755), ("usr/sbin", 0o755), ("usr/sbin/pid1", 0o755)]);
    let File { bytes, .. } = &ours[2].1;
    assert_eq!(bytes, b"pid1 for linux/amd64");
}

/// A stand-in whose configuration says all that one can.
fn with_all() -> Standin {
    let config = json!({
        "Cmd": ["theirs"], "Entrypoint": ["/theirs"], "Env": ["PATH=/theirs", "A=1"],
        "User": "somebody", "WorkingDir": "/usr", "StopSignal": "SIGINT",
        "Labels": { "theirs": "1", "org.opencontainers.image.title": "theirs" },
    });
    Standin { config, ..Standin::debian() }
}

#[test]
fn a_base_keeps_its_configuration_but_for_what_is_ours() {
    let setting = Setting::locked(&with_all());
    succeeds(&mut setting.xtask(&["image", "debian"]));
    // 64-bit ARM, to which the stand-in gives a variant.
    let config = &setting.place.configurations("debian")[1];
    assert_eq!((&config["architecture"], &config["variant"]), (&json!("arm64"), &json!("v8")));
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
    let history: Vec<_> =
        config["history"].as_array().unwrap().iter().map(|it| &it["created_by"]).collect();
    assert_eq!(history, ["a debootstrap", "own", "cargo xtask image: /sbin/pid1"]);
    let config = &config["config"];
    assert_eq!(config["Entrypoint"], json!(["/sbin/pid1"]));
    assert_eq!(config["Cmd"], json!(["bash"]));
    assert_eq!(config["Env"], json!(["PATH=/theirs", "A=1"]));
    let kept = ["User", "WorkingDir", "StopSignal"].map(|it| config[it].as_str().unwrap());
    assert_eq!(kept, ["somebody", "/usr", "SIGINT"]);
    assert_eq!(config["Labels"]["theirs"], json!("1"));
    let label = |name: &str| config["Labels"][format!("org.opencontainers.image.{name}")].clone();
    let expected = (json!("pid1 debian"), json!(DEBIAN), json!(setting.index));
    assert_eq!((label("title"), label("base.name"), label("base.digest")), expected);
    assert_eq!(label("licenses"), Value::Null);
}

/// A stand-in with one layer more.
fn with_layer(layer: Layer) -> Setting {
    let mut standin = Standin::debian();
    standin.layers.push(layer);
    Setting::locked(&standin)
}

#[test]
fn a_layer_of_zstd_is_kept_and_looked_into() {
    let bytes = tar(&["usr/local/", "usr/local/sbin/", "sbin>usr/local/sbin"]);
    let packed = compress_to_vec(bytes.as_slice(), CompressionLevel::Fastest);
    let kind = "application/vnd.oci.image.layer.v1.tar+zstd".to_string();
    let layer = Layer { kind: kind.clone(), bytes: packed.clone(), diff_id: sha256(&bytes) };
    let setting = with_layer(layer);
    succeeds(&mut setting.image());
    let manifest = &setting.place.manifests("debian")[0];
    assert_eq!(manifest["layers"][1]["mediaType"], json!(kind));
    assert_eq!(setting.place.blob("debian", &manifest["layers"][1]), packed);
    let ours = entries(&setting.place.blob("debian", &manifest["layers"][3]));
    assert_eq!(ours.last().unwrap().0, "usr/local/sbin/pid1");
}

#[test]
fn what_docker_calls_its_lists_and_layers_is_said_in_oci_s_words() {
    let kind = "application/vnd.docker.image.rootfs.diff.tar.gzip".to_string();
    let layer = Layer { kind, ..gzip(&["docker=docker"]) };
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let mut standin = Standin::debian();
    standin.layers = vec![layer.clone()];
    standin.manifest_kind = kind;
    standin.index_kind = "application/vnd.docker.distribution.manifest.list.v2+json";
    let setting = Setting::locked(&standin);
    succeeds(&mut setting.image());
    let manifest = &setting.place.manifests("debian")[0];
    assert_eq!(manifest["layers"][0]["mediaType"], json!(GZIP));
    assert_eq!(manifest["layers"][0]["digest"], json!(layer.digest()));
}

#[test]
fn a_layer_that_is_kept_elsewhere_is_refused() {
    let kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".to_string();
    let layer = Layer { kind: kind.clone(), ..gzip(&["foreign=foreign"]) };
    let setting = with_layer(layer);
    let expected = format!(
        "cannot pull the base `{DEBIAN}` of `debian`: cannot use it for linux/amd64: it has a layer \
         of type `{kind}`, which may be kept elsewhere or under lock and key; choose a base without"
    );
    assert_eq!(fails(&mut setting.image()), expected);
    setting.has_nothing();
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    let layer = Layer { diff_id: sha256(b"other"), ..gzip(&["a=a"]) };
    let (digest, found) = (layer.digest(), gzip(&["a=a"]).diff_id);
    let setting = with_layer(layer);
    let expected = format!(
        "cannot pull the base `{DEBIAN}` of `debian`: cannot use it for linux/amd64: its layer \
         `{digest}` unpacks to {found}, and not to what its configuration says; engines would \
         refuse it"
    );
    assert_eq!(fails(&mut setting.image()), expected);
    setting.has_nothing();
}

#[test]
fn a_layer_that_the_configuration_does_not_know_is_refused() {
    let mut standin = Standin::debian();
    standin.unknown = 1;
    let setting = Setting::locked(&standin);
    let expected = format!(
        "cannot pull the base `{DEBIAN}` of `debian`: cannot use it for linux/amd64: its manifest \
         has 2 layers and its configuration 1; engines would refuse it"
    );
    assert_eq!(fails(&mut setting.image()), expected);
}

#[test]
fn what_was_pulled_everybody_may_read() {
    let setting = Setting::locked(&Standin::debian());
    succeeds(&mut setting.image());
    let found = listing(&setting.place.path().join("bases"));
    let files: Vec<_> = found.into_keys().filter(|it| it.is_file()).collect();
    assert_eq!(files.len(), 4);
    for file in files {
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "{}", file.display());
    }
}

#[test]
fn a_second_build_needs_no_registry() {
    let setting = Setting::locked(&Standin::debian());
    let first = succeeds(&mut setting.image());
    let address = "127.0.0.1:9";
    fs::remove_dir_all(setting.place.layout("debian")).unwrap();
    let arguments = ["image", "debian", "--platform", "linux/amd64"];
    assert_eq!(succeeds(&mut setting.xtask_at(address, &arguments)), first);
    // The control: another platform's is not here yet.
    let arguments = ["image", "debian", "--platform", "linux/s390x"];
    let expected = format!(
        "cannot pull the base `{DEBIAN}` of `debian`: cannot reach the registry `{address}`: \
         connection refused; does a registry run there?"
    );
    assert_eq!(fails(&mut setting.xtask_at(address, &arguments)), expected);
}

#[test]
fn what_platforms_share_is_pulled_once() {
    let setting = Setting::locked(&Standin::debian());
    let proxy = Proxy::start(Some(&setting.server.address));
    let pulled = |platform: &str| {
        proxy.forget();
        succeeds(
            &mut setting.xtask_at(&proxy.address, &["image", "debian", "--platform", platform]),
        );
        proxy.seen().iter().filter(|it| it.stage == Stage::BlobGet).count()
    };
    // The layer that all share, and the platform's own with its configuration.
    assert_eq!(pulled("linux/amd64"), 3);
    assert_eq!(pulled("linux/arm64"), 2);
    assert_eq!(pulled("linux/amd64"), 0);
}

#[test]
fn what_was_spoiled_here_is_pulled_again() {
    let standin = Standin::debian();
    let setting = Setting::locked(&standin);
    let first = succeeds(&mut setting.image());
    let digest = standin.layers[0].digest();
    let path = setting.place.path().join("bases").join(digest.replace(':', "/"));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "spoiled").unwrap();
    assert_eq!(succeeds(&mut setting.image()), first);
    assert_eq!(sha256(&fs::read(path).unwrap()), digest);
}

#[test]
fn bytes_that_are_not_what_was_locked_are_refused() {
    let standin = Standin::debian();
    for spoil in [|bytes: &mut Vec<u8>| bytes[40] ^= 1, |bytes: &mut Vec<u8>| bytes.truncate(40)] {
        let setting = Setting::locked(&standin);
        let digest = standin.layers[0].digest();
        let stored = setting.server.stored(&digest);
        let mut bytes = fs::read(&stored).unwrap();
        spoil(&mut bytes);
        fs::write(&stored, &bytes).unwrap();
        let error = fails(&mut setting.image());
        let found =
            format!("its bytes are {} of {} bytes, not {digest}", sha256(&bytes), bytes.len());
        assert!(error.contains(&found), "{error}");
        let start = format!(
            "cannot pull the base `{DEBIAN}` of `debian`: cannot pull a layer for linux/amd64 ({digest}): "
        );
        assert!(error.starts_with(&start), "{error}");
        setting.has_nothing();
    }
}

#[test]
fn a_manifest_that_is_not_what_was_locked_is_refused() {
    let setting = Setting::locked(&Standin::debian());
    let lock: toml::Table = fs::read_to_string(setting.lock_file()).unwrap().parse().unwrap();
    let digest = lock[DEBIAN]["platforms"]["linux/amd64"].as_str().unwrap();
    let stored = setting.server.stored(digest);
    let text = fs::read_to_string(&stored).unwrap();
    fs::write(&stored, text.replacen("  ", " ", 1)).unwrap();
    let error = fails(&mut setting.image());
    assert!(error.contains("cannot pull the manifest for linux/amd64"), "{error}");
    setting.has_nothing();
}

#[test]
fn a_registry_that_lost_a_layer_is_told_so() {
    let standin = Standin::debian();
    let setting = Setting::locked(&standin);
    let digest = standin.layers[0].digest();
    fs::remove_file(setting.server.stored(&digest)).unwrap();
    let error = fails(&mut setting.image());
    let end = format!("there is no `{digest}` in `{}/{REPOSITORY}`", setting.server.address);
    assert!(error.ends_with(&end), "{error}");
    setting.has_nothing();
}

#[test]
fn a_download_that_breaks_off_or_stalls_begins_again() {
    for (fault, cause) in [
        (Fault::CutAnswer, "the connection was dropped"),
        (Fault::CutEnd, "the connection was dropped"),
        (Fault::HangEnd, "no answer within 1 s"),
        (Fault::HangBody, "it answers 500 Internal Server Error"),
        (Fault::Endless, "it answers 500 Internal Server Error"),
    ] {
        let setting = Setting::locked(&Standin::debian());
        let proxy = Proxy::start(Some(&setting.server.address));
        proxy.set(Stage::BlobGet, fault, 2);
        let arguments = ["image", "debian", "--platform", "linux/amd64", "--timeout=1"];
        let output = setting.xtask_at(&proxy.address, &arguments).output().unwrap();
        assert!(output.status.success(), "{fault:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(cause), "{fault:?}: {}", stderr(&output));
        assert_eq!(setting.unfinished(), 0);
    }
}

#[test]
fn ctrl_c_in_the_middle_of_a_download_leaves_nothing() {
    let setting = Setting::locked(&Standin::debian());
    let proxy = Proxy::start(Some(&setting.server.address));
    proxy.set(Stage::BlobGet, Fault::Hang, usize::MAX);
    let arguments = ["image", "debian", "--platform", "linux/amd64"];
    let running = Running::start(&mut setting.xtask_at(&proxy.address, &arguments), b"");
    assert!(comes_about(PATIENCE, || setting.unfinished() > 0), "{}", running.stderr());
    kill(Pid::from_raw(running.child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let run = running.finish();
    let expected = format!("error: cannot pull the base `{DEBIAN}` of `debian`: interrupted");
    assert_eq!((run.code, run.stderr.lines().last()), (Some(1), Some(expected.as_str())));
    setting.has_nothing();
}

#[test]
fn a_base_is_pulled_over_tls_with_an_authority_of_one_s_own() {
    let certificates = certificates();
    let server = Server::start(&Door::Tls(certificates.path().to_path_buf()));
    let mut setting = Setting::new(&Standin::debian());
    let tag = |server: &Server| format!("docker://{}/{REPOSITORY}:{TAG}", server.address);
    tool(
        "skopeo",
        &[
            "copy",
            "--quiet",
            "--all",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            &tag(&setting.server),
            &tag(&server),
        ],
        certificates.path(),
    );
    setting.server = server;
    let ca = certificates.path().join("ca.pem");
    let ca = format!("--ca={}", ca.display());
    let error = fails(&mut setting.xtask(&["lock", "debian"]));
    assert!(
        error.contains("an authority unknown here; if you trust it, give `--ca FILE`"),
        "{error}"
    );
    succeeds(&mut setting.xtask(&["lock", "debian", &ca]));
    assert!(fs::read_to_string(setting.lock_file()).unwrap().contains(&setting.index));
    succeeds(setting.image().arg(&ca));
    assert!(
        blob_path(&setting.place.layout("debian"), &setting.place.index("debian")["manifests"][0])
            .exists()
    );
}

#[test]
fn a_password_is_sent_to_whom_it_is_for() {
    let open = Setting::locked(&Standin::debian());
    let server = Server::start(&Door::Password);
    let from = format!("docker://{}/{REPOSITORY}:{TAG}", open.server.address);
    let to = format!("docker://{}/{REPOSITORY}:{TAG}", server.address);
    let copy = ["copy", "--quiet", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"];
    let copy = [&copy[..], &["--dest-creds=bob:hunter2", &from, &to]].concat();
    tool("skopeo", &copy, open.place.path());
    let arguments = ["image", "debian", "--platform", "linux/amd64"];
    let error = fails(&mut open.xtask_at(&server.address, &arguments));
    // Without the options that only commands have which push.
    let remedy = format!(
        "it wants a login, and no login for `{0}` is known; run `docker login {0}`",
        server.address
    );
    assert!(error.ends_with(&remedy), "{error}");
    let login = json!({ "auths": { &server.address: { "auth": super::BOB } } });
    fs::create_dir(open.place.path().join(".docker")).unwrap();
    fs::write(open.place.path().join(".docker/config.json"), login.to_string()).unwrap();
    succeeds(&mut open.xtask_at(&server.address, &arguments));

    // A store elsewhere, that the registry sends us to, learns nothing.
    let [registry, store] = [&server, &open.server].map(|it| Proxy::start(Some(&it.address)));
    registry.set(Stage::BlobGet, Fault::Redirect(format!("http://{}", store.address).leak()), 9);
    let login = json!({ "auths": { &registry.address: { "auth": super::BOB } } });
    fs::write(open.place.path().join(".docker/config.json"), login.to_string()).unwrap();
    fs::remove_dir_all(open.place.path().join("bases")).unwrap();
    succeeds(&mut open.xtask_at(&registry.address, &arguments));
    let logins = |proxy: &Proxy| {
        let seen = proxy.seen().into_iter().filter(|it| it.stage == Stage::BlobGet);
        seen.map(|it| it.authorization.is_some()).collect::<Vec<_>>()
    };
    assert_eq!((logins(&registry), logins(&store)), (vec![true; 3], vec![false; 3]));
}

#[test]
fn nobody_is_led_out_of_tls() {
    let certificates = certificates();
    let plain = Proxy::start(None);
    let path = format!("v2/{REPOSITORY}/manifests/{TAG}");
    let to = format!("http://{}/{path}", plain.address);
    let head = format!("HTTP/1.0 307 Temporary Redirect\r\nLocation: {to}\r\n\r\n");
    let server = Server::answering(certificates.path(), &path, &head);
    let setting = Setting { server, place: Place::new(), index: String::new() };
    let ca = format!("--ca={}", certificates.path().join("ca.pem").display());
    let error = fails(&mut setting.xtask(&["lock", "debian", &ca]));
    assert!(error.ends_with("it redirects from https to plain http"), "{error}");
    assert_eq!(plain.seen().len(), 0);
}

#[test]
fn every_base_is_locked_and_built_with_all() {
    let server = Server::start(&Door::Open);
    for (repository, tag) in [
        ("hub/library/debian", "trixie-slim"),
        ("hub/library/ubuntu", "24.04"),
        ("hub/library/alpine", "3.22"),
        ("hub/library/busybox", "1.37"),
        ("google/distroless/static-debian12", "nonroot"),
        ("google/distroless/base-debian12", "nonroot"),
    ] {
        Standin::debian().push(&server, repository, tag);
    }
    let place = Place::new();
    let xtask = |arguments: &[&str]| {
        let mut command = place.xtask(arguments);
        command.arg(format!("--mirror=docker.io={}/hub", server.address));
        command.arg(format!("--mirror=gcr.io={}/google", server.address));
        command.arg(format!("--lock-file={}", place.path().join("a.lock").display()));
        command
    };
    succeeds(&mut xtask(&["lock"]));
    let built = succeeds(&mut xtask(&["image", "--all"]));
    let names: Vec<_> = built.lines().filter_map(|it| it.split('@').next()).collect();
    let own = ["scratch", "static", "docker-testing"];
    let based = ["alpine", "busybox", "debian", "distroless-base", "distroless-static", "ubuntu"];
    assert_eq!(names, [&own[..], &based].concat());
    assert_eq!(place.manifests("busybox").len(), PLATFORMS.len());
    // Without `--all` nobody needs the registry.
    drop(server);
    let built = succeeds(&mut place.xtask(&["image"]));
    let names: Vec<_> = built.lines().filter_map(|it| it.split('@').next()).collect();
    assert_eq!(names, own);
}

//! Pushing to a real registry; skopeo, where it is named, is the independent witness.

pub mod attach;
mod bases;
pub mod bills;
pub mod crane;
pub mod faults;
mod mount;
mod real;
mod release;
pub mod reproduce;
pub mod server;
mod steps;
mod token;
pub mod users;

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::dist::{dist_in, place, succeeds};
use crate::image::place::script;
use crate::push::fixture::{Project, Run, fails, run, run_with, tool};
use crate::push::proxy::{Proxy, Stage};
use server::{Door, Server, certificates};

const IMAGES: [&str; 2] = ["scratch", "static"];
const PLATFORMS: &[&str] =
    &["linux/amd64", "linux/arm/v7", "linux/arm/v6", "linux/s390x", "linux/riscv64"];

/// What these images lack of what the plan has.
const LACKING: &str = "pushed without linux/arm64, linux/386, linux/ppc64le, linux/loong64, for \
                       which it was not built; its tags move in spite of that, `push --untagged` \
                       leaves them";

/// `bob:hunter2`, as logins are written down.
const BOB: &str = "Ym9iOmh1bnRlcjI=";

fn project() -> Project {
    Project::new(&IMAGES, PLATFORMS, 3_000_000)
}

#[test]
fn what_was_built_is_what_is_there() {
    let (server, project) = (Server::start(&Door::Open), project());
    let repository = format!("{}/a/pid1", server.address);
    let run = project.push(&[&repository, "scratch", "static"]);
    let references = IMAGES.map(|image| format!("{repository}@{}", project.index(image).0));
    assert_eq!(run.stdout.lines().collect::<Vec<_>>(), references);
    for image in IMAGES {
        server.has_all("a/pid1", &project, image);
    }
}

#[test]
fn progress_is_told_in_lines_where_there_is_no_terminal() {
    let (server, project) = (Server::start(&Door::Open), project());
    let repository = format!("{}/pid1", server.address);
    let (digest, _) = project.index("scratch");
    let run = project.push(&[&repository, "scratch"]);
    let tags = project.tags("scratch").join(", ");
    let expected = format!(
        "pushing scratch to {repository}\n\
         scratch: {LACKING}\n\
         blobs: 11 uploaded (2.87 MiB), 0 already there\n\
         manifests: 5 pushed, 0 already there\n\
         indexes: 1 pushed, 0 already there\n\
         scratch: {digest} tagged {tags}\n"
    );
    assert_eq!(run.stderr, expected);
    let run = project.push(&[&repository, "scratch", "--quiet"]);
    let expected = (format!("scratch: {LACKING}\n"), format!("{repository}@{digest}\n"));
    assert_eq!((run.stderr, run.stdout), expected);
}

/// How many requests have come by that change something.
fn sent(proxy: &Proxy) -> usize {
    let seen = proxy.seen().into_iter().map(|it| it.line);
    seen.filter(|it| !it.starts_with("HEAD ") && !it.starts_with("GET ")).count()
}

#[test]
fn a_second_push_sends_nothing() {
    let (server, project) = (Server::start(&Door::Open), project());
    let proxy = Proxy::start(Some(&server.address));
    let repository = format!("{}/pid1", proxy.address);
    let first = project.push(&[&repository, "scratch", "static"]);
    // Two requests a blob (the configs are the same in both), one a manifest, an index, a tag:
    // the control of the zero below.
    assert_eq!(sent(&proxy), 2 * 17 + 10 + 2 + 12);
    proxy.forget();
    let second = project.push(&[&repository, "scratch", "static"]);
    assert_eq!(sent(&proxy), 0);
    assert_eq!(second.stdout, first.stdout);
    let expected = format!(
        "pushing scratch, static to {repository}\n\
         scratch: {LACKING}\n\
         static: {LACKING}\n\
         blobs: 0 uploaded (0 B), 17 already there\n\
         manifests: 0 pushed, 10 already there\n\
         indexes: 0 pushed, 2 already there\n\
         scratch: {} already there\n\
         static: {} already there\n",
        project.index("scratch").0,
        project.index("static").0
    );
    assert_eq!(second.stderr, expected);
}

#[test]
fn only_a_tag_that_points_elsewhere_is_moved() {
    let (server, project) = (Server::start(&Door::Open), project());
    let proxy = Proxy::start(Some(&server.address));
    let repository = format!("{}/pid1", proxy.address);
    project.push(&[&repository, "scratch"]);
    // Another build under the same tags, all but one of which we then move back by pushing again.
    let other = Project::new(&["scratch"], &["linux/386"], 500);
    other.push(&[&repository, "scratch"]);
    server.has_all("pid1", &other, "scratch");
    proxy.forget();
    project.push(&[&repository, "scratch"]);
    server.has_all("pid1", &project, "scratch");
    let lines: Vec<_> = proxy.seen().into_iter().map(|it| it.line).collect();
    let puts: Vec<_> = lines.iter().filter(|it| it.starts_with("PUT ")).cloned().collect();
    let tags = project.tags("scratch");
    let expected: Vec<_> = tags.iter().map(|it| format!("PUT /v2/pid1/manifests/{it}")).collect();
    assert_eq!(puts, expected);
}

#[test]
fn what_is_named_comes_after_what_it_names() {
    let (server, project) = (Server::start(&Door::Open), project());
    let proxy = Proxy::start(Some(&server.address));
    project.push(&[&format!("{}/pid1", proxy.address), "scratch", "static"]);
    let order = [Stage::UploadPut, Stage::ManifestPut, Stage::IndexPut, Stage::TagPut];
    let seen = proxy.seen().into_iter();
    let ranks: Vec<_> =
        seen.filter_map(|it| order.iter().position(|stage| *stage == it.stage)).collect();
    assert!(ranks.is_sorted(), "{ranks:?}");
    assert_eq!(ranks.len(), 17 + 10 + 2 + 12);
}

#[test]
fn a_dry_run_prints_what_a_push_would_send_and_sends_nothing() {
    let (server, project) = (Server::start(&Door::Open), project());
    let proxy = Proxy::start(Some(&server.address));
    let repository = format!("{}/pid1", proxy.address);
    let dry = || project.push(&[&repository, "scratch", "--dry-run"]);
    let lines = dry().stdout;
    let count = |kind: &str| lines.lines().filter(|it| it.starts_with(kind)).count();
    assert_eq!((count("blob "), count("manifest "), count("tag ")), (11, 6, 4));
    assert_eq!(lines.lines().count(), 21);
    let (digest, _) = project.index("scratch");
    assert!(lines.contains(&format!("manifest {repository}@{digest}\n")), "{lines}");
    assert!(lines.ends_with(&format!("tag {repository}:scratch\n")), "{lines}");
    assert_eq!(server.get("pid1", "tags/list").0, 404);
    assert_eq!(sent(&proxy), 0, "{:?}", proxy.seen());
    project.push(&[&repository, "scratch"]);
    let run = dry();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", "scratch already there\n"));
}

#[test]
fn a_dist_for_one_platform_says_what_its_tags_lack() {
    let (server, place) = (Server::start(&Door::Open), place());
    let repository = format!("{}/pid1", server.address);
    let one = ["--platform", "linux/amd64", "--no-smoke", "linux/amd64"];
    let line = [&["scratch"], &one[..], &["--push", &repository, "--quiet"]].concat();
    let said = succeeds(dist_in(place.path(), &line)).stderr;
    let lacking = "scratch: pushed without linux/arm64, linux/arm/v7, linux/arm/v6, linux/386, \
                   linux/ppc64le, linux/s390x, linux/riscv64, linux/loong64, for which it was not \
                   built; its tags move in spite of that, `push --untagged` leaves them\n";
    assert!(said.contains(lacking), "{said}");
}

#[test]
fn a_layer_damaged_on_disk_stops_its_manifest() {
    let (server, project) = (Server::start(&Door::Open), project());
    let (_, manifest) = project.manifests("static").remove(1);
    let digest = manifest.layers()[1].digest().to_string();
    let path = project.blob_path("static", &digest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[7] ^= 1;
    fs::write(&path, bytes).unwrap();
    let damaged = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(fs::read(&path).unwrap()));
    let repository = format!("{}/pid1", server.address);
    project.cannot_push(
        &[&repository, "scratch", "static"],
        &format!(
            "error: cannot push to `{repository}`, no tag was moved: cannot use `{}`: its bytes \
             are sha256:{damaged}, not what the layout says; build it again",
            path.display()
        ),
    );
    assert_eq!(server.tags("pid1"), [""; 0]);
    for (digest, _) in project.manifests("static") {
        assert_eq!(server.get("pid1", &format!("manifests/{digest}")).0, 404);
    }
}

/// Pushes as somebody: `set` puts the login where it belongs.
#[track_caller]
fn push_as(
    server: &Server,
    project: &Project,
    input: &[u8],
    set: impl FnOnce(&mut Command),
) -> Run {
    let repository = format!("{}/pid1", server.address);
    let mut command = project.xtask(&["push", &repository, "scratch"]);
    set(&mut command);
    run_with(&mut command, input)
}

fn write(path: &Path, text: &str) {
    let folder = path.parent().expect("it lies in a folder");
    fs::create_dir_all(folder).expect("a folder can be made");
    fs::write(path, text).expect("a file can be written");
}

/// Where logins are kept, and the variable that leads there.
const LOGINS: &[(&str, Option<&str>)] = &[
    ("home/.docker/config.json", None),
    ("d/config.json", Some("DOCKER_CONFIG=d")),
    ("x/containers/auth.json", Some("XDG_RUNTIME_DIR=x")),
    ("home/.config/containers/auth.json", None),
    ("c/containers/auth.json", Some("XDG_CONFIG_HOME=c")),
    ("auth.json", Some("REGISTRY_AUTH_FILE=auth.json")),
];

#[test]
fn a_login_is_found_wherever_docker_and_podman_keep_it() {
    let server = Server::start(&Door::Password);
    for (file, variable) in LOGINS {
        let project = Project::new(&["scratch"], PLATFORMS, 500);
        let folder = project.folder.path();
        let login = format!(r#"{{"auths":{{"{}":{{"auth":"{BOB}"}}}}}}"#, server.address);
        write(&folder.join(file), &login);
        let run = push_as(&server, &project, b"", |command| {
            if let Some((name, value)) = variable.and_then(|it| it.split_once('=')) {
                command.env(name, folder.join(value));
            }
        });
        assert_eq!(run.code, Some(0), "{file}: {}", run.stderr);
    }
}

/// Puts the helper `mine` into `folder`, which knows one login for $EXPECTED; gives the PATH.
fn helper(folder: &Path, user: &str, secret: &str) -> String {
    let answer = serde_json::json!({ "Username": user, "Secret": secret });
    let text = "read -r host\ntest \"$1 $host\" = \"get $EXPECTED\" || exit 1\necho";
    script(&folder.join("docker-credential-mine"), &format!("{text} '{answer}'"));
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

#[test]
fn a_login_is_asked_of_a_credential_helper() {
    let server = Server::start(&Door::Password);
    let one = format!(r#"{{"credHelpers":{{"{}":"mine","r.io":"no"}}}}"#, server.address);
    // For everything, for this registry, and as podman has it.
    for (file, text) in [
        (".docker/config.json", r#"{"credsStore":"mine"}"#),
        (".docker/config.json", &one),
        (".config/containers/auth.json", &one),
    ] {
        let project = Project::new(&["scratch"], PLATFORMS, 500);
        write(&project.home().join(file), text);
        let path = helper(project.folder.path(), "bob", "hunter2");
        let run = push_as(&server, &project, b"", |command| {
            command.env("PATH", path).env("EXPECTED", &server.address);
        });
        assert_eq!(run.code, Some(0), "{file} {text}: {}", run.stderr);
    }
}

#[test]
fn a_login_is_read_from_the_command_line_and_stdin() {
    let (server, project) = (Server::start(&Door::Password), project());
    // What is said here counts more than what is written down.
    let login = format!(r#"{{"auths":{{"{}":{{"auth":"d3Jvbmc6d3Jvbmc="}}}}}}"#, server.address);
    write(&project.home().join(".docker/config.json"), &login);
    let run = push_as(&server, &project, b"hunter2\n", |command| {
        command.args(["--username=bob", "--password-stdin"]);
    });
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

#[track_caller]
fn is_not_let_in(server: &Server, run: &Run, why: &str) {
    let address = &server.address;
    let expected = format!(
        "error: cannot push to `{address}/pid1`, no tag was moved: cannot reach the registry \
         `{address}`: {why}"
    );
    fails(run, &expected);
}

#[test]
fn a_missing_login_says_how_to_log_in() {
    let (server, project) = (Server::start(&Door::Password), project());
    let run = push_as(&server, &project, b"", |_| {});
    let address = &server.address;
    let why = format!(
        "it wants a login, and no login for `{address}` is known; run `docker login {address}`, or \
         give `--username NAME --password-stdin`"
    );
    is_not_let_in(&server, &run, &why);
}

#[test]
fn a_wrong_password_names_the_user_and_where_the_login_is_from() {
    let (server, project) = (Server::start(&Door::Password), project());
    let file = project.home().join(".docker/config.json");
    // `bob:secret`
    let login = format!(r#"{{"auths":{{"{}":{{"auth":"Ym9iOnNlY3JldA=="}}}}}}"#, server.address);
    write(&file, &login);
    let run = push_as(&server, &project, b"", |_| {});
    let why = format!(
        "it refuses user `bob` (from {}): wrong password, or no right to push to `pid1`",
        file.display()
    );
    is_not_let_in(&server, &run, &why);
    assert!(!run.stderr.contains("secret") && !run.stderr.contains("Ym9i"), "{}", run.stderr);
}

#[test]
fn a_file_of_logins_that_is_broken_is_named() {
    let (server, project) = (Server::start(&Door::Password), project());
    let file = project.home().join(".docker/config.json");
    write(&file, "{");
    let run = push_as(&server, &project, b"", |_| {});
    let why = format!(
        "cannot read the login in `{}`: it is no JSON: EOF while parsing an object at line 1 \
         column 1",
        file.display()
    );
    is_not_let_in(&server, &run, &why);
}

#[test]
fn a_helper_that_is_missing_is_said() {
    let (server, project) = (Server::start(&Door::Password), project());
    let file = project.home().join(".docker/config.json");
    write(&file, r#"{"credsStore":"nowhere"}"#);
    let run = push_as(&server, &project, b"", |_| {});
    let why = format!(
        "cannot read the login in `{}`: its credential helper does not run; is it installed?",
        file.display()
    );
    is_not_let_in(&server, &run, &why);
}

#[test]
fn an_own_authority_is_trusted_by_option_or_variable() {
    let (project, certificates) = (project(), certificates());
    let ca = certificates.path().join("ca.pem");
    let server = Server::start(&Door::Tls(certificates.path().to_path_buf()));
    let repository = format!("{}/pid1", server.address);
    project.push(&[&repository, "scratch", "--ca", ca.to_str().unwrap()]);
    let mut command = project.xtask(&["push", &repository, "scratch"]);
    let run = run(command.env("SSL_CERT_FILE", &ca));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("blobs: 0 uploaded"), "{}", run.stderr);
}

#[test]
fn a_login_goes_over_tls_with_an_own_authority() {
    let (project, certificates) = (project(), certificates());
    let server = Server::start(&Door::PasswordOverTls(certificates.path().to_path_buf()));
    let push = |password: &[u8]| {
        push_as(&server, &project, password, |command| {
            command.args(["--username=bob", "--password-stdin", "--ca"]);
            command.arg(certificates.path().join("ca.pem"));
        })
    };
    let why = "it refuses user `bob` (from --username): wrong password, or no right to push to \
               `pid1`";
    is_not_let_in(&server, &push(b"wrong"), why);
    let run = push(b"hunter2");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

#[test]
fn an_unknown_authority_is_an_error_with_the_remedy() {
    let (project, certificates) = (project(), certificates());
    let server = Server::start(&Door::Tls(certificates.path().to_path_buf()));
    let run = push_as(&server, &project, b"", |_| {});
    let why = "its certificate is signed by an authority unknown here; if you trust it, give \
               `--ca FILE`";
    is_not_let_in(&server, &run, why);
}

#[test]
fn skopeo_sees_the_index_s_own_bytes() {
    let (server, project) = (Server::start(&Door::Open), project());
    let repository = format!("{}/pid1", server.address);
    project.push(&[&repository, "static"]);
    for tag in project.tags("static") {
        let reference = format!("docker://{repository}:{tag}");
        let arguments = ["inspect", "--tls-verify=false", "--raw", &reference];
        let raw = tool("skopeo", &arguments, project.folder.path());
        assert_eq!(raw.as_bytes(), project.index("static").1);
    }
}

#[test]
fn skopeo_pulls_every_platform() {
    let (server, project) = (Server::start(&Door::Open), project());
    let repository = format!("{}/pid1", server.address);
    let pushed = project.push(&[&repository, "scratch"]).stdout;
    let manifests = project.manifests("scratch");
    for (platform, (digest, _)) in PLATFORMS.iter().zip(manifests) {
        let mut parts = platform.split('/').skip(1);
        let architecture = format!("--override-arch={}", parts.next().unwrap());
        let variant = parts.next().map(|it| format!("--override-variant={it}"));
        let from = format!("docker://{}", pushed.trim());
        let slug = platform.replace('/', "-");
        let mut arguments = vec!["--override-os=linux", &architecture];
        arguments.extend(variant.as_deref());
        let to = format!("oci:{slug}:pulled");
        arguments.extend(["copy", "--quiet", "--src-tls-verify=false", &from, &to]);
        tool("skopeo", &arguments, project.folder.path());
        let index = fs::read_to_string(project.folder.path().join(slug).join("index.json"));
        assert!(index.unwrap().contains(&digest), "{platform}");
    }
}

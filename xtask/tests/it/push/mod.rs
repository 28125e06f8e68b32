//! What a push says where there is no registry to push to.

pub mod fixture;
pub mod proxy;

use std::fs;
use std::net::TcpListener;

use fixture::{Project, fails, run, run_with};
use proxy::{Fault, Proxy, Stage};

const PLATFORMS: &[&str] = &["linux/amd64", "linux/arm/v7"];

#[test]
fn no_registry_there_is_said_at_once() {
    let project = Project::new(&["scratch"], PLATFORMS, 1000);
    // A port that was free a moment ago, and that nobody listens on.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    project.cannot_push(
        &[&format!("{nobody}/pid1"), "scratch"],
        &format!(
            "error: cannot push to `{nobody}/pid1`, no tag was moved: cannot reach the registry \
             `{nobody}`: connection refused; does a registry run there?"
        ),
    );
}

#[test]
fn a_registry_without_an_address_is_named() {
    let project = Project::new(&["scratch"], PLATFORMS, 1000);
    project.cannot_push(
        &["registry.invalid/pid1", "scratch"],
        "error: cannot push to `registry.invalid/pid1`, no tag was moved: cannot reach the \
         registry `registry.invalid`: its name has no address; is the name right, and the network \
         up?",
    );
}

#[test]
fn what_is_no_repository_is_refused_before_anything_is_read() {
    let project = Project::new(&[], &[], 0);
    for (repository, fault) in [
        ("127.0.0.1:5000/Pid1", "it should be a registry and a name in lower case"),
        ("127.0.0.1:5000/pid1:latest", "it is written without a tag"),
        ("https://127.0.0.1:5000/pid1", "it is written without a scheme"),
        ("pid1", "it names no registry"),
    ] {
        project.cannot_push(
            &[repository, "scratch"],
            &format!(
                "error: cannot use the repository `{repository}`: {fault}, such as \
                 127.0.0.1:5000/pid1"
            ),
        );
    }
}

#[test]
fn an_image_that_is_not_built_is_named_with_the_remedy() {
    let project = Project::new(&["static"], PLATFORMS, 1000);
    let layout = project.layout("scratch");
    project.cannot_push(
        &["127.0.0.1:1/pid1", "scratch", "static"],
        &format!(
            "error: cannot push the image `scratch`: cannot open the OCI layout `{}`: it has no \
             index.json, run `cargo xtask image` first",
            layout.display()
        ),
    );
}

#[test]
fn a_damaged_manifest_is_found_before_anything_is_sent() {
    let project = Project::new(&["scratch"], PLATFORMS, 1000);
    let (digest, _) = project.manifests("scratch").remove(0);
    let path = project.blob_path("scratch", &digest);
    fs::write(&path, "").unwrap();
    project.cannot_push(
        &["127.0.0.1:1/pid1", "scratch"],
        &format!(
            "error: cannot push the image `scratch`: cannot use `{}`: its bytes are \
             sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, not what the \
             layout says; build it again",
            path.display()
        ),
    );
}

#[test]
fn an_empty_password_is_refused() {
    let project = Project::new(&["scratch"], PLATFORMS, 1000);
    let arguments = ["push", "127.0.0.1:1/pid1", "scratch", "--username=bob", "--password-stdin"];
    let run = run_with(&mut project.xtask(&arguments), b"\n");
    fails(&run, "error: cannot log in as `bob`: stdin holds no password");
}

#[test]
fn a_ca_file_without_certificates_is_refused() {
    let project = Project::new(&["scratch"], PLATFORMS, 1000);
    let path = project.layout("scratch").join("index.json");
    let path = path.to_str().unwrap();
    project.cannot_push(
        &["127.0.0.1:1/pid1", "scratch", "--ca", path],
        &format!("error: cannot use `{path}`: it holds no PEM certificate"),
    );
}

/// Everything that leaves for a registry elsewhere passes this proxy, and is written down.
#[track_caller]
fn push_elsewhere(options: &[&str]) -> (fixture::Run, Proxy) {
    let project = Project::new(&["scratch"], PLATFORMS, 1000);
    let proxy = Proxy::start(None);
    let challenge = Fault::Answer("401 Unauthorized", "WWW-Authenticate: Basic realm=x\r\n", "");
    proxy.set(Stage::Other, challenge, usize::MAX);
    let arguments = ["push", "registry.example/pid1", "scratch"];
    let mut command = project.xtask(&[&arguments, options].concat());
    let address = format!("http://{}", proxy.address);
    command.env("HTTP_PROXY", &address).env("HTTPS_PROXY", &address);
    (run_with(&mut command, b"hunter2\n"), proxy)
}

#[test]
fn no_password_goes_over_plain_http_to_another_machine() {
    let (run, proxy) = push_elsewhere(&["--username=bob", "--password-stdin"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let seen = proxy.seen();
    assert!(!seen.is_empty(), "nothing passed the proxy: {}", run.stderr);
    for request in seen {
        assert_eq!(request.line, "CONNECT registry.example:443");
        assert_eq!(request.authorization, None);
    }
}

#[test]
fn with_plain_http_it_does() {
    let (run, proxy) = push_elsewhere(&["--username=bob", "--password-stdin", "--plain-http"]);
    fails(
        &run,
        "error: cannot push to `registry.example/pid1`, no tag was moved: cannot reach the \
         registry `registry.example`: it refuses user `bob` (from --username): wrong password, or \
         no right to push to `pid1`",
    );
    let seen = proxy.seen();
    let basic = "Basic Ym9iOmh1bnRlcjI=".to_string();
    let last = seen.last().map(|it| (it.line.as_str(), it.authorization.clone()));
    assert_eq!(last, Some(("GET http://registry.example/v2/", Some(basic))));
}

#[test]
fn a_token_server_that_all_could_overhear_gets_no_password() {
    let project = Project::new(&["scratch"], PLATFORMS, 1000);
    let proxy = Proxy::start(None);
    let challenge = Fault::Answer(
        "401 Unauthorized",
        "WWW-Authenticate: Bearer realm=\"http://tokens.example/token\",service=\"x\"\r\n",
        "",
    );
    proxy.set(Stage::Ping, challenge, usize::MAX);
    let repository = format!("{}/pid1", proxy.address);
    let arguments = ["push", &repository, "scratch", "--username=bob", "--password-stdin"];
    let run = run_with(&mut project.xtask(&arguments), b"hunter2");
    fails(
        &run,
        &format!(
            "error: cannot push to `{repository}`, no tag was moved: cannot reach the registry \
             `{}`: it sends us to `http://tokens.example/token` for a token, where everybody could \
             read the password; `--plain-http` allows it",
            proxy.address
        ),
    );
}

#[test]
fn a_registry_that_never_answers_is_an_error_in_time() {
    let project = Project::new(&["scratch"], PLATFORMS, 1000);
    let proxy = Proxy::start(None);
    proxy.set(Stage::Ping, Fault::Hang, usize::MAX);
    let repository = format!("{}/pid1", proxy.address);
    project.cannot_push(
        &[&repository, "scratch", "--timeout=0.5"],
        &format!(
            "error: cannot push to `{repository}`, no tag was moved: cannot reach the registry \
             `{}`: no answer within 0.5 s; tried 4 times",
            proxy.address
        ),
    );
}

#[test]
fn a_wrong_timeout_says_what_is_right() {
    let project = Project::new(&[], &[], 0);
    for wrong in ["0", "-1", "soon", "inf"] {
        let run = run(&mut project.xtask(&["push", "a.b/c", &format!("--timeout={wrong}")]));
        let expected = format!(
            "error: invalid value '{wrong}' for '--timeout <SECONDS>': it should be a number of \
             seconds above 0, such as 60"
        );
        assert_eq!(run.stderr.lines().next(), Some(expected.as_str()));
        assert_eq!(run.code, Some(2));
    }
}

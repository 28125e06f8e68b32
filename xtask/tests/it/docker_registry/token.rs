//! Logging in by way of a token server, as at every big registry.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use super::faults::FAULTS;
use super::server::{Door, Server, certificates};
use super::{BOB, helper, project, push_as, write};
use crate::push::fixture::{Run, tool};
use crate::push::proxy::{Fault, Proxy, Stage};

/// A token server: the head of every request it got, without `\r`.
struct TokenServer {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl TokenServer {
    /// Gives everybody who says `login` a token to do `actions` with, under the name `field`.
    fn start(folder: &Path, login: &str, field: &str, actions: &[&str]) -> TokenServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let token = serde_json::json!({ field: signed(folder, actions) }).to_string();
        let (login, requests) = (login.to_string(), Arc::<Mutex<Vec<String>>>::default());
        let log = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let request = read(&stream);
                let (status, body) =
                    if request.contains(&login) { ("200 OK", &*token) } else { ("401 No", "") };
                let length = body.len();
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n");
                log.lock().expect("no holder panics").push(request);
                let mut stream = stream;
                // Who does not wait for the answer fails the test without us.
                let _ = write!(stream, "{head}Connection: close\r\n\r\n{body}");
            }
        });
        TokenServer { address, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no holder panics").clone()
    }
}

/// Head and body of a request.
fn read(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        let read = reader.read_line(&mut line).unwrap_or_default();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap_or_default();
        }
        request.push_str(line.trim_end());
        request.push('\n');
        if read == 0 || line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    std::io::Read::read_exact(&mut reader, &mut body).unwrap_or_default();
    request + &String::from_utf8_lossy(&body)
}

/// A token (RFC 7519) that the registry believes, because `folder`'s authority stands behind it.
fn signed(folder: &Path, actions: &[&str]) -> String {
    tool("openssl", &["x509", "-in", "ca.pem", "-outform", "DER", "-out", "ca.der"], folder);
    let certificate = tool("openssl", &["base64", "-A", "-in", "ca.der"], folder);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    let head = serde_json::json!({ "typ": "JWT", "alg": "RS256", "x5c": [certificate.trim()] });
    let claims = serde_json::json!({
        "iss": "test", "aud": "registry", "sub": "bob", "jti": "1",
        "iat": now, "nbf": now - 60, "exp": now + 3600,
        "access": [{ "type": "repository", "name": "pid1", "actions": actions }],
    });
    let text = format!("{}.{}", encoded(folder, &head), encoded(folder, &claims));
    fs::write(folder.join("text"), &text).expect("a file can be written");
    tool("openssl", &["dgst", "-sha256", "-sign", "ca.key", "-out", "signature", "text"], folder);
    format!("{text}.{}", base64url(folder, "signature"))
}

fn encoded(folder: &Path, value: &serde_json::Value) -> String {
    fs::write(folder.join("part"), value.to_string()).expect("a file can be written");
    base64url(folder, "part")
}

fn base64url(folder: &Path, file: &str) -> String {
    let plain = tool("openssl", &["base64", "-A", "-in", file], folder);
    plain.trim().trim_end_matches('=').replace('+', "-").replace('/', "_")
}

/// Pushes with `login` in docker's configuration.
fn push_with(field: &str, actions: &[&str], expected: &str, login: &str) -> (Run, Vec<String>) {
    push_mounting(field, actions, expected, login, &[])
}

/// The same, with blobs from the repositories `mounts`.
fn push_mounting(
    field: &str,
    actions: &[&str],
    expected: &str,
    login: &str,
    mounts: &[&str],
) -> (Run, Vec<String>) {
    let (certificates, project) = (certificates(), project());
    let tokens = TokenServer::start(certificates.path(), expected, field, actions);
    let door = Door::Token(tokens.address.clone(), certificates.path().to_path_buf());
    let server = Server::start(&door);
    let login = format!(r#"{{"auths":{{"{}":{login}}}}}"#, server.address);
    write(&project.home().join(".docker/config.json"), &login);
    let mut run = push_as(&server, &project, b"", |command| {
        command.args(mounts.iter().map(|it| format!("--mount-from={}/{it}", server.address)));
    });
    run.stderr = run.stderr.replace(&server.address, "REGISTRY");
    run.stderr = run.stderr.replace(project.home().to_str().unwrap_or_default(), "HOME");
    (run, tokens.requests())
}

fn password() -> String {
    format!(r#"{{"auth":"{BOB}"}}"#)
}

#[test]
fn a_password_is_exchanged_for_a_token() {
    for field in ["token", "access_token"] {
        let (run, requests) =
            push_with(field, &["pull", "push"], &format!("Basic {BOB}"), &password());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        // One token serves the whole push.
        let [request] = requests.as_slice() else { panic!("{requests:?}") };
        let line = "GET /token?scope=repository%3Apid1%3Apull%2Cpush&service=registry HTTP/1.1";
        assert_eq!(request.lines().next(), Some(line));
    }
}

#[test]
fn an_identity_token_is_exchanged_for_a_token() {
    let (run, requests) = push_with(
        "access_token",
        &["pull", "push"],
        "refresh_token=s3cret",
        r#"{"identitytoken":"s3cret"}"#,
    );
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert!(request.starts_with("POST /token HTTP/1.1\n"), "{request}");
    assert_eq!(
        request.lines().last(),
        Some(
            "scope=repository%3Apid1%3Apull%2Cpush&service=registry&grant_type=refresh_token&\
             refresh_token=s3cret&client_id=pid1-xtask"
        )
    );
}

#[test]
fn an_identity_token_comes_from_a_helper_too() {
    let (certificates, project) = (certificates(), project());
    let actions = ["pull", "push"];
    let tokens = TokenServer::start(certificates.path(), "refresh_token=s3cret", "token", &actions);
    let door = Door::Token(tokens.address.clone(), certificates.path().to_path_buf());
    let server = Server::start(&door);
    write(&project.home().join(".docker/config.json"), r#"{"credsStore":"mine"}"#);
    let path = helper(project.folder.path(), "<token>", "s3cret");
    let run = push_as(&server, &project, b"", |command| {
        command.env("PATH", path).env("EXPECTED", &server.address);
    });
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(tokens.requests().len(), 1);
}

#[test]
fn a_token_to_mount_with_is_for_both_and_what_may_not_be_read_is_uploaded() {
    let (actions, basic) = (["pull", "push"], format!("Basic {BOB}"));
    let (run, requests) = push_mounting("token", &actions, &basic, &password(), &["old"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("blobs: 11 uploaded ("), "{}", run.stderr);
    let line = "GET /token?scope=repository%3Apid1%3Apull%2Cpush&scope=repository%3Aold%3Apull\
                &service=registry HTTP/1.1";
    assert!(requests.iter().all(|it| it.lines().next() == Some(line)), "{requests:?}");
    let refresh = r#"{"identitytoken":"s3cret"}"#;
    let (run, requests) = push_mounting("token", &actions, "s3cret", refresh, &["old"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let body = requests[0].lines().last().unwrap_or_default();
    let scope = "scope=repository%3Apid1%3Apull%2Cpush+repository%3Aold%3Apull&";
    assert!(body.starts_with(scope), "{body}");
}

#[test]
fn a_token_server_that_refuses_names_the_user() {
    let (run, _) = push_with("token", &["pull", "push"], "nobody at all", &password());
    assert_eq!(
        run.stderr.lines().last(),
        Some(
            "error: cannot push to `REGISTRY/pid1`, no tag was moved: cannot reach the registry \
             `REGISTRY`: it refuses user `bob` (from HOME/.docker/config.json): wrong password, or \
             no right to push to `pid1`"
        )
    );
}

#[test]
fn who_may_only_pull_is_told_so() {
    let (run, _) = push_with("token", &["pull"], &format!("Basic {BOB}"), &password());
    let last = run.stderr.lines().last().unwrap_or_default();
    let why = "it does not let user `bob` (from HOME/.docker/config.json) push to `pid1`";
    assert!(last.contains("cannot upload ") && last.ends_with(why), "{last}");
}

#[test]
fn a_token_server_s_fault_moves_no_tag_and_the_next_push_completes() {
    thread::scope(|scope| {
        for (name, fault, cause) in FAULTS {
            scope.spawn(move || a_fault_passes(name, *fault, cause));
        }
    });
}

#[test]
fn a_token_without_its_last_byte_is_not_taken_for_whole() {
    a_fault_passes("cut-end", Fault::CutEnd, "the connection was dropped (");
}

/// The token server misbehaves, and then no more.
#[track_caller]
fn a_fault_passes(name: &str, fault: Fault, cause: &str) {
    let (certificates, project) = (certificates(), project());
    let login = format!("Basic {BOB}");
    let tokens = TokenServer::start(certificates.path(), &login, "token", &["pull", "push"]);
    let proxy = Proxy::start(Some(&tokens.address));
    let server = Server::start(&Door::Token(proxy.address.clone(), certificates.path().into()));
    let login = format!(r#"{{"auths":{{"{}":{}}}}}"#, server.address, password());
    write(&project.home().join(".docker/config.json"), &login);
    let push = || {
        push_as(&server, &project, b"", |command| {
            command.arg("--timeout=1");
        })
    };
    proxy.set(Stage::Token, fault, usize::MAX);
    let run = push();
    let last = run.stderr.lines().last().unwrap_or_default();
    let start = format!(
        "error: cannot push to `{0}/pid1`, no tag was moved: cannot reach the registry `{0}`: ",
        server.address
    );
    assert!(last.starts_with(&start) && last.contains(cause), "{name}: {last}");
    assert!(last.ends_with("; tried 4 times"), "{name}: {last}");
    proxy.heal();
    let run = push();
    assert_eq!(run.code, Some(0), "{name}: {}", run.stderr);
    println!("| staying | Token | {name} | no tag moved; the next push completes |");
}

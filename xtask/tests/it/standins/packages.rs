//! Stand-ins that run: a shell and its C library from Debian's packages, which are fetched once,
//! into the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;
use tempfile::TempDir;

use super::{Layer, Standin, gzip, packed};
use crate::built::target;

/// A platform, and what Debian calls it.
type Architecture = (&'static str, &'static str);

/// What stands in for Debian: a shell on a C library, and one that others ask for.
const DEBIAN: [&str; 4] = ["bash", "dash", "libc6", "libtinfo6"];

/// For which platforms that runs. Every platform that all releases of Debian have is here or in
/// the next list: under an emulator, each costs seconds.
const DEBIANS: [Architecture; 3] =
    [("linux/amd64", "amd64"), ("linux/arm64/v8", "arm64"), ("linux/s390x", "s390x")];

/// For which platforms the stand-in for busybox runs.
const BUSYBOXES: [Architecture; 4] = [
    ("linux/arm/v7", "armhf"),
    ("linux/arm/v6", "armel"),
    ("linux/386", "i386"),
    ("linux/ppc64le", "ppc64el"),
];

/// Which sources apt is to ask: the machine's own, without those of updates.
const SOURCES: &str = "/etc/apt/sources.list.d/debian.sources";

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// With bash and dash on a C library, and links where `/bin`, `/lib` and `/sbin` once were.
pub fn debian() -> Standin {
    let links = ["usr/", "bin>usr/bin", "sbin>usr/sbin", "lib>usr/lib", "lib64>usr/lib64"];
    let folders = ["usr/sbin/", "usr/bin/", "usr/bin/sh>dash"];
    let files = ["etc/", "etc/passwd=root:x:0:0:root:/root:/bin/bash\n", "root/"];
    standin(&DEBIANS, &DEBIAN, &[&links[..], &folders, &files].concat(), "")
}

/// With busybox alone.
pub fn busybox() -> Standin {
    let files = ["bin/", "bin/sh>busybox", "sbin/", "etc/"];
    standin(&BUSYBOXES, &["busybox-static"], &files, "")
}

/// With nothing that runs, and not as root.
pub fn distroless() -> Standin {
    let passwd = "etc/passwd=nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n";
    standin(&[], &[], &["sbin/", "etc/", passwd, "home/", "tmp/"], "65532")
}

fn standin(runs_on: &[Architecture], packages: &[&str], files: &[&str], user: &str) -> Standin {
    let own = runs_on.iter().map(|(platform, name)| (*platform, layer(packages, name)));
    let config = json!({ "Env": [PATH], "User": user });
    Standin { layers: vec![gzip(files)], own: own.collect(), config, ..Standin::debian() }
}

/// What runs of the packages, in a layer.
fn layer(packages: &[&str], architecture: &str) -> Layer {
    let mut builder = tar::Builder::new(Vec::new());
    for package in packages {
        let deb = folder().join(format!("{package}_{architecture}.deb"));
        let tar = must(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(deb)).stdout;
        let mut archive = tar::Archive::new(tar.as_slice());
        for entry in archive.entries().unwrap() {
            add(&mut builder, &mut entry.unwrap());
        }
    }
    packed(&builder.into_inner().unwrap())
}

/// Adds programs and libraries, where `/usr` is merged if there is one.
fn add(builder: &mut tar::Builder<Vec<u8>>, entry: &mut tar::Entry<&[u8]>) {
    let path = entry.path().unwrap().display().to_string();
    let path = path.trim_start_matches("./");
    let is_wanted = ["bin/", "lib/", "lib64/"].iter().any(|it| path.starts_with(it));
    if !is_wanted || path.contains("/gconv") || entry.header().entry_type().is_dir() {
        return;
    }
    let path = if path == "bin/busybox" { path.to_string() } else { format!("usr/{path}") };
    let mut header = entry.header().clone();
    match entry.link_name().unwrap() {
        Some(target) => builder.append_link(&mut header, path, target).unwrap(),
        None => builder.append_data(&mut header, path, entry).unwrap(),
    }
}

/// Where the packages are, each as `NAME_ARCHITECTURE.deb`.
fn folder() -> PathBuf {
    static FETCHING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = FETCHING.lock();
    let place = target().join("standins");
    if !place.exists() {
        let fetched = fetch();
        // Another run of the tests may have been quicker.
        if fs::rename(fetched.path(), &place).is_ok() {
            let _ = fetched.keep();
        }
    }
    place
}

fn fetch() -> TempDir {
    let (apt, debs) = (TempDir::new_in(target()).unwrap(), TempDir::new_in(target()).unwrap());
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.arg("-qq").args(arguments).env("APT_CONFIG", apt.path().join("apt.conf"));
        must(command.current_dir(debs.path()))
    };
    configure(apt.path());
    apt_get(&["update"]);
    let debian = DEBIANS.iter().flat_map(|(_, name)| DEBIAN.map(|it| format!("{it}:{name}")));
    let busybox = BUSYBOXES.iter().map(|(_, name)| format!("busybox-static:{name}"));
    let all: Vec<_> = debian.chain(busybox).collect();
    let all = ["download"].into_iter().chain(all.iter().map(String::as_str));
    apt_get(&all.collect::<Vec<_>>());
    for entry in fs::read_dir(debs.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // NAME_VERSION_ARCHITECTURE.deb
        let parts: Vec<_> = name.split('_').collect();
        fs::rename(&path, debs.path().join(format!("{}_{}", parts[0], parts[2]))).unwrap();
    }
    debs
}

/// An apt that knows all architectures, and leaves that of the machine alone.
fn configure(folder: &Path) {
    let sources = fs::read_to_string(SOURCES).unwrap();
    let stanza = sources.split("\n\n").find(|it| !it.contains("-security")).unwrap();
    for part in ["sources", "lists/partial", "archives/partial"] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    fs::write(folder.join("sources/debian.sources"), stanza).unwrap();
    fs::write(folder.join("status"), "").unwrap();
    let all = DEBIANS.iter().chain(&BUSYBOXES);
    let names: Vec<_> = all.map(|(_, name)| format!("\"{name}\";")).collect();
    let place = folder.display();
    let lines = [
        format!("APT::Architectures {{ {} }};", names.join(" ")),
        "Dir::Etc::SourceList \"/dev/null\";".to_string(),
        format!("Dir::Etc::SourceParts \"{place}/sources\";"),
        format!("Dir::State::Lists \"{place}/lists\";"),
        format!("Dir::State::status \"{place}/status\";"),
        format!("Dir::Cache \"{place}\";"),
        "APT::Sandbox::User \"root\";".to_string(),
        "Acquire::Languages \"none\";".to_string(),
        "Acquire::Retries \"3\";".to_string(),
    ];
    fs::write(folder.join("apt.conf"), lines.join("\n")).unwrap();
}

#[track_caller]
fn must(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

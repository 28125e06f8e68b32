//! What must be true of the repository itself, as tests.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};

use crate::flags::Flags;
use crate::paths;
use crate::platform::{Linking, PLATFORMS};

/// The functions of a file may have this many lines each.
const LONGEST_FUNCTION: usize = 70;

/// The only files that may say `unsafe`.
const UNSAFE: [&str; 3] =
    ["images/docker-testing/src/sys.rs", "pid1/src/sys.rs", "xtask/src/smoke/sys.rs"];

/// Every file below the top that ends in `ending`, but what is made.
fn files(ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in ["pid1", "xtask", "images", ".github", ".ci"] {
        collect(&paths::root().join(folder), ending, &mut found);
    }
    assert!(!found.is_empty(), "there are no files that end in {ending}");
    let name = |path: &Path| path.strip_prefix(paths::root()).unwrap().display().to_string();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

fn collect(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, ending, found);
            }
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
}

fn read(name: &str) -> String {
    fs::read_to_string(paths::root().join(name)).unwrap()
}

#[test]
fn the_command_line_is_consistent() {
    Flags::command().debug_assert();
}

#[test]
fn every_source_file_says_first_what_it_is() {
    for (name, text) in files(".rs") {
        assert!(text.starts_with("//! "), "{name} does not open with a `//!` sentence");
    }
}

#[test]
fn lines_fit_in_a_hundred_columns() {
    for (name, text) in files(".rs") {
        for (number, line) in text.lines().enumerate() {
            // What cannot be broken may be long: addresses, and text that is compared whole.
            let whole = line.contains("http") || line.contains('"');
            let fits = line.chars().count() <= 100 || whole;
            assert!(fits, "{name}:{} is longer than 100 columns", number + 1);
        }
    }
}

#[test]
fn functions_can_be_read_at_once() {
    for (name, text) in files(".rs") {
        let lines: Vec<_> = text.lines().collect();
        for (start, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
            let indent = &line[..line.len() - line.trim_start().len()];
            let end = lines[start..].iter().position(|it| **it == format!("{indent}}}"));
            let length = end.map_or(1, |end| end + 1);
            assert!(length <= LONGEST_FUNCTION, "{name}:{}: {length} lines", start + 1);
        }
    }
}

fn is_function(line: &str) -> bool {
    let words: Vec<_> = line.split_whitespace().collect();
    words.contains(&"fn") && line.ends_with('{') && !line.trim_start().starts_with("//")
}

#[test]
fn unsafe_stays_where_it_is_argued_for() {
    for (name, text) in files(".rs") {
        let uses = |line: &str| {
            let code = line.split("//").next().unwrap_or_default();
            ["unsafe {", "unsafe fn", "unsafe extern", "unsafe impl", "#[unsafe("]
                .iter()
                .any(|it| code.contains(it) && !code.contains('"'))
        };
        let says = text.lines().any(uses);
        // A test that makes namespaces forks; it is not what runs in production.
        let may = UNSAFE.contains(&name.as_str()) || name.contains("/tests/");
        assert!(!says || may, "{name} has unsafe code");
    }
}

#[test]
fn the_toolchain_has_the_targets_that_rustup_links() {
    let text = read("rust-toolchain.toml");
    for platform in PLATFORMS {
        let listed = text.contains(&format!("\"{}\"", platform.target));
        assert_eq!(listed, platform.linking == Linking::RustLld, "{platform}");
    }
}

#[test]
fn the_commands_of_the_readme_are_commands() {
    let text = read("README.md");
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("cargo xtask "));
    let mut count = 0;
    for line in lines {
        let command = line.split('#').next().unwrap_or_default();
        let words = ["cargo xtask"].into_iter().chain(command.split_whitespace());
        if let Err(err) = Flags::try_parse_from(words) {
            panic!("README.md: `cargo xtask {line}`: {err}");
        }
        count += 1;
    }
    assert!(count >= 2, "README.md has no commands");
}

#[test]
fn actions_are_pinned_by_commit() {
    for (name, text) in files(".yml") {
        for line in text.lines() {
            let Some((_, action)) = line.split_once("uses: ") else { continue };
            let (_, commit) = action.split_once('@').unwrap();
            let commit = commit.split_whitespace().next().unwrap();
            let pinned = commit.len() == 40 && commit.chars().all(|it| it.is_ascii_hexdigit());
            assert!(pinned, "{name}: {action} is not pinned by commit");
        }
    }
}

#[test]
fn workflows_only_call_the_xtask() {
    // `exit 1` is what the job says that fails where another was skipped.
    let allowed = ["cargo xtask ", ".ci/", "sudo .ci/", "exit 1"];
    for (name, text) in files(".yml") {
        for line in text.lines() {
            let Some((_, command)) = line.split_once("run: ") else { continue };
            let calls = allowed.iter().any(|it| command.starts_with(it));
            assert!(calls, "{name}: `{command}` belongs into the xtask");
        }
    }
}

#[test]
fn every_crate_takes_the_workspace_s_lints() {
    for (name, text) in files("Cargo.toml") {
        assert!(text.contains("[lints]\nworkspace = true"), "{name} has no lints");
    }
}

#[test]
fn pid1_depends_on_nix_and_signal_hook_only() {
    let manifest: toml::Table = read("pid1/Cargo.toml").parse().unwrap();
    let names: Vec<_> = manifest["dependencies"].as_table().unwrap().keys().cloned().collect();
    assert_eq!(names, ["nix", "signal-hook"]);
}

#[test]
fn the_changelog_covers_this_version() {
    let heading = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    let text = read("CHANGELOG.md");
    assert!(text.contains(&heading) || text.contains("## [Unreleased]"));
}

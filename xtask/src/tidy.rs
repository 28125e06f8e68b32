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

#[track_caller]
fn is_command(name: &str, command: &str) {
    let words = ["cargo xtask"].into_iter().chain(command.split_whitespace());
    if let Err(err) = Flags::try_parse_from(words) {
        panic!("{name}: `cargo xtask {command}`: {err}");
    }
}

#[test]
fn the_commands_of_the_documents_are_commands() {
    for name in ["README.md", ".github/CONTRIBUTING.md"] {
        let text = read(name);
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix("cargo xtask "));
        let commands: Vec<_> = lines.filter_map(|line| line.split('#').next()).collect();
        assert!(commands.len() >= 2, "{name} has no commands");
        for command in commands {
            is_command(name, command);
        }
    }
}

#[test]
fn the_readme_has_the_help_of_pid1() {
    let help = read("pid1/tests/it/help.txt");
    let expected = format!("<!-- help -->\n```text\n{help}```\n<!-- /help -->\n");
    assert!(read("README.md").contains(&expected), "README.md has another help than pid1");
}

/// The commands of the README, each by its beginning, and the test that runs it.
const RUN_BY: &[(&str, &str)] = &[
    ("cargo xtask dist --push", "dist_pushes_what_it_tested_and_skopeo_pulls_every_platform"),
    ("cargo xtask dist --all", "every_base_is_locked_and_built_with_all"),
    ("cargo xtask dist static --platform", "a_platform_that_is_left_out_is_named_to_the_end"),
    ("cargo xtask dist --no-smoke", "a_platform_that_is_left_out_is_named_to_the_end"),
    ("cargo xtask dist", "a_second_dist_does_nothing_again"),
    ("cargo xtask plan", "a_plan_is_a_line_an_image_and_the_same_as_json"),
    (
        "cargo xtask refresh 127.0.0.1:5000/pid1 --binaries released",
        "an_image_is_pushed_anew_only_if_its_base_has_moved",
    ),
    ("cargo xtask lock --check", "a_base_that_has_moved_is_named_and_builds_stay_where_they_were"),
    ("cargo xtask lock", "lock_writes_down_what_every_platform_is"),
    ("cargo xtask image debian --mirror", "a_second_build_needs_no_registry"),
    ("cargo xtask image --builder docker", "docker_as_the_builder_makes_the_same_layout_each_time"),
    ("cargo xtask image", "a_second_run_is_up_to_date_and_touches_nothing"),
    ("cargo xtask smoke --engine", "every_image_passes_and_nothing_of_it_stays"),
    ("cargo xtask smoke", "smoke_tests_run_what_the_registry_has"),
    ("cargo xtask run docker-testing orphans", "orphans_are_reaped_by_pid1"),
    (
        "cargo xtask push 127.0.0.1:5000/new --mount-from",
        "what_the_other_repository_has_is_mounted_and_the_rest_is_uploaded",
    ),
    (
        "cargo xtask push 127.0.0.1:5000/pid1 --dry-run",
        "a_dry_run_prints_what_a_push_would_send_and_sends_nothing",
    ),
    ("cargo xtask reproduce", "what_was_published_is_reproduced_and_what_was_changed_is_named"),
    ("cargo xtask attach", "what_is_attached_is_listed_by_the_api_and_no_tag"),
    ("skopeo copy --quiet oci:", "skopeo_loads_a_layout_into_docker"),
    ("docker run --rm --entrypoint", "docker_shows_what_the_sandbox_shows"),
    ("docker run --rm pid1:docker-testing ps", "skopeo_loads_a_layout_into_docker"),
    ("docker run --rm pid1:docker-testing", "docker_shows_what_the_sandbox_shows"),
    ("sha256sum --check", "the_release_is_what_its_checksums_say"),
];

/// What only says something of a release that people can download, or runs all tests itself.
const RUN_NOWHERE: &[&str] = &["cargo xtask test", "curl ", "gh ", "cosign "];

#[test]
fn every_command_of_the_readme_is_run_by_a_test() {
    let tests: String = files(".rs").into_iter().map(|(_, text)| text).collect();
    let readme = read("README.md");
    for (start, _) in RUN_BY {
        assert!(readme.contains(&format!("\n{start}")), "README.md has no `{start}` any more");
    }
    let blocks = readme.split("```sh\n").skip(1).filter_map(|it| it.split("```").next());
    for command in blocks.flat_map(str::lines) {
        if RUN_NOWHERE.iter().any(|it| command.starts_with(it)) {
            continue;
        }
        let found = RUN_BY.iter().find(|(start, _)| command.starts_with(start));
        let Some((_, test)) = found else { panic!("README.md: no test runs `{command}`") };
        assert!(tests.contains(&format!("fn {test}(")), "there is no test {test}: `{command}`");
    }
}

#[test]
fn the_commands_of_the_workflows_are_commands() {
    let values = [
        ("\"$IMAGE\"", "static"),
        ("\"$PLATFORMS\"", "linux/386,linux/arm64"),
        ("\"$BUNDLE\"", "bundle.json"),
        (">> \"$GITHUB_OUTPUT\"", ""),
    ];
    for (name, text) in files(".yml") {
        for line in text.lines() {
            // The second is the same, compiled by a job before.
            let starts = ["run: cargo xtask ", "run: target/debug/xtask "];
            let found = starts.iter().find_map(|start| line.split_once(start));
            let Some((_, command)) = found else { continue };
            let command = values
                .iter()
                .fold(command.to_string(), |it, (variable, value)| it.replace(variable, value));
            is_command(&name, &command);
        }
    }
}

#[test]
fn every_job_ends_by_itself() {
    for (name, text) in files(".yml") {
        let jobs = text.lines().filter(|line| line.trim().starts_with("runs-on: ")).count();
        let limits = text.lines().filter(|line| line.trim().starts_with("timeout-minutes: "));
        assert_eq!(jobs, limits.count(), "{name}: a job without `timeout-minutes`");
    }
}

/// Those are built and run by tests.
#[test]
fn the_dockerfiles_of_the_readmes_are_the_examples() {
    let is_example = |name: &str| name.starts_with("images/examples/");
    let examples = files(".Dockerfile").into_iter().filter(|(name, _)| is_example(name));
    let examples: Vec<_> = examples.collect();
    let main = read("README.md");
    for (name, text) in &examples {
        assert!(main.contains(&format!("```dockerfile\n{text}```")), "README.md lacks {name}");
    }
    for (name, readme) in [("README.md", main), ("pid1/README.md", read("pid1/README.md"))] {
        for block in readme.split("```dockerfile\n").skip(1) {
            let block = block.split("```").next().unwrap_or_default();
            let found = examples.iter().any(|(_, text)| text == block);
            assert!(found, "{name}: no file of images/examples says:\n{block}");
        }
    }
}

/// As people copy them; the compose file of the examples is started by a test.
#[test]
fn the_yaml_of_the_readme_is_that_of_the_examples() {
    let readme = read("README.md");
    let blocks = readme.split("```yaml\n").skip(1);
    let blocks: Vec<_> = blocks.filter_map(|it| it.split("```").next()).collect();
    let names = ["images/examples/server.compose.yaml", "images/examples/server.pod.yaml"];
    assert_eq!(blocks, names.map(read));
    let help = read("pid1/tests/it/help.txt");
    let words = readme.split(|it: char| !it.is_ascii_uppercase() && it != '_' && it != '1');
    let variables: Vec<_> = words.filter(|it| it.starts_with("PID1_")).collect();
    assert!(variables.len() > 10);
    for variable in variables {
        assert!(help.contains(&format!(" {variable}\n")), "README.md: there is no {variable}");
    }
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
    // `exit 1` is what the job says that fails where another was skipped; before there is a
    // checkout, there is no xtask to ask for the release to check out; and artifacts keep the modes
    // of files only in a tar.
    let own = ["cargo xtask ", "target/debug/xtask ", ".ci/", "sudo .ci/"];
    let allowed = [own.as_slice(), &["exit 1", "gh release ", "tar --"]].concat();
    for (name, text) in files(".yml") {
        for line in text.lines() {
            let Some((_, command)) = line.split_once("run: ") else { continue };
            let calls = allowed.iter().any(|it| command.starts_with(it));
            assert!(calls, "{name}: `{command}` belongs into the xtask");
        }
    }
}

/// The jobs of a workflow: the keys at the first level below `jobs:`, each with its lines.
fn jobs(text: &str) -> Vec<(&str, String)> {
    let (_, jobs) = text.split_once("\njobs:\n").unwrap();
    let mut found: Vec<(&str, String)> = Vec::new();
    for line in jobs.lines() {
        match line.strip_prefix("  ").and_then(|it| it.strip_suffix(':')) {
            Some(name) if !name.starts_with(' ') => found.push((name, String::new())),
            _ => found.last_mut().unwrap().1.extend([line, "\n"]),
        }
    }
    found
}

#[test]
fn no_job_of_ci_can_fail_unseen() {
    let text = read(".github/workflows/ci.yml");
    let jobs = jobs(&text);
    let (_, complete) = jobs.iter().find(|(name, _)| *name == "complete").unwrap();
    let names: Vec<_> = jobs.iter().map(|it| it.0).filter(|it| *it != "complete").collect();
    assert!(complete.contains(&format!("    needs: [{}]\n", names.join(", "))), "{complete}");
}

#[test]
fn what_moves_tags_moves_them_one_after_the_other() {
    for name in ["release.yml", "bases.yml"] {
        let text = read(&format!(".github/workflows/{name}"));
        let waits = "\nconcurrency:\n  group: tags\n  cancel-in-progress: false\n";
        assert!(text.contains(waits), "{name}");
    }
}

/// Whoever compiles runs what his dependencies want; whoever may sign, signs in our name.
#[test]
fn no_job_that_may_sign_compiles() {
    for (name, text) in files(".yml").iter().filter(|(name, _)| name.starts_with(".github/")) {
        for (job, lines) in jobs(text) {
            let signs = lines.contains("id-token: write");
            assert!(!signs || !lines.contains("cargo "), "{name}: {job}");
        }
    }
}

#[test]
fn registries_are_told_names_in_lower_case() {
    for (name, text) in files(".yml") {
        assert!(!text.contains("ghcr.io/$GITHUB"), "{name}: `$GITHUB_REPOSITORY` has capitals");
        assert!(!text.contains("ghcr.io/${{"), "{name}: a repository's name has capitals");
    }
}

#[test]
fn signatures_are_checked_against_the_workflow_that_makes_them() {
    let readme = read("README.md");
    let place = env!("CARGO_PKG_REPOSITORY").replace('.', r"\.");
    let identity = format!(r"'^{place}/\.github/workflows/release\.yml@refs/tags/v'");
    for line in readme.lines().filter(|it| it.starts_with("cosign verify")) {
        assert!(line.contains(&format!("--certificate-identity-regexp {identity} ")), "{line}");
    }
    for line in readme.lines().filter(|it| it.starts_with("gh attestation verify")) {
        assert!(line.contains("/.github/workflows/release.yml"), "{line}");
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
fn binstall_looks_for_what_is_released() {
    let manifest: toml::Table = read("pid1/Cargo.toml").parse().unwrap();
    let package = &manifest["package"];
    let binstall = &package["metadata"]["binstall"];
    assert_eq!(binstall["pkg-fmt"].as_str(), Some("bin"));
    let (folder, file) = binstall["pkg-url"].as_str().unwrap().rsplit_once('/').unwrap();
    assert_eq!(folder, "{ repo }/releases/download/v{ version }");
    for platform in PLATFORMS {
        let name = file.replace("{ name }", package["name"].as_str().unwrap());
        let name = name.replace("{ target }", platform.target);
        assert!(crate::release::names(platform).contains(&name), "{name} is not released");
    }
}

#[test]
fn the_changelog_covers_this_version() {
    let heading = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    let text = read("CHANGELOG.md");
    assert!(text.contains(&heading) || text.contains("## [Unreleased]"));
}

//! The man pages and completions of a release, read by what they are for.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{init, names, unpacked};
use crate::built::done;

/// The manual of each program: its folder, and what keeps it.
fn manuals() -> [(PathBuf, TempDir); 2] {
    [init(), "xtask-manual".to_string()].map(|name| {
        let place = unpacked(&name);
        (place.path().join(name), place)
    })
}

#[track_caller]
fn passes(command: &mut Command, file: &Path) -> String {
    let done = done(command.arg(file));
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{}", file.display());
    done.stdout
}

#[test]
fn mandoc_understands_every_page() {
    for (folder, _place) in manuals() {
        for name in names(&folder.join("man1")) {
            let page = folder.join("man1").join(name);
            assert_eq!(
                passes(Command::new("mandoc").args(["-T", "lint", "-W", "error"]), &page),
                ""
            );
        }
    }
}

#[test]
fn the_page_of_the_init_tells_options_variables_and_exit_codes() {
    let [(folder, _place), _] = manuals();
    let page = passes(Command::new("mandoc").args(["-T", "utf8"]), &folder.join("man1/pid1.1"));
    // As a terminal is told that something is bold.
    let page: String = page.replace("_\u{8}", "").split('\u{8}').map(drop_last).collect();
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in ["--kill-after <SECONDS>", "PID1_KILL_AFTER", "127 if there is no"] {
        assert!(page.contains(words), "{words}: {page}");
    }
}

/// What stands before a backspace, without the letter it takes away.
fn drop_last(text: &str) -> &str {
    text.char_indices().next_back().map_or("", |(at, _)| &text[..at])
}

#[test]
fn bash_completes_the_options_of_the_init() {
    let [(folder, _place), _] = manuals();
    let script = r#"source "$0"; COMP_WORDS=(pid1 --kill); COMP_CWORD=1
        _pid1 pid1 --kill pid1; echo "${COMPREPLY[@]}""#;
    let file = folder.join("completions/pid1.bash");
    assert_eq!(passes(Command::new("bash").args(["-c", script]), &file), "--kill-after\n");
}

#[test]
fn fish_completes_the_options_of_both() {
    for ((folder, _place), (file, line, expected)) in manuals().into_iter().zip([
        ("pid1.fish", "pid1 --kill", "--kill-after\tend everything"),
        ("xtask.fish", "xtask dist --no-sm", "--no-smoke\tDo not run the images"),
    ]) {
        let script = format!("source $argv[1]; complete --do-complete '{line}'");
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", &script]);
        let said = passes(&mut fish, &folder.join("completions").join(file));
        assert!(said.starts_with(expected), "{said}");
    }
}

#[test]
fn zsh_can_read_the_completions_of_both() {
    for ((folder, _place), file) in manuals().into_iter().zip(["_pid1", "_xtask"]) {
        passes(Command::new("zsh").args(["-f", "-n"]), &folder.join("completions").join(file));
    }
}

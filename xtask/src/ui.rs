//! What the user sees: lines and bars on stderr. stdout belongs to data.

use std::io::{IsTerminal, Write};
use std::process::Command;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where progress goes. Cheap to clone; every clone draws on the same terminal.
#[derive(Clone)]
pub struct Ui {
    bars: MultiProgress,
    quiet: bool,
}

impl Ui {
    /// Bars on a terminal, lines elsewhere, and only errors when `quiet`.
    pub fn new(quiet: bool) -> Ui {
        let draws = !quiet && std::io::stderr().is_terminal();
        let target =
            if draws { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Ui { bars: MultiProgress::with_draw_target(target), quiet }
    }

    /// The same, saying nothing: for questions of ours that nobody would paste.
    pub fn silent(&self) -> Ui {
        Ui { bars: self.bars.clone(), quiet: true }
    }

    /// One line about what is being done or was done.
    pub fn say(&self, line: impl AsRef<str>) {
        if !self.quiet {
            self.warn(line);
        }
    }

    /// One line that is shown even when `quiet`.
    pub fn warn(&self, line: impl AsRef<str>) {
        // Where stderr is closed there is nobody to tell.
        let _ = self.bars.suspend(|| writeln!(std::io::stderr(), "{}", line.as_ref()));
    }

    /// Echoes a command as it could be pasted into a shell.
    pub fn command(&self, command: &Command) {
        self.say(format!("$ {}", pasteable(command)));
    }

    /// A bar that counts to `length` steps; it removes itself when dropped or finished.
    pub fn bar(&self, label: &str, length: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("{prefix:>12} [{bar:30}] {pos}/{len} {msg}")
            .expect("a fixed template");
        let bar = ProgressBar::new(length).with_style(style).with_prefix(label.to_string());
        self.bars.add(bar)
    }

    /// A bar that counts bytes.
    pub fn byte_bar(&self, label: &str, length: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("{prefix:>12} [{bar:30}] {bytes}/{total_bytes}")
            .expect("a fixed template");
        let bar = ProgressBar::new(length).with_style(style).with_prefix(label.to_string());
        self.bars.add(bar)
    }

    /// Something that turns for as long as one step takes.
    pub fn spinner(&self, label: &str) -> ProgressBar {
        let spinner = self.bars.add(ProgressBar::new_spinner().with_message(label.to_string()));
        // Only now: before it is among the others, it would draw even where nothing is to be drawn.
        spinner.enable_steady_tick(Duration::from_millis(120));
        spinner
    }
}

/// The command as a line for a shell, with the variables that were set for it.
pub fn pasteable(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let value = value?.to_string_lossy().into_owned();
        Some(format!("{}={}", name.to_string_lossy(), quoted(&value)))
    });
    let program = std::iter::once(command.get_program());
    let words = program.chain(command.get_args()).map(|word| quoted(&word.to_string_lossy()));
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || "-_./=:,+@%".contains(it);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echoed_command_can_be_pasted() {
        let mut command = Command::new("echo");
        command.args(["a b", "it's", "", "plain-1.2"]).env("NAME", "a value");
        assert_eq!(pasteable(&command), r"NAME='a value' echo 'a b' 'it'\''s' '' plain-1.2");
    }
}

//! Man pages and completions: those of the init from what its `--help` prints.

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, Command, CommandFactory, ValueHint};
use clap_complete::Shell;

use crate::flags::Flags;

/// What `pid1 --help` prints; a test of pid1's compares them.
const HELP: &str = include_str!("../../../pid1/tests/it/help.txt");

/// How a variable of pid1's begins.
const VARIABLE: &str = "PID1_";

/// The manual of `command`: its man pages and its completions, each with its place.
pub fn of(command: &Command) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    pages(command.clone(), &mut files).context("cannot write a man page")?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        let mut text = Vec::new();
        let (mut command, name) = (command.clone(), command.get_name().to_string());
        clap_complete::generate(shell, &mut command, &name, &mut text);
        let file = clap_complete::Generator::file_name(&shell, &name);
        files.push((format!("completions/{file}"), text));
    }
    Ok(files)
}

/// A page for the command, and one for each of its own.
fn pages(mut command: Command, files: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    command.build();
    let mut waiting = vec![command];
    while let Some(command) = waiting.pop() {
        waiting.extend(command.get_subcommands().filter(|it| !it.is_hide_set()).cloned());
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_string();
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        files.push((format!("man1/{name}.1"), page));
    }
    Ok(())
}

/// The command line of the xtask, under the name that an alias can give it: no shell completes
/// after two words.
pub fn xtask() -> Command {
    Flags::command().name("xtask").bin_name("xtask").display_name("xtask").after_help("")
}

/// The command line of the init.
pub fn init() -> Command {
    let (about, rest) = part(HELP, "...\n\n", "\n\nOptions");
    let (options, rest) = part(rest, ":\n", "\n\n");
    let command = Arg::new("COMMAND")
        .help("What to run, with its arguments")
        .value_hint(ValueHint::CommandWithArguments)
        .num_args(1..)
        .required(true)
        .trailing_var_arg(true)
        .allow_hyphen_values(true);
    Command::new("pid1")
        .version(env!("CARGO_PKG_VERSION"))
        .about("a container init")
        .long_about(about.replace('\n', " "))
        .after_help(rest.trim().replace('\n', " "))
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(options_of(options))
        .arg(command)
}

/// What lies between `start` and `end`, and what follows.
fn part<'a>(text: &'a str, start: &str, end: &str) -> (&'a str, &'a str) {
    let (_, rest) = text.split_once(start).expect("a test reads the help text");
    rest.split_once(end).unwrap_or((rest, ""))
}

/// The table of the help text: option, meaning and variable, with two spaces between them; a line
/// that starts with no option goes on with the one before.
fn options_of(table: &'static str) -> Vec<Arg> {
    let mut rows: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in table.lines().map(str::trim) {
        if line.starts_with('-') {
            let (option, meaning) = line.split_once("  ").unwrap_or((line, ""));
            rows.push((option, vec![meaning]));
        } else if let Some((_, meaning)) = rows.last_mut() {
            meaning.push(line);
        }
    }
    rows.into_iter().map(|(option, meaning)| argument(option, &meaning)).collect()
}

fn argument(option: &'static str, meaning: &[&'static str]) -> Arg {
    let words = meaning.iter().flat_map(|it| it.split_whitespace());
    let (variable, words): (Vec<_>, Vec<_>) = words.partition(|it| it.starts_with(VARIABLE));
    let mut arg = Arg::new(option).help(words.join(" ")).action(ArgAction::SetTrue);
    for word in option.split([',', ' ']) {
        arg = match word.strip_prefix("--") {
            Some(long) => arg.long(long),
            None => match word.strip_prefix('-') {
                Some(short) => arg.short(short.chars().next()),
                None if word.is_empty() => arg,
                None => value(arg, word),
            },
        };
    }
    match variable.as_slice() {
        [variable] => arg.env(variable).hide_env_values(true),
        _ => arg,
    }
}

fn value(arg: Arg, name: &'static str) -> Arg {
    let arg = arg.action(ArgAction::Append).value_name(name);
    match name {
        "DIR" => arg.value_hint(ValueHint::DirPath),
        "USER[:GROUP]" => arg.value_hint(ValueHint::Username),
        _ if name.contains('|') => arg.value_parser(name.split('|').collect::<Vec<_>>()),
        _ => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_help_is_understood() {
        init().debug_assert();
        let command = init();
        let all = command.get_arguments().filter_map(Arg::get_long).count();
        assert_eq!(all, HELP.lines().filter(|it| it.trim_start().starts_with('-')).count());
        assert_eq!(all, HELP.matches(" --").count());
        let variables = command.get_arguments().filter_map(Arg::get_env).count();
        assert_eq!(variables, HELP.matches(VARIABLE).count());
    }

    #[test]
    fn what_goes_on_over_two_lines_is_one_sentence() {
        let command = init();
        let timeout = command.get_opts().find(|it| it.get_long() == Some("timeout")).unwrap();
        let help = timeout.get_help().unwrap().to_string();
        assert_eq!(
            help,
            "time between SIGTERM and SIGKILL for what remains when COMMAND has ended; 5"
        );
        assert_eq!(timeout.get_short(), Some('t'));
        assert_eq!(timeout.get_env().unwrap(), "PID1_TIMEOUT");
    }

    #[test]
    fn every_command_of_the_xtask_has_a_page() {
        let files = of(&xtask()).unwrap();
        let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["man1/xtask.1", "man1/xtask-dist.1", "completions/_xtask"] {
            assert!(names.contains(&name), "{names:?}");
        }
        assert!(!names.iter().any(|it| it.contains("inside")), "{names:?}");
    }
}

//! Just enough of `ps`, `sleep`, `echo`, `env` and `sh` for an image that has nothing else.

use std::ffi::CString;
use std::fmt::Display;
use std::io::Write;
use std::thread;
use std::time::Duration;

use crate::Result;
use crate::family::Process;

/// Shows every process, or those whose numbers are given; `-o args` shows the command lines only,
/// which unlike states and numbers are the same every time.
pub fn ps(arguments: &[&str]) -> Result {
    let (only_args, numbers) = match arguments {
        ["-o", "args", numbers @ ..] => (true, numbers),
        numbers => (false, numbers),
    };
    let numbers: Vec<i32> =
        numbers.iter().map(|it| parse(it, "the number of a process")).collect::<Result<_>>()?;
    if !only_args {
        say(format!("{:>5} {:>5} STAT COMMAND", "PID", "PPID"))?;
    }
    for process in Process::all()? {
        if numbers.is_empty() || numbers.contains(&process.pid) {
            say(line(&process, only_args))?;
        }
    }
    Ok(())
}

fn line(process: &Process, only_args: bool) -> String {
    let Process { pid, parent, state, name, words } = process;
    let command = match words.as_slice() {
        _ if process.is_zombie() => format!("[{name}] <defunct>"),
        [] => format!("[{name}]"),
        words => words.join(" "),
    };
    if only_args { command } else { format!("{pid:>5} {parent:>5} {state:<4} {command}") }
}

/// Sleeps that many seconds, fractions allowed. SIGTERM ends it, unless it is PID 1.
pub fn sleep(arguments: &[&str]) -> Result {
    let [seconds] = arguments else { return Err("needs a number of seconds".to_string()) };
    let seconds = parse::<f64>(seconds, "a number of seconds")?;
    let duration = Duration::try_from_secs_f64(seconds);
    thread::sleep(duration.map_err(|err| format!("cannot sleep {seconds} s: {err}"))?);
    Ok(())
}

/// Prints its arguments.
pub fn echo(arguments: &[&str]) -> Result {
    say(arguments.join(" "))
}

/// Prints the environment, in the order it came in; or those variables that are named.
pub fn env(names: &[&str]) -> Result {
    for (name, value) in std::env::vars_os() {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        if names.is_empty() || names.contains(&name.as_ref()) {
            say(format!("{name}={value}"))?;
        }
    }
    Ok(())
}

/// Stands in for a shell where an `ENTRYPOINT` in shell form needs one: `-c COMMAND`, of words
/// without quotes. Like a shell it ignores what comes after.
pub fn sh(arguments: &[&str]) -> Result {
    let ["-c", command, ..] = arguments else { return Err("only knows -c COMMAND".to_string()) };
    let words: Vec<&str> = command.split_whitespace().collect();
    let Some(program) = words.first() else { return Ok(()) };
    execute(program, &words)
}

/// Becomes `program`, which sees `words` as its arguments, its own name first.
pub fn execute(program: &str, words: &[&str]) -> Result {
    let c_string =
        |word: &&str| CString::new(*word).map_err(|err| format!("cannot run `{program}`: {err}"));
    let words: Vec<CString> = words.iter().map(c_string).collect::<Result<_>>()?;
    let Err(err) = nix::unistd::execvp(&c_string(&program)?, &words);
    Err(format!("cannot run `{program}`: {}", err.desc()))
}

/// Prints one line.
pub fn say(line: impl Display) -> Result {
    writeln!(std::io::stdout(), "{line}").map_err(|err| format!("cannot print: {err}"))
}

/// Reads `word`, which should be `what`.
pub fn parse<T: std::str::FromStr>(word: &str, what: &str) -> Result<T> {
    word.parse().map_err(|_| format!("`{word}` is not {what}"))
}

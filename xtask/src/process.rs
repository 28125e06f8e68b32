//! Outside commands: echoed, waited for, and ended with us on Ctrl-C.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::ui::Ui;

/// How often a wait looks whether the user wants to leave or the time is over.
const POLL: Duration = Duration::from_millis(20);

/// How long what we started may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// Whether the user asked us to stop. Cheap to clone.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From here on, Ctrl-C (and SIGTERM and SIGHUP) makes [`Interrupt::check`] fail, so that
    /// everything half-made is removed on the way out. A second one ends us at once.
    pub fn install() -> Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_conditional_shutdown(signal, 130, interrupt.0.clone())
                .and_then(|_| signal_hook::flag::register(signal, interrupt.0.clone()))
                .context("cannot install the handler for Ctrl-C")?;
        }
        Ok(interrupt)
    }

    /// Fails if the user asked us to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_set() {
            bail!("interrupted; what was half made has been removed");
        }
        Ok(())
    }

    /// Whether the user asked us to stop.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Runs `command` to its end, echoed, its output on our stderr. A failure is an error.
pub fn run(ui: &Ui, interrupt: &Interrupt, mut command: Command) -> Result<()> {
    ui.command(&command);
    let name = command.get_program().to_string_lossy().into_owned();
    // stdout is ours: the user may be piping it.
    let child = command.stdin(Stdio::null()).stdout(std::io::stderr()).process_group(0).spawn();
    let mut child = child.with_context(|| format!("cannot run `{name}`"))?;
    let status =
        wait(interrupt, &mut child, None).with_context(|| format!("`{name}` was ended"))?;
    if !status.success() {
        bail!("`{name}` failed: {status}; its output is above");
    }
    Ok(())
}

/// Runs `command` to its end, echoed, and hands every line it prints to `each` as it comes; what it
/// complains of goes to our stderr. A failure is an error.
pub fn lines(
    ui: &Ui,
    interrupt: &Interrupt,
    mut command: Command,
    mut each: impl FnMut(&str) + Send,
) -> Result<()> {
    ui.command(&command);
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).spawn();
    let mut child = child.with_context(|| format!("cannot run `{name}`"))?;
    let stdout = child.stdout.take().expect("it was piped");
    let status = std::thread::scope(|scope| {
        // A line that cannot be read ends the reading; the exit status says the rest.
        scope.spawn(|| {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| each(&line));
        });
        wait(interrupt, &mut child, None)
    });
    let status = status.with_context(|| format!("`{name}` was ended"))?;
    if !status.success() {
        bail!("`{name}` failed: {status}; its output is above");
    }
    Ok(())
}

/// Runs `command` to its end, echoed, and gives what it printed. A failure is an error that holds
/// what it complained of. It is ended when `limit` is over.
pub fn output(
    ui: &Ui,
    interrupt: &Interrupt,
    mut command: Command,
    limit: Duration,
) -> Result<String> {
    ui.command(&command);
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot run `{name}`"))?;
    let mut stdout = child.stdout.take().expect("it was piped");
    let mut stderr = child.stderr.take().expect("it was piped");
    let stdout = std::thread::spawn(move || read_all(&mut stdout));
    let stderr = std::thread::spawn(move || read_all(&mut stderr));
    let status = wait(interrupt, &mut child, Some(limit));
    let stdout = stdout.join().expect("the reader does not panic");
    let stderr = stderr.join().expect("the reader does not panic");
    let status = status.with_context(|| format!("`{name}` was ended"))?;
    if !status.success() {
        bail!("`{name}` failed: {status}: {}", stderr.trim());
    }
    Ok(stdout)
}

fn read_all(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    // What could be read is all there is to show.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for `child`, which leads a process group of its own; ends the group if the user
/// interrupts or `limit` is over.
pub fn wait(
    interrupt: &Interrupt,
    child: &mut Child,
    limit: Option<Duration>,
) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("cannot wait")? {
            return Ok(status);
        }
        if let Err(err) = interrupt.check() {
            end(child);
            return Err(err);
        }
        if let Some(limit) = limit.filter(|limit| start.elapsed() > *limit) {
            end(child);
            bail!("it took longer than {} s", limit.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

/// SIGTERM to the child's group, SIGKILL when its grace is over.
fn end(child: &mut Child) {
    let group = Pid::from_raw(i32::try_from(child.id()).expect("a process id is an i32"));
    // A group that is gone already is what we want.
    let _ = killpg(group, Signal::SIGTERM);
    let start = Instant::now();
    while start.elapsed() < GRACE && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(POLL);
    }
    let _ = killpg(group, Signal::SIGKILL);
    let _ = child.wait();
}

//! Section 2: starting.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, setrlimit};

use crate::container::{Container, pid1, sh, with};
use crate::limits::left_out;

#[track_caller]
fn check_failure(command: &[&str], code: i32, line: &str) {
    let outcome = Container::init(command).run_to(code);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.trim_end()), ("", line));
}

/// A file with `contents` and `mode`.
fn file(contents: &str, mode: u32) -> tempfile::TempPath {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    write(&path, contents, mode);
    path
}

/// Has another process write the file: while one is open for writing here, whatever other tests
/// start has it open too until its own exec, and it cannot be run (ETXTBSY).
fn write(path: &Path, contents: &str, mode: u32) {
    let mut install = Command::new("install");
    install.arg(format!("--mode={mode:o}")).arg("/dev/stdin").arg(path).stdin(Stdio::piped());
    let mut install = install.spawn().unwrap();
    install.stdin.take().unwrap().write_all(contents.as_bytes()).unwrap();
    assert!(install.wait().unwrap().success());
}

#[test]
fn missing_program_is_127() {
    check_failure(&["no-such"], 127, "pid1: cannot run `no-such`: No such file or directory");
    check_failure(&["/no/such"], 127, "pid1: cannot run `/no/such`: No such file or directory");
    check_failure(&[""], 127, "pid1: cannot run ``: No such file or directory");
}

#[test]
fn directory_is_126() {
    check_failure(&["/etc"], 126, "pid1: cannot run `/etc`: Permission denied");
}

#[test]
fn file_that_may_not_be_executed_is_126() {
    let path = file("", 0o644);
    let name = path.to_str().unwrap();
    check_failure(&[name], 126, &format!("pid1: cannot run `{name}`: Permission denied"));
}

#[test]
fn file_that_may_not_be_executed_is_passed_over_on_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("1"), folder.path().join("2"));
    for (folder, mode) in [(&first, 0o644), (&second, 0o755)] {
        fs::create_dir(folder).unwrap();
        write(&folder.join("program"), "#!/bin/sh\necho ran", mode);
    }
    let path = |folders: &[&std::path::Path]| {
        std::env::join_paths(folders).unwrap().into_string().unwrap()
    };
    let both = Container::init(&["program"]).env("PATH", &path(&[&first, &second]));
    assert_eq!(both.run_to(0).stdout, "ran\n");
    let first = Container::init(&["program"]).env("PATH", &path(&[&first, "/none".as_ref()]));
    assert_eq!(first.run_to(126).stderr, "pid1: cannot run `program`: Permission denied\n");
}

#[test]
fn missing_interpreter_is_127_and_says_so() {
    let path = file("#!/no/such/interpreter\n", 0o755);
    let name = path.to_str().unwrap();
    let line = format!("pid1: cannot run `{name}`: it is there, but its interpreter is not");
    check_failure(&[name], 127, &line);
}

#[test]
fn script_without_an_interpreter_line_runs_through_the_shell() {
    let path = file("echo $0 $1 $2; exit 4\n", 0o755);
    let name = path.to_str().unwrap();
    let outcome = Container::init(&[name, "a", "b c"]).run_to(4);
    assert_eq!(outcome.stdout, format!("{name} a b c\n"));
}

#[test]
fn program_is_looked_for_in_the_childs_path() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("only-here"), "#!/bin/sh\necho found", 0o755);
    let path = format!("PATH={}", folder.path().display());
    assert_eq!(Container::init(&["-e", &path, "only-here"]).run_to(0).stdout, "found\n");
    Container::init(&["only-here"]).run_to(127);
}

#[test]
fn empty_path_entry_is_the_current_directory() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("here"), "#!/bin/sh\necho found", 0o755);
    let folder = folder.path().to_str().unwrap();
    let outcome = Container::init(&["-e", "PATH=/none:", "-w", folder, "here"]).run_to(0);
    assert_eq!(outcome.stdout, "found\n");
}

#[test]
fn without_a_path_the_usual_places_are_searched() {
    let outcome = Container::bare(&["env", "-u", "PATH", "/bin/sh", "-c", "exec $PID1 echo hi"]);
    assert_eq!(outcome.run_to(0).stdout, "hi\n");
}

#[test]
fn not_pid_1_becomes_the_command() {
    let script = "$PID1 -e A=1 -w /usr sh -c 'echo $$ $A $(pwd)' & child=$!; wait; echo $child";
    let outcome = Container::bare(&sh(script)).run_to(0);
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(lines[0], format!("{} 1 /usr", lines[1]));
}

#[test]
fn not_pid_1_ends_nobody() {
    let script =
        "sleep 1000 & $PID1 true && $PID1 sh -c 'exit 5'; echo $?; kill -0 $! && echo alive";
    let outcome = Container::bare(&sh(script)).run_to(0);
    assert_eq!(outcome.stdout, "5\nalive\n");
}

#[test]
fn not_pid_1_reports_failures_the_same() {
    let outcome = Container::bare(&sh("$PID1 no-such; echo $?; $PID1 /etc; echo $?")).run_to(0);
    assert_eq!(outcome.stdout, "127\n126\n");
}

const SIGNALS: &str = "grep -E '^Sig(Blk|Ign)|^ShdPnd' /proc/self/status";

#[test]
fn child_gets_the_inherited_mask_and_ignored_signals() {
    if left_out("child_gets_the_inherited_mask_and_ignored_signals") {
        return;
    }
    let prepare = || {
        // 32 to 34 and the last one too: the C library would hide them.
        let mask: u64 = (1 << 9) | (1 << 11) | (0b111 << 31) | (1 << 63);
        // SAFETY: a mask as long as said, and dispositions.
        unsafe {
            libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, 0, 8);
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        }
        Ok(())
    };
    let command = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"];
    let expected = Container::bare(&command).setup(prepare).run_to(0).stdout;
    assert!(
        expected.contains("SigBlk:\t8000000380000a00\nSigIgn:\t0000000000011001"),
        "{expected}"
    );
    let got = Container::init(&command).setup(prepare).run_to(0).stdout;
    assert_eq!(got, expected);
}

#[test]
fn child_gets_default_signals_where_they_were_default() {
    let outcome = Container::init(&["sh", "-c", SIGNALS]).run_to(0);
    let zeros = "0000000000000000";
    assert_eq!(outcome.stdout, format!("ShdPnd:\t{zeros}\nSigBlk:\t{zeros}\nSigIgn:\t{zeros}\n"));
}

#[test]
fn ignored_sigchld_on_entry_does_not_hang() {
    let ignore = || {
        // SAFETY: a disposition.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        Ok(())
    };
    Container::init(&sh("exit 7")).setup(ignore).run_to(7);
}

#[test]
fn child_keeps_inherited_descriptors_and_init_none_above_2() {
    // init closes its own right after the child has started, so wait until it has.
    let script = "while [ -e /proc/1/fd/7 ]; do :; done; exec ls /proc/1/fd /proc/self/fd";
    let (_reader, container) = Container::init(&sh(script)).with_pipe_to_write();
    // `ls` itself opens the directory as 3.
    let descriptors = "/proc/1/fd:\n0\n1\n2\n\n/proc/self/fd:\n0\n1\n2\n3\n7\n";
    assert_eq!(container.run_to(0).stdout, descriptors);
}

#[test]
fn a_pipe_ends_when_the_child_closes_it() {
    let script = "exec 7>&-; echo closed; read wait";
    let (mut reader, container) = Container::init(&sh(script)).with_pipe_to_write();
    let mut running = container.stdin(std::process::Stdio::piped()).start();
    running.expect("closed");
    // Ends only if nobody holds the other end any more.
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    running.finish();
}

#[test]
fn init_does_not_pin_the_childs_directory() {
    let script = "while [ $(readlink /proc/1/cwd) != / ]; do :; done; pwd";
    let in_usr = || nix::unistd::chdir(c"/usr").map_err(Into::into);
    assert_eq!(Container::init(&sh(script)).setup(in_usr).run_to(0).stdout, "/usr\n");
}

#[test]
fn closed_standard_descriptors_are_not_fatal() {
    let close = |first: u32, last: u32| {
        // SAFETY: takes numbers, in a process about to exec.
        move || match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    Container::init(&sh("exit 5")).setup(close(0, 0)).run_to(5);
    Container::init(&sh("exit 5")).setup(close(0, 2)).run_to(5);
    Container::init(&["-vvv", "no-such"]).setup(close(0, 2)).run_to(127);
    // The file that is read for it takes the number of standard error, and gives it back.
    let code = if nix::unistd::geteuid().is_root() { 127 } else { 125 };
    Container::init(&["-u", "0:0", "no-such"]).setup(close(2, 2)).run_to(code);
}

#[test]
fn listen_pid_becomes_the_childs() {
    let script = "echo $$ $LISTEN_PID $LISTEN_FDS";
    let running = Container::init(&sh(script)).env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    let line = running.run_to(0).stdout;
    let mut fields = line.split_whitespace();
    assert_eq!(fields.next(), fields.next(), "{line}");
    assert_eq!(fields.next(), Some("1"));
}

#[test]
fn listen_pid_of_somebody_else_stays() {
    let outcome = Container::init(&sh("echo $LISTEN_PID")).env("LISTEN_PID", "77").run_to(0);
    assert_eq!(outcome.stdout, "77\n");
}

#[test]
fn child_is_in_a_process_group_of_its_own() {
    // The fifth field of stat. A `kill 0` then spares init.
    let outcome = Container::init(&sh("cut -d' ' -f1,5 /proc/$$/stat; cut -d' ' -f5 /proc/1/stat"));
    let text = outcome.run_to(0).stdout;
    let fields: Vec<_> = text.split_whitespace().collect();
    assert_eq!(fields[0], fields[1]);
    assert_ne!(fields[1], fields[2]);
    Container::init(&sh("trap 'exit 9' TERM; kill -TERM 0; exit 1")).run_to(9);
}

#[test]
fn works_without_proc() {
    if left_out("works_without_proc") {
        return;
    }
    let cover = || {
        let none: Option<&std::ffi::CStr> = None;
        mount(Some(c"none"), c"/proc", Some(c"tmpfs"), MsFlags::empty(), none)
            .map_err(io::Error::from)
    };
    let script = "test ! -e /proc/self && (trap '' TERM; sleep 1000) & exit 6";
    Container::init(&with(&["-t", "0.1"], script)).setup(cover).run_to(6);
}

#[test]
fn works_on_a_read_only_root() {
    let remount = || {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(c"/"), c"/mnt", None::<&str>, flags, None::<&str>)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, c"/mnt", None::<&str>, flags, None::<&str>)?;
        nix::unistd::chroot(c"/mnt")?;
        nix::unistd::chdir(c"/")?;
        Ok(())
    };
    let script = "touch /file-of-a-test 2>/dev/null || exit 8; rm /file-of-a-test";
    Container::init(&sh(script)).setup(remount).run_to(8);
}

#[test]
fn works_under_no_new_privs() {
    Container::init(&sh("exit 3")).setup(|| set_no_new_privs().map_err(Into::into)).run_to(3);
}

#[test]
fn failing_to_start_a_process_is_125() {
    if left_out("failing_to_start_a_process_is_125") {
        return;
    }
    // Inside an ordinary user's container this would be true as well.
    let is_root = nix::unistd::geteuid().is_root();
    let forbid = move || {
        // The limit does not bind root.
        if is_root {
            nix::unistd::setuid(1234.into())?;
        }
        setrlimit(Resource::RLIMIT_NPROC, 0, 0).map_err(Into::into)
    };
    let outcome = Container::init(&["true"]).setup(forbid).run_to(125);
    assert_eq!(
        outcome.stderr,
        "pid1: cannot run `true`: cannot start a process: Resource temporarily unavailable\n"
    );
    Container::init(&["--map-exit=125:9", "true"]).setup(forbid).run_to(9);
}

#[test]
fn a_terminal_or_pipe_that_is_gone_is_not_fatal() {
    if left_out("a_terminal_or_pipe_that_is_gone_is_not_fatal") {
        return;
    }
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let container = Container::init(&["-vvv", "sh", "-c", "exit 5"]).stderr(OwnedFd::from(writer));
    container.run_to(5);
}

#[test]
fn without_a_shell_a_script_without_an_interpreter_line_is_126() {
    let path = file("exit 4\n", 0o755);
    let name = path.to_str().unwrap();
    // Programs are hidden by a folder that has none but the emulator, if that is where it lives.
    let folder = tempfile::tempdir().unwrap();
    let words = pid1().into_iter().map(std::path::PathBuf::from);
    for program in words.filter(|it| it.parent() == Some(Path::new("/usr/bin"))) {
        fs::copy(&program, folder.path().join(program.file_name().unwrap())).unwrap();
    }
    let hide = move || {
        mount(Some(folder.path()), c"/bin", None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(io::Error::from)
    };
    let outcome = Container::init(&[name]).setup(hide).run_to(126);
    assert_eq!(outcome.stderr, format!("pid1: cannot run `{name}`: Exec format error\n"));
}

/// Has the kernel behave as one from before Linux 5.9, which knows no `close_range`.
fn forbid_close_range() -> io::Result<()> {
    // The same number on all processors.
    let number = 436;
    let not_known = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    let [load, equals, give] = [
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    ]
    .map(|code| u16::try_from(code).expect("all of them are short"));
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut steps = [
        step(load, 0, 0),
        step(equals, 1, number),
        step(give, 0, not_known),
        step(give, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
    set_no_new_privs()?;
    // SAFETY: the filter lives here, and is as long as it says.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    // SAFETY: the numbers name no descriptor.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, u32::MAX, u32::MAX, 0) };
    if set == 0 && closed == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

#[test]
fn on_an_old_kernel_init_keeps_no_descriptor_above_2_either() {
    let script = "while [ -e /proc/1/fd/7 ]; do :; done; exec ls /proc/1/fd";
    let (_reader, container) = Container::init(&sh(script)).with_pipe_to_write();
    let outcome = container.setup(forbid_close_range).run_to(0);
    assert_eq!(outcome.stdout, "0\n1\n2\n");
}

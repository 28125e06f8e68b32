//! What cannot be shown here, by name: each such test says so on standard error and is left out.

use std::env;
use std::io::{Write, stderr};

use nix::libc;

/// Needs to change to other users, which an ordinary user cannot.
const NEEDS_ROOT: &[&str] = &[
    "user_by_name_gets_uid_gid_groups_and_home",
    "user_by_number_with_an_entry_is_that_user",
    "user_by_number_without_an_entry_gets_group_0_and_a_root_home",
    "user_with_a_group_gets_no_other_group",
    "home_given_by_env_stays",
    "group_alone_changes_the_group_only",
    "group_option_beats_the_users",
    "init_keeps_its_own_user",
    "not_first_user_and_group_are_the_commands",
    "identities_that_are_refused_are_125",
    "variables_do_what_options_do",
    "a_refused_kill_does_not_end_init",
    "init_does_not_wait_for_what_it_may_not_signal",
    "init_without_root_waits_for_what_it_may_signal",
    "parent_death_signal_outlives_a_change_of_user",
    "who_is_the_user_already_may_be_asked_to_become_it",
];

/// Says whether `test` is left out here, and if so why, where it is seen even if the test passes.
pub fn left_out(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    let reason_in = |list: &[(&str, &'static str)]| {
        list.iter().find(|it| it.0 == test).map(|(_, reason)| *reason)
    };
    let reason = (!root && NEEDS_ROOT.contains(&test))
        .then_some("needs root")
        .or_else(|| reason_in(EMULATOR_CANNOT).filter(|_| is_emulated()))
        .or_else(|| reason_in(SANITIZER_CANNOT).filter(|_| is_sanitized()));
    let Some(reason) = reason else { return false };
    // Not `eprintln`: the test harness keeps that to itself.
    let _ = writeln!(stderr(), "NOT RUN: {test}: {reason}");
    true
}

/// Says that `test` leaves out `program`, which is not installed.
pub fn lacks(test: &str, program: &str) {
    let _ = writeln!(stderr(), "NOT RUN: {test} beside {program}: it is not installed");
}

/// Those of `signals` that arrive; says of the others that `test` leaves them out.
pub fn arriving(test: &str, signals: impl Iterator<Item = i32>) -> Vec<i32> {
    let (lost, arriving): (Vec<_>, Vec<_>) = signals.partition(|it| emulator_loses(*it));
    if !lost.is_empty() {
        let _ = writeln!(stderr(), "NOT RUN: {test} for the signals {lost:?}: {KEEPS_SIGNALS}");
    }
    arriving
}

/// Says that `test` needs an x86-64 processor, where there is none.
pub fn is_x86_64(test: &str) -> bool {
    let is = cfg!(target_arch = "x86_64");
    if !is {
        let _ = writeln!(stderr(), "NOT RUN: {test}: it knows only x86-64's instructions");
    }
    is
}

/// Whether the binary runs in an emulator.
pub fn is_emulated() -> bool {
    env::var_os("PID1_RUNNER").is_some()
}

/// Whether what runs is more than the program: its memory is not ours to judge.
pub fn is_instrumented() -> bool {
    is_emulated() || is_sanitized()
}

/// Whether the binary is one with `AddressSanitizer` in it.
fn is_sanitized() -> bool {
    env::var_os("PID1_SANITIZED").is_some()
}

/// What was said, without the sanitizer's remark that the child's stack is none it knows.
pub fn without_remarks(said: &str) -> String {
    if !is_sanitized() {
        return said.to_owned();
    }
    let is_remark = |line: &str| {
        line.contains("==WARNING: ASan is ignoring requested __asan_handle_no_return")
            || line.starts_with("False positive error reports may follow")
            || line.starts_with("For details see https://github.com/google/sanitizers/issues/189")
    };
    said.split_inclusive('\n').filter(|line| !is_remark(line)).collect()
}

const KEEPS_SIGNALS: &str = "the emulator keeps some signals for itself and moves others";
const HAS_THREADS: &str = "the emulator has a thread of its own";

/// What an emulator in front of the binary hides or changes.
const EMULATOR_CANNOT: &[(&str, &str)] = &[
    ("signals_of_the_c_librarys_own_are_forwarded", KEEPS_SIGNALS),
    ("child_gets_the_inherited_mask_and_ignored_signals", KEEPS_SIGNALS),
    ("death_by_a_real_time_signal_is_128_and_its_number", KEEPS_SIGNALS),
    ("rewrite_takes_real_time_signals", KEEPS_SIGNALS),
    ("what_becomes_sigterm_is_an_order_to_end", KEEPS_SIGNALS),
    ("what_the_originals_forward_we_forward", KEEPS_SIGNALS),
    ("no_wake_ups_while_idle", HAS_THREADS),
    ("failing_to_start_a_process_is_125", HAS_THREADS),
    ("a_fault_of_inits_own_ends_it", "the program's memory is the emulator's"),
    ("binary_is_small", "what is measured is the emulator"),
    ("memory_is_small", "what is measured is the emulator"),
    ("few_system_calls_before_the_child_runs", "what is measured is the emulator"),
];

/// What `AddressSanitizer` in the binary hides or changes.
const SANITIZER_CANNOT: &[(&str, &str)] = &[
    ("binary_is_small", "what is measured is the sanitizer"),
    ("memory_is_small", "what is measured is the sanitizer"),
    ("few_system_calls_before_the_child_runs", "what is measured is the sanitizer"),
    ("a_terminal_or_pipe_that_is_gone_is_not_fatal", "the sanitizer's remarks go there, too"),
    ("failing_to_start_a_process_is_125", "the sanitizer's look for leaks starts one"),
    ("works_without_proc", "the sanitizer does not"),
];

/// Signals that do not arrive through an emulator: SIGABRT, which it needs for its own aborts; the
/// real-time ones, which it moves; and those of faults. SIGILL, SIGFPE and SIGSEGV are unblocked in
/// its thread beside the program's (`SigBlk` in `/proc` shows it): one that goes there meets a
/// handler that looks for a program and dies of SIGSEGV. SIGBUS it never blocks in the program's
/// (<https://gitlab.com/qemu-project/qemu/-/blob/v10.0.2/util/qemu-thread-posix.c>).
fn emulator_loses(signal: i32) -> bool {
    let fault = [libc::SIGILL, libc::SIGBUS, libc::SIGFPE, libc::SIGSEGV].contains(&signal);
    is_emulated() && (signal == libc::SIGABRT || signal >= 34 || fault)
}

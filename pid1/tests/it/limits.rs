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
    "variables_do_what_options_do",
    "a_refused_kill_does_not_end_init",
    "init_does_not_wait_for_what_it_may_not_signal",
    "init_without_root_waits_for_what_it_may_signal",
];

/// Says whether `test` is left out here, and if so why, where it is seen even if the test passes.
pub fn left_out(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    let reason = match (NEEDS_ROOT.contains(&test), EMULATOR_CANNOT.iter().find(|it| it.0 == test))
    {
        (true, _) if !root => "needs root",
        (_, Some((_, reason))) if is_emulated() => reason,
        _ => return false,
    };
    // Not `eprintln`: the test harness keeps that to itself.
    let _ = writeln!(stderr(), "NOT RUN: {test}: {reason}");
    true
}

/// Says that `test` leaves out `program`, which is not installed.
pub fn lacks(test: &str, program: &str) {
    let _ = writeln!(stderr(), "NOT RUN: {test} beside {program}: it is not installed");
}

/// Whether the binary runs in an emulator.
pub fn is_emulated() -> bool {
    env::var_os("PID1_RUNNER").is_some()
}

const KEEPS_SIGNALS: &str = "the emulator keeps some signals for itself and moves others";
const HAS_THREADS: &str = "the emulator has a thread of its own";

/// What an emulator in front of the binary hides or changes.
const EMULATOR_CANNOT: &[(&str, &str)] = &[
    ("signals_of_the_c_librarys_own_are_forwarded", KEEPS_SIGNALS),
    ("child_gets_the_inherited_mask_and_ignored_signals", KEEPS_SIGNALS),
    ("death_by_a_real_time_signal_is_128_and_its_number", KEEPS_SIGNALS),
    ("rewrite_takes_real_time_signals", KEEPS_SIGNALS),
    ("no_wake_ups_while_idle", HAS_THREADS),
    ("failing_to_start_a_process_is_125", HAS_THREADS),
    ("a_fault_of_inits_own_ends_it", "the program's memory is the emulator's"),
    ("binary_is_small", "what is measured is the emulator"),
    ("memory_is_small", "what is measured is the emulator"),
    ("few_system_calls_before_the_child_runs", "what is measured is the emulator"),
];

/// Signals that do not arrive through an emulator: SIGABRT, which it needs for its own aborts; the
/// real-time ones, which it moves; and those of faults. SIGILL, SIGFPE and SIGSEGV are unblocked in
/// its thread beside the program's (`SigBlk` in `/proc` shows it): one that goes there meets a
/// handler that looks for a program and dies of SIGSEGV. SIGBUS it never blocks in the program's
/// (<https://gitlab.com/qemu-project/qemu/-/blob/v10.0.2/util/qemu-thread-posix.c>).
pub fn emulator_loses(signal: i32) -> bool {
    let fault = [libc::SIGILL, libc::SIGBUS, libc::SIGFPE, libc::SIGSEGV].contains(&signal);
    is_emulated() && (signal == libc::SIGABRT || signal >= 34 || fault)
}

//! The system calls and the C entry point: the only module with `unsafe` in it.
//!
//! What is here is here because nix has no safe form of it, or one that allocates (`execve`), fails
//! after the fact (`waitpid` on a death by a real-time signal), or cannot name real-time signals.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::slice;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{self, pid_t};

use crate::signals::Signal;

/// What the kernel looks at of a `sigset_t`: 64 signals, on every platform of ours.
const KERNEL_SET: usize = 8;

/// C's entry point, in place of Rust's runtime: that one would ignore SIGPIPE, open closed stdio
/// and allocate, all of which the child would inherit or init would carry for ever.
#[cfg(not(test))]
#[unsafe(no_mangle)]
extern "C" fn main(
    _count: c_int,
    words: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    // SAFETY: the C library passes on what the kernel put on the stack: two arrays of C strings,
    // each closed by a null pointer, which live until the process ends and which nobody changes.
    let (words, environment) = unsafe { (Words::from_raw(words), Words::from_raw(environment)) };
    c_int::from(crate::run(words, environment))
}

/// A list of C strings in the form `execve` takes and gives: pointers, closed by a null one.
///
/// Invariant: the slice's last element is null, every other one points to a C string that lives and
/// stays unchanged until the process ends.
#[derive(Clone, Copy)]
pub struct Words(&'static [*const c_char]);

impl Words {
    /// # Safety
    ///
    /// `first` points to the first element of a list as the invariant above describes it.
    unsafe fn from_raw(first: *const *const c_char) -> Self {
        let mut length = 0;
        // SAFETY: the caller vouches for a null pointer at the end; we stop at it.
        while unsafe { !(*first.add(length)).is_null() } {
            length += 1;
        }
        // SAFETY: `length` elements and the closing null were just read.
        Self(unsafe { slice::from_raw_parts(first, length + 1) })
    }

    pub fn len(self) -> usize {
        self.0.len() - 1
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    pub fn get(self, index: usize) -> Option<&'static CStr> {
        let word = *self.0.get(index)?;
        // SAFETY: by the invariant, what is not null is a C string that lives as long as we do.
        (!word.is_null()).then(|| unsafe { CStr::from_ptr(word) })
    }

    pub fn iter(self) -> impl Iterator<Item = &'static CStr> {
        (0..self.len()).filter_map(move |index| self.get(index))
    }

    /// What is left without the first `count`; all of it gone if there are fewer.
    pub fn skip(self, count: usize) -> Self {
        Self(&self.0[count.min(self.len())..])
    }
}

#[cfg(test)]
impl Words {
    /// Words for a test, which are never given back.
    pub fn leaked<S: AsRef<str>>(words: &[S]) -> Self {
        let leak = |word: &S| {
            let word = std::ffi::CString::new(word.as_ref()).expect("tests have no zero bytes");
            word.into_raw().cast_const()
        };
        Self(words.iter().map(leak).chain([ptr::null()]).collect::<Vec<_>>().leak())
    }
}

/// A `Words` in the making: room for a fixed number, filled one by one.
pub struct WordList {
    slots: &'static mut [*const c_char],
    length: usize,
}

impl WordList {
    pub fn with_room(count: usize) -> nix::Result<Self> {
        Ok(Self { slots: zeroed(count + 1)?, length: 0 })
    }

    /// Adds `word`; more than there is room for is a mistake of ours and ends the process.
    pub fn push(&mut self, word: &'static CStr) {
        assert!(self.length + 1 < self.slots.len());
        self.slots[self.length] = word.as_ptr();
        self.length += 1;
    }

    /// Puts `word` in place of the first one that `matches`, or at the end if none does.
    pub fn replace_or_push(&mut self, word: &'static CStr, matches: impl Fn(&CStr) -> bool) {
        // SAFETY: the first `length` slots came from `&'static CStr`s.
        let is_it = |slot: &*const c_char| matches(unsafe { CStr::from_ptr(*slot) });
        match self.slots[..self.length].iter().position(is_it) {
            Some(index) => self.slots[index] = word.as_ptr(),
            None => self.push(word),
        }
    }

    pub fn finish(self) -> Words {
        // The invariant holds: the slots were zeroed, `push` keeps one free, and whatever is in the
        // others came from a `&'static CStr`.
        Words(&self.slots[..=self.length])
    }
}

/// A type that may be made by filling it with zero bytes.
///
/// # Safety
///
/// All bytes zero is a valid value, and there is nothing to drop.
pub unsafe trait Plain: Copy + 'static {}
// SAFETY: numbers.
unsafe impl Plain for u8 {}
// SAFETY: a transparent wrapper around a number.
unsafe impl Plain for nix::unistd::Gid {}
// SAFETY: the null pointer.
unsafe impl Plain for *const c_char {}

/// Memory for `count` values, from the kernel and never given back: what the child needs before it
/// is another program. This is why there is no allocator in the program.
pub fn zeroed<T: Plain>(count: usize) -> nix::Result<&'static mut [T]> {
    let length = count.max(1).checked_mul(size_of::<T>()).ok_or(Errno::ENOMEM)?;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory of ours.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: the mapping is `count` values long at least, zeroed (which `Plain` makes valid
    // values), aligned to a page, ours alone, and never unmapped.
    Ok(unsafe { slice::from_raw_parts_mut(start.cast::<T>(), count) })
}

/// Our process id. Asks for the thread's instead, which is the same in a program of one thread,
/// because musl knows that one without a system call.
pub fn own_pid() -> pid_t {
    unsafe extern "C" {
        safe fn gettid() -> pid_t;
    }
    gettid()
}

/// One of the three standard descriptors, open or not.
pub fn stdio(number: RawFd) -> BorrowedFd<'static> {
    assert!((0..=2).contains(&number));
    // SAFETY: not -1. We never close these three; if they were closed when we started, using them
    // is an EBADF that every caller expects.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// What we found at the start and the child gets back unchanged.
pub struct InheritedSignals {
    mask: Mask,
    child_ignored: bool,
}

/// Blocks every signal, so that each waits in the kernel until [`Arrivals`] takes it, and makes
/// SIGCHLD count: while it is ignored, children vanish without a status.
///
/// Raw, because the C library's version leaves out the signals it keeps for itself, 32 to 34, and
/// hides them in the old mask: Docker's SIGRTMIN is 34.
pub fn take_signals() -> InheritedSignals {
    let mask = set_mask(&EVERY);
    // SAFETY: sets a disposition, no handler.
    let previous = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    InheritedSignals { mask, child_ignored: previous == libc::SIG_IGN }
}

impl InheritedSignals {
    pub fn restore(&self) {
        if self.child_ignored {
            // SAFETY: sets a disposition, no handler.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        }
        set_mask(&self.mask);
    }
}

/// Blocks every signal: after this, writing a message can neither stop nor kill us.
pub fn block_signals() {
    set_mask(&EVERY);
}

type Mask = [c_long; KERNEL_SET / size_of::<c_long>()];
const EVERY: Mask = [!0; _];

fn set_mask(mask: &Mask) -> Mask {
    let mut old: Mask = [0; _];
    // SAFETY: both masks are as long as we say, which is what the kernel's sets are. It cannot
    // fail: the arguments are valid.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            mask.as_ptr(),
            old.as_mut_ptr(),
            KERNEL_SET,
        )
    };
    old
}

/// A signal that was sent to us.
#[derive(Clone, Copy)]
pub struct Arrival {
    pub signal: Signal,
    /// Whether it came from ourselves: the SIGPIPE of a message nobody reads.
    pub own: bool,
}

/// Takes the signals that were sent to us, in turn.
///
/// The kernel gives out the lowest number first. Whoever sends us SIGHUP faster than we hand it on
/// would keep SIGTERM and SIGCHLD from us for ever, so those that have not had their turn go first.
#[derive(Default)]
pub struct Arrivals {
    had_their_turn: Mask,
}

impl Arrivals {
    /// The next one, or none when `timeout` is over or something else woke us. Without a `timeout`
    /// we sleep until a signal comes, however long that is.
    pub fn next(&mut self, timeout: Option<Duration>) -> Option<Arrival> {
        let arrival = self.others().or_else(|| {
            self.had_their_turn = Mask::default();
            wait(&EVERY, timeout)
        })?;
        add(&mut self.had_their_turn, arrival.signal);
        Some(arrival)
    }

    /// One of those that have not had their turn, if one is there.
    fn others(&self) -> Option<Arrival> {
        let is_new_round = self.had_their_turn == Mask::default();
        let others = self.had_their_turn.map(|word| !word);
        if is_new_round { None } else { wait(&others, Some(Duration::ZERO)) }
    }
}

/// Lets go of `signal`, if it is there.
pub fn forget(signal: Signal) {
    let mut mask = Mask::default();
    add(&mut mask, signal);
    wait(&mask, Some(Duration::ZERO));
}

fn add(mask: &mut Mask, signal: Signal) {
    let bit = signal.unsigned_abs().saturating_sub(1);
    if let Some(word) = mask.get_mut((bit / c_long::BITS) as usize) {
        *word |= 1 << (bit % c_long::BITS);
    }
}

/// Takes the lowest of the signals in `mask`, which are blocked.
fn wait(mask: &Mask, timeout: Option<Duration>) -> Option<Arrival> {
    // SAFETY: C structures for which all bytes zero is a valid value.
    let (mut set, mut info, mut limit): (libc::sigset_t, libc::siginfo_t, libc::timespec) =
        unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
    // SAFETY: a `sigset_t` begins with what the kernel looks at of it, which is what a mask is. The
    // C library's `sigaddset` would leave out 32 to 34.
    unsafe { ptr::copy_nonoverlapping(mask, (&raw mut set).cast(), 1) };
    let timeout = timeout.map_or(ptr::null(), |timeout| {
        // What does not fit a 32-bit clock is as good as for ever: a billion seconds do.
        limit.tv_sec = timeout.as_secs().min(1_000_000_000).try_into().unwrap_or(0);
        limit.tv_nsec = timeout.subsec_nanos().cast_signed().into();
        &raw const limit
    });
    // SAFETY: `set` and `info` live here, `timeout` is null or points to `limit`, which does too.
    let signal = unsafe { libc::sigtimedwait(&raw const set, &raw mut info, timeout) };
    // SAFETY: a signal sent by a process, which SI_USER says, carries its sender's id.
    let own = || info.si_code == libc::SI_USER && unsafe { info.si_pid() } == own_pid();
    (signal > 0).then(|| Arrival { signal, own: own() })
}

/// Sends `signal` to a process, a group (negative) or everybody (-1), as kill(2). Raw, because nix
/// knows no real-time signals.
pub fn kill(target: pid_t, signal: Signal) -> nix::Result<()> {
    // SAFETY: takes two numbers. Whom it may hit is the callers' care, see `shutdown::Scope`.
    Errno::result(unsafe { libc::kill(target, signal) }).map(drop)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Exited(u8),
    Killed(Signal),
}

impl Status {
    fn from_raw(raw: c_int) -> Self {
        if libc::WIFEXITED(raw) {
            Self::Exited(libc::WEXITSTATUS(raw).to_le_bytes()[0])
        } else {
            Self::Killed(libc::WTERMSIG(raw))
        }
    }
}

/// What a look for ended children found.
pub enum Reaped {
    Process(pid_t, Status),
    /// There are children, and none of them has ended.
    None,
    /// There are no children at all.
    Childless,
}

/// Takes one ended child out of the process table, without waiting for one.
///
/// Raw, because nix reports a death by a real-time signal as EINVAL, after the kernel has already
/// forgotten the child.
pub fn reap() -> Reaped {
    let mut status = 0;
    // SAFETY: `status` lives here.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
        0 => Reaped::None,
        pid if pid > 0 => Reaped::Process(pid, Status::from_raw(status)),
        _ => Reaped::Childless,
    }
}

/// What the child runs on until it is another program. Far more than it needs.
#[repr(align(4096))]
struct Stack(UnsafeCell<[u8; 65_536]>);

// SAFETY: only the kernel and the child touch it, and there is one child.
unsafe impl Sync for Stack {}

/// In a section of its own, lest it come between the other variables, which share a page; under a
/// name by which the compiler knows that none of it has to be in the file.
#[unsafe(link_section = ".gnu.linkonce.b.child_stack")]
static STACK: Stack = Stack(UnsafeCell::new([0; _]));

/// Whose memory a new process works in until it is another program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Ours, which spares the kernel a copy of all page tables. What it changes there stays.
    Shared,
    /// One of its own.
    Own,
}

/// Starts a process that does `work` and exits with the code this gives. Returns when it has become
/// another program or has ended, as vfork(2) does; from an emulator, maybe at once.
pub fn start<F: Fn() -> u8>(memory: Memory, work: &F) -> nix::Result<pid_t> {
    extern "C" fn call<F: Fn() -> u8>(work: *mut c_void) -> c_int {
        // SAFETY: it is the `work` below, which its caller holds until the child needs it no more.
        c_int::from(unsafe { &*work.cast::<F>() }())
    }
    let shared = if memory == Memory::Shared { libc::CLONE_VM } else { 0 };
    let (stack, size) = (STACK.0.get(), size_of::<Stack>());
    // SAFETY: the child has a stack of its own and a copy of nothing else, or of everything. While
    // it shares our memory we do not run, so that nothing happens to that at the same time: only
    // it uses what `work` borrows, and the C library's `errno`. That one's record of the thread's
    // id is stale in the child, which asks the kernel for it (`Pid::this`). There is one thread, so
    // no lock can be held by another.
    let child = Errno::result(unsafe {
        libc::clone(
            call::<F>,
            stack.byte_add(size).cast(),
            shared | libc::CLONE_VFORK | libc::SIGCHLD,
            ptr::from_ref(work).cast_mut().cast(),
        )
    });
    // SAFETY: the stack has no user any more, and this only makes it zero again. Where pages are
    // larger than it is aligned, it fails and nothing is given back.
    unsafe { libc::madvise(stack.cast(), size, libc::MADV_DONTNEED) };
    child
}

/// Replaces the program; returns only with the reason why it could not.
pub fn exec(path: &CStr, words: Words, environment: Words) -> Errno {
    // SAFETY: a C string and two lists in the form that execve takes, by the invariant of `Words`.
    unsafe { libc::execve(path.as_ptr(), words.0.as_ptr(), environment.0.as_ptr()) };
    Errno::last()
}

/// Room for what [`read_entries`] reads.
#[repr(align(8))]
pub struct EntryBuffer([u8; 1024]);

impl EntryBuffer {
    pub fn new() -> Self {
        Self([0; _])
    }
}

/// Reads some of a directory's entries, as getdents64(2) writes them; empty at the end. nix's own
/// reading allocates.
pub fn read_entries<'a>(
    directory: &impl AsFd,
    buffer: &'a mut EntryBuffer,
) -> nix::Result<&'a [u8]> {
    let descriptor = c_long::from(directory.as_fd().as_raw_fd());
    let (start, length) = (buffer.0.as_mut_ptr(), buffer.0.len());
    // SAFETY: the buffer is ours alone, as long as said, and aligned as the records have to be.
    let result = unsafe { libc::syscall(libc::SYS_getdents64, descriptor, start, length) };
    let length = usize::try_from(Errno::result(result)?).map_err(|_| Errno::EIO)?;
    Ok(&buffer.0[..length])
}

/// Makes us the new parent of every descendant whose own parent ends.
pub fn become_subreaper() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// Has the kernel send us `signal` when our parent ends. Raw, because nix knows no real-time ones.
pub fn ask_for_parent_death_signal(signal: Signal) {
    // SAFETY: takes numbers. Fails only for what is no signal.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, c_long::from(signal)) };
}

/// Detaches us from our controlling terminal, and our whole session if we lead it.
pub fn give_up_terminal(terminal: BorrowedFd) -> nix::Result<()> {
    // SAFETY: takes no argument. Not a terminal of ours is an error.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY) }).map(drop)
}

/// Makes `terminal` the controlling one of the session that we lead.
pub fn take_terminal(terminal: BorrowedFd) -> nix::Result<()> {
    // SAFETY: 0 as argument: it is not taken from another session.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Ends the process, without running what the C library would run at exit: the parent's business.
pub fn exit(code: u8) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(c_int::from(code)) }
}

/// Closes every descriptor from `first` on.
pub fn close_from(first: RawFd) {
    // SAFETY: nothing here owns a descriptor when this is called: `main` does so before it opens
    // any.
    let closed = unsafe {
        libc::syscall(libc::SYS_close_range, c_long::from(first), c_long::from(-1), 0 as c_long)
    };
    if closed == 0 {
        return;
    }
    // Linux before 5.9 and some emulators have no close_range.
    for descriptor in first..descriptor_limit() {
        // SAFETY: as above.
        unsafe { libc::close(descriptor) };
    }
}

/// One more than the highest descriptor we may hold; not above what can be tried in a millisecond
/// or two, since old engines give a limit of a billion.
fn descriptor_limit() -> RawFd {
    const MOST: RawFd = 65_536;
    // SAFETY: takes a number.
    let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
    RawFd::try_from(limit).map_or(MOST, |limit| limit.clamp(0, MOST))
}

/// The C library's words for an error: the ones that everybody knows.
pub fn reason(error: Errno) -> &'static CStr {
    // SAFETY: gives a C string for every number. It stays valid: musl's are constants, and glibc's
    // for a known number, which `Errno`s are.
    unsafe { CStr::from_ptr(libc::strerror(error as c_int)) }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal as Named, raise};
    use signal_hook::consts::{SIGHUP, SIGTERM, SIGUSR1};

    use super::*;

    /// Sends it to this thread, which has blocked it.
    fn send(signal: Named) {
        raise(signal).unwrap();
    }

    fn next(arrivals: &mut Arrivals) -> Option<Signal> {
        arrivals.next(Some(Duration::ZERO)).map(|it| it.signal)
    }

    #[test]
    fn whoever_sends_too_much_keeps_nobody_else_waiting() {
        set_mask(&EVERY);
        let mut arrivals = Arrivals::default();
        send(Named::SIGTERM);
        send(Named::SIGUSR1);
        let taken: Vec<_> = (0..6)
            .map(|_| {
                // Before each look, as fast as can be. The kernel would give out nothing else.
                send(Named::SIGHUP);
                next(&mut arrivals).unwrap()
            })
            .collect();
        assert_eq!(taken, [SIGHUP, SIGUSR1, SIGTERM, SIGHUP, SIGHUP, SIGHUP]);
        assert_eq!(next(&mut arrivals), None);
    }

    #[test]
    fn what_is_forgotten_does_not_arrive() {
        set_mask(&EVERY);
        let mut arrivals = Arrivals::default();
        send(Named::SIGHUP);
        send(Named::SIGTERM);
        forget(SIGHUP);
        forget(SIGUSR1);
        assert_eq!([next(&mut arrivals), next(&mut arrivals)], [Some(SIGTERM), None]);
    }

    #[test]
    fn every_signal_has_its_place_in_a_mask() {
        let mut mask = Mask::default();
        (1..=crate::signals::LAST).for_each(|signal| add(&mut mask, signal));
        assert_eq!(mask, EVERY);
        add(&mut mask, 0);
        add(&mut mask, 65);
    }
}

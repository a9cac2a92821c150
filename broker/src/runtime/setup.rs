//! Which ring the kernel has, and whether it lets us have one.

use std::io;

use io_uring::{IoUring, Probe};

/// When the kernel does what completes requests, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// When it is asked to (Linux 6.1).
    Deferred,
    /// At the thread's next system call (Linux 5.19).
    Cooperative,
    /// At once, interrupting the thread.
    Plain,
}

/// The best ring that this kernel has, from `best` on.
pub(super) fn set_up(submissions: u32, completions: u32, best: Mode) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(completions).setup_clamp();
    let less = match best {
        Mode::Deferred => {
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
            Mode::Cooperative
        }
        Mode::Cooperative => {
            builder.setup_coop_taskrun().setup_taskrun_flag();
            Mode::Plain
        }
        Mode::Plain => return builder.build(submissions),
    };
    match builder.build(submissions) {
        // An older kernel.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            set_up(submissions, completions, less)
        }
        uring => uring,
    }
}

/// Asks the kernel for a small ring, uses it once, and gives it back: whether io_uring may be used
/// here, with each of its three system calls.
///
/// # Errors
/// `ENOSYS` or `EPERM` where the kernel or a container profile refuses io_uring; others of
/// `io_uring_setup(2)`, `io_uring_register(2)` and `io_uring_enter(2)`.
pub(super) fn try_set_up() -> io::Result<()> {
    let uring = set_up(8, 16, Mode::Deferred)?;
    uring.submitter().register_probe(&mut Probe::new())?;
    // Submits nothing, but asks the kernel to.
    uring.submit().map(drop)
}

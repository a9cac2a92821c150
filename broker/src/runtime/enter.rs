//! System calls of a ring: to submit, and to wait.

use std::io;
use std::time::Duration;

use io_uring::{IoUring, types};

/// Submits, and lets the kernel do what it has put off.
pub(super) fn enter(uring: &IoUring) {
    check(uring.submitter().submit());
}

/// The same, and waits until something has completed, for so long at most.
pub(super) fn enter_and_wait(uring: &IoUring, time: Option<Duration>) {
    let time = time.map(types::Timespec::from);
    check(match &time {
        None => uring.submitter().submit_and_wait(1),
        Some(time) => {
            uring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(time))
        }
    });
}

/// Errors that are none: the time is over, a signal came, completions have to be reaped first, or
/// memory is short for a moment. The next turn goes on.
fn check(entered: io::Result<usize>) {
    if let Err(error) = entered
        && !matches!(
            error.raw_os_error(),
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
        )
    {
        panic!("the shard's ring refuses to work: {error}");
    }
}

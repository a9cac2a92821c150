//! What the machine is, what this process may use of it, and the signals that end it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use super::ring;

/// Locked memory below which nothing starts: kernels before Linux 5.12 charge rings to it.
pub(super) const LOCKED_MEMORY_BYTES_MIN: u64 = 512 << 10;

/// What was found, for the start screen and for defaults.
#[derive(Clone, Debug)]
pub struct MachineFacts {
    /// Cores this process may run on, by number.
    pub cores: Vec<usize>,
    /// Memory this process may use, in bytes: the machine's, or what its control groups leave of
    /// it.
    pub memory_bytes: u64,
    /// Descriptors it may open, after the soft limit was raised to the hard one.
    pub descriptors_max: u64,
    /// The kernel's release, as `uname -r` says it.
    pub kernel: String,
}

/// Looks at the machine. Raises the soft limits of locked memory and descriptors to the hard ones.
pub fn probe() -> MachineFacts {
    raise_limit(libc::RLIMIT_NOFILE);
    raise_limit(libc::RLIMIT_MEMLOCK);
    MachineFacts {
        cores: cores(),
        memory_bytes: memory_bytes(),
        descriptors_max: limit("Max open files"),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
    }
}

/// What this process has taken so far, for whoever watches it. What the system does not say is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Processor time, in microseconds.
    pub cpu_us: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Descriptors it may open.
    pub descriptors_max: u64,
    /// When it started, in seconds since 1970; filled in by whoever knows.
    pub started_at_s: u64,
}

impl ProcessFacts {
    /// Asks the system; may take milliseconds where many descriptors are open.
    pub(super) fn read() -> Self {
        let status = read("/proc/self/status");
        let resident = labelled(&status, "VmRSS").unwrap_or_default();
        let resident_kib: u64 = resident.trim_end_matches(" kB").parse().unwrap_or_default();
        // Listing it takes a descriptor, too.
        let descriptors = fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count().max(1) - 1);
        Self {
            resident_bytes: resident_kib * 1024,
            cpu_us: cpu_us(&read("/proc/self/stat")),
            descriptors: descriptors as u64,
            descriptors_max: limit("Max open files"),
            started_at_s: 0,
        }
    }
}

/// Processor time of the calling thread, in microseconds.
pub(super) fn thread_cpu_us() -> u64 {
    cpu_us(&read("/proc/thread-self/stat"))
}

/// Processor time of `/proc/self/stat`, whose unit is a hundredth of a second on every Linux.
fn cpu_us(stat: &str) -> u64 {
    const TICK_US: u64 = 10_000;
    // Behind the name, which may hold anything, in parentheses.
    let fields = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let user_and_kernel = fields.split_whitespace().skip(11).take(2);
    let ticks = user_and_kernel.filter_map(|ticks| ticks.parse::<u64>().ok());
    ticks.sum::<u64>().saturating_mul(TICK_US)
}

/// Text of a file of the kernel; empty where there is none.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value behind a label in `/proc`: "label: value".
fn labelled<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    Some(line.trim_start_matches(':').trim())
}

pub(super) fn cores() -> Vec<usize> {
    let status = read("/proc/self/status");
    let cores = cores_of_list(labelled(&status, "Cpus_allowed_list").unwrap_or_default());
    if cores.is_empty() {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        return (0..count).collect();
    }
    cores
}

/// Lets the calling thread run on all cores of the process: it has those of the thread that
/// started it, which may be one.
pub(super) fn run_anywhere() {
    // What is refused here stays as it is.
    let _refused = pin_to(&cores());
}

/// Lets the calling thread run only where no other wants its core, as far as the system takes part.
pub(super) fn run_when_idle() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the structure; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
}

/// Keeps the calling thread on these cores.
///
/// # Errors
/// Where the system refuses.
pub(super) fn pin_to(cores: &[usize]) -> io::Result<()> {
    // SAFETY: a set of cores is plain numbers, for which zeros are none.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let cores_max = 8 * size_of::<libc::cpu_set_t>();
    for core in cores {
        if *core >= cores_max {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the set is ours, and has this core.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    // SAFETY: the kernel reads so many bytes of the set; 0 is the calling thread.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// "0-2,5" as numbers.
fn cores_of_list(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

fn memory_bytes() -> u64 {
    let facts = read("/proc/meminfo");
    let total = labelled(&facts, "MemTotal").unwrap_or_default();
    let kib: u64 = total.trim_end_matches(" kB").parse().unwrap_or_default();
    let groups = read("/proc/self/cgroup");
    let of_groups = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        match controllers {
            "" => group_limit("/sys/fs/cgroup", path, "memory.max"),
            "memory" => group_limit("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"),
            _ => None,
        }
    });
    // "No limit" of version 1 is a number near 2^63: the smallest counts.
    of_groups.min().unwrap_or(u64::MAX).min(kib * 1024)
}

/// The smallest limit of a control group and those above it.
fn group_limit(mount: &str, group: &str, file: &str) -> Option<u64> {
    let limits = Path::new(group).ancestors().filter_map(|group| {
        let group = group.strip_prefix("/").unwrap_or(group);
        let path = Path::new(mount).join(group).join(file);
        fs::read_to_string(path).ok()?.trim().parse().ok()
    });
    limits.min()
}

/// A soft limit of this process; no limit is `u64::MAX`.
pub(super) fn limit(label: &str) -> u64 {
    let limits = read("/proc/self/limits");
    let soft = labelled(&limits, label).and_then(|line| line.split_whitespace().next());
    soft.and_then(|soft| soft.parse().ok()).unwrap_or(u64::MAX)
}

/// Whether the limits of this process can be asked for: an executor does.
pub(super) fn try_limits() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills a structure of ours.
    match unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn raise_limit(resource: libc::__rlimit_resource_t) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills, then reads, a structure of ours.
    unsafe {
        if libc::getrlimit(resource, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            // Where it is refused, the facts say what the limit is.
            libc::setrlimit(resource, &raw const limit);
        }
    }
}

/// Whether nobody reads any more what is written there: a pipe or a socket whose other end is
/// closed. Of a file, never.
pub fn is_hung_up(output: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: output.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: the kernel reads and fills one structure of ours; the descriptor is open.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready > 0 && poll.revents & (libc::POLLERR | libc::POLLHUP) != 0
}

/// The descriptor that the signal handler writes to; -1 before there is one.
static SIGNALLED: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(_: libc::c_int) {
    let one = 1u64.to_ne_bytes();
    let fd = SIGNALLED.load(Ordering::Relaxed);
    // SAFETY: `write(2)` may be called in a handler; the descriptor is never closed; what it does
    // to `errno`, which belongs to the code that was interrupted, is undone. Its own errors (a
    // counter that is full) say nothing.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(fd, one.as_ptr().cast(), one.len());
        *errno = before;
    }
}

/// SIGTERM, SIGINT and SIGHUP (a terminal that was closed, unless it is ignored, as by `nohup`) as
/// something to wait for. The first of each is caught; the second one ends the process at once.
#[derive(Clone, Debug)]
pub struct ShutdownSignals {
    pub(super) event: Arc<OwnedFd>,
}

impl ShutdownSignals {
    /// Catches the signals from now on, for the whole process. Called once, before the shards
    /// start.
    ///
    /// # Errors
    /// Where the kernel refuses a descriptor or a handler.
    pub fn install() -> io::Result<Self> {
        let event = ring::eventfd()?;
        // The handler's copy stays open as long as the process.
        let for_handler = event.try_clone()?;
        SIGNALLED.store(for_handler.as_raw_fd(), Ordering::Relaxed);
        std::mem::forget(for_handler);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            if signal == libc::SIGHUP && is_ignored(signal) {
                continue;
            }
            // SAFETY: zeroes are a valid `sigaction` (no flags, an empty mask); the handler does
            // only what a handler may.
            let result = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
                action.sa_flags = libc::SA_RESETHAND | libc::SA_RESTART;
                libc::sigaction(signal, &raw const action, std::ptr::null_mut())
            };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self { event: Arc::new(event) })
    }
}

/// Whether the process was started with this signal ignored.
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: zeroes are a valid `sigaction`; the kernel fills it and changes nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Tells the service manager (systemd's `sd_notify`): "READY=1", "STOPPING=1", "STATUS=...". Does
/// nothing where there is none.
///
/// # Errors
/// Where the manager's socket cannot be reached.
pub fn notify_service_manager(state: &str) -> io::Result<()> {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    notify(address.as_encoded_bytes(), state)
}

/// Sends a line to a socket by its path or, behind an "@", its abstract name.
fn notify(address: &[u8], state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    let address = match address.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(OsStr::from_bytes(address))?,
    };
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {

    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(cores_of_list("0-2,5,7-8"), [0, 1, 2, 5, 7, 8]);
        assert_eq!(cores_of_list("3"), [3]);
        assert_eq!(cores_of_list(""), Vec::<usize>::new());
        assert_eq!(cores_of_list("x,1"), [1]);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let facts = probe();
        assert!(!facts.cores.is_empty());
        assert!(facts.memory_bytes > 64 << 20, "{facts:?}");
        assert!(facts.descriptors_max >= 64, "{facts:?}");
        assert!(facts.kernel.contains('.'), "{facts:?}");
    }

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "1 (a) b 9) S 1 1 1 0 -1 4 10 0 0 0 250 50 0 0 20 0 3 0 100 1 1";
        assert_eq!(cpu_us(stat), 3_000_000);
        assert_eq!(cpu_us(""), 0);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let facts = ProcessFacts::read();
        assert!(facts.resident_bytes > 1 << 20, "{facts:?}");
        assert!(facts.descriptors >= 3, "{facts:?}");
        assert!(facts.descriptors_max >= facts.descriptors, "{facts:?}");
    }

    #[test]
    fn a_service_manager_hears_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let abstract_name = format!("vltava-test-{}", std::process::id());
        let sockets = [
            (SocketAddr::from_pathname(&path).unwrap(), path.to_str().unwrap().to_owned()),
            (SocketAddr::from_abstract_name(&abstract_name).unwrap(), format!("@{abstract_name}")),
        ];
        for (address, name) in sockets {
            let manager = UnixDatagram::bind_addr(&address).unwrap();
            notify(name.as_bytes(), "READY=1").unwrap();
            let mut heard = [0; 16];
            let len = manager.recv(&mut heard).unwrap();
            assert_eq!(&heard[..len], b"READY=1");
        }
        assert!(notify(b"/nobody/there", "READY=1").is_err());
    }

    #[test]
    fn a_pipe_without_a_reader_is_hung_up() {
        let (reader, writer) = io::pipe().unwrap();
        assert!(!is_hung_up(writer.as_fd()));
        drop(reader);
        assert!(is_hung_up(writer.as_fd()));
        let file = tempfile::tempfile().unwrap();
        assert!(!is_hung_up(file.as_fd()));
    }

    #[test]
    fn limits_of_control_groups_count_with_those_above_them() {
        let mount = tempfile::tempdir().unwrap();
        let file = |group: &str, limit: &str| {
            let group = mount.path().join(group);
            std::fs::create_dir_all(&group).unwrap();
            std::fs::write(group.join("memory.max"), limit).unwrap();
        };
        file("a/b", "max\n");
        let mount_path = mount.path().to_str().unwrap();
        assert_eq!(group_limit(mount_path, "/a/b", "memory.max"), None);
        file("a", "5000\n");
        assert_eq!(group_limit(mount_path, "/a/b", "memory.max"), Some(5000));
        file("a/b", "4000\n");
        assert_eq!(group_limit(mount_path, "/a/b", "memory.max"), Some(4000));
        assert_eq!(group_limit(mount_path, "/x", "memory.max"), None);
    }
}

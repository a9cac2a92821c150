//! The data directory.

use std::fs::TryLockError;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use vltava_storage::io::{BLOCK_BYTES, BufferPool, Disk, Durability, File, IoErrorKind, OpenMode};

use super::*;
use crate::runtime::ring::Ring;

#[test]
fn a_file_keeps_what_is_written() {
    run(1, |start| async move {
        let disk = start.runtime.disk();
        disk.create_dir("topic-0").await.unwrap();
        let file = disk.open("topic-0/log", OpenMode::Create).await.unwrap();
        file.allocate(0, 1 << 20).await.unwrap();
        let written = blocks(&[7; BLOCK_BYTES + 9]);
        file.write_at(written, 4096, Durability::Flushed).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 1 << 20);
        let read = file.read_at(4095, BLOCK_BYTES + 11).await.unwrap();
        assert_eq!(read[0], 0);
        assert!(read[1..BLOCK_BYTES + 10].iter().all(|byte| *byte == 7));
        assert_eq!(read[BLOCK_BYTES + 10], 0);
        file.set_len(4096 + 9).await.unwrap();
        assert_eq!(file.read_at(4096, 100).await.unwrap(), [7; 9][..]);
        assert!(file.read_at(1 << 30, 100).await.unwrap().is_empty());
        file.sync().await.unwrap();
        disk.sync_dir("topic-0").await.unwrap();
        let space = disk.space().await.unwrap();
        assert!(space.free <= space.total && space.total > 0, "{space:?}");
    });
}

#[test]
fn what_was_written_is_found_behind_space_that_never_was() {
    const MIB: u64 = 1 << 20;
    run(1, |start| async move {
        let disk = start.runtime.disk();
        let file = disk.open("log", OpenMode::Create).await.unwrap();
        file.allocate(0, 8 * MIB).await.unwrap();
        file.write_at(blocks(&[7; 9]), 4 * MIB, Durability::Flushed).await.unwrap();
        let found = file.next_data(0).await.unwrap();
        assert!(found.is_some_and(|found| found <= 4 * MIB), "{found:?}");
        for inside in [0, 6, BLOCK_BYTES as u64 - 1] {
            assert_eq!(file.next_data(4 * MIB + inside).await.unwrap(), Some(4 * MIB));
        }
        assert_eq!(file.next_data(8 * MIB).await.unwrap(), None);
    });
}

#[test]
fn reads_see_every_write_that_has_returned() {
    run(1, |start| async move {
        let disk = start.runtime.disk();
        let file = disk.open("log", OpenMode::Create).await.unwrap();
        for round in 0..50u8 {
            // The page cache holds the round before.
            let written = blocks(&vec![round; 3 * BLOCK_BYTES]);
            file.write_at(written, 0, Durability::Written).await.unwrap();
            let read = file.read_at(10, 2 * BLOCK_BYTES).await.unwrap();
            assert!(read.iter().all(|byte| *byte == round), "{round}");
        }
    });
}

#[test]
fn blocks_are_read_as_soon_as_they_are_asked_for() {
    const BYTES: usize = 50 * BLOCK_BYTES + 100;
    run(1, |start| async move {
        let disk = start.runtime.disk();
        let file = disk.open("log", OpenMode::Create).await.unwrap();
        file.write_at(blocks(&pattern(BYTES)), 0, Durability::Flushed).await.unwrap();
        file.set_len(BYTES as u64).await.unwrap();
        drop(file);
        let file = disk.open("log", OpenMode::ReadBlocks).await.unwrap();
        let pool = BufferPool::new(4 * BLOCK_BYTES, 64, 0);
        let read = |block: usize, len| {
            let position = (block * BLOCK_BYTES) as u64;
            file.begin_read(position, len, pool.take(4 * BLOCK_BYTES))
        };
        let whole: Vec<_> = (0..40).map(|block| read(block, 4 * BLOCK_BYTES)).collect();
        // Nobody waits for these.
        drop((0..40).map(|block| read(block, 1)).collect::<Vec<_>>());
        let end = read(48, 3 * BLOCK_BYTES).await.unwrap();
        let expected = pattern(BYTES);
        assert_eq!(end.slice(0..end.filled()), expected[48 * BLOCK_BYTES..]);
        assert_eq!(read(51, 1).await.unwrap().filled(), 0, "behind the end");
        let unaligned = read(3, BLOCK_BYTES + 7).await.unwrap();
        assert!(unaligned.filled() >= BLOCK_BYTES + 7);
        for (block, read) in whole.into_iter().enumerate() {
            let read = read.await.unwrap();
            let from = block * BLOCK_BYTES;
            let read = read.slice(0..read.filled());
            assert_eq!(read, expected[from..from + 4 * BLOCK_BYTES], "{block}");
        }
        drop((end, unaligned));
        assert_eq!(pool.lent_bytes(), 0);
    });
}

#[test]
fn a_file_system_that_refuses_direct_writes_gets_others() {
    let directory = tempfile::tempdir().unwrap();
    let mut data = DataDirectory::open(directory.path()).unwrap();
    data.refuse_direct();
    let options = Options { data_directory: Arc::new(data), recorder: None };
    run_over(&options, 1, |start| async move {
        let disk = start.runtime.disk();
        let file = disk.open("log", OpenMode::Create).await.unwrap();
        let written = blocks(&pattern(5 * BLOCK_BYTES));
        file.write_at(written, 0, Durability::Flushed).await.unwrap();
        let read = file.read_at(0, 5 * BLOCK_BYTES).await.unwrap();
        assert!(read == pattern(5 * BLOCK_BYTES));
        assert!(!disk.reads_past_cache());
    });
}

#[test]
fn names_come_and_go() {
    run(1, |start| async move {
        let disk = start.runtime.disk();
        let kind =
            |result: Result<_, vltava_storage::io::IoError>| result.err().map(|error| error.kind);
        assert_eq!(
            kind(disk.open("a", OpenMode::Read).await.map(drop)),
            Some(IoErrorKind::NotFound)
        );
        assert_eq!(
            kind(disk.open("a", OpenMode::Write).await.map(drop)),
            Some(IoErrorKind::NotFound)
        );
        let file = disk.open("a", OpenMode::Create).await.unwrap();
        assert_eq!(
            kind(disk.open("a", OpenMode::Create).await.map(drop)),
            Some(IoErrorKind::AlreadyExists)
        );
        assert_eq!(kind(disk.create_dir("a").await), Some(IoErrorKind::AlreadyExists));
        disk.create_dir("d").await.unwrap();
        disk.create_dir("d").await.unwrap();
        disk.create_dir("d/e").await.unwrap();
        disk.rename("a", "d/b").await.unwrap();
        let listed = disk.list("d").await.unwrap();
        let names: Vec<_> =
            listed.iter().map(|entry| (entry.name.as_str(), entry.is_directory)).collect();
        assert_eq!(names, [("b", false), ("e", true)]);
        assert!(disk.list("").await.unwrap().iter().any(|entry| entry.name == "d"));
        disk.sync_dir("d").await.unwrap();
        disk.sync_dir("").await.unwrap();
        // What is open stays readable under no name, or another one; also by the descriptor that
        // was not open yet.
        file.write_at(blocks(&[3; BLOCK_BYTES]), 0, Durability::Flushed).await.unwrap();
        disk.remove_file("d/b").await.unwrap();
        assert_eq!(file.read_at(0, 2).await.unwrap(), [3; 2][..]);
        assert_eq!(kind(disk.remove_file("d/b").await), Some(IoErrorKind::NotFound));
        assert_eq!(kind(disk.remove_dir("d").await), Some(IoErrorKind::Failed), "not empty");
        disk.remove_dir("d/e").await.unwrap();
        disk.remove_dir("d").await.unwrap();
        assert_eq!(kind(disk.list("d").await.map(drop)), Some(IoErrorKind::NotFound));
    });
}

#[test]
fn nothing_outside_the_data_directory_can_be_named() {
    run(1, |start| async move {
        let disk = start.runtime.disk();
        for path in ["../x", "a/../../x", "/etc/passwd", "a/..", "..", "nul\0"] {
            let opened = disk.open(path, OpenMode::Read).await.map(drop);
            assert_eq!(opened.unwrap_err().operation, "name", "{path}");
            assert_eq!(disk.remove_file(path).await.unwrap_err().operation, "name");
            assert_eq!(disk.rename("a", path).await.unwrap_err().operation, "name");
            assert_eq!(disk.rename(path, "a").await.unwrap_err().operation, "name");
            assert_eq!(disk.create_dir(path).await.unwrap_err().operation, "name");
            assert_eq!(disk.list(path).await.unwrap_err().operation, "name");
            assert_eq!(disk.sync_dir(path).await.unwrap_err().operation, "name");
        }
    });
}

#[test]
fn a_full_disk_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", directory.path().join("log")).unwrap();
    let mut data = DataDirectory::open(directory.path()).unwrap();
    data.refuse_direct();
    let options = Options { data_directory: Arc::new(data), recorder: None };
    run_over(&options, 1, |start| async move {
        let file = start.runtime.disk().open("log", OpenMode::Write).await.unwrap();
        let written = file.write_at(blocks(&[1]), 0, Durability::Written).await;
        let error = written.unwrap_err();
        assert_eq!((error.kind, error.operation), (IoErrorKind::Full, "write"));
        assert_eq!(error.path, "log");
    });
}

/// A file system of a few MiB, where this process may mount one: ext4, else tmpfs.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mount");
        std::fs::create_dir(&path).unwrap();
        let image = directory.path().join("image");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(4 << 20).unwrap();
        let succeeds = |program: &str, arguments: &[&str], last: [&Path; 2]| {
            let mut command = std::process::Command::new(program);
            let ended = command.args(arguments).args(last).output();
            ended.is_ok_and(|ended| ended.status.success())
        };
        let mounted =
            succeeds("mkfs.ext4", &["-q", "-F", "-O"], [Path::new("^has_journal"), &image])
                && succeeds("mount", &["-o", "loop"], [&image, &path])
                || succeeds(
                    "mount",
                    &["-t", "tmpfs", "-o", "size=1m"],
                    [Path::new("tmpfs"), &path],
                );
        mounted.then(|| Self(directory))
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("mount")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg(self.path()).status();
        assert!(unmounted.unwrap().success());
    }
}

#[test]
fn an_allocation_that_does_not_fit_changes_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        return; // Only root may.
    };
    run_over(&options(&disk.path()), 1, |start| async move {
        let disk = start.runtime.disk();
        let file = disk.open("log", OpenMode::Create).await.unwrap();
        file.write_at(blocks(&[5; 4096]), 0, Durability::Flushed).await.unwrap();
        let before = disk.space().await.unwrap();
        let error = file.allocate(0, 8 << 20).await.unwrap_err();
        assert_eq!((error.kind, error.operation), (IoErrorKind::Full, "allocate"));
        assert_eq!(file.len().await.unwrap(), 4096);
        // But for a block of the file system's own.
        let after = disk.space().await.unwrap();
        assert!(before.free - after.free <= 4096, "{before:?} {after:?}");
        // A write that does not fit has written what did, at most.
        let error = file.write_at(blocks(&vec![6; 6 << 20]), 4096, Durability::Written).await;
        assert_eq!(error.unwrap_err().kind, IoErrorKind::Full);
        assert_eq!(file.read_at(0, 4096).await.unwrap(), [5; 4096][..]);
        // With space again, the same goes on.
        file.set_len(4096).await.unwrap();
        file.allocate(4096, 4096).await.unwrap();
        file.write_at(blocks(&[7; 4096]), 4096, Durability::Flushed).await.unwrap();
    });
}

#[test]
fn blocks_of_many_buffers_are_one_write() {
    run(1, |start| async move {
        let file = start.runtime.disk().open("log", OpenMode::Create).await.unwrap();
        // More than the kernel takes at once.
        for parts in [2, 1500] {
            let mut joined = blocks(&[0; BLOCK_BYTES]);
            let bytes = (1..parts).map(|part| u8::try_from(part % 251).unwrap());
            bytes.for_each(|byte| joined.join(blocks(&[byte; BLOCK_BYTES])));
            let expected = joined.to_vec();
            file.write_at(joined, 4096, Durability::Flushed).await.unwrap();
            assert!(file.read_at(4096, expected.len()).await.unwrap() == expected, "{parts}");
        }
    });
}

#[test]
fn writes_that_are_given_up_run_to_their_end() {
    run(1, |start| async move {
        let file = start.runtime.disk().open("log", OpenMode::Create).await.unwrap();
        for i in 0..64u64 {
            let written = blocks(&[9; BLOCK_BYTES]);
            let position = i * BLOCK_BYTES as u64;
            begin_and_drop(file.write_at(written, position, Durability::Written)).await;
            sync::yield_now().await;
        }
        // One that is waited for comes after all of them here, but need not: so look until they are
        // all there.
        while file.len().await.unwrap() < 64 * BLOCK_BYTES as u64 {
            sync::yield_now().await;
        }
    });
}

#[test]
fn a_data_directory_belongs_to_one() {
    let directory = tempfile::tempdir().unwrap();
    let held = DataDirectory::open(directory.path()).unwrap();
    let second = DataDirectory::open(directory.path()).unwrap_err();
    assert!(matches!(second, DataDirectoryError::InUse(_)), "{second}");
    drop(held);
    DataDirectory::open(directory.path()).unwrap();
    let missing = DataDirectory::open(&directory.path().join("none")).unwrap_err();
    assert!(matches!(missing, DataDirectoryError::Missing(_)), "{missing}");
    std::fs::write(directory.path().join("file"), "").unwrap();
    let file = DataDirectory::open(&directory.path().join("file")).unwrap_err();
    assert!(matches!(file, DataDirectoryError::Unusable { .. }), "{file}");
}

#[test]
fn a_data_directory_is_free_when_the_kernel_is_done_with_its_rings() {
    let directory = tempfile::tempdir().unwrap();
    let held = DataDirectory::open(directory.path()).unwrap();
    let ring = Ring::new(0, Instant::now(), None, held.ring_lock()).unwrap();
    // As where the process is gone.
    drop(held);
    let again = std::fs::File::open(directory.path()).unwrap();
    assert!(matches!(again.try_lock(), Err(TryLockError::WouldBlock)));
    drop(again);
    drop(ring);
    DataDirectory::open(directory.path()).unwrap();
}

/// Of a process that was killed, the rings may go on for a while: what they write is not to be read
/// before.
#[test]
fn a_start_waits_for_the_rings_of_a_process_that_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let ring = std::fs::File::open(directory.path()).unwrap();
    ring.try_lock().unwrap();
    let (sender, opened) = std::sync::mpsc::channel();
    let path = directory.path().to_owned();
    let start = std::thread::spawn(move || sender.send(DataDirectory::open(&path)).unwrap());
    let before = opened.recv_timeout(Duration::from_millis(100));
    assert!(before.is_err(), "the kernel still writes there");
    drop(ring);
    opened.recv().unwrap().unwrap();
    start.join().unwrap();
}

/// Keeps what it sees, in order: the operation where it was submitted, its result where it was
/// done.
#[derive(Debug, Default)]
struct Witness(Mutex<Vec<(u64, Result<Operation, i32>)>>);

impl Recorder for Witness {
    fn submitted(&self, _: usize, id: u64, operation: &Operation) {
        self.0.lock().unwrap().push((id, Ok(operation.clone())));
    }

    fn completed(&self, _: usize, id: u64, result: i32) {
        self.0.lock().unwrap().push((id, Err(result)));
    }
}

#[test]
fn a_recorder_sees_what_is_flushed_and_in_which_order() {
    let directory = tempfile::tempdir().unwrap();
    let witness = Arc::new(Witness::default());
    let options = Options {
        recorder: Some(Arc::clone(&witness) as Arc<dyn Recorder>),
        ..options(directory.path())
    };
    run_over(&options, 1, |start| async move {
        let disk = start.runtime.disk();
        let file = disk.open("new", OpenMode::Create).await.unwrap();
        file.write_at(blocks(&[1; 4097]), 4096, Durability::Flushed).await.unwrap();
        file.write_at(blocks(&[1]), 0, Durability::Written).await.unwrap();
        file.sync().await.unwrap();
        disk.rename("new", "log").await.unwrap();
        disk.sync_dir("").await.unwrap();
    });
    let seen = witness.0.lock().unwrap();
    let opened = |name: &str| {
        let is_open =
            |what: &Operation| matches!(what, Operation::Open { path, .. } if path == name);
        let id = seen.iter().find(|(_, what)| what.as_ref().is_ok_and(is_open)).unwrap().0;
        seen.iter().find_map(|(seen, what)| what.as_ref().err().filter(|_| *seen == id)).unwrap()
    };
    let descriptor = *opened("new");
    let done = |id| seen.iter().any(|(seen, what)| *seen == id && what.is_err());
    let submitted = seen.iter().filter_map(|(id, what)| Some((id, what.as_ref().ok()?)));
    let operations: Vec<&Operation> = submitted
        .inspect(|(id, operation)| assert!(done(**id), "{operation:?} never ended"))
        .map(|(_, operation)| operation)
        .filter(|operation| !matches!(operation, Operation::Other(_)))
        .collect();
    let write = |position, content: &[u8], data_sync| Operation::Write {
        path: "new".to_owned(),
        descriptor,
        position,
        content: blocks(content).to_vec(),
        data_sync,
    };
    let expected = [
        Operation::Open { path: "new".to_owned(), create: true },
        write(4096, &[1; 4097], true),
        write(0, &[1], false),
        Operation::Sync { path: "new".to_owned(), descriptor },
        Operation::Rename { from: "new".to_owned(), to: "log".to_owned() },
    ];
    let (last, before) = operations.split_last().unwrap();
    assert_eq!(before, expected.iter().collect::<Vec<_>>());
    // The root is open from the beginning.
    assert!(matches!(last, Operation::Sync { path, .. } if path == "."), "{last:?}");
}

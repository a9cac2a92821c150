//! A broker's files and the system's page cache: what is read after they have parted is the disk's.
//!
//! Needs no rights but those to read the files.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, OFlags, fadvise};

/// What is read at once, and to which address and offset such reads are aligned.
const READ_BYTES: usize = 1 << 20;
const ALIGNMENT: usize = 4096;
/// How many reads are under way.
const READERS: usize = 4;

/// Flushes each file below a directory, and has the page cache give it up.
///
/// # Errors
/// What the system says.
pub fn drop_page_cache(directory: &Path) -> io::Result<()> {
    for path in files(directory)? {
        let file = File::open(path)?;
        // Pages that are not on the disk yet would stay.
        file.sync_data()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// How fast the disk reads the files below a directory, past the page cache, in megabytes (10^6) a
/// second: four reads of 1 MiB at a time, for so long at most. `None` where there is less to read
/// than would tell.
///
/// # Errors
/// What the system says.
pub fn read_rate(directory: &Path, at_most: Duration) -> io::Result<Option<f64>> {
    let mut pieces = Vec::new();
    for path in files(directory)? {
        let whole = usize::try_from(fs::metadata(&path)?.len()).unwrap_or(usize::MAX) / READ_BYTES;
        pieces.extend((0..whole).map(|piece| (path.clone(), piece * READ_BYTES)));
    }
    if pieces.len() < 64 {
        return Ok(None);
    }
    pieces.reverse();
    let pieces = Mutex::new(pieces);
    let begun = Instant::now();
    let read: io::Result<u64> = thread::scope(|scope| {
        let readers: Vec<_> =
            (0..READERS).map(|_| scope.spawn(|| read_pieces(&pieces, begun + at_most))).collect();
        let panicked = || io::Error::other("a reader has panicked");
        readers.into_iter().map(|reader| reader.join().map_err(|_| panicked())?).sum()
    });
    Ok(Some(read? as f64 / 1e6 / begun.elapsed().as_secs_f64()))
}

fn read_pieces(pieces: &Mutex<Vec<(PathBuf, usize)>>, until: Instant) -> io::Result<u64> {
    let next = || pieces.lock().ok().and_then(|mut pieces| pieces.pop());
    let mut buffer = vec![0; READ_BYTES + ALIGNMENT];
    let aligned = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let room = &mut buffer[aligned..aligned + READ_BYTES];
    let mut opened: Option<(PathBuf, File)> = None;
    let mut bytes = 0;
    while Instant::now() < until {
        let Some((path, at)) = next() else { break };
        let file = match opened.take_if(|(known, _)| *known == path) {
            Some((_, file)) => file,
            None => direct(&path)?,
        };
        bytes += file.read_at(room, at as u64)? as u64;
        opened = Some((path, file));
    }
    Ok(bytes)
}

fn direct(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// All regular files below a directory, in the order of their names.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut directories) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test should say where")]

    use super::*;

    #[test]
    fn what_was_dropped_is_read_from_the_disk() {
        // The build is on a disk that has a page cache and takes direct I/O where `/tmp` may not.
        let build = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir_in(build.parent().unwrap()).unwrap();
        let inner = directory.path().join("topic-0");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("0.log"), vec![7; 96 << 20]).unwrap();
        drop_page_cache(directory.path()).unwrap();
        let own = || fs::read_to_string("/proc/self/io").unwrap();
        let read_bytes = |io: &str| {
            let line = io.lines().find_map(|line| line.strip_prefix("read_bytes: "));
            line.unwrap().parse::<u64>().unwrap()
        };
        let before = read_bytes(&own());
        assert_eq!(fs::read(inner.join("0.log")).unwrap().len(), 96 << 20);
        assert!(read_bytes(&own()) - before >= 90 << 20, "the disk was read");
        let rate = read_rate(directory.path(), Duration::from_secs(1)).unwrap();
        assert!(rate.unwrap() > 1.0, "{rate:?}");
        fs::remove_file(inner.join("0.log")).unwrap();
        assert_eq!(read_rate(directory.path(), Duration::from_secs(1)).unwrap(), None);
    }
}

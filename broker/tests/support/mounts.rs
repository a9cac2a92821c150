//! Small file systems of their own, which can be full.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, id};

use super::leave_out;

/// Names carry the process: what one left behind that was killed goes when the next one mounts.
const NAME: &str = "vltava-mount-";

/// For as long as this lives.
pub struct Mounted(pub PathBuf);

impl Mounted {
    /// Below a directory, as `mount` takes it; `None`, said with its reason, where nothing can be
    /// mounted here.
    pub fn new(directory: &Path, arguments: &[&str], what: &str) -> Option<Self> {
        sweep();
        let path = directory.join(format!("{NAME}{}", id()));
        fs::create_dir(&path).expect("a directory to mount at");
        // Who is not root may be let mount, and not use it.
        let mounted = is_root()
            && Command::new("mount")
                .args(arguments)
                .arg(&path)
                .status()
                .is_ok_and(|status| status.success());
        if !mounted {
            leave_out(what, format_args!("nothing can be mounted here ({arguments:?})"));
            return None;
        }
        Some(Self(path))
    }

    /// A file system of so many bytes in a file of the directory.
    pub fn image(directory: &Path, bytes: u64, what: &str) -> Option<Self> {
        let image = directory.join("image");
        File::create(&image).expect("a file").set_len(bytes).expect("a sparse file");
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).status();
        if !made.is_ok_and(|status| status.success()) {
            leave_out(what, "mkfs.ext4 is missing");
            return None;
        }
        Self::new(directory, &["-o", "loop", &image.to_string_lossy()], what)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// What is free on the disk that holds a path.
pub fn free_bytes(path: &Path) -> u64 {
    let output = Command::new("df").args(["-B1", "--output=avail"]).arg(path).output();
    let said = String::from_utf8(output.expect("df says what is free").stdout);
    let said = said.expect("a table");
    said.lines().last().and_then(|line| line.trim().parse().ok()).expect("a number")
}

fn unmount(path: &Path) {
    drop(Command::new("umount").arg("--lazy").arg(path).status());
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("a number");
    output.stdout.starts_with(b"0\n")
}

/// Removes what processes left mounted that are no more.
fn sweep() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for path in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let process = path.rsplit_once(NAME).and_then(|(_, process)| process.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            unmount(Path::new(path));
        }
    }
}

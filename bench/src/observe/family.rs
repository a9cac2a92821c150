//! What a broker of several processes takes: one that was started by a command and all that it has
//! started in turn, such as the nodes of a cluster.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;

use crate::observe::process::{Process, Sample};

/// A process, and all that descend from it.
#[derive(Clone, Debug)]
pub struct Family {
    first: u32,
    /// Each that was ever seen, and what it had taken when it was seen last.
    seen: RefCell<BTreeMap<u32, (Process, Sample)>>,
}

impl Family {
    /// The family that begins with this process.
    pub fn new(first: u32) -> Self {
        Self { first, seen: RefCell::default() }
    }

    /// What they have taken together until now; who has ended counts with what was seen of it, and
    /// holds no memory.
    ///
    /// # Errors
    /// Where the first of them is gone.
    pub fn sample(&self) -> io::Result<Sample> {
        let mut seen = self.seen.borrow_mut();
        let mut living = Vec::new();
        let mut to_visit = vec![self.first];
        while let Some(pid) = to_visit.pop() {
            let known = seen.get(&pid).map(|(process, _)| process.clone());
            let process = known.unwrap_or_else(|| Process::new(pid));
            match process.sample() {
                Ok(sample) => {
                    seen.insert(pid, (process, sample));
                    living.push(pid);
                    to_visit.extend(children(pid));
                }
                Err(error) if pid == self.first => return Err(error),
                // It has ended since its parent named it.
                Err(_) => {}
            }
        }
        let all = seen.iter().map(|(pid, (_, sample))| match living.contains(pid) {
            true => sample.clone(),
            false => sample.without_memory(),
        });
        Ok(all.fold(Sample::default(), |sum, one| sum.with(&one)))
    }
}

/// The processes that this one has started and that live.
fn children(pid: u32) -> Vec<u32> {
    let mut children = Vec::new();
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return children };
    for thread in threads.flatten() {
        let names = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.extend(names.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    children
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test should say where")]

    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_a_child_takes_counts_also_when_it_has_ended() {
        // The child says that it has spent some time, and ends when it is told.
        let script = "sh -c 'i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done; echo; read x'; \
                      echo; read x";
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut input, mut output) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
        let family = Family::new(shell.id());
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap();
        let with_child = family.sample().unwrap();
        let alone = Process::new(shell.id()).sample().unwrap();
        assert!(with_child.cpu_s > 2.0 * alone.cpu_s, "{with_child:?} {alone:?}");
        assert!(with_child.memory_bytes > alone.memory_bytes, "{with_child:?} {alone:?}");
        input.write_all(b"\n").unwrap();
        output.read_exact(&mut byte).unwrap();
        let after = family.sample().unwrap();
        assert!(after.cpu_s >= with_child.cpu_s, "{after:?}");
        assert!(after.memory_bytes < with_child.memory_bytes, "{after:?}");
        input.write_all(b"\n").unwrap();
        assert!(shell.wait().unwrap().success());
        assert!(family.sample().is_err());
    }
}

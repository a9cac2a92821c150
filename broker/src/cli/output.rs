//! Standard output: buffered, for records as for tables.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::os::fd::AsFd;

use crate::runtime::is_hung_up;

/// Standard output for as long as a command runs.
pub(super) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    /// Takes standard output.
    pub(super) fn stdout() -> Self {
        Self(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// Whether a person looks at it.
    pub(super) fn is_terminal(&self) -> bool {
        self.0.get_ref().is_terminal()
    }

    /// Whether whoever read it has seen enough, and closed it.
    pub(super) fn is_closed(&self) -> bool {
        is_hung_up(self.0.get_ref().as_fd())
    }

    /// A line.
    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        self.0.write_all(line.as_bytes())?;
        self.0.write_all(b"\n")
    }

    /// Rows in columns as wide as their widest cell, the last one as it comes.
    pub(super) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
        let all = || std::iter::once(&head).chain(rows);
        let widths: Vec<usize> = (0..head.len())
            .map(|column| all().map(|row| width(row.get(column))).max().unwrap_or(0))
            .collect();
        for row in all() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            self.line(line.trim_end())?;
        }
        Ok(())
    }
}

fn width(cell: Option<&String>) -> usize {
    cell.map_or(0, |cell| cell.chars().count())
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A number of bytes as people say it.
pub(super) fn human_bytes(bytes: u64) -> String {
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].iter();
    let mut whole = bytes;
    let mut tenths = 0;
    let mut unit = units.next();
    while whole >= 1024
        && let Some(next) = units.next()
    {
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit = Some(next);
    }
    let unit = unit.unwrap_or(&"B");
    if *unit == "B" { format!("{whole} B") } else { format!("{whole}.{tenths} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::human_bytes;

    #[test]
    fn bytes_as_people_say_them() {
        for (bytes, said) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(human_bytes(bytes), said);
        }
    }
}

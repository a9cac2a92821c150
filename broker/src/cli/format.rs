//! Format strings for records, as kcat's `-f` has them.

use std::io::{self, Write};

use vltava_client::records::ConsumedRecord;

/// What a format string may hold; shown by `--help`.
pub(super) const HELP: &str = "How to print a record: %t topic, %p partition, %o offset, \
     %T timestamp (ms), %k key, %K its length, %s value, %S its length (-1: null), \
     %R that length as four bytes, %h headers, %% percent; \\n \\r \\t \\\\ \\xHH";

const LETTERS: &str = "there are %t %p %o %T %k %K %s %S %R %h %%, told by --help";

/// A format string, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pieces: Vec<Piece>,
    /// What stands for null.
    null: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    KeyLength,
    Value,
    ValueLength,
    ValueLengthBinary,
    Headers,
}

impl Format {
    /// Reads a format string.
    pub(super) fn parse(text: &str, null: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                '\\' => literal.push(escape(&mut rest)?),
                '%' => {
                    let letter = rest.next().ok_or("a % at the end; write %% for a percent")?;
                    if letter == '%' {
                        literal.push(b'%');
                        continue;
                    }
                    let piece = piece(letter)
                        .ok_or_else(|| format!("%{letter} stands for nothing; {LETTERS}"))?;
                    if !literal.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut literal)));
                    }
                    pieces.push(piece);
                }
                c => literal.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Self { pieces, null: null.as_bytes().to_vec() })
    }

    /// Writes a record.
    pub(super) fn write(
        &self,
        out: &mut impl Write,
        topic: &str,
        partition: i32,
        record: &ConsumedRecord<'_>,
    ) -> io::Result<()> {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.write_all(text)?,
                Piece::Topic => out.write_all(topic.as_bytes())?,
                Piece::Partition => write!(out, "{partition}")?,
                Piece::Offset => write!(out, "{}", record.offset)?,
                Piece::Timestamp => write!(out, "{}", record.timestamp)?,
                Piece::Key => out.write_all(record.key.unwrap_or(&self.null))?,
                Piece::KeyLength => write!(out, "{}", length(record.key))?,
                Piece::Value => out.write_all(record.value.unwrap_or(&self.null))?,
                Piece::ValueLength => write!(out, "{}", length(record.value))?,
                Piece::ValueLengthBinary => out.write_all(&length(record.value).to_be_bytes())?,
                Piece::Headers => self.write_headers(out, record)?,
            }
        }
        Ok(())
    }

    fn write_headers(&self, out: &mut impl Write, record: &ConsumedRecord<'_>) -> io::Result<()> {
        for (index, (key, value)) in record.headers.enumerate() {
            if index > 0 {
                out.write_all(b",")?;
            }
            out.write_all(key)?;
            out.write_all(b"=")?;
            out.write_all(value.unwrap_or(&self.null))?;
        }
        Ok(())
    }
}

fn piece(letter: char) -> Option<Piece> {
    Some(match letter {
        't' => Piece::Topic,
        'p' => Piece::Partition,
        'o' => Piece::Offset,
        'T' => Piece::Timestamp,
        'k' => Piece::Key,
        'K' => Piece::KeyLength,
        's' => Piece::Value,
        'S' => Piece::ValueLength,
        'R' => Piece::ValueLengthBinary,
        'h' => Piece::Headers,
        _ => return None,
    })
}

/// What stands behind a backslash, as a byte.
fn escape(rest: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match rest.next() {
        Some('n') => Ok(b'\n'),
        Some('r') => Ok(b'\r'),
        Some('t') => Ok(b'\t'),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = rest.by_ref().take(2).collect();
            let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2);
            byte.ok_or_else(|| format!("\\x{digits} is no byte; write two digits, as \\x1f"))
        }
        Some(c) => Err(format!("\\{c} stands for nothing; there are \\n \\r \\t \\\\ \\xHH")),
        None => Err(String::from("a \\ at the end; write \\\\ for a backslash")),
    }
}

/// A text in which backslashes stand for bytes, as a separator on the command line.
pub(super) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => out.push(escape(&mut rest)?),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(out)
}

fn length(field: Option<&[u8]>) -> i32 {
    // A record is never larger than an i32 can say.
    field.map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {

    use std::ops::ControlFlow;

    use vltava_client::records::for_each_record;
    use vltava_protocol::batch_builder::BatchBuilder;
    use vltava_protocol::compression::Decompressor;

    use super::*;

    fn shown(format: &str, key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<u8> {
        let format = Format::parse(format, "NULL").unwrap();
        let mut builder = BatchBuilder::new().position(42, 0);
        builder.append(1234, key, value, &[(b"a", Some(b"1")), (b"b", None)]).unwrap();
        let mut out = Vec::new();
        let flow = for_each_record(&builder.build(), 0, &mut Decompressor::new(), |record| {
            format.write(&mut out, "topic", 3, &record).unwrap();
            ControlFlow::Continue(())
        });
        assert_eq!(flow.unwrap(), ControlFlow::Continue(()));
        out
    }

    #[test]
    fn records_are_shown_as_kcat_shows_them() {
        let all = shown(r"%t[%p]@%o %T %k/%K %s/%S %h%%\t\x41\n", Some(b"key"), Some(b"value"));
        assert_eq!(all, b"topic[3]@42 1234 key/3 value/5 a=1,b=NULL%\tA\n");
        assert_eq!(shown("%k/%K %s/%S", None, None), b"NULL/-1 NULL/-1");
        assert_eq!(shown("%R", None, Some(b"12345")), [0, 0, 0, 5]);
        assert_eq!(shown("é", None, None), "é".as_bytes());
    }

    #[test]
    fn what_stands_for_nothing_is_refused() {
        for format in ["%", "%x", "\\", "\\q", "\\x", "\\x1", "\\xzz"] {
            assert!(Format::parse(format, "").is_err(), "{format}");
        }
        assert_eq!(unescape(r"a\t\x00b").unwrap(), b"a\t\0b");
    }
}

//! Java's `.properties` syntax, as Kafka's own files use it.

/// One setting of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Its name, without escapes.
    pub name: String,
    /// Its value, without escapes; white space at its end is kept.
    pub value: String,
    /// The line it begins on, from 1.
    pub line: usize,
}

/// A file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\\u must be followed by four hexadecimal digits")]
pub struct SyntaxError {
    /// Where, from 1.
    pub line: usize,
}

/// Every setting, in order. A name that stands twice comes twice; the later one counts.
///
/// `#` and `!` begin a comment line; a backslash at the end continues a line, and the white space
/// that begins the next is dropped; `=`, `:` or white space ends a name; `\t`, `\n`, `\r`, `\f` and
/// `\uXXXX` mean what they mean in Java.
pub fn parse(text: &str) -> Result<Vec<Property>, SyntaxError> {
    let mut properties = Vec::new();
    for (line, logical) in logical_lines(text) {
        let (name, value) = split(&logical);
        properties.push(Property {
            name: unescape(name, line)?,
            value: unescape(value, line)?,
            line,
        });
    }
    Ok(properties)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// Lines with their continuations, without comments and blank lines; each with the number of its
/// first line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut logical: Vec<(usize, String)> = Vec::new();
    let mut continues = false;
    // "\r\n" is one end of line: `lines` takes care of it, a lone "\r" is made one here.
    for (index, line) in text.lines().flat_map(|line| line.split('\r')).enumerate() {
        let content = line.trim_start_matches(is_blank);
        if !continues && (content.is_empty() || content.starts_with(['#', '!'])) {
            continue;
        }
        let backslashes = content.chars().rev().take_while(|c| *c == '\\').count();
        let ends_open = backslashes % 2 == 1;
        let kept = if ends_open { &content[..content.len() - 1] } else { content };
        match logical.last_mut() {
            Some((_, text)) if continues => text.push_str(kept),
            _ => logical.push((index + 1, kept.to_string())),
        }
        continues = ends_open;
    }
    logical
}

/// Name and value, both with their escapes.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let mut name_end = line.len();
    for (at, c) in line.char_indices() {
        if !escaped && (is_blank(c) || c == '=' || c == ':') {
            name_end = at;
            break;
        }
        escaped = c == '\\' && !escaped;
    }
    let (name, rest) = line.split_at(name_end);
    let rest = rest.trim_start_matches(is_blank);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (name, value.trim_start_matches(is_blank))
}

fn unescape(text: &str, line: usize) -> Result<String, SyntaxError> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    // Java writes characters beyond 16 bits as two escapes.
    let mut high_surrogate: Option<u32> = None;
    while let Some(c) = chars.next() {
        let unit = match c {
            '\\' => match chars.next() {
                Some('u') => hex_unit(&mut chars).ok_or(SyntaxError { line })?,
                Some('t') => u32::from('\t'),
                Some('n') => u32::from('\n'),
                Some('r') => u32::from('\r'),
                Some('f') => 0xc,
                Some(other) => u32::from(other),
                None => continue,
            },
            other => u32::from(other),
        };
        match (high_surrogate.take(), unit) {
            (Some(high), 0xdc00..=0xdfff) => {
                let scalar = 0x1_0000 + ((high - 0xd800) << 10) + (unit - 0xdc00);
                plain.push(char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            (lone, 0xd800..=0xdbff) => {
                plain.extend(lone.map(|_| char::REPLACEMENT_CHARACTER));
                high_surrogate = Some(unit);
            }
            (lone, _) => {
                plain.extend(lone.map(|_| char::REPLACEMENT_CHARACTER));
                plain.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
        }
    }
    plain.extend(high_surrogate.map(|_| char::REPLACEMENT_CHARACTER));
    Ok(plain)
}

fn hex_unit(chars: &mut std::str::Chars<'_>) -> Option<u32> {
    let mut unit = 0;
    for _ in 0..4 {
        unit = unit * 16 + chars.next()?.to_digit(16)?;
    }
    Some(unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().map(|p| (p.name, p.value)).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_string(), value.to_string())
    }

    #[test]
    fn separators_and_comments() {
        let text = "# comment\n! too\n\n  \t\na=1\nb:2\nc 3\n d = 4\ne\t:\t5 \nf\ng==x\n";
        let expected = [
            pair("a", "1"),
            pair("b", "2"),
            pair("c", "3"),
            pair("d", "4"),
            pair("e", "5 "),
            pair("f", ""),
            pair("g", "=x"),
        ];
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn continuations() {
        let text = "listeners=A://:1,\\\n    B://:2,\\\r\n\t# not a comment\nnext=1\\\\\nlast=x\\";
        let expected = [
            pair("listeners", "A://:1,B://:2,# not a comment"),
            pair("next", "1\\"),
            pair("last", "x"),
        ];
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn escapes() {
        let text = r"a\ b\=c=\tx\n\u00e9\uD83D\uDE00\q".to_string() + "\r" + r"k=\uD83D.";
        let expected = [pair("a b=c", "\tx\né😀q"), pair("k", "\u{fffd}.")];
        assert_eq!(pairs(&text), expected);
        assert_eq!(parse("x=1\ny=\\u12"), Err(SyntaxError { line: 2 }));
        assert_eq!(parse("y=\\u12g4"), Err(SyntaxError { line: 1 }));
    }

    #[test]
    fn lines_are_counted_from_one() {
        let parsed = parse("# one\na=1,\\\n2\n\nb=1\n").unwrap();
        assert_eq!(parsed.iter().map(|p| p.line).collect::<Vec<_>>(), [2, 5]);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(?s).{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn hostile_escapes_do_not_panic(text in "[\\\\u=: \\n\\rdD8cC0-9a]{0,80}") {
            let _ = parse(&text);
        }
    }
}

//! One Rust file, taken apart: its code without comments and strings, and which lines are tests.

use std::ops::Range;

/// A file and what the checks ask of it.
pub struct Source {
    /// Relative to the repository's root.
    pub path: String,
    /// As it was read.
    pub text: String,
    /// The same bytes with everything inside comments, strings and characters blanked.
    pub code: String,
    /// Byte ranges of what is compiled for unit tests only.
    tests: Vec<Range<usize>>,
    line_starts: Vec<usize>,
}

impl Source {
    pub fn new(path: String, text: String) -> Self {
        let code = strip(&text);
        let mut line_starts = vec![0];
        line_starts.extend(text.match_indices('\n').map(|(at, _)| at + 1));
        let mut source = Self { path, text, code, tests: Vec::new(), line_starts };
        source.tests = source.find_tests();
        source
    }

    /// Whether the whole file is tests or the harness of tests.
    pub fn is_test_file(&self) -> bool {
        let in_folder = |name: &str| self.path.split('/').any(|part| part == name);
        self.path.ends_with("/tests.rs") || in_folder("tests") || in_folder("benches")
    }

    /// Whether the byte at this place is compiled for tests only.
    pub fn is_test(&self, at: usize) -> bool {
        self.is_test_file() || self.tests.iter().any(|range| range.contains(&at))
    }

    /// The line, counted from 1, of the byte at this place.
    pub fn line_of(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }

    /// Lines of the text with their numbers from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Lines that hold code which is not for tests.
    pub fn logic_lines(&self) -> usize {
        let starts = self.line_starts.iter().zip(self.code.lines());
        starts.filter(|(start, line)| !line.trim().is_empty() && !self.is_test(**start)).count()
    }

    /// Lines of unit tests in this file.
    pub fn test_lines(&self) -> usize {
        let lines = |range: &Range<usize>| self.line_of(range.end) + 1 - self.line_of(range.start);
        self.tests.iter().map(lines).sum()
    }

    /// Places of a whole word in the code.
    pub fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let bytes = self.code.as_bytes();
        self.code.match_indices(word).map(|(at, _)| at).filter(move |at| {
            let before = at.checked_sub(1).map(|index| bytes[index]);
            let after = bytes.get(at + word.len()).copied();
            ![before, after].into_iter().flatten().any(is_word)
        })
    }

    /// The function that begins at each `fn` with a body: its name and the bytes from `fn` to the
    /// closing brace.
    pub fn functions(&self) -> Vec<(&str, Range<usize>)> {
        let mut functions = Vec::new();
        for at in self.words("fn") {
            let name = identifier(self.code[at + 2..].trim_start());
            let Some(end) = self.end_of_item(at) else {
                continue;
            };
            if !name.is_empty() && self.code.as_bytes()[end - 1] == b'}' {
                functions.push((name, at..end));
            }
        }
        functions
    }

    /// Behind the `;` or the closing brace of the item that starts here.
    fn end_of_item(&self, from: usize) -> Option<usize> {
        let (mut depth, mut braces) = (0usize, false);
        for (offset, byte) in self.code.as_bytes()[from..].iter().enumerate() {
            match byte {
                b'{' | b'(' | b'[' => {
                    braces |= *byte == b'{' && depth == 0;
                    depth += 1;
                }
                b'}' | b')' | b']' => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 && *byte == b'}' && braces {
                        return Some(from + offset + 1);
                    }
                }
                b';' if depth == 0 => return Some(from + offset + 1),
                _ => {}
            }
        }
        None
    }

    fn find_tests(&self) -> Vec<Range<usize>> {
        let mut tests: Vec<Range<usize>> = Vec::new();
        for (at, _) in self.code.match_indices("#[cfg(") {
            let Some(close) = self.code[at..].find(")]") else {
                continue;
            };
            let condition = &self.code[at + 6..at + close];
            let for_tests = condition == "test" || condition.starts_with("all(test,");
            if !for_tests || tests.last().is_some_and(|range| range.contains(&at)) {
                continue;
            }
            // `use` and declarations end at `;`, everything else with its braces.
            if let Some(end) = self.end_of_item(at + close + 2) {
                tests.push(at..end);
            }
        }
        tests
    }
}

/// The identifier that the text begins with; empty where there is none.
pub fn identifier(text: &str) -> &str {
    let end = text.bytes().position(|byte| !is_word(byte)).unwrap_or(text.len());
    &text[..end]
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Blanks comments, strings and characters, byte for byte; line ends stay.
fn strip(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = end_of_blank(bytes, at);
        if end > at {
            for byte in &mut code[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
            at = end;
        } else {
            at += 1;
        }
    }
    // Bytes of a character outside ASCII stand in comments and strings only, or stay whole.
    String::from_utf8_lossy(&code).into_owned()
}

/// Where the comment, string or character that begins here ends; `at` where none begins.
fn end_of_blank(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after_word = at > 0 && is_word(bytes[at - 1]);
    let find = |from: usize, needle: &[u8]| {
        let found = rest[from..].windows(needle.len()).position(|window| window == needle);
        found.map_or(bytes.len(), |index| at + from + index)
    };
    match rest {
        [b'/', b'/', ..] => find(2, b"\n"),
        [b'/', b'*', ..] => end_of_comment(bytes, at),
        [b'"', ..] => end_of_quoted(bytes, at + 1, b'"'),
        [b'b' | b'c', b'"', ..] if !after_word => end_of_quoted(bytes, at + 2, b'"'),
        [b'b', b'\'', ..] if !after_word => end_of_quoted(bytes, at + 2, b'\''),
        [b'r', b'"' | b'#', ..] | [b'b' | b'c', b'r', b'"' | b'#', ..] if !after_word => {
            let prefix = if rest[0] == b'r' { 1 } else { 2 };
            let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(prefix + hashes) != Some(&b'"') {
                return at; // a raw identifier
            }
            let mut close = vec![b'"'];
            close.resize(1 + hashes, b'#');
            (find(prefix + hashes + 1, &close) + close.len()).min(bytes.len())
        }
        [b'\'', b'\\', ..] => end_of_quoted(bytes, at + 1, b'\''),
        [b'\'', ..] => {
            // A character, or else a lifetime: a character closes behind one UTF-8 sequence.
            let width = rest.get(1).map_or(1, |first| match first {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            });
            if rest.get(1 + width) == Some(&b'\'') { at + width + 2 } else { at }
        }
        _ => at,
    }
}

fn end_of_quoted(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn end_of_comment(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

#[test]
fn comments_strings_and_characters_are_blanked() {
    let cases = [
        ("a // unsafe\nb", "a          \nb"),
        ("a /* x /* y */ z */ b", "a                   b"),
        (r#"f("unsafe \" {", 1)"#, "f(             , 1)"),
        ("r#\"a\"b\"# x", "         x"),
        ("br\"a\\\" x", "       x"),
        ("'{' 'a b'\\'' 'é'", "    'a      "),
        ("r#type", "r#type"),
    ];
    for (text, expected) in cases {
        let code = strip(text);
        assert_eq!(code.len(), text.len(), "{text}");
        assert_eq!(code.trim_end(), expected.trim_end(), "{text}");
    }
}

#[test]
fn test_parts_and_functions_are_found() {
    let text = "fn a() {\n  x();\n}\n#[cfg(test)]\nuse q;\n#[cfg(test)]\nmod tests {\n\
                fn b() {}\n}\nfn c<T>(x: [u8; 4]);\n";
    let source = Source::new("broker/src/x.rs".into(), text.into());
    let names: Vec<_> = source.functions().iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(source.logic_lines(), 4);
    assert_eq!(source.test_lines(), 6);
    assert!(source.is_test(text.find("fn b").unwrap()));
    assert!(!source.is_test(text.find("fn c").unwrap()));
}

//! JSON for scripts: objects on one line each.

use std::fmt::{Display, Write};

/// An object that is being written.
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self(String::from("{"))
    }

    /// A member that is JSON already.
    pub(super) fn raw(mut self, name: &str, json: impl Display) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&string(name));
        // Writing into a `String` cannot fail.
        let _ = write!(self.0, ":{json}");
        self
    }

    pub(super) fn text(self, name: &str, value: &str) -> Self {
        let value = string(value);
        self.raw(name, value)
    }

    pub(super) fn optional_text(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self.raw(name, "null"),
        }
    }

    /// Bytes: as text where they are UTF-8, else base64 under a name that says so.
    pub(super) fn bytes(self, name: &str, value: Option<&[u8]>) -> Self {
        match value.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            None => self.raw(name, "null"),
            Some((_, Ok(text))) => self.text(name, text),
            Some((bytes, Err(_))) => self.text(&format!("{name}_base64"), &base64(bytes)),
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// An array of what is JSON already.
pub(super) fn array(items: impl IntoIterator<Item = impl Display>) -> String {
    let mut out = String::from("[");
    for item in items {
        if out.len() > 1 {
            out.push(',');
        }
        let _ = write!(out, "{item}");
    }
    out.push(']');
    out
}

/// A string with its quotes.
pub(super) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Base64 with padding (RFC 4648).
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_usize, |group, byte| group << 8 | usize::from(*byte));
        let group = group << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                out.push(char::from(DIGITS[group >> (18 - 6 * place) & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_json() {
        let object = Object::new()
            .text("a\"b", "line\nend\\ \u{1} é")
            .raw("n", -5)
            .optional_text("none", None)
            .bytes("key", Some(b"k"))
            .bytes("value", Some(&[0xff, 0xfe]))
            .raw("list", array([1, 2]));
        let expected = [
            r#"{"a\"b":"line\nend\\ \u0001 é","n":-5,"none":null"#,
            r#""key":"k","value_base64":"//4=","list":[1,2]}"#,
        ];
        assert_eq!(object.finish(), expected.join(","));
        assert_eq!(array(Vec::<i32>::new()), "[]");
    }

    /// The test vectors of RFC 4648.
    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}

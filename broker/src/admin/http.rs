//! As much of HTTP/1.1 as a scraper and a person with a browser need: GET, HEAD and POST, one
//! request a connection. What is posted stands in the path. Pure.

use bytes::Bytes;

/// Bytes that the head of a request may have.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Header lines that it may have.
const HEADERS_MAX: usize = 64;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads a page.
    Get,
    /// The same; the answer has no body.
    Head,
    /// Changes something.
    Post,
}

/// A request, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for, without the query.
    pub path: String,
    /// What it does.
    pub method: Method,
}

/// Statuses that are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "HTTP's own words")]
pub enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    RequestHeaderFieldsTooLarge,
    ServiceUnavailable,
}

impl Status {
    /// Number and words.
    pub fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::RequestTimeout => "408 Request Timeout",
            Self::RequestHeaderFieldsTooLarge => "431 Request Header Fields Too Large",
            Self::ServiceUnavailable => "503 Service Unavailable",
        }
    }
}

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a head.
    Incomplete,
    /// A request.
    Complete(Request),
    /// Nothing that is served.
    Refused(Status),
}

/// Reads the head of a request.
pub fn parse(received: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(received) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if received.len() < HEAD_BYTES_MAX => {
            return Parsed::Incomplete;
        }
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Refused(Status::RequestHeaderFieldsTooLarge);
        }
        Err(_) => return Parsed::Refused(Status::BadRequest),
    }
    let method = match request.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("POST") => Method::Post,
        _ => return Parsed::Refused(Status::MethodNotAllowed),
    };
    let target = request.path.unwrap_or_default();
    let path = target.split(['?', '#']).next().unwrap_or_default();
    Parsed::Complete(Request { path: path.to_owned(), method })
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// How it went.
    pub status: Status,
    /// The media type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Response {
    /// Plain text.
    pub fn text(status: Status, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// A status in its own words.
    pub fn of_status(status: Status) -> Self {
        Self::text(status, format!("{}\n", status.line()))
    }

    /// The answer on the wire. HEAD gets the head of what GET gets.
    pub fn into_parts(self, is_head: bool) -> Vec<Bytes> {
        let allow = match self.status {
            Status::MethodNotAllowed => "Allow: GET, HEAD, POST\r\n",
            _ => "",
        };
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n\r\n",
            self.status.line(),
            self.content_type,
            self.body.len(),
        );
        let mut parts = vec![Bytes::from(head)];
        if !is_head && !self.body.is_empty() {
            parts.push(Bytes::from(self.body));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn complete(path: &str, method: Method) -> Parsed {
        let path = path.to_owned();
        Parsed::Complete(Request { path, method })
    }

    #[test]
    fn requests_are_read() {
        let get = b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
        assert_eq!(parse(get), complete("/metrics", Method::Get));
        assert_eq!(parse(b"HEAD / HTTP/1.0\r\n\r\nmore"), complete("/", Method::Head));
        let post = b"POST /shards/1/t/0 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx";
        assert_eq!(parse(post), complete("/shards/1/t/0", Method::Post));
        for length in 0..get.len() {
            assert_eq!(parse(&get[..length]), Parsed::Incomplete, "{length}");
        }
    }

    #[test]
    fn others_are_refused() {
        let refused = |bytes: &[u8]| match parse(bytes) {
            Parsed::Refused(status) => status,
            other => panic!("{other:?}"),
        };
        let delete = b"DELETE /metrics HTTP/1.1\r\n\r\n";
        assert_eq!(refused(delete), Status::MethodNotAllowed);
        assert_eq!(refused(b"\x16\x03\x01\x02\x00\x01"), Status::BadRequest);
        assert_eq!(refused(b"\0\0\0\x10\0\x12\0\0"), Status::BadRequest);
        assert_eq!(refused(b"GET / HTTP/9.9\r\n\r\n"), Status::BadRequest);
        let long = [b"GET /".as_slice(), &[b'a'; HEAD_BYTES_MAX]].concat();
        assert_eq!(refused(&long), Status::RequestHeaderFieldsTooLarge);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        assert_eq!(refused(many.as_bytes()), Status::RequestHeaderFieldsTooLarge);
    }

    #[test]
    fn answers_say_how_long_they_are() {
        let text = |response: Response, is_head| {
            let parts = response.into_parts(is_head).concat();
            String::from_utf8_lossy(&parts).into_owned()
        };
        let response = Response::text(Status::Ok, "žluť\n");
        let get = text(response.clone(), false);
        assert!(get.starts_with("HTTP/1.1 200 OK\r\n"), "{get}");
        assert!(get.contains("\r\nContent-Length: 7\r\n"), "{get}");
        assert!(get.ends_with("\r\n\r\nžluť\n"), "{get}");
        assert_eq!(text(response, true), get.trim_end_matches("žluť\n"));
        let refused = text(Response::of_status(Status::MethodNotAllowed), false);
        assert!(refused.contains("\r\nAllow: GET, HEAD, POST\r\n"), "{refused}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _any = parse(&bytes);
        }
    }
}

//! The Common and the Combined Log Format, as nginx and Apache write them.
//!
//! A line reads `host identity user [time] "METHOD path HTTP/x" status bytes`, and in the Combined format the referrer
//! and the user agent after it. The key is the method and the path with its query, such as `GET /a?b=c`. Lines that are
//! truncated or hold no request, like the `-` of a closed connection, are counted and skipped.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

use regex::bytes::Regex;

use super::{Sink, excerpt};
use crate::{error::Problem, open::Source};

/// A line of either format up to its size field; the request is the first group. A virtual host may come first.
static LINE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?-u)^\S+ \S+ .*?\[[^\]"]+\] "((?:[^"\\]|\\.)*)" \d{3} (?:\d+|-)(?:\s|$)"#)
        .expect("a valid expression")
});

/// A request: the method, the path, and the version, which HTTP/0.9 leaves out.
static REQUEST: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?-u)^([A-Z][A-Z_-]*) +(\S.*?)(?: +HTTP/\d(?:\.\d)?)? *$")
        .expect("a valid expression")
});

/// Reads a whole log into `sink`; equal keys share one string.
///
/// # Errors
///
/// When no line holds a request, or the file is damaged.
pub fn read(source: &mut Source, sink: &mut Sink<Arc<str>>) -> Result<(), Problem> {
    let mut line = Vec::new();
    let mut known = HashSet::new();
    let mut first_other = None;
    while !sink.is_full() {
        let Some(place) = source.line(&mut line)? else {
            break;
        };
        if let Some(key) = key(&line) {
            sink.push(intern(&mut known, key));
        } else if !line.trim_ascii().is_empty() {
            sink.skip();
            first_other.get_or_insert_with(|| (place, excerpt(&line)));
        }
    }
    match first_other {
        Some((place, found)) if sink.is_empty() => {
            let expected = "expected `host identity user [time] \"METHOD path HTTP/x\" status bytes` on some line";
            Err(Problem::new(
                place,
                format!("{expected}, found none, first {found}"),
            ))
        }
        _ => Ok(()),
    }
}

/// The method and path on a line, `None` where there is no request.
fn key(line: &[u8]) -> Option<String> {
    let request = LINE.captures(line)?.get(1)?.as_bytes();
    let parts = REQUEST.captures(request)?;
    let part = |index| {
        parts
            .get(index)
            .map(|part| String::from_utf8_lossy(part.as_bytes()))
    };
    Some(format!("{} {}", part(1)?, part(2)?))
}

/// The one shared string equal to `key`.
fn intern(known: &mut HashSet<Arc<str>>, key: String) -> Arc<str> {
    if let Some(shared) = known.get(key.as_str()) {
        return Arc::clone(shared);
    }
    let shared: Arc<str> = key.into();
    known.insert(Arc::clone(&shared));
    shared
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read_each_cut, read_limited};
    use super::*;

    /// Makes a line with the request `request`.
    fn line(request: &str) -> String {
        format!(r#"203.0.113.7 - - [10/Oct/2025:13:55:36 +0000] "{request}" 200 2326"#)
    }

    #[test]
    fn reads_requests() {
        for (request, expected) in [
            ("GET / HTTP/1.0", Some("GET /")),
            ("GET /a?b=c HTTP/2.0", Some("GET /a?b=c")),
            ("GET /a HTTP/2", Some("GET /a")),
            ("M-SEARCH * HTTP/1.1", Some("M-SEARCH *")),
            ("GET /old", Some("GET /old")),
            ("GET /a b HTTP/1.1", Some("GET /a b")),
            (r#"GET /say?\"hi\" HTTP/1.1"#, Some(r#"GET /say?\"hi\""#)),
            (r"GET /back\\slash\\ HTTP/1.1", Some(r"GET /back\\slash\\")),
            ("-", None),
            ("", None),
            ("GET", None),
            ("GET ", None),
            (r"\x16\x03\x01", None),
        ] {
            assert_eq!(
                key(line(request).as_bytes()).as_deref(),
                expected,
                "{request}"
            );
        }
    }

    #[test]
    fn reads_every_shape_of_line() {
        for text in [
            r#"::1 - - [10/Oct/2025:13:55:36 +0000] "GET /x HTTP/1.1" 304 -"#,
            r#"2001:db8::5 - ann [10/Oct/2025:13:55:36 +0000] "GET /x HTTP/1.1" 200 5 "-" "Agent \"7\" [x]""#,
            r#"www.example.org:80 192.0.2.1 - - [10/Oct/2025:13:55:36 +0000] "GET /x HTTP/1.1" 200 5 "http://e/" "A""#,
            r#"[::1] - ann lee [10/Oct/2025:13:55:36 +0000] "GET /x HTTP/1.1" 200 5"#,
            r#"h - - [10/Oct/2025:13:55:36 +0000] "GET /x HTTP/1.1" 200 5 "-" "A" 0.001 upstream"#,
        ] {
            assert_eq!(key(text.as_bytes()).as_deref(), Some("GET /x"), "{text}");
        }
    }

    #[test]
    fn skips_what_is_no_request() {
        let log = [
            line("-"),
            line("GET /a HTTP/1.1"),
            "rubbish".into(),
            String::new(),
            line("GET /a HTTP/1.1"),
        ];
        let sink = read_limited(read, log.join("\n").as_bytes(), usize::MAX).expect("two requests");
        assert_eq!(sink.skipped(), 2);
        let accesses = sink.into_accesses();
        assert_eq!(accesses, ["GET /a".into(), "GET /a".into()]);
        assert!(Arc::ptr_eq(&accesses[0], &accesses[1]));
    }

    #[test]
    fn a_log_without_requests_is_wrong() {
        let error = read_limited(read, b"1\n2\n", usize::MAX).expect_err("numbers");
        assert!(
            error.starts_with("line 1 (byte 0): expected `host identity user"),
            "{error}"
        );
        assert!(error.ends_with("found none, first `1`"), "{error}");
    }

    #[test]
    fn no_cut_panics() {
        let log = [line("GET /a HTTP/1.1"), line(r#"POST /\"b\xff HTTP/1.1"#)].join("\r\n")
            + r#" "-" "A \" B""#;
        let results = read_each_cut(read, log.as_bytes());
        assert_eq!(results.last(), Some(&Ok(2)));
        assert!(results[0].is_err());
    }

    #[test]
    fn bytes_that_are_no_text_are_read() {
        let log = [
            line("GET /a").into_bytes(),
            line("GET /\u{e9}").into_bytes(),
        ]
        .join(&b"\n"[..]);
        let broken: Vec<u8> = log.into_iter().filter(|&byte| byte != 0xA9).collect();
        let sink = read_limited(read, &broken, usize::MAX).expect("two requests");
        assert_eq!(sink.into_accesses()[1].as_ref(), "GET /\u{fffd}");
    }
}

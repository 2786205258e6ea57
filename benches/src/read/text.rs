//! One decimal key per line; a line that is not a number, such as a `*` mark, is skipped.

use super::{Sink, excerpt};
use crate::{
    error::{Place, Problem},
    open::Source,
};

/// Reads a whole log into `sink`.
///
/// # Errors
///
/// When no line is a number, a number does not fit into 64 bits, or the file is damaged.
pub fn read(source: &mut Source, sink: &mut Sink<u64>) -> Result<(), Problem> {
    let mut line = Vec::new();
    let mut first_other = None;
    while !sink.is_full() {
        let Some(place) = source.line(&mut line)? else {
            break;
        };
        if let Some(key) = key(&line, place)? {
            sink.push(key);
        } else if !line.trim_ascii().is_empty() {
            sink.skip();
            first_other.get_or_insert_with(|| (place, excerpt(&line)));
        }
    }
    match first_other {
        Some((place, found)) if sink.is_empty() => {
            let message =
                format!("expected a decimal number on some line, found none, first {found}");
            Err(Problem::new(place, message))
        }
        _ => Ok(()),
    }
}

/// The key on a line, `None` for a line that is not a number.
fn key(line: &[u8], place: Place) -> Result<Option<u64>, Problem> {
    let digits = line.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Ok(None);
    }
    let number = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok());
    let too_large = || {
        Problem::new(
            place,
            format!("expected a number below 2^64, found {}", excerpt(line)),
        )
    };
    number.map(Some).ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read_each_cut, read_limited};
    use super::*;

    #[test]
    fn other_lines_are_skipped() {
        let sink = read_limited(read, b"5\n*\n 6 \r\n\n-1\n5", usize::MAX).expect("some numbers");
        assert_eq!(sink.skipped(), 2);
        assert_eq!(sink.into_accesses(), [5, 6, 5]);
    }

    #[test]
    fn a_log_without_numbers_is_wrong() {
        let error =
            read_limited(read, b"\n1 2 3 4\nx\n", usize::MAX).expect_err("no line is one number");
        assert_eq!(
            error,
            "line 2 (byte 1): expected a decimal number on some line, found none, first `1 2 3 4`"
        );
    }

    #[test]
    fn a_number_too_large_is_wrong() {
        let error = read_limited(read, b"1\n18446744073709551616\n", usize::MAX).expect_err("2^64");
        assert!(
            error.starts_with("line 2 (byte 2): expected a number below 2^64"),
            "{error}"
        );
    }

    #[test]
    fn no_cut_panics() {
        let results = read_each_cut(read, b"12\n*\n345\r\n*");
        assert!(results.iter().all(Result::is_ok));
        assert!(read_each_cut(read, b"*\xff\x00").iter().all(Result::is_err));
    }
}

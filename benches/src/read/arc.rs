//! ARC `.lis` lines: `first_block block_count ignored request_number`.
//!
//! A line reads the blocks `first_block .. first_block + block_count`, each block one access.

use super::{Sink, excerpt};
use crate::{error::Problem, open::Source};

/// A request for more blocks than this is taken for a damaged line.
const MAX_BLOCKS: u64 = 1 << 24;

/// Reads a whole log into `sink`.
///
/// # Errors
///
/// When a line is none of a `.lis` file, or the file is damaged.
pub fn read(source: &mut Source, sink: &mut Sink<u64>) -> Result<(), Problem> {
    let mut line = Vec::new();
    while !sink.is_full() {
        let Some(place) = source.line(&mut line)? else {
            break;
        };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let Some((first, end)) = blocks(&line) else {
            let expected = "expected `first_block block_count ignored request_number`";
            return Err(Problem::new(
                place,
                format!("{expected}, found {}", excerpt(&line)),
            ));
        };
        sink.extend(first..end);
    }
    Ok(())
}

/// The first block of a request, and the one after its last.
fn blocks(line: &[u8]) -> Option<(u64, u64)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line
        .split_ascii_whitespace()
        .map(|field| field.parse::<u64>().ok());
    let first = fields.next()??;
    let count = fields.next()??;
    let (_ignored, _request) = (fields.next()??, fields.next()??);
    if count > MAX_BLOCKS || fields.next().is_some() {
        return None;
    }
    Some((first, first.checked_add(count)?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read_each_cut, read_limited};
    use super::*;

    const LOG: &[u8] = b"10 3 0 0\n7 1 0 1\r\n\n10 2 0 2\n";

    #[test]
    fn each_block_is_an_access() {
        let all = read_limited(read, LOG, usize::MAX).expect("a good log");
        assert_eq!(all.into_accesses(), [10, 11, 12, 7, 10, 11]);
        let two = read_limited(read, LOG, 2).expect("a good log");
        assert_eq!(two.into_accesses(), [10, 11]);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (wrong, line) in [
            ("7 1 0 1 5", 2),
            ("7 1", 2),
            ("x 1 0 1", 2),
            ("1 99999999999 0 1", 2),
            ("-1 1 0 1", 2),
        ] {
            let log = format!("10 3 0 0\n{wrong}\n");
            let error = read_limited(read, log.as_bytes(), usize::MAX).expect_err(wrong);
            assert!(
                error.starts_with(&format!("line {line} (byte 9): expected `first_block")),
                "{error}"
            );
        }
        assert!(read_limited(read, b"18446744073709551615 2 0 0", usize::MAX).is_err());
    }

    #[test]
    fn no_cut_panics() {
        for (index, result) in read_each_cut(read, LOG).into_iter().enumerate() {
            let cut = std::str::from_utf8(&LOG[..=index]).expect("text");
            let last = cut.split('\n').next_back().unwrap_or_default();
            let whole = [0, 4].contains(&last.split_ascii_whitespace().count());
            assert_eq!(result.is_ok(), whole, "{cut:?}: {result:?}");
        }
    }
}

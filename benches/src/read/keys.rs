//! Binary logs: bare 32-bit or 64-bit keys, and the records of oracleGeneral.

use super::Sink;
use crate::{error::Problem, open::Source};

/// Reads 32-bit keys into `sink`.
///
/// # Errors
///
/// When the last key is truncated, or the file is damaged.
pub fn read_u32(source: &mut Source, sink: &mut Sink<u64>) -> Result<(), Problem> {
    while !sink.is_full() {
        let Some(record) = source.record()? else {
            break;
        };
        sink.push(u32::from_le_bytes(record).into());
    }
    Ok(())
}

/// Reads 64-bit keys into `sink`.
///
/// # Errors
///
/// When the last key is truncated, or the file is damaged.
pub fn read_u64(source: &mut Source, sink: &mut Sink<u64>) -> Result<(), Problem> {
    while !sink.is_full() {
        let Some(record) = source.record()? else {
            break;
        };
        sink.push(u64::from_le_bytes(record));
    }
    Ok(())
}

/// The next access of a record is counted in accesses, so no log reaches this many.
const MAX_NEXT: i64 = 1 << 48;

/// Reads the keys of oracleGeneral records into `sink`: little-endian `u32 seconds, u64 key, u32 size,
/// i64 next_access`.
///
/// # Errors
///
/// When a record is truncated or not of this format, or the file is damaged.
pub fn read_oracle(source: &mut Source, sink: &mut Sink<u64>) -> Result<(), Problem> {
    while !sink.is_full() {
        let offset = source.offset();
        let Some(
            [
                _,
                _,
                _,
                _,
                k0,
                k1,
                k2,
                k3,
                k4,
                k5,
                k6,
                k7,
                _,
                _,
                _,
                _,
                next @ ..,
            ],
        ) = source.record::<24>()?
        else {
            break;
        };
        let next = i64::from_le_bytes(next);
        if !(-1..MAX_NEXT).contains(&next) && next != i64::MAX {
            let message = format!(
                "expected the next access or -1 at the end of an oracleGeneral record, found {next}"
            );
            return Err(Problem::at_byte(offset + 16, message));
        }
        sink.push(u64::from_le_bytes([k0, k1, k2, k3, k4, k5, k6, k7]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read_each_cut, read_limited};
    use super::*;

    type Reader = fn(&mut Source, &mut Sink<u64>) -> Result<(), Problem>;

    fn oracle(key: u64, next: i64) -> Vec<u8> {
        [
            &7_u32.to_le_bytes()[..],
            &key.to_le_bytes(),
            &512_u32.to_le_bytes(),
            &next.to_le_bytes(),
        ]
        .concat()
    }

    #[test]
    fn reads_fixed_width_keys() {
        let data: Vec<u8> = [1_u32, 0, 2, 0]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        let narrow = read_limited(read_u32, &data, usize::MAX).expect("whole keys");
        assert_eq!(narrow.into_accesses(), [1, 0, 2, 0]);
        let wide = read_limited(read_u64, &data, usize::MAX).expect("whole keys");
        assert_eq!(wide.into_accesses(), [1, 2]);
        let one = read_limited(read_u64, &data, 1).expect("whole keys");
        assert_eq!(one.into_accesses(), [1]);
    }

    #[test]
    fn reads_oracle_records() {
        let data = [oracle(5, 1), oracle(u64::MAX, -1), oracle(6, i64::MAX)].concat();
        let all = read_limited(read_oracle, &data, usize::MAX).expect("whole records");
        assert_eq!(all.into_accesses(), [5, u64::MAX, 6]);
    }

    #[test]
    fn text_is_no_oracle_record() {
        let error = read_limited(read_oracle, &[b'1'; 48], usize::MAX).expect_err("it is text");
        assert!(
            error.starts_with("byte 16: expected the next access"),
            "{error}"
        );
    }

    #[test]
    fn every_cut_within_a_record_is_an_error() {
        let data = [oracle(5, 1), oracle(6, -1)].concat();
        let readers: [(Reader, usize); 3] = [(read_u32, 4), (read_u64, 8), (read_oracle, 24)];
        for (read, width) in readers {
            for (index, result) in read_each_cut(read, &data).into_iter().enumerate() {
                let length = index + 1;
                if length % width == 0 {
                    assert_eq!(result, Ok(length / width));
                } else {
                    let cut = length / width * width;
                    let found = length % width;
                    let expected = format!(
                        "byte {cut}: expected a whole record of {width} bytes, found {found}"
                    );
                    assert_eq!(result, Err(expected));
                }
            }
        }
    }
}

//! A number of bytes in a setting: a number, or a text such as `"64M"`.

use std::fmt;

/// A number of bytes: a `u64`, or a text such as `"100"`, `"10kb"`, `"64 KiB"`, `"1.5G"`.
///
/// In a text `K`, `M`, `G` and `T` are the powers of 1024, with or without `B` or `iB` behind them,
/// in capital or small letters. Spaces may stand around the text and before the unit. A fraction
/// needs one of these units; it is cut to whole bytes, and less than one byte is refused. The
/// setting that uses the text also parses it, and reports the error.
///
/// ```
/// use atomic_cache::ByteSize;
///
/// fn bytes(size: impl Into<ByteSize>) -> u64 {
///     size.into().into_bytes().unwrap()
/// }
///
/// assert_eq!(bytes(1024), 1024);
/// assert_eq!(bytes(8 << 30), 8_589_934_592);
/// assert_eq!(bytes("128M"), 128 << 20);
/// assert_eq!(bytes("1.5 GiB"), 3 << 29);
///
/// let error = ByteSize::from("1x").into_bytes().unwrap_err();
/// assert!(error.to_string().starts_with(r#""1x" is not a number of bytes"#));
/// ```
///
/// Of the integers only `u64` will do: with one type to choose from, a literal is of that type
/// whatever its size. A `usize` is written `n as u64`.
// With a second one, or with `i32`, literals would fall back to `i32` and end at 2 GiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByteSize(Given);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    Number(u64),
    Text(String),
}

impl ByteSize {
    /// Returns the number of bytes.
    ///
    /// # Errors
    /// If the text is not a number of bytes.
    pub fn into_bytes(self) -> Result<u64, ByteSizeError> {
        match self.0 {
            Given::Number(bytes) => Ok(bytes),
            Given::Text(text) => parse(&text).map_err(|wrong| ByteSizeError { text, wrong }),
        }
    }
}

impl From<u64> for ByteSize {
    fn from(bytes: u64) -> Self {
        Self(Given::Number(bytes))
    }
}

impl From<String> for ByteSize {
    fn from(text: String) -> Self {
        Self(Given::Text(text))
    }
}

impl From<&str> for ByteSize {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<&String> for ByteSize {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

/// A text that is not a number of bytes: see [`ByteSize`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByteSizeError {
    text: String,
    wrong: Wrong,
}

impl ByteSizeError {
    /// Returns the text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Form,
    Fraction,
    LessThanByte,
    TooLarge,
}

impl fmt::Display for ByteSizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Enough to recognise the text by.
        const SHOWN: usize = 60;
        let mut shown: String = self.text.chars().take(SHOWN).collect();
        if shown.len() < self.text.len() {
            shown.push('…');
        }
        match self.wrong {
            Wrong::Form => write!(
                f,
                "{shown:?} is not a number of bytes: give digits, perhaps with a fraction, and \
                 perhaps K, M, G or T (powers of 1024) with or without B or iB, such as \
                 \"100\", \"64 KiB\", \"128M\" or \"1.5G\""
            ),
            Wrong::Fraction => write!(
                f,
                "{shown:?} is a fraction of bytes: give whole bytes, or a unit (K, M, G or T)"
            ),
            Wrong::LessThanByte => write!(
                f,
                "{shown:?} is less than one byte, so nothing would ever be kept: give at least one, or \"0\""
            ),
            Wrong::TooLarge => write!(
                f,
                "{shown:?} is too many bytes: give at most {} bytes, which is just below \
                 16777216T",
                u64::MAX
            ),
        }
    }
}

impl std::error::Error for ByteSizeError {}

fn parse(text: &str) -> Result<u64, Wrong> {
    let text = text.trim_matches(' ');
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => {
            let (fraction, rest) = digits(rest);
            (Some(fraction), rest)
        }
        None => (None, rest),
    };
    if whole.is_empty() || fraction == Some("") {
        return Err(Wrong::Form);
    }
    let shift = shift_of(rest.trim_start_matches(' ')).ok_or(Wrong::Form)?;
    if fraction.is_some() && shift == 0 {
        return Err(Wrong::Fraction);
    }
    let whole: u64 = whole
        .bytes()
        .try_fold(0_u64, |number, digit| {
            number.checked_mul(10)?.checked_add((digit - b'0').into())
        })
        .ok_or(Wrong::TooLarge)?;
    let part = fraction.map_or(0, |fraction| part_of(fraction, shift));
    let bytes = (u128::from(whole) << shift) + u128::from(part);
    // More than zero was asked for.
    let is_zero = fraction.is_none_or(|fraction| fraction.bytes().all(|digit| digit == b'0'));
    if bytes == 0 && !is_zero {
        return Err(Wrong::LessThanByte);
    }
    u64::try_from(bytes).map_err(|_| Wrong::TooLarge)
}

/// The digits that a text begins with, and the rest.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// The unit as a power of two.
fn shift_of(unit: &str) -> Option<u32> {
    let unit = unit.to_ascii_lowercase();
    let (prefix, bytes) = unit.split_at_checked(1).unwrap_or(("", &unit));
    let shift = match prefix {
        "" | "b" if bytes.is_empty() => return Some(0),
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    matches!(bytes, "" | "b" | "ib").then_some(shift)
}

/// The whole bytes in a fraction of a unit.
fn part_of(fraction: &str, shift: u32) -> u64 {
    // Eighteen digits: those behind them are less than a millionth of a byte.
    let (mut part, mut scale) = (0_u128, 1_u128);
    for digit in fraction.bytes().take(18) {
        part = part * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    // Below `1 << shift`, as `part` is below `scale`.
    ((part << shift) / scale) as u64
}

#[cfg(all(test, not(atomic_cache_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(size: impl Into<ByteSize>) -> Result<u64, ByteSizeError> {
        size.into().into_bytes()
    }

    /// In the forms that a setting takes.
    #[test]
    fn a_literal_is_a_number_of_any_size() {
        assert_eq!(bytes(0), Ok(0));
        assert_eq!(bytes(1024), Ok(1024));
        assert_eq!(bytes(3_000_000_000), Ok(3_000_000_000));
        assert_eq!(bytes(64 * 1024 * 1024 * 1024), Ok(64 << 30));
        assert_eq!(bytes(1 << 40), Ok(1 << 40));
        let later = 5_000_000_000;
        assert_eq!(bytes(later), Ok(5_000_000_000));
        assert_eq!(bytes(u64::MAX), Ok(u64::MAX));
        assert_eq!(bytes(ByteSize::from(7)), Ok(7));
    }

    #[test]
    fn texts_that_are_sizes() {
        for (text, expected) in [
            ("0", 0),
            ("100", 100),
            ("100b", 100),
            ("100 B", 100),
            ("007", 7),
            ("10kb", 10 << 10),
            ("10 kB", 10 << 10),
            ("64 KiB", 64 << 10),
            ("64   kib", 64 << 10),
            ("128M", 128 << 20),
            ("128m", 128 << 20),
            ("128 MB", 128 << 20),
            ("1G", 1 << 30),
            ("1.5G", 3 << 29),
            ("  1.50 GiB  ", 3 << 29),
            ("0.5k", 512),
            ("0.001K", 1),
            ("1.1K", 1126),
            ("0.0K", 0),
            ("1.1K", 1126),
            ("2T", 2 << 40),
            ("2TiB", 2 << 40),
            ("1.000000000000000000000000000001M", 1 << 20),
            ("0.9999999999999999999999999999999999999T", (1 << 40) - 1),
            ("18446744073709551615", u64::MAX),
            ("16777215T", 16_777_215 << 40),
            ("16777215.9999999T", 18_446_744_073_709_441_664),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text:?}");
            let owned = text.to_owned();
            assert_eq!(bytes(&owned), Ok(expected), "{text:?}");
            assert_eq!(bytes(owned), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn texts_that_are_none_are_named_and_told_what_is_allowed() {
        for text in [
            "",
            " ",
            ".",
            "1x",
            "x1",
            "NaN",
            "inf",
            "-1",
            "-1K",
            "+1",
            "1e9",
            "1_000",
            "1,5G",
            "1.",
            "1.K",
            ".5K",
            "1..5K",
            "1.5.5K",
            "1 0",
            "1K 0",
            "K",
            "KB",
            "iB",
            "1iB",
            "1i",
            "1Ki",
            "1KBB",
            "1BK",
            "1Kb/s",
            "1P",
            "1E",
            "1KK",
            "1 k b",
            "\t1K",
            "1K\n",
            "1\u{a0}K",
            "١",
            "１K",
            "1µ",
            "1KİB",
            "1\u{212a}",
            "0x10",
            "½K",
        ] {
            let error = bytes(text).expect_err(text);
            assert_eq!((error.text(), error.wrong), (text, Wrong::Form));
            let words = error.to_string();
            assert!(words.starts_with(&format!("{text:?} is not")), "{words}");
            assert!(words.contains("\"1.5G\""), "{words}");
        }
        for text in [
            "0.0001K",
            "0.0000001 MiB",
            "0.000000000000000000000000000000001T",
        ] {
            let error = bytes(text).expect_err(text);
            assert_eq!(error.wrong, Wrong::LessThanByte);
            assert!(error.to_string().contains("less than one byte"));
        }
        for text in ["1.5", "0.0", "1.5 B", "1.0b"] {
            let error = bytes(text).expect_err(text);
            assert_eq!(error.wrong, Wrong::Fraction);
            assert!(error.to_string().contains("whole bytes"));
        }
        for text in [
            "18446744073709551616",
            "16777216T",
            "18014398509481984K",
            "99999999999999999999999999999999999999999999999999",
            "99999999999999999999999999999999999999999999999999T",
        ] {
            let error = bytes(text).expect_err(text);
            assert_eq!(error.wrong, Wrong::TooLarge, "{text}");
            assert!(error.to_string().contains("at most 18446744073709551615"));
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        let words = bytes("é".repeat(10_000)).unwrap_err().to_string();
        assert!(
            words.chars().count() < 300 && words.contains('…'),
            "{words}"
        );
    }

    const UNITS: [(&str, u32); 17] = [
        ("", 0),
        ("b", 0),
        ("k", 10),
        ("kb", 10),
        ("kib", 10),
        ("m", 20),
        ("mb", 20),
        ("mib", 20),
        ("g", 30),
        ("gb", 30),
        ("gib", 30),
        ("t", 40),
        ("tb", 40),
        ("tib", 40),
        ("K", 10),
        ("MiB", 20),
        ("TB", 40),
    ];

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            if let Err(error) = bytes(&text) {
                prop_assert_eq!(error.text(), &text);
                let _ = error.to_string();
            }
        }

        /// Texts that are nearly right.
        #[test]
        fn no_text_of_its_own_letters_makes_it_panic(text in "[ 0-9.KkMmGgTtBbIi+-]{0,40}") {
            let _ = bytes(text).map_err(|error| error.to_string());
        }

        #[test]
        fn every_number_is_read_back(n: u64) {
            prop_assert_eq!(bytes(n), Ok(n));
            prop_assert_eq!(bytes(n.to_string()), Ok(n));
            prop_assert_eq!(bytes(format!(" {n} B ")), Ok(n));
        }

        #[test]
        fn units_in_any_case_are_powers_of_1024(
            n: u64, unit in 0..UNITS.len(), capital: u8, spaces in 0_usize..4,
        ) {
            let (unit, shift) = UNITS[unit];
            let unit: String = unit
                .char_indices()
                .map(|(at, c)| if capital >> at & 1 == 1 { c.to_ascii_uppercase() } else { c })
                .collect();
            let expected = u64::try_from(u128::from(n) << shift).ok();
            prop_assert_eq!(bytes(format!("{n}{}{unit}", " ".repeat(spaces))).ok(), expected);
        }

        /// Against exact arithmetic on the fraction's digits.
        #[test]
        fn fractions_are_cut_to_whole_bytes(whole in 0_u64..1 << 20, part in "[0-9]{1,18}") {
            let scale = 10_u128.pow(part.len() as u32);
            let digits: u128 = part.parse().unwrap();
            for (unit, shift) in [("K", 10), ("M", 20), ("G", 30), ("T", 40)] {
                let expected = ((u128::from(whole) * scale + digits) << shift) / scale;
                let text = format!("{whole}.{part}{unit}");
                let expected = (expected > 0 || whole == 0 && digits == 0).then_some(expected);
                prop_assert_eq!(bytes(text).map(u128::from).ok(), expected);
            }
        }
    }
}

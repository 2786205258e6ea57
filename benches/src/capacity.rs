//! How large a cache shall be, as the command line says it.

use std::str::FromStr;

/// A share of the keys stands for at least this many entries: below that, the luck of a few entries decides.
pub const LEAST: u64 = 16;

/// The capacities that are accepted, for messages.
const EXPECTED: &str = "expected entries from 1 on, such as 5000, or a share of the distinct keys above 0% and up to \
                        100%, such as 5% or 0.5%";

/// A capacity, as a number of entries or as a share of the distinct keys of a log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Capacity {
    /// This many entries.
    Entries(u64),
    /// This many percent of the distinct keys, but at least [`LEAST`] entries.
    Percent(f64),
}

impl Capacity {
    /// The capacity in entries, for a log with so many distinct keys.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a count that is far below 2^52"
    )]
    pub fn entries(self, distinct_keys: usize) -> u64 {
        match self {
            Self::Entries(entries) => entries,
            Self::Percent(percent) => {
                let share = distinct_keys as f64 * percent / 100.0;
                (share.round() as u64).max(LEAST)
            }
        }
    }
}

impl FromStr for Capacity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let capacity = match text.strip_suffix('%') {
            Some(percent) => percent.trim_end().parse().ok().map(Self::Percent),
            None => text.parse().ok().map(Self::Entries),
        };
        capacity
            .filter(|capacity| match capacity {
                Self::Entries(entries) => *entries > 0,
                Self::Percent(percent) => *percent > 0.0 && *percent <= 100.0,
            })
            .ok_or(EXPECTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_shares_are_read() {
        for (text, capacity) in [
            ("1", Capacity::Entries(1)),
            ("5000", Capacity::Entries(5000)),
            ("100%", Capacity::Percent(100.0)),
            ("0.5%", Capacity::Percent(0.5)),
            ("5 %", Capacity::Percent(5.0)),
        ] {
            assert_eq!(text.parse(), Ok(capacity), "{text}");
        }
    }

    #[test]
    fn what_is_no_capacity_is_refused() {
        for text in [
            "",
            "%",
            "0",
            "0%",
            "-1",
            "-1%",
            "1.5",
            "150%",
            "many",
            "nan%",
            "inf%",
            "5%%",
            "99999999999999999999",
        ] {
            assert_eq!(text.parse::<Capacity>(), Err(EXPECTED), "{text}");
        }
    }

    #[test]
    fn a_share_is_of_the_distinct_keys_and_not_too_small() {
        assert_eq!(Capacity::Percent(5.0).entries(1011), 51);
        assert_eq!(Capacity::Percent(100.0).entries(1011), 1011);
        assert_eq!(Capacity::Percent(1.0).entries(1223), LEAST);
        assert_eq!(Capacity::Percent(30.0).entries(3), LEAST);
        assert_eq!(Capacity::Entries(1).entries(1_000_000), 1);
    }
}

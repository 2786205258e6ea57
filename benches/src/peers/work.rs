//! The works that are timed.

use clap::ValueEnum;
use serde::Serialize;

/// One kind of work. `KEYS` is the number given by `--keys`, 100,000 by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// `get` of a key that is there, drawn uniformly from KEYS
    Hit,
    /// `get` of one key that is there
    HotKey,
    /// `get` of a key that is there, a `String` looked up by `&str`
    Strings,
    /// As hit, in a cache whose entries have a time to live
    Ttl,
    /// As hit, a thousand look-ups through one pinned guard
    Pin,
    /// As hit, the value shown to a closure and not cloned
    With,
    /// As hit, by the operation that would fill the key if it were not there
    Through,
    /// Reading through, Zipf 0.9 over ten times KEYS with room for KEYS
    Zipf,
    /// Reading through, every access a new key, with room for KEYS
    NewKeys,
    /// As hit, but every twentieth operation inserts a key anew that is there
    Inserts,
    /// One key invalidated and read through again
    Refill,
    /// Reading through, new keys into a cache without a bound that starts empty and small
    Fill,
    /// As fill, into one that was made for as many
    FillSized,
}

impl Work {
    /// Returns its name in tables.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::HotKey => "hit, hot key",
            Self::Strings => "hit, String by &str",
            Self::Ttl => "hit, TTL on",
            Self::Pin => "hit, pinned",
            Self::With => "hit, with closure",
            Self::Through => "hit, read through",
            Self::Zipf => "zipf 0.9",
            Self::NewKeys => "every key new",
            Self::Inserts => "1 insert in 20",
            Self::Refill => "invalidate + refill",
            Self::Fill => "fill, growing",
            Self::FillSized => "fill, sized",
        }
    }

    /// Whether all contenders make the same number of operations, however long that takes. They do where earlier
    /// operations decide how much the next one costs.
    #[must_use]
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Zipf | Self::Fill | Self::FillSized)
    }

    /// Whether keys can be missing, so that the share of those that were there is a figure too.
    #[must_use]
    pub fn can_miss(self) -> bool {
        self == Self::Zipf
    }

    /// The name by which arguments and JSON call it.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

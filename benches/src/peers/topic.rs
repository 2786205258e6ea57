//! The topics of a run: the timed works, and those that are measured in other ways.

use clap::{ValueEnum, builder::PossibleValue};

use super::work::Work;

/// A topic to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Nanoseconds an operation.
    Timed(Work),
    /// Many threads that ask for one absent key.
    Herd,
    /// Many tasks that do.
    Tasks,
    /// Bytes an entry and allocations an operation.
    Memory,
}

impl ValueEnum for Topic {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Timed(Work::Hit),
            Self::Timed(Work::HotKey),
            Self::Timed(Work::Strings),
            Self::Timed(Work::Ttl),
            Self::Timed(Work::Pin),
            Self::Timed(Work::With),
            Self::Timed(Work::Through),
            Self::Timed(Work::Zipf),
            Self::Timed(Work::NewKeys),
            Self::Timed(Work::Inserts),
            Self::Timed(Work::Refill),
            Self::Timed(Work::Fill),
            Self::Timed(Work::FillSized),
            Self::Herd,
            Self::Tasks,
            Self::Memory,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Timed(work) => return work.to_possible_value(),
            Self::Herd => PossibleValue::new("herd")
                .help("64 threads that ask for one absent key at once: fills, and how long the waiters sleep on"),
            Self::Tasks => PossibleValue::new("tasks").help("10,000 tasks that ask for one absent key"),
            Self::Memory => {
                PossibleValue::new("memory").help("Bytes an entry at 1,000,000 entries, allocations an operation")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_work_is_a_topic() {
        let topics = Topic::value_variants();
        assert!(
            Work::value_variants()
                .iter()
                .all(|&work| topics.contains(&Topic::Timed(work)))
        );
        assert!(topics.iter().all(|topic| {
            topic
                .to_possible_value()
                .is_some_and(|value| value.get_help().is_some())
        }));
    }
}

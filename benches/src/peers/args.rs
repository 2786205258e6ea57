//! The command line of `peers`.

use std::{num::NonZeroUsize, time::Duration};

use clap::{Parser, ValueEnum, builder::PossibleValuesParser};

use super::{
    bars,
    contenders::{self, Contender},
    work::Work,
};

/// Times atomic-cache beside its peers in one run
///
/// Each figure is the median over the rounds of the nanoseconds the slowest thread needs for one operation, and
/// beside it how many times those of atomic-cache it is. In every round each contender does each work once, in an
/// order that moves on by one from round to round. Perfect scaling leaves a figure on two threads as it is on one.
#[derive(Debug, Parser)]
#[command(name = "peers", version)]
pub struct Args {
    /// How many rounds to run
    #[arg(long, value_name = "N", default_value = "9")]
    pub rounds: NonZeroUsize,

    /// The most operations a thread is timed over in a round
    ///
    /// Work that has a course (zipf, fill, fill-sized) is timed over a fifth of that, whole.
    #[arg(long, value_name = "N", default_value = "1000000")]
    pub operations: NonZeroUsize,

    /// The most milliseconds a thread is timed over in a round, but for work that has a course
    #[arg(long, value_name = "MS", default_value = "25")]
    pub milliseconds: u64,

    /// How many keys are in a cache that is hit
    #[arg(long, value_name = "N", default_value = "100000")]
    pub keys: NonZeroUsize,

    /// On how many threads at a time
    #[arg(
        long,
        value_name = "N,..",
        value_delimiter = ',',
        default_value = "1,2"
    )]
    pub threads: Vec<NonZeroUsize>,

    /// Only these works
    #[arg(long, value_name = "WORK,..", value_delimiter = ',')]
    pub only: Vec<Work>,

    /// Only these contenders; atomic-cache is always among them
    #[arg(
        long,
        value_name = "NAME,..",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(contenders::ALL.map(|contender| contender.name)),
    )]
    pub peers: Vec<String>,

    /// Say which of the bars are met; without --only and --peers, time no more than they need
    #[arg(long)]
    pub bars: bool,

    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// What to time.
    #[must_use]
    pub fn works(&self) -> Vec<Work> {
        if !self.only.is_empty() {
            return self.only.clone();
        }
        let needed = |work: &Work| !self.bars || bars::WORKS.contains(work);
        Work::value_variants()
            .iter()
            .copied()
            .filter(needed)
            .collect()
    }

    /// Whom to time, atomic-cache first.
    #[must_use]
    pub fn contenders(&self) -> Vec<Contender> {
        let asked = |name: &str| {
            if self.peers.is_empty() {
                !self.bars || bars::PEERS.contains(&name)
            } else {
                self.peers.iter().any(|peer| peer == name)
            }
        };
        let contenders = contenders::ALL.into_iter();
        contenders
            .filter(|contender| contender.name == contenders::OURS || asked(contender.name))
            .collect()
    }

    /// The most time a thread is timed over.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_millis(self.milliseconds)
    }
}

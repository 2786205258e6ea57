//! The command line of `peers`.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{
    Parser, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser},
};

use super::{
    bars,
    contenders::{self, Contender},
    rounds::Effort,
    topic::Topic,
    work::Work,
};

/// Times atomic-cache beside its peers in one run
///
/// Each figure is the median over the rounds of the nanoseconds the slowest thread needs for one operation, and
/// beside it how many times those of atomic-cache in the same round it is. In every round each contender does each work once, in an
/// order that moves on by one from round to round. Perfect scaling leaves a figure on two threads as it is on one.
/// With more threads than processors it is the nanoseconds of all processors together, divided by the operations of
/// all threads and multiplied by the processors.
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

    /// Only this
    #[arg(long, value_name = "WORK,..", value_delimiter = ',')]
    pub only: Vec<Topic>,

    /// Only these contenders; atomic-cache is always among them
    #[arg(
        long,
        value_name = "NAME,..",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(contenders::ALL.map(possible)),
    )]
    pub peers: Vec<String>,

    /// Say which of the bars are met; without --only and --peers, measure no more than they need
    #[arg(long)]
    pub bars: bool,

    /// How the cost grows: hits at 1,000, 10,000, .. entries, and on 1, 2, 4 .. 64 threads; with --only, besides
    #[arg(long)]
    pub scale: bool,

    /// The slowest operations: of growing, and of hits while another thread evicts; with --only, besides
    #[arg(long)]
    pub latency: bool,

    /// The most entries of --scale and --latency
    #[arg(long, value_name = "N", default_value = "10000000")]
    pub most: NonZeroUsize,

    /// The entries of memory
    #[arg(long, value_name = "N", default_value = "1000000")]
    pub entries: NonZeroUsize,

    /// The number of tasks
    #[arg(long, value_name = "N", default_value = "10000")]
    pub tasks: NonZeroUsize,

    /// Write a line of JSON into FILE, or - for standard output in place of the tables
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Draw the nanoseconds as bar charts into FILE
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

/// The first word of a name.
fn short(name: &'static str) -> &'static str {
    name.split([' ', '+']).next().unwrap_or(name)
}

/// A contender as an argument: its name, or the first word of that.
fn possible(contender: Contender) -> PossibleValue {
    let long = (short(contender.name) != contender.name).then_some(contender.name);
    PossibleValue::new(short(contender.name)).aliases(long)
}

impl Args {
    /// Returns the topics to measure.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        if !self.only.is_empty() {
            return self.only.clone();
        }
        let all = Topic::value_variants().iter().copied();
        if self.bars {
            all.filter(|topic| bars::TOPICS.contains(topic)).collect()
        } else if self.scale || self.latency {
            Vec::new()
        } else {
            all.collect()
        }
    }

    /// Returns the works of these topics to time.
    #[must_use]
    pub fn works(&self) -> Vec<Work> {
        let topics = self.topics().into_iter();
        let work = |topic| match topic {
            Topic::Timed(work) => Some(work),
            _ => None,
        };
        topics.filter_map(work).collect()
    }

    /// Returns the contenders to measure, atomic-cache first.
    #[must_use]
    pub fn contenders(&self) -> Vec<Contender> {
        let asked = |name: &'static str| {
            if self.peers.is_empty() {
                !self.bars || !self.only.is_empty() || bars::PEERS.contains(&name)
            } else {
                let peers = &self.peers;
                peers.iter().any(|peer| peer == name || peer == short(name))
            }
        };
        let contenders = contenders::ALL.into_iter();
        contenders
            .filter(|contender| contender.name == contenders::OURS || asked(contender.name))
            .collect()
    }

    /// On how many threads.
    #[must_use]
    pub fn threads(&self) -> Vec<usize> {
        self.threads
            .iter()
            .copied()
            .map(NonZeroUsize::get)
            .collect()
    }

    /// How long to measure.
    #[must_use]
    pub fn effort(&self) -> Effort {
        Effort {
            rounds: self.rounds.get(),
            operations: self.operations.get(),
            time: Duration::from_millis(self.milliseconds),
        }
    }

    /// Whether the JSON goes to standard output.
    #[must_use]
    pub fn prints_json(&self) -> bool {
        self.json
            .as_deref()
            .is_some_and(|file| file.as_os_str() == "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Args {
        let arguments = ["peers"].iter().chain(arguments);
        Args::try_parse_from(arguments).expect("good arguments")
    }

    #[test]
    fn what_is_asked_for_is_measured() {
        assert_eq!(parse(&[]).topics().len(), 16);
        assert_eq!(parse(&[]).works().len(), 13);
        assert_eq!(parse(&["--only", "herd,hit"]).works(), [Work::Hit]);
        assert!(parse(&["--scale"]).topics().is_empty());
        assert_eq!(parse(&["--bars"]).contenders().len(), 4);
        let few = parse(&["--bars", "--only", "hit", "--peers", "moka,scc"]).contenders();
        assert_eq!(
            few.iter().map(|one| one.name).collect::<Vec<_>>(),
            ["atomic-cache", "moka", "scc HashCache"]
        );
    }

    #[test]
    fn json_has_two_ways_out() {
        assert!(parse(&["--json", "-"]).prints_json());
        assert!(!parse(&["--json", "figures.json"]).prints_json());
    }
}

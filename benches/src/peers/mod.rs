//! The command `peers`: the cache and its peers timed in turns within one run.

pub mod args;
pub mod bars;
pub mod contenders;
pub mod family;
pub mod figures;
pub mod lap;
pub mod loops;
pub mod rounds;
pub mod stage;
pub mod table;
pub mod work;

use std::{
    io::{self, Write, stdout},
    num::NonZeroUsize,
    process::ExitCode,
};

use clap::Parser;

use self::{args::Args, figures::Results, rounds::Effort, stage::Stage};
use crate::{
    cli::{finish, refuse},
    error::Error,
};

/// How many skewed accesses the sample has for each key that there is room for.
const SAMPLE: usize = 20;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    match Args::try_parse() {
        Ok(args) => finish(run(&args)),
        Err(error) => refuse(&error),
    }
}

/// Times what was asked for and prints the figures.
///
/// # Errors
///
/// When the figures cannot be written.
pub fn run(args: &Args) -> Result<(), Error> {
    let contenders = args.contenders();
    let results = measure(args)?;
    let mut out = stdout().lock();
    if args.json {
        let line = serde_json::to_string(&results).map_err(io::Error::from)?;
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "{}", table::table(&results, &contenders))?;
        for verdict in &results.bars {
            writeln!(out, "{verdict}")?;
        }
    }
    Ok(out.flush()?)
}

fn measure(args: &Args) -> Result<Results, Error> {
    let keys = args.keys.get();
    let stage = Stage::new(keys, keys * SAMPLE)?;
    let threads: Vec<usize> = args
        .threads
        .iter()
        .copied()
        .map(NonZeroUsize::get)
        .collect();
    let effort = Effort {
        rounds: args.rounds.get(),
        operations: args.operations.get(),
        time: args.time(),
    };
    let races = rounds::measure(&args.contenders(), &args.works(), &threads, &stage, effort);
    let mut results = Results {
        rounds: effort.rounds,
        operations: effort.operations,
        milliseconds: args.milliseconds,
        keys,
        races,
        bars: Vec::new(),
    };
    if args.bars {
        results.bars = bars::judge(&results);
    }
    Ok(results)
}

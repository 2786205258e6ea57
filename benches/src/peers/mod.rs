//! The command `peers`: the cache, its peers and a floor, measured in turns within one run.
//!
//! * `work.rs` names the works that are timed, `stage.rs` makes the inputs, `family.rs` lists the abilities of a
//!   contender, and `contenders/` how each does it. `loops.rs` has the timed loops, `lap.rs` the threads that run them
//!   at once, `rounds.rs` the order of the turns.
//! * `herd.rs`, `tasks.rs`, `memory.rs`, `scale.rs` and `latency.rs` measure in other ways.
//! * `figures.rs` has the results; `tables.rs`, `chart.rs` and `bars.rs` show and judge it.

pub mod args;
pub mod bars;
pub mod chart;
pub mod contenders;
pub mod family;
pub mod figures;
pub mod herd;
pub mod lap;
pub mod latency;
pub mod loops;
pub mod memory;
pub mod queue;
pub mod rounds;
pub mod scale;
pub mod stage;
pub mod tables;
pub mod tally;
pub mod tasks;
pub mod topic;
pub mod work;

use std::{
    fs,
    io::{self, Write, stdout},
    path::Path,
    process::ExitCode,
};

use clap::Parser;

use self::{args::Args, figures::Results, stage::Stage, topic::Topic};
use crate::{
    cli::{finish, refuse},
    error::Error,
    plot,
};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    match Args::try_parse() {
        Ok(args) => finish(run(&args)),
        Err(error) => refuse(&error),
    }
}

/// Measures the topics asked for and shows the figures.
///
/// # Errors
///
/// When the figures cannot be written, which is found out before the long work, or there are no threads for tasks.
pub fn run(args: &Args) -> Result<(), Error> {
    let file = args.json.as_deref().filter(|_| !args.prints_json());
    if let Some(file) = &args.plot {
        plot::probe(file)?;
    }
    if let Some(file) = file {
        write(file, "")?;
    }
    let results = measure(args)?;
    let line = serde_json::to_string(&results).map_err(io::Error::from)?;
    if let Some(file) = file {
        write(file, &line)?;
    }
    if let Some(file) = &args.plot {
        chart::draw(&results.races, file)?;
    }
    let mut out = stdout().lock();
    if args.prints_json() {
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "{}", tables::tables(&results))?;
        for verdict in &results.bars {
            writeln!(out, "{verdict}")?;
        }
    }
    Ok(out.flush()?)
}

fn write(file: &Path, line: &str) -> Result<(), Error> {
    fs::write(file, format!("{line}\n")).map_err(|source| Error::Figures {
        file: file.display().to_string(),
        source,
    })
}

fn measure(args: &Args) -> Result<Results, Error> {
    let (keys, effort, contenders) = (args.keys.get(), args.effort(), args.contenders());
    let threads = args.threads();
    let stage = Stage::new(keys, effort.skewed_accesses(&threads));
    let mut results = Results {
        rounds: effort.rounds,
        operations: effort.operations,
        milliseconds: args.milliseconds,
        keys,
        ..Results::default()
    };
    // First, while nothing has been allocated and freed yet.
    let asked = |topic| args.topics().contains(&topic);
    if asked(Topic::Memory) {
        results.memory = memory::measure(&contenders, args.entries.get());
    }
    results.races = rounds::measure(&contenders, &args.works(), &threads, &stage, effort);
    if asked(Topic::Herd) {
        results.herd = herd::measure(&contenders, effort.rounds);
    }
    if asked(Topic::Tasks) {
        results.tasks = tasks::measure(&contenders, effort.rounds, args.tasks.get())?;
    }
    if args.scale {
        results.scale = Some(scale::scale(&stage, args.most.get(), effort));
    }
    if args.latency {
        results.latency = Some(latency::latency(keys, args.most.get()));
    }
    if args.bars {
        results.bars = bars::judge(&results);
    }
    Ok(results)
}

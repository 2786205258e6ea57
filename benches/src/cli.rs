//! The command line of `replay`.

use std::{
    io::{self, Write, stderr, stdout},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread::available_parallelism,
    time::Duration,
};

use clap::{Parser, error::ErrorKind};

use crate::{
    capacity::Capacity,
    curve::{CAPACITIES, Curve},
    curve_report,
    error::{Error, escape_control},
    format::Format,
    numbered::{Numbered, tell_apart},
    plot,
    progress::Progress,
    replay::{Plan, replay},
    report::{Origin, Report},
    trace::{self, Accesses, Trace},
    workload,
};

/// The exit status of every error.
const FAILED: u8 = 2;

/// Replays an access log through an atomic cache and reports how the cache would do for that workload
///
/// Without FILE it makes a workload: Zipf-distributed keys with scans between.
///
/// Every value is a u64. Accesses are dealt out to the threads in small batches, so the order of the log is roughly
/// kept. Bytes an entry is the memory that the cache holds at the end, divided by its entries.
#[derive(Debug, Parser)]
#[command(name = "replay", version)]
pub struct Args {
    /// The access log, also compressed as .zst or .gz; - reads standard input; several with --curve
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The format of FILE, guessed from its name when not given
    ///
    /// .lis is arc, .oracleGeneral is oracle, .u32 and .u64 are binary keys, .txt is text, .log or `access_log` is clf.
    /// For a bare .bin the width of the keys is guessed from the content: 8-byte words are u64 if their halves keep
    /// coming together or one half is always zero; others are u32. A guess can be wrong; --format decides.
    #[arg(long, value_enum, requires = "files")]
    format: Option<Format>,

    /// The most entries the cache may hold, such as 5000, or 5% of the distinct keys of the log
    ///
    /// A share is rounded to whole entries and stands for at least 16 of them. Without --capacity the cache has no
    /// bound. --curve takes a list: 1%,5%,1000.
    #[arg(long, value_name = "N|P%", value_delimiter = ',')]
    capacity: Vec<Capacity>,

    /// Compare hit ratios: this cache beside moka, quick_cache, tinyufo, foyer, LRU and Bélády's optimum
    ///
    /// Over each FILE, in each --capacity; in 1, 5, 10 and 30 % of the distinct keys when none is given. Each cache
    /// reads every access in order: a look-up, and an insert when it misses. With --threads N this cache is there three
    /// times: on one thread, on N that take turns, and on one thread that makes the accesses in the order in which the
    /// N made them. The second beside the third shows how many hits running at once costs, the third beside the first
    /// how many another order does.
    #[arg(long, conflicts_with_all = ["ttl", "fill_time"])]
    curve: bool,

    /// Draw the curves of the miss ratio into an SVG file, a plot for each FILE
    #[arg(long, value_name = "SVG", requires = "curve")]
    plot: Option<PathBuf>,

    /// How long a value lives, such as 10ms, 1.5s or 5m; for ever when not given
    ///
    /// Measured by the clock of this run, which replays hours in milliseconds: the log's own times are not used, so
    /// this does not say how much a TTL would cost.
    #[arg(long, value_name = "DUR", value_parser = lifetime)]
    ttl: Option<Duration>,

    /// How many threads take turns, as many as there are processors when not given; one with --curve
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<NonZeroUsize>,

    /// How long making a value takes: it sleeps from 1ms on and spins below
    #[arg(long, value_name = "DUR", default_value = "0s", value_parser = humantime::parse_duration)]
    fill_time: Duration,

    /// Replay at most N accesses
    #[arg(long, value_name = "N", value_parser = limit)]
    limit: Option<NonZeroUsize>,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,

    /// The seed of the made workload [default: 42]
    #[arg(long, value_name = "N", conflicts_with = "files")]
    seed: Option<u64>,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("expected more than zero".into()),
        Ok(ttl) => Ok(ttl),
        Err(error) => Err(error.to_string()),
    }
}

/// More threads than this would only fill the memory with stacks.
const MAX_THREADS: usize = 1024;

fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let threads = text
        .parse()
        .ok()
        .filter(|threads: &NonZeroUsize| threads.get() <= MAX_THREADS);
    threads.ok_or_else(|| format!("expected a number from 1 to {MAX_THREADS}"))
}

fn limit(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| "expected a number from 1 on".into())
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    match Args::try_parse() {
        Ok(args) => finish(run(&args)),
        Err(error) => refuse(&error),
    }
}

/// Ends with the outcome of a run; a reader of standard output that left is no error.
#[must_use]
pub fn finish(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&error.one_line()),
    }
}

/// Ends with the help or version asked for, or with one line that says why the arguments are refused.
#[must_use]
pub fn refuse(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return finish(error.print().map_err(Error::Output));
    }
    fail(&condense(&error.to_string()))
}

/// Says `message` on one line of standard error.
fn fail(message: &str) -> ExitCode {
    // Without standard error no output is left to write to.
    let _ = writeln!(stderr(), "error: {message}");
    ExitCode::from(FAILED)
}

/// The lines of a message of clap as one, without the usage and its tips.
fn condense(message: &str) -> String {
    let told = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let told = told.take_while(|line| {
        !line.starts_with("Usage:") && !line.starts_with("For more information")
    });
    let told = told.filter(|line| !line.starts_with("tip:"));
    let line = told.collect::<Vec<_>>().join(" ");
    escape_control(line.strip_prefix("error: ").unwrap_or(&line))
}

/// Does as `args` say and prints the result.
///
/// # Errors
///
/// When an access log cannot be read or the report cannot be written.
pub fn run(args: &Args) -> Result<(), Error> {
    let text = if args.curve {
        compare(args)?
    } else {
        replay_one(args)?
    };
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Replays one log; the report.
fn replay_one(args: &Args) -> Result<String, Error> {
    let file = at_most_one(&args.files, "FILE")?;
    let capacity = at_most_one(&args.capacity, "--capacity")?;
    let (accesses, origin) = args.load(file.map(PathBuf::as_path))?;
    let threads = args
        .threads
        .or_else(|| available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN);
    let plan = Plan {
        threads,
        capacity: capacity.map(|capacity| capacity.entries(origin.distinct_keys)),
        ttl: args.ttl,
        fill_time: args.fill_time,
    };
    let progress = Progress::new(accesses.len());
    let outcome = match accesses {
        Accesses::Numbers(numbers) => replay::<u64, u64>(&numbers, plan, &progress),
        Accesses::Strings(strings) => replay::<Arc<str>, str>(&strings, plan, &progress),
    };
    let report = Report::new(origin, plan, outcome?);
    if args.json {
        Ok(report.json().map_err(io::Error::from)?)
    } else {
        Ok(report.table())
    }
}

/// The only one of `values`, if there is any.
fn at_most_one<'a, T>(values: &'a [T], what: &str) -> Result<Option<&'a T>, Error> {
    match values {
        [] => Ok(None),
        [value] => Ok(Some(value)),
        _ => Err(Error::Usage(format!(
            "expected one {what} without --curve, found {}",
            values.len()
        ))),
    }
}

/// Compares the caches over every log; the report.
fn compare(args: &Args) -> Result<String, Error> {
    let logs = args.numbered()?;
    if let Some(file) = &args.plot {
        plot::probe(file)?;
    }
    let capacities = if args.capacity.is_empty() {
        &CAPACITIES[..]
    } else {
        &args.capacity
    };
    let threads = args.threads.unwrap_or(NonZeroUsize::MIN);
    let curve = Curve::measure(&logs, capacities, threads)?;
    if let Some(file) = &args.plot {
        plot::write(&curve, file)?;
    }
    if args.json {
        Ok(curve_report::json(&curve).map_err(io::Error::from)?)
    } else {
        Ok(curve_report::table(&curve))
    }
}

impl Args {
    /// Loads every access log, so that none is missing later, or makes a workload.
    fn numbered(&self) -> Result<Vec<Numbered>, Error> {
        if self.files.is_empty() {
            let (accesses, _) = self.make()?;
            return Ok(vec![Numbered::new(None, &accesses)?]);
        }
        let number = |file: &PathBuf| Numbered::new(Some(file), &self.open(file)?.accesses);
        let mut logs = self
            .files
            .iter()
            .map(number)
            .collect::<Result<Vec<_>, _>>()?;
        tell_apart(&mut logs);
        Ok(logs)
    }

    /// Loads an access log.
    fn open(&self, file: &Path) -> Result<Trace, Error> {
        let limit = self.limit.map_or(usize::MAX, NonZeroUsize::get);
        trace::load(file, self.format, limit)
    }

    /// Loads the access log or makes a workload, and tells where it came from.
    fn load(&self, file: Option<&Path>) -> Result<(Accesses, Origin), Error> {
        let Some(file) = file else {
            let (accesses, seed) = self.make()?;
            let origin = Origin {
                file: None,
                format: "made".into(),
                seed: Some(seed),
                skipped_lines: 0,
                distinct_keys: accesses.distinct_keys(),
            };
            return Ok((accesses, origin));
        };
        let trace = self.open(file)?;
        let origin = Origin {
            file: Some(file.display().to_string()),
            format: trace.format.to_string(),
            seed: None,
            skipped_lines: trace.skipped,
            distinct_keys: trace.accesses.distinct_keys(),
        };
        Ok((trace.accesses, origin))
    }

    /// Makes a workload; its seed too.
    fn make(&self) -> Result<(Accesses, u64), Error> {
        let seed = self.seed.unwrap_or(42);
        let length = self.limit.map_or(workload::ACCESSES, NonZeroUsize::get);
        Ok((Accesses::Numbers(workload::make(length, seed)?), seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn refusals_are_one_line() {
        for arguments in [
            &["--format", "xml", "f"][..],
            &["--threads", "0"],
            &["--threads", "9999"],
            &["--ttl", "0s"],
            &["--ttl", "soon"],
            &["--limit", "0"],
            &["--limit", "-1"],
            &["--format", "text"],
            &["--seed", "1", "f"],
            &["--what\nnow"],
            &["--capacity", "0"],
            &["--capacity", "150%"],
            &["--capacity", "1%,many"],
            &["--plot", "a.svg"],
            &["--curve", "--ttl", "1s"],
        ] {
            let all = std::iter::once(&"replay").chain(arguments);
            let error = Args::try_parse_from(all).expect_err("refused");
            let line = condense(&error.to_string());
            assert!(
                !line.contains('\n') && !line.is_empty() && !line.contains("Usage"),
                "{line}"
            );
        }
    }
}

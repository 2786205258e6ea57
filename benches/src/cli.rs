//! The command line of `replay`.

use std::{
    io::{self, Write, stderr, stdout},
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    thread::available_parallelism,
    time::Duration,
};

use clap::{Parser, error::ErrorKind};

use crate::{
    error::{Error, escape_control},
    format::Format,
    progress::Progress,
    replay::{Plan, replay},
    report::{Origin, Report},
    trace::{self, Accesses},
    workload,
};

/// The exit status of every error.
const FAILED: u8 = 2;

/// Replays an access log through an atomic cache and tells what the cache would do for that workload
///
/// Without FILE it makes a workload: Zipf-distributed keys with scans between.
///
/// Every value is a u64. Accesses are dealt out to the threads in small batches, so the order of the log is
/// roughly kept. Bytes an entry is what the cache holds in memory at the end, divided by its entries.
#[derive(Debug, Parser)]
#[command(name = "replay", version)]
pub struct Args {
    /// The access log, also compressed as .zst or .gz; - reads standard input
    file: Option<PathBuf>,

    /// The format of FILE, guessed from its name when not given
    ///
    /// .lis is arc, .oracleGeneral is oracle, .u32 and .u64 are binary keys, .txt is text, .log or `access_log` is
    /// clf. For a bare .bin the width of the keys is guessed from the content: 8-byte words whose halves keep
    /// coming together, or of which one half is always zero, are u64 and others u32. A guess can be wrong;
    /// --format decides.
    #[arg(long, value_enum, requires = "file")]
    format: Option<Format>,

    /// How long a value lives, such as 10ms, 1.5s or 5m; for ever when not given
    #[arg(long, value_name = "DUR", value_parser = lifetime)]
    ttl: Option<Duration>,

    /// How many threads take turns, as many as there are processors when not given
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
    #[arg(long, value_name = "N", conflicts_with = "file")]
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

/// Ends with the help or version asked for, or with what is wrong with the arguments in one line.
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
    // Without standard error there is nobody left to tell.
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

/// Replays what `args` say and prints the report.
///
/// # Errors
///
/// When the access log cannot be read or the report cannot be written.
pub fn run(args: &Args) -> Result<(), Error> {
    let (accesses, origin) = args.load()?;
    let threads = args
        .threads
        .or_else(|| available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN);
    let plan = Plan {
        threads,
        ttl: args.ttl,
        fill_time: args.fill_time,
    };
    let progress = Progress::new(accesses.len());
    let outcome = match accesses {
        Accesses::Numbers(numbers) => replay::<u64, u64>(&numbers, plan, &progress),
        Accesses::Strings(strings) => replay::<Arc<str>, str>(&strings, plan, &progress),
    };
    let report = Report::new(origin, plan, outcome?);
    let text = if args.json {
        report.json().map_err(io::Error::from)?
    } else {
        report.table()
    };
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

impl Args {
    /// Loads the access log or makes a workload.
    fn load(&self) -> Result<(Accesses, Origin), Error> {
        let Some(file) = &self.file else {
            return self.make();
        };
        let trace = trace::load(
            file,
            self.format,
            self.limit.map_or(usize::MAX, NonZeroUsize::get),
        )?;
        let origin = Origin {
            file: Some(file.display().to_string()),
            format: trace.format.to_string(),
            seed: None,
            skipped_lines: trace.skipped,
            distinct_keys: trace.accesses.distinct_keys(),
        };
        Ok((trace.accesses, origin))
    }

    /// Makes a workload.
    fn make(&self) -> Result<(Accesses, Origin), Error> {
        let seed = self.seed.unwrap_or(42);
        let length = self.limit.map_or(workload::ACCESSES, NonZeroUsize::get);
        let accesses = Accesses::Numbers(workload::make(length, seed)?);
        let distinct_keys = accesses.distinct_keys();
        let origin = Origin {
            file: None,
            format: "made".into(),
            seed: Some(seed),
            skipped_lines: 0,
            distinct_keys,
        };
        Ok((accesses, origin))
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
            &["a", "b"],
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

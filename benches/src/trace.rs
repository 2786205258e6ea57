//! Loading the accesses to replay.

use std::{collections::HashSet, fs, hash::Hash, io::BufRead, path::Path, sync::Arc};

use crate::{
    error::{Error, Problem},
    format::{self, Format, Guess},
    open::{self, Source},
    read::{Sink, arc, clf, keys, text},
};

/// How much of a bare `.bin` file is looked at to guess the width of its keys.
const SAMPLE: u64 = 1 << 20;

/// The keys of the accesses, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accesses {
    /// Numbers as keys.
    Numbers(Vec<u64>),
    /// Strings as keys.
    Strings(Vec<Arc<str>>),
}

impl Accesses {
    /// How many accesses there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.len(),
            Self::Strings(strings) => strings.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys differ.
    #[must_use]
    pub fn distinct_keys(&self) -> usize {
        match self {
            Self::Numbers(numbers) => distinct(numbers),
            Self::Strings(strings) => distinct(strings),
        }
    }
}

fn distinct<A: Eq + Hash>(accesses: &[A]) -> usize {
    accesses.iter().collect::<HashSet<_>>().len()
}

/// An access log in memory.
#[derive(Debug)]
pub struct Trace {
    /// The accesses.
    pub accesses: Accesses,
    /// The format of the log.
    pub format: Format,
    /// How many of its lines held no access.
    pub skipped: u64,
}

/// Loads at most `limit` accesses of `file`, `-` being standard input.
///
/// # Errors
///
/// When the file cannot be opened, no format is given and none can be guessed, or it is not in the format.
pub fn load(file: &Path, given: Option<Format>, limit: usize) -> Result<Trace, Error> {
    let shown = file.display().to_string();
    let guess = match given {
        Some(format) => Guess::Sure(format),
        None => guess(file, &shown)?,
    };
    let open = if is_stdin(file) {
        Ok(open::stdin())
    } else {
        open::file(file)
    };
    let raw = match open {
        Ok(raw) => raw,
        Err(reason) => {
            return Err(Error::Open {
                file: shown,
                reason,
            });
        }
    };
    let loaded = decode(raw, &shown, guess, given.is_none(), limit);
    loaded.map_err(|problem| Error::Trace {
        file: shown,
        problem,
    })
}

/// Reads the log out of its raw bytes.
fn decode(
    raw: Box<dyn BufRead>,
    name: &str,
    guess: Guess,
    guessed: bool,
    limit: usize,
) -> Result<Trace, Problem> {
    let mut source = Source::new(raw, name)?;
    let format = settle(guess, &mut source)?;
    let hinting = |problem: Problem| {
        if guessed {
            problem.hinting(&hint(format))
        } else {
            problem
        }
    };
    read(&mut source, format, limit).map_err(hinting)
}

/// Whether `file` stands for standard input.
#[must_use]
pub fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// Reminds that the format was guessed.
fn hint(format: Format) -> String {
    format!("the format {format} is a guess from the name, --format decides")
}

/// Guesses the format from the name.
fn guess(file: &Path, shown: &str) -> Result<Guess, Error> {
    if is_stdin(file) {
        return Err(Error::Usage(
            "expected --format arc|oracle|u32|u64|text|clf with standard input".into(),
        ));
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    match format::guess_by_name(&name) {
        Guess::Unknown => Err(nameless(file, shown)),
        guess => Ok(guess),
    }
}

/// The error for a file that cannot be read because its name tells no format: it is not there, or `--format` is
/// missing.
fn nameless(file: &Path, shown: &str) -> Error {
    let reason = match fs::metadata(file) {
        Ok(metadata) if metadata.is_dir() => "it is a directory".into(),
        Ok(_) => {
            return Error::Usage(format!(
                "{shown}: expected a name that tells the format (.lis, .oracleGeneral, .u32, .u64, .bin, .txt, \
                 .log) or --format arc|oracle|u32|u64|text|clf"
            ));
        }
        Err(error) => error.to_string(),
    };
    Error::Open {
        file: shown.into(),
        reason,
    }
}

/// The format a guess stands for, looking at the content where the name leaves it open.
fn settle(guess: Guess, source: &mut Source) -> Result<Format, Problem> {
    if let Guess::Sure(format) = guess {
        return Ok(format);
    }
    let sample = source.peek(SAMPLE)?;
    format::guess_width(&sample, (sample.len() as u64) < SAMPLE).ok_or_else(|| {
        let message =
            "expected keys that repeat, to tell 32-bit from 64-bit ones; give --format u32 or --format u64";
        Problem::at_byte(0, message)
    })
}

/// Reads the log.
fn read(source: &mut Source, format: Format, limit: usize) -> Result<Trace, Problem> {
    let numbers = match format {
        Format::Arc => arc::read,
        Format::Oracle => keys::read_oracle,
        Format::U32 => keys::read_u32,
        Format::U64 => keys::read_u64,
        Format::Text => text::read,
        Format::Clf => return fill(source, format, limit, clf::read, Accesses::Strings),
    };
    fill(source, format, limit, numbers, Accesses::Numbers)
}

/// Reads the log with the reader of its format.
fn fill<A>(
    source: &mut Source,
    format: Format,
    limit: usize,
    read: impl Fn(&mut Source, &mut Sink<A>) -> Result<(), Problem>,
    wrap: impl Fn(Vec<A>) -> Accesses,
) -> Result<Trace, Problem> {
    let mut sink = Sink::new(limit);
    read(source, &mut sink)?;
    if sink.is_empty() {
        return Err(Problem::at_byte(
            source.offset(),
            "expected at least one access, found none",
        ));
    }
    let skipped = sink.skipped();
    Ok(Trace {
        accesses: wrap(sink.into_accesses()),
        format,
        skipped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_distinct_keys() {
        assert_eq!(Accesses::Numbers(vec![1, 2, 1]).distinct_keys(), 2);
        assert_eq!(
            Accesses::Strings(vec!["a".into(), "a".into()]).distinct_keys(),
            1
        );
    }

    #[test]
    fn standard_input_needs_a_format() {
        let error = load(Path::new("-"), None, 1).expect_err("no format");
        assert_eq!(
            error.to_string(),
            "expected --format arc|oracle|u32|u64|text|clf with standard input"
        );
    }
}

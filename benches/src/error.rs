//! Errors that end a run, each told in one line.

use std::{fmt, io};

/// The place of a problem inside an access log.
///
/// Offsets count bytes after decompression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A byte offset, for binary formats and damaged files.
    Byte(u64),
    /// A line of a text format.
    Line {
        /// The number of the line, from 1.
        number: u64,
        /// The offset of its first byte.
        offset: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte(offset) => write!(f, "byte {offset}"),
            Self::Line { number, offset } => write!(f, "line {number} (byte {offset})"),
        }
    }
}

/// An error in an access log, and its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Problem {
    place: Place,
    message: String,
}

impl Problem {
    /// Makes a problem at `place`; `message` says what was expected.
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        Self {
            place,
            message: message.into(),
        }
    }

    /// A problem at the byte `offset`.
    pub fn at_byte(offset: u64, message: impl Into<String>) -> Self {
        Self::new(Place::Byte(offset), message)
    }

    /// Appends `hint` to the message.
    #[must_use]
    pub fn hinting(mut self, hint: &str) -> Self {
        self.message.push_str("; ");
        self.message.push_str(hint);
        self
    }
}

/// Why a run ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments do not make sense.
    #[error("{0}")]
    Usage(String),
    /// The access log cannot be opened.
    #[error("{file}: expected a readable access log: {reason}")]
    Open {
        /// The file as given.
        file: String,
        /// Why it cannot be opened.
        reason: String,
    },
    /// The access log is not of its format.
    #[error("{file}: {problem}")]
    Trace {
        /// The file as given.
        file: String,
        /// The error, and its place.
        problem: Problem,
    },
    /// The cache refuses its settings.
    #[error("the cache cannot be built: {0}")]
    Build(#[from] atomic_cache::BuildError),
    /// A thread cannot be started.
    #[error("expected to start {threads} threads, give fewer with --threads: {source}")]
    Spawn {
        /// How many threads were asked for.
        threads: usize,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The plot cannot be written.
    #[error("{file}: expected to write the plot: {reason}")]
    Plot {
        /// The file as given.
        file: String,
        /// Why it cannot be written.
        reason: String,
    },
    /// The figures cannot be written into a file.
    #[error("{file}: expected to write the figures: {source}")]
    Figures {
        /// The file as given.
        file: String,
        /// Why it cannot be written.
        source: io::Error,
    },
    /// The result cannot be written.
    #[error("standard output: expected to write the result: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    /// The message as exactly one line: line breaks and other control characters are escaped.
    #[must_use]
    pub fn one_line(&self) -> String {
        escape_control(&self.to_string())
    }
}

/// Escapes the control characters of `text`, such as a line break in a file name.
#[must_use]
pub fn escape_control(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        let error = Error::Open {
            file: "a\nb".into(),
            reason: "gone".into(),
        };
        assert_eq!(
            error.one_line(),
            "a\\nb: expected a readable access log: gone"
        );
    }

    #[test]
    fn a_problem_names_its_place() {
        let line = Place::Line {
            number: 3,
            offset: 27,
        };
        assert_eq!(
            Problem::new(line, "expected x").to_string(),
            "line 3 (byte 27): expected x"
        );
        assert_eq!(
            Problem::at_byte(8, "expected y").hinting("z").to_string(),
            "byte 8: expected y; z"
        );
    }
}

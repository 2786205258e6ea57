//! Readers of the access logs, one for each format.

pub mod arc;
pub mod clf;
pub mod keys;
pub mod text;

/// Collects the accesses of a log, up to a limit.
#[derive(Debug)]
pub struct Sink<A> {
    accesses: Vec<A>,
    limit: usize,
    skipped: u64,
}

impl<A> Sink<A> {
    /// A sink that takes at most `limit` accesses.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            accesses: Vec::new(),
            limit,
            skipped: 0,
        }
    }

    /// Whether the limit is reached and reading can stop.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.accesses.len() >= self.limit
    }

    /// Takes one access, unless the limit is reached.
    pub fn push(&mut self, access: A) {
        if !self.is_full() {
            self.accesses.push(access);
        }
    }

    /// Takes many accesses, up to the limit.
    pub fn extend(&mut self, accesses: impl Iterator<Item = A>) {
        self.accesses
            .extend(accesses.take(self.limit - self.accesses.len().min(self.limit)));
    }

    /// Notes a line that holds no access.
    pub fn skip(&mut self) {
        self.skipped += 1;
    }

    /// How many lines held no access.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Whether no access came.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accesses.is_empty()
    }

    /// The accesses, in the order they came.
    #[must_use]
    pub fn into_accesses(self) -> Vec<A> {
        self.accesses
    }
}

/// A piece of a line to show in a message: not too long, and readable whatever its bytes.
fn excerpt(line: &[u8]) -> String {
    const LONGEST: usize = 40;
    let text = String::from_utf8_lossy(&line[..line.len().min(LONGEST)]);
    let dots = if line.len() > LONGEST { "…" } else { "" };
    format!("`{}{dots}`", crate::error::escape_control(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::Problem, open::Source, open::tests::source};

    /// Reads `data` with `read`, up to `limit` accesses.
    pub(crate) fn read_limited<A>(
        read: impl Fn(&mut Source, &mut Sink<A>) -> Result<(), Problem>,
        data: &[u8],
        limit: usize,
    ) -> Result<Sink<A>, String> {
        let mut sink = Sink::new(limit);
        read(&mut source(data), &mut sink).map_err(|problem| problem.to_string())?;
        Ok(sink)
    }

    /// Reads `data` cut at each byte: how many accesses each cut holds, or the error in it.
    pub(crate) fn read_each_cut<A>(
        read: impl Fn(&mut Source, &mut Sink<A>) -> Result<(), Problem>,
        data: &[u8],
    ) -> Vec<Result<usize, String>> {
        (1..=data.len())
            .map(|length| {
                Ok(read_limited(&read, &data[..length], usize::MAX)?
                    .into_accesses()
                    .len())
            })
            .collect()
    }

    #[test]
    fn a_sink_takes_no_more_than_its_limit() {
        let mut sink = Sink::new(3);
        sink.push(1);
        sink.extend(2..10);
        sink.push(11);
        assert!(sink.is_full());
        assert_eq!(sink.into_accesses(), [1, 2, 3]);
    }

    #[test]
    fn an_excerpt_is_short_and_readable() {
        assert_eq!(excerpt(b"a\x1b\xff"), "`a\\u{1b}\u{fffd}`");
        assert_eq!(excerpt(&[b'x'; 99]).chars().count(), 43);
    }
}

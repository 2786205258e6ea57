//! How long a thread has waited for a processor, which says whether the machine had other things to do.

use std::{fs, time::Duration};

/// The system's figures of the calling thread: on Linux `run-time waiting-time slices`, in nanoseconds.
const OF_THIS_THREAD: &str = "/proc/thread-self/schedstat";

/// How long this thread has been ready and was not run; zero where the system does not tell.
#[must_use]
pub fn waited() -> Duration {
    let told = fs::read_to_string(OF_THIS_THREAD).unwrap_or_default();
    parse(&told).unwrap_or_default()
}

fn parse(told: &str) -> Option<Duration> {
    let waiting = told.split_whitespace().nth(1)?;
    waiting.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_number_is_what_was_waited() {
        assert_eq!(parse("12 345 6\n"), Some(Duration::from_nanos(345)));
        assert_eq!(parse(""), None);
        assert!(waited() <= waited());
    }
}

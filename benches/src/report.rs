//! The results of a replay, as a table or as one line of JSON.

use std::{fmt::Display, time::Duration};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use crate::replay::{Outcome, Plan};

/// Where the accesses came from.
#[derive(Debug, Clone, Serialize)]
pub struct Origin {
    /// The access log as given; none for a made workload.
    pub file: Option<String>,
    /// Its format, or `made`.
    pub format: String,
    /// The seed of a made workload.
    pub seed: Option<u64>,
    /// How many lines of the log held no access.
    pub skipped_lines: u64,
    /// How many keys differ.
    pub distinct_keys: usize,
}

/// The results of a replay. Its fields are those of the JSON line.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where the accesses came from.
    #[serde(flatten)]
    pub origin: Origin,
    /// How many threads took turns.
    pub threads: usize,
    /// The most entries; none without a bound.
    pub capacity: Option<u64>,
    /// How long a value lives; none for ever.
    pub ttl_seconds: Option<f64>,
    /// How long making a value takes.
    pub fill_time_seconds: f64,
    /// All accesses: `hits + joined + fills`.
    pub accesses: u64,
    /// Accesses answered by a value already there.
    pub hits: u64,
    /// Accesses that waited for the fill of another thread.
    pub joined: u64,
    /// Accesses that made the value.
    pub fills: u64,
    /// Hits per access, from 0 to 1.
    pub hit_ratio: f64,
    /// Entries that had to go to make room.
    pub evictions: u64,
    /// How long the replay took.
    pub elapsed_seconds: f64,
    /// Accesses of all threads together in a second.
    pub accesses_per_second: f64,
    /// The fill time of the accesses that ran no fill.
    pub fill_time_saved_seconds: f64,
    /// The most entries seen at one time.
    pub peak_entries: usize,
    /// The bytes the cache holds for each entry at the end, with keys and 8-byte values; none without entries.
    pub bytes_per_entry: Option<f64>,
}

impl Report {
    /// Puts the facts about a replay together.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn new(origin: Origin, plan: Plan, outcome: Outcome) -> Self {
        let Outcome {
            hits,
            joined,
            fills,
            ..
        } = outcome;
        let accesses = hits + joined + fills;
        let elapsed = outcome.elapsed.as_secs_f64();
        let fill_time = plan.fill_time.as_secs_f64();
        Self {
            origin,
            threads: plan.threads.get(),
            capacity: plan.capacity,
            ttl_seconds: plan.ttl.map(|ttl| ttl.as_secs_f64()),
            fill_time_seconds: fill_time,
            accesses,
            hits,
            joined,
            fills,
            hit_ratio: hits as f64 / accesses.max(1) as f64,
            evictions: outcome.evictions,
            elapsed_seconds: elapsed,
            accesses_per_second: accesses as f64 / elapsed.max(1e-9),
            fill_time_saved_seconds: (hits + joined) as f64 * fill_time,
            peak_entries: outcome.peak_entries,
            bytes_per_entry: (outcome.entries > 0)
                .then(|| outcome.grown_bytes as f64 / outcome.entries as f64),
        }
    }

    /// One line of JSON.
    ///
    /// # Errors
    ///
    /// Never: every field can be written as JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// A table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut rows = self.origin_rows();
        rows.extend(self.bound_rows());
        rows.extend(self.cache_rows());
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.add_rows(rows);
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }

    fn origin_rows(&self) -> Vec<[String; 2]> {
        let origin = &self.origin;
        let made = || {
            origin
                .seed
                .map_or_else(String::new, |seed| format!("made with seed {seed}"))
        };
        let mut rows = vec![
            row(
                "access log",
                crate::error::escape_control(&origin.file.clone().unwrap_or_else(made)),
            ),
            row("format", &origin.format),
            row("accesses", HumanCount(self.accesses)),
            row("distinct keys", HumanCount(origin.distinct_keys as u64)),
        ];
        if origin.skipped_lines > 0 {
            rows.push(row("skipped lines", HumanCount(origin.skipped_lines)));
        }
        rows
    }

    fn bound_rows(&self) -> Vec<[String; 2]> {
        let rows = |capacity| {
            vec![
                row("capacity", HumanCount(capacity)),
                row("evictions", HumanCount(self.evictions)),
            ]
        };
        self.capacity.map_or_else(Vec::new, rows)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded on purpose"
    )]
    fn cache_rows(&self) -> Vec<[String; 2]> {
        let bytes = self.bytes_per_entry.map_or_else(
            || "-".into(),
            |bytes| HumanBytes(bytes.round() as u64).to_string(),
        );
        vec![
            row("threads", self.threads),
            row("hits", HumanCount(self.hits)),
            row("fills", HumanCount(self.fills)),
            row("joined flights", HumanCount(self.joined)),
            row("hit ratio", format!("{:.2} %", 100.0 * self.hit_ratio)),
            row(
                "throughput",
                format!("{} accesses/s", HumanCount(self.accesses_per_second as u64)),
            ),
            row("fill time saved", duration(self.fill_time_saved_seconds)),
            row("peak entries", HumanCount(self.peak_entries as u64)),
            row("bytes an entry", bytes),
        ]
    }
}

fn row(name: &str, value: impl Display) -> [String; 2] {
    [name.into(), value.to_string()]
}

/// A duration to read: whole milliseconds from a second on.
fn duration(seconds: f64) -> String {
    let Ok(exact) = Duration::try_from_secs_f64(seconds) else {
        return format!("{seconds} s");
    };
    let unit: u128 = if seconds >= 1.0 { 1_000_000 } else { 1 };
    let rest = u64::try_from(exact.as_nanos() % unit).unwrap_or(0);
    humantime::format_duration(exact.saturating_sub(Duration::from_nanos(rest))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    fn report(fills: u64, entries: usize) -> Report {
        let origin = Origin {
            file: Some("a\nb".into()),
            format: "text".into(),
            seed: None,
            skipped_lines: 2,
            distinct_keys: 3,
        };
        let plan = Plan {
            threads: NonZeroUsize::MIN,
            capacity: Some(4),
            ttl: None,
            fill_time: Duration::from_millis(10),
        };
        let elapsed = Duration::from_secs(2);
        let outcome = Outcome {
            hits: 6,
            joined: 1,
            fills,
            elapsed,
            evictions: 1234,
            peak_entries: 3,
            entries,
            grown_bytes: 300,
        };
        Report::new(origin, plan, outcome)
    }

    #[test]
    fn figures_follow_from_the_outcome() {
        let report = report(3, 3);
        assert_eq!(report.accesses, 10);
        assert!((report.hit_ratio - 0.6).abs() < 1e-9);
        assert!((report.accesses_per_second - 5.0).abs() < 1e-9);
        assert!((report.fill_time_saved_seconds - 0.07).abs() < 1e-9);
        assert_eq!(report.bytes_per_entry, Some(100.0));
    }

    #[test]
    fn json_is_one_line() {
        let json = report(3, 0).json().expect("plain fields");
        assert!(!json.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&json).expect("valid JSON");
        assert_eq!(value["file"], "a\nb");
        assert_eq!(value["bytes_per_entry"], serde_json::Value::Null);
    }

    #[test]
    fn the_table_holds_every_figure() {
        let table = report(3, 3).table();
        for text in [
            "a\\nb",
            "skipped lines",
            "60.00 %",
            "70ms",
            "100 B",
            "joined flights",
            "5 accesses/s",
            "capacity",
            "1,234",
        ] {
            assert!(table.contains(text), "{text} in\n{table}");
        }
    }

    #[test]
    fn durations_are_readable() {
        assert_eq!(duration(0.0), "0s");
        assert_eq!(duration(0.000_25), "250us");
        assert_eq!(duration(61.234_567), "1m 1s 234ms");
        assert_eq!(duration(1e300), format!("{} s", 1e300));
    }
}

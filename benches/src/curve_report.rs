//! A curve as a table or as one line of JSON.

use std::num::NonZeroUsize;

use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanCount;
use serde::Serialize;

use crate::{
    curve::{Contender, Curve, Row},
    error::escape_control,
};

/// Explains the table.
const LEGEND: &str = "Hit ratio in %. * is the best peer, ahead how many points this cache is ahead of it; \
                      the optimum knows the future.";

/// Explains the column that is there with several threads only.
const ORDER_LEGEND: &str =
    "Same order: one thread, which makes the accesses in the order in which the threads made them.";

/// The columns before those of the contenders.
const LEADING: usize = 3;

/// A table for people.
#[must_use]
pub fn table(curve: &Curve) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header(curve));
    for row in &curve.rows {
        table.add_row(line(
            curve,
            leading(row),
            &row.hit_ratios().collect::<Vec<_>>(),
        ));
    }
    let mean = ["mean".into(), String::new(), String::new()];
    table.add_row(line(curve, mean, &curve.means()));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n{}", legend(curve))
}

/// Returns the lines that explain the columns present.
fn legend(curve: &Curve) -> String {
    let mut contenders = curve.contenders.iter();
    if contenders.any(|contender| contender.order_of_threads().is_some()) {
        format!("{LEGEND}\n{ORDER_LEGEND}")
    } else {
        LEGEND.into()
    }
}

fn header(curve: &Curve) -> Vec<String> {
    let mut header: Vec<String> = ["trace", "capacity", "share"].map(String::from).into();
    header.extend(curve.contenders.iter().map(title));
    header.push("ahead".into());
    header
}

/// Returns the title of the column of `contender`.
fn title(contender: &Contender) -> String {
    if contender.order_of_threads().is_some() {
        return "same order\n1 thread".into();
    }
    match contender.threads().get() {
        1 => contender.name().replace(' ', "\n"),
        threads => format!("{}\n{threads} threads", contender.name()),
    }
}

/// The cells before the hit ratios.
fn leading(row: &Row) -> [String; LEADING] {
    [
        escape_control(&row.trace),
        HumanCount(row.capacity).to_string(),
        share(row.share),
    ]
}

/// A share of the distinct keys.
fn share(share: f64) -> String {
    if share > 1.0 {
        "> 100 %".into()
    } else {
        format!("{:.1} %", 100.0 * share)
    }
}

/// One line of the table: the hit ratios, the best peer marked, and how far ahead we are.
fn line(curve: &Curve, leading: [String; LEADING], ratios: &[f64]) -> Vec<String> {
    let best = best_peer(curve, ratios);
    let cell = |(contender, ratio): (&Contender, &f64)| {
        let marked = matches!(contender, Contender::Peer(_)) && shown(*ratio) == shown(best);
        format!("{}{}", shown(*ratio), if marked { " *" } else { "  " })
    };
    let cells = curve.contenders.iter().zip(ratios).map(cell);
    let mut line: Vec<String> = leading.into_iter().chain(cells).collect();
    line.push(format!("{:+.1}", 100.0 * (ratios[0] - best)));
    line
}

/// A ratio in percent.
fn shown(ratio: f64) -> String {
    format!("{:.1}", 100.0 * ratio)
}

/// The greatest of the hit ratios of the peers.
fn best_peer(curve: &Curve, ratios: &[f64]) -> f64 {
    let peers = curve.contenders.iter().zip(ratios);
    let peers = peers.filter(|(contender, _)| matches!(contender, Contender::Peer(_)));
    peers.map(|(_, &ratio)| ratio).fold(0.0, f64::max)
}

/// One cell of the JSON line.
#[derive(Debug, Serialize)]
struct Cell<'a> {
    trace: &'a str,
    file: Option<&'a str>,
    capacity: u64,
    share: f64,
    cache: &'a str,
    threads: usize,
    order_of_threads: Option<usize>,
    accesses: u64,
    hits: u64,
    hit_ratio: f64,
}

/// The mean over all rows in the JSON line.
#[derive(Debug, Serialize)]
struct Mean<'a> {
    cache: &'a str,
    threads: usize,
    order_of_threads: Option<usize>,
    hit_ratio: f64,
}

/// The JSON line.
#[derive(Debug, Serialize)]
struct Whole<'a> {
    cells: Vec<Cell<'a>>,
    means: Vec<Mean<'a>>,
}

/// One line of JSON: every cell, and the means.
///
/// # Errors
///
/// Never: every field can be written as JSON.
pub fn json(curve: &Curve) -> serde_json::Result<String> {
    let cells = curve
        .rows
        .iter()
        .flat_map(|row| cells(curve, row))
        .collect();
    let mean = |(contender, hit_ratio): (&'_ Contender, f64)| Mean {
        cache: contender.name(),
        threads: contender.threads().get(),
        order_of_threads: contender.order_of_threads().map(NonZeroUsize::get),
        hit_ratio,
    };
    let means = curve
        .contenders
        .iter()
        .zip(curve.means())
        .map(mean)
        .collect();
    serde_json::to_string(&Whole { cells, means })
}

/// The cells of one row.
fn cells<'a>(curve: &'a Curve, row: &'a Row) -> impl Iterator<Item = Cell<'a>> {
    let figures = row.hits.iter().zip(row.hit_ratios());
    let cell = |(contender, (&hits, hit_ratio)): (&'a Contender, (&u64, f64))| Cell {
        trace: &row.trace,
        file: row.file.as_deref(),
        capacity: row.capacity,
        share: row.share,
        cache: contender.name(),
        threads: contender.threads().get(),
        order_of_threads: contender.order_of_threads().map(NonZeroUsize::get),
        accesses: row.accesses,
        hits,
        hit_ratio,
    };
    curve.contenders.iter().zip(figures).map(cell)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{capacity::Capacity, numbered::Numbered};

    /// A loop over 20 keys, in 16 and in 20 entries, on one and on so many threads.
    fn curve(threads: usize) -> Curve {
        let log = Numbered {
            name: "a\nb".into(),
            file: None,
            keys: (0..200).map(|index| index % 20).collect(),
            distinct_keys: 20,
        };
        let capacities = [Capacity::Entries(16), Capacity::Entries(40)];
        let threads = NonZeroUsize::new(threads).expect("not zero");
        Curve::measure(&[log], &capacities, threads).expect("a run")
    }

    #[test]
    fn the_table_has_a_line_for_each_row_and_one_for_the_mean() {
        let table = table(&curve(2));
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4 + 3 + 3, "{table}");
        for (line, parts) in [
            (1, &["atomic-cache", "same order", "moka", "optimum"][..]),
            (2, &["2 threads", "1 thread "]),
            (4, &["a\\nb", "80.0 %", "72.0", "*"]),
            (5, &["> 100 %", "90.0 *", "+0.0"]),
            (6, &["mean", "81.0"]),
        ] {
            let text = lines[line..].join("\n");
            assert!(
                parts.iter().all(|part| text.contains(part)),
                "{parts:?} in\n{table}"
            );
        }
    }

    #[test]
    fn one_thread_has_no_other_order() {
        let curve = curve(1);
        let table = table(&curve);
        assert!(!table.to_lowercase().contains("same order"), "{table}");
        let json = json(&curve).expect("plain fields");
        assert!(!json.contains(r#""order_of_threads":1"#), "{json}");
    }

    #[test]
    fn json_is_one_line_with_every_cell() {
        let curve = curve(2);
        let json = json(&curve).expect("plain fields");
        assert!(!json.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&json).expect("valid JSON");
        let count = |field: &str| value[field].as_array().map(Vec::len);
        assert_eq!(count("cells"), Some(2 * curve.contenders.len()));
        assert_eq!(count("means"), Some(curve.contenders.len()));
        for list in ["cells", "means"] {
            let ours = [0, 1, 2].map(|index| &value[list][index]);
            assert_eq!(ours.map(|each| &each["threads"]), [1, 2, 1]);
            let order = ours.map(|each| each["order_of_threads"].as_u64());
            assert_eq!(order, [None, None, Some(2)]);
        }
        assert_eq!(value["cells"][0]["trace"], "a\nb");
    }

    #[test]
    fn the_best_is_the_best_of_the_peers() {
        let curve = curve(2);
        let mut ratios = vec![0.5; curve.contenders.len()];
        ratios[0] = 0.9;
        ratios[3] = 0.6;
        *ratios.last_mut().expect("the optimum") = 1.0;
        let line = line(&curve, leading(&curve.rows[0]), &ratios);
        assert_eq!(line[LEADING + 3], "60.0 *");
        assert_eq!(line.last().map(String::as_str), Some("+30.0"));
        assert_eq!(line.iter().filter(|cell| cell.contains('*')).count(), 1);
    }
}

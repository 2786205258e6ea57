//! The tables for people.

use std::{num::NonZeroUsize, thread};

use comfy_table::{CellAlignment, Table, presets};

use super::{
    contenders::{ALL, Contender, mark},
    figures::{Figure, Race, Results},
    herd::Herd,
    latency::Slowest,
    memory::Memory,
    scale::{Scale, Size},
    tasks::Tasks,
};

/// When threads wait for a processor for a larger share of their time, others are in their way.
const DISTURBED: f64 = 0.05;

/// All that `results` has, as tables one below the other.
#[must_use]
pub fn tables(results: &Results) -> String {
    let mut tables = Vec::new();
    if !results.races.is_empty() {
        tables.push(races("ns an operation", &results.races));
        tables.push(footnote(&results.races));
        tables.push(disturbance(&results.races));
    }
    tables.extend(some(&results.herd).map(herd));
    tables.extend(some(&results.tasks).map(tasks));
    tables.extend(some(&results.memory).map(memory));
    if let Some(scale) = &results.scale {
        tables.push(sizes(scale));
        tables.push(races("ns an operation", &scale.threads));
    }
    if let Some(latency) = &results.latency {
        tables.push(slowest("fills while it grows", &latency.growth));
        tables.push(slowest(
            "hits beside evictions",
            &latency.hits_beside_evictions,
        ));
    }
    tables.retain(|table| !table.is_empty());
    tables.join("\n")
}

fn some<T>(figures: &[T]) -> Option<&[T]> {
    (!figures.is_empty()).then_some(figures)
}

/// A table with numbers in every column but the first.
fn numbers(header: Vec<String>, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(String::from).to_vec()
}

/// Returns the contenders that took part in any of `races`.
fn entrants(races: &[Race]) -> Vec<Contender> {
    let took_part = |contender: &Contender| {
        let mut figures = races.iter().flat_map(|race| &race.contenders);
        figures.any(|figure| figure.name == contender.name)
    };
    ALL.into_iter().filter(took_part).collect()
}

/// A row for each race, a column for each contender.
fn races(title: &str, races: &[Race]) -> String {
    let contenders = entrants(races);
    let name = |contender: &Contender| {
        contender.name.replace('+', "+\n") + mark(contender.name, contender.single_flight)
    };
    let mut header = strings([title, "threads"]);
    header.extend(contenders.iter().map(name));
    let rows = races.iter().flat_map(|race| race_rows(race, &contenders));
    numbers(header, rows)
}

fn race_rows(race: &Race, contenders: &[Contender]) -> Vec<Vec<String>> {
    let titles = vec![race.work.title().into(), race.threads.to_string()];
    let mut rows = vec![row(titles, race, contenders, cell)];
    if race.work.can_miss() {
        rows.push(row(
            strings(["  hit ratio", ""]),
            race,
            contenders,
            hit_ratio,
        ));
    }
    rows
}

fn row(
    mut row: Vec<String>,
    race: &Race,
    contenders: &[Contender],
    cell: fn(&Figure) -> String,
) -> Vec<String> {
    row.extend(contenders.iter().map(|contender| {
        let mut figures = race.contenders.iter();
        let figure = figures.find(|figure| figure.name == contender.name);
        figure.map_or_else(|| "-".into(), cell)
    }));
    row
}

fn cell(figure: &Figure) -> String {
    format!("{} ×{}", short(figure.ns), ratio(figure.ratio))
}

fn hit_ratio(figure: &Figure) -> String {
    maybe(figure.hit_ratio, |hits| format!("{:.2} %", 100.0 * hits))
}

fn footnote(races: &[Race]) -> String {
    let mut contenders = entrants(races).into_iter();
    if contenders.any(|contender| !mark(contender.name, contender.single_flight).is_empty()) {
        "* no single flight on threads: of those who ask for an absent key at once, each makes the value".into()
    } else {
        String::new()
    }
}

/// Which figures are not to be trusted, as the machine had other things to do.
fn disturbance(races: &[Race]) -> String {
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let alone = races.iter().filter(|race| race.threads <= processors);
    let worst = alone.map(|race| race.waited).fold(0.0, f64::max);
    if worst < DISTURBED {
        return String::new();
    }
    let percent = 100.0 * worst;
    format!(
        "the machine was busy: at some work threads waited {percent:.0} % of their time for a processor"
    )
}

fn maybe(figure: Option<f64>, show: impl Fn(f64) -> String) -> String {
    figure.map_or_else(|| "-".into(), show)
}

/// Three digits or so.
#[must_use]
pub fn short(figure: f64) -> String {
    if figure < 99.95 {
        format!("{figure:.1}")
    } else {
        format!("{figure:.0}")
    }
}

fn ratio(ratio: f64) -> String {
    if ratio < 9.995 {
        format!("{ratio:.2}")
    } else {
        short(ratio)
    }
}

fn herd(herd: &[Herd]) -> String {
    let header = [
        "64 threads, one absent key",
        "fills",
        "wake-up, µs",
        "longest",
    ];
    let row = |herd: &Herd| {
        let (wake, longest) = (maybe(herd.wake_us, short), maybe(herd.longest_us, short));
        vec![herd.name.into(), herd.fills.to_string(), wake, longest]
    };
    numbers(strings(header), herd.iter().map(row))
}

fn tasks(tasks: &[Tasks]) -> String {
    let count = tasks.first().map_or(0, |figure| figure.tasks);
    let title = format!("{count} tasks, one absent key");
    let header = strings([&title, "fills", "ns a task"]);
    let row = |tasks: &Tasks| vec![tasks.name.into(), tasks.fills.to_string(), short(tasks.ns)];
    numbers(header, tasks.iter().map(row))
}

fn memory(memory: &[Memory]) -> String {
    let entries = memory.first().map_or(0, |figure| figure.entries);
    let title = format!("{entries} entries");
    let header = strings([&title, "bytes an entry", "allocations a hit", "a fill"]);
    let row = |memory: &Memory| {
        let kind = match (memory.ttl, memory.bounded) {
            (true, _) => ", TTL on",
            (_, true) => ", bounded",
            _ => "",
        };
        let hit = maybe(memory.allocations_a_hit, |hit| format!("{hit:.2}"));
        let fill = format!("{:.2}", memory.allocations_a_fill);
        vec![
            memory.name.to_owned() + kind,
            short(memory.bytes_an_entry),
            hit,
            fill,
        ]
    };
    numbers(header, memory.iter().map(row))
}

fn sizes(scale: &Scale) -> String {
    let all: Vec<Race> = scale
        .entries
        .iter()
        .flat_map(|size| size.races.clone())
        .collect();
    let contenders = entrants(&all);
    let mut header = strings(["ns an operation", "entries"]);
    header.extend(contenders.iter().map(|contender| contender.name.to_owned()));
    let rows = |size: &Size| {
        let entries = size.entries.to_string();
        let row = |race: &Race| {
            let titles = vec![race.work.title().into(), entries.clone()];
            row(titles, race, &contenders, cell)
        };
        size.races.iter().map(row).collect::<Vec<_>>()
    };
    numbers(header, scale.entries.iter().flat_map(rows))
}

fn slowest(title: &str, slowest: &[Slowest]) -> String {
    let columns = [
        "operations",
        "median, ns",
        "99 %",
        "99.99 %",
        "longest",
        "put in beside",
    ];
    let mut header = strings([title]);
    header.extend(strings(columns));
    let row = |slowest: &Slowest| {
        let Slowest {
            operations,
            median,
            p99,
            p99_99,
            longest,
            ..
        } = *slowest;
        let mut row = vec![slowest.name.to_owned()];
        row.extend([operations, median, p99, p99_99, longest].map(|figure| figure.to_string()));
        row.push(
            slowest
                .put_in_beside
                .map_or_else(|| "-".into(), |count| count.to_string()),
        );
        row
    };
    numbers(header, slowest.iter().map(row))
}

//! The table for people.

use comfy_table::{CellAlignment, Table, presets};

use super::{
    contenders::{Contender, FLOOR},
    figures::{Figure, Race, Results},
};

/// A row for each race, a column for each of `contenders`.
#[must_use]
pub fn table(results: &Results, contenders: &[Contender]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header(contenders));
    for race in &results.races {
        table.add_row(row(race, contenders, ["", ""].map(String::from), cell));
        if race.work.can_miss() {
            let titles = ["hit ratio".into(), String::new()];
            table.add_row(row(race, contenders, titles, hit_ratio));
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn header(contenders: &[Contender]) -> Vec<String> {
    let mark = |contender: &Contender| {
        let marked = !contender.single_flight && contender.name != FLOOR;
        let mark = if marked { " *" } else { "" };
        contender.name.replace('+', "+\n") + mark
    };
    let titles = ["ns an operation".into(), "threads".into()].into_iter();
    titles.chain(contenders.iter().map(mark)).collect()
}

fn row(
    race: &Race,
    contenders: &[Contender],
    titles: [String; 2],
    cell: fn(&Figure) -> String,
) -> Vec<String> {
    let [mut title, mut threads] = titles;
    if title.is_empty() {
        title = race.work.title().into();
        threads = race.threads.to_string();
    }
    let cells = contenders.iter().map(|contender| {
        let mut figures = race.contenders.iter();
        figures
            .find(|figure| figure.name == contender.name)
            .map_or_else(|| "-".into(), cell)
    });
    [title, threads].into_iter().chain(cells).collect()
}

fn cell(figure: &Figure) -> String {
    format!("{} ×{}", short(figure.ns), ratio(figure.ratio))
}

fn hit_ratio(figure: &Figure) -> String {
    figure
        .hit_ratio
        .map_or_else(|| "-".into(), |hits| format!("{:.2} %", 100.0 * hits))
}

/// Three digits or so.
#[must_use]
pub fn short(ns: f64) -> String {
    if ns < 99.95 {
        format!("{ns:.1}")
    } else {
        format!("{ns:.0}")
    }
}

fn ratio(ratio: f64) -> String {
    match ratio {
        ratio if ratio < 9.995 => format!("{ratio:.2}"),
        ratio if ratio < 99.95 => format!("{ratio:.1}"),
        ratio => format!("{ratio:.0}"),
    }
}

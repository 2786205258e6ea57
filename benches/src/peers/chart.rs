//! The nanoseconds as an SVG file of bar charts: a panel for each work, in it a group of bars for each contender.
//!
//! Bars are as long as the nanoseconds are many, up to some times ours: longer ones are cut, which shows as a gap, and
//! their label gives the figure.

use std::{error::Error as StdError, fs, path::Path};

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    contenders::{FLOOR, OURS, mark},
    figures::{Figure, Race},
    tables::short,
};
use crate::{
    error::Error,
    plot::{self, FONT, INK},
};

/// The width of a panel.
const PANEL: i32 = 500;

/// How many panels are beside each other.
const COLUMNS: usize = 2;

/// Around all, and between panels.
const MARGIN: i32 = 20;

/// The height of the title of all.
const HEAD: i32 = 44;

/// The height of the title of a panel.
const TITLE: i32 = 32;

/// The height of a bar.
const BAR: i32 = 12;

/// Between the bars of two contenders.
const GAP: i32 = 7;

/// Where bars begin, right of the names.
const NAMES: i32 = 140;

/// Right of the longest bar, for its label.
const LABEL: i32 = 120;

/// The longest bar stands for so many times ours, or for the longest there is.
const LONGEST: f64 = 8.0;

/// The bars of this cache.
const OUR_BARS: RGBColor = RGBColor(214, 39, 40);

/// Those of the floor.
const FLOOR_BARS: RGBColor = RGBColor(150, 150, 150);

/// Those of the peers.
const PEER_BARS: RGBColor = RGBColor(70, 110, 160);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn StdError>>;

/// Draws `races` into `file`.
///
/// # Errors
///
/// When the file cannot be written.
pub fn draw(races: &[Race], file: &Path) -> Result<(), Error> {
    let drawn = svg(races).map_err(|reason| plot::failed(file, &*reason))?;
    fs::write(file, drawn).map_err(|reason| plot::failed(file, &reason))
}

/// The text of the SVG file.
fn svg(races: &[Race]) -> Result<String, Box<dyn StdError>> {
    let panels: Vec<&[Race]> = races.chunk_by(|a, b| a.work == b.work).collect();
    let (places, height) = places(&panels);
    let columns = i32::try_from(COLUMNS.min(panels.len().max(1)))?;
    let width = columns * (PANEL + MARGIN) + MARGIN;
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (width.unsigned_abs(), height.unsigned_abs()));
    let area = area.into_drawing_area();
    area.fill(&WHITE)?;
    area.draw(&Text::new(title(races), (MARGIN, MARGIN), style(20)))?;
    for (panel, place) in panels.iter().zip(places) {
        draw_panel(&area, panel, place)?;
    }
    area.present()?;
    drop(area);
    Ok(text)
}

fn title(races: &[Race]) -> String {
    let mut threads: Vec<usize> = races.iter().map(|race| race.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    let threads: Vec<String> = threads.iter().map(usize::to_string).collect();
    let bars = if threads.len() > 1 {
        "; the bars of one from above: "
    } else {
        "; "
    };
    let plural = if threads == ["1"] { "" } else { "s" };
    format!(
        "Nanoseconds an operation, less is better{bars}{} thread{plural}; * no single flight",
        threads.join(", ")
    )
}

/// The upper left corner of each panel, each in the column that is shortest by then; and the height of all.
fn places(panels: &[&[Race]]) -> (Vec<(i32, i32)>, i32) {
    let mut columns = [MARGIN + HEAD; COLUMNS];
    let mut place = |panel: &&[Race]| {
        let shortest = (0..COLUMNS)
            .min_by_key(|&column| columns[column])
            .unwrap_or(0);
        let left = MARGIN + i32::try_from(shortest).unwrap_or(0) * (PANEL + MARGIN);
        let top = columns[shortest];
        columns[shortest] += height(panel) + MARGIN;
        (left, top)
    };
    let places = panels.iter().map(&mut place).collect();
    (places, columns.into_iter().max().unwrap_or(0))
}

/// The height of one contender's bars.
fn group(panel: &[Race]) -> i32 {
    i32::try_from(panel.len()).unwrap_or(1) * BAR + GAP
}

fn height(panel: &[Race]) -> i32 {
    let groups = panel.first().map_or(0, |race| race.contenders.len());
    TITLE + i32::try_from(groups).unwrap_or(0) * group(panel)
}

fn style(size: u32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&INK)
}

fn draw_panel(area: &Area<'_>, panel: &[Race], (left, top): (i32, i32)) -> Drawn {
    let Some(first) = panel.first() else {
        return Ok(());
    };
    area.draw(&Text::new(first.work.title(), (left, top + 6), style(17)))?;
    let most = longest(panel);
    let right = style(14).pos(Pos::new(HPos::Right, VPos::Center));
    for (index, figure) in (0..).zip(&first.contenders) {
        let top = top + TITLE + index * group(panel);
        let middle = top + (group(panel) - GAP) / 2;
        area.draw(&Text::new(
            figure.name.to_owned() + mark(figure.name, figure.single_flight),
            (left + NAMES - 8, middle),
            right.clone(),
        ))?;
        let figures = panel.iter().filter_map(|race| {
            race.contenders
                .iter()
                .find(|other| other.name == figure.name)
        });
        for (bar, figure) in (0..).zip(figures) {
            draw_bar(area, figure, bar, most, (left + NAMES, top + bar * BAR))?;
        }
    }
    Ok(())
}

/// The nanoseconds of the longest bar.
fn longest(panel: &[Race]) -> f64 {
    let figures = || panel.iter().flat_map(|race| &race.contenders);
    let most = |ns: &mut dyn Iterator<Item = f64>| ns.fold(0.0, f64::max);
    let all = most(&mut figures().map(|figure| figure.ns));
    let ours = figures().filter(|figure| figure.name == OURS);
    let ours = most(&mut ours.map(|figure| figure.ns));
    all.min(LONGEST * ours)
}

/// Draws one bar with its label.
fn draw_bar(
    area: &Area<'_>,
    figure: &Figure,
    bar: i32,
    most: f64,
    (left, top): (i32, i32),
) -> Drawn {
    let color = match figure.name {
        OURS => OUR_BARS,
        FLOOR => FLOOR_BARS,
        _ => PEER_BARS,
    };
    // Each further number of threads is paler.
    let color = color.mix((1.0 - 0.3 * f64::from(bar)).max(0.25));
    let share = figure.ns / most;
    #[expect(clippy::cast_possible_truncation, reason = "pixels")]
    let length = (f64::from(PANEL - NAMES - LABEL) * share.min(1.0))
        .round()
        .max(1.0) as i32;
    let (end, bottom) = (left + length, top + BAR - 2);
    area.draw(&Rectangle::new(
        [(left, top), (end, bottom)],
        color.filled(),
    ))?;
    if share > 1.0 {
        let gap = [
            (end - 14, bottom),
            (end - 8, top),
            (end - 4, top),
            (end - 10, bottom),
        ];
        area.draw(&Polygon::new(gap.to_vec(), WHITE.filled()))?;
    }
    let label = style(12).pos(Pos::new(HPos::Left, VPos::Center));
    let hits = figure
        .hit_ratio
        .map(|hits| format!(", {:.1} % hit", 100.0 * hits));
    let text = format!("{} ns{}", short(figure.ns), hits.unwrap_or_default());
    Ok(area.draw(&Text::new(text, (end + 5, top + BAR / 2 - 1), label))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::work::Work;

    fn race(work: Work, threads: usize, times: &[(&'static str, f64)]) -> Race {
        let figure = |&(name, ns)| Figure::of_rounds(name, vec![ns]);
        let contenders = times.iter().map(figure).collect();
        Race {
            work,
            threads,
            waited: 0.0,
            contenders,
        }
    }

    #[test]
    fn every_figure_has_a_bar_and_a_label() {
        let races = [
            race(Work::Hit, 1, &[(OURS, 10.0), ("moka", 678.0), (FLOOR, 5.0)]),
            race(Work::Hit, 2, &[(OURS, 11.0), ("moka", 912.0), (FLOOR, 6.0)]),
            race(Work::Ttl, 1, &[(OURS, 12.0)]),
        ];
        let svg = svg(&races).expect("a drawing");
        for text in [
            ">\n10.0 ns\n<",
            ">\n912 ns\n<",
            "hit, TTL on",
            "moka",
            FLOOR,
            "1, 2 threads",
        ] {
            assert!(svg.contains(text), "{text} in\n{svg}");
        }
        assert_eq!(svg.matches("<polygon").count(), 2, "two bars are cut");
    }

    #[test]
    fn panels_do_not_overlap() {
        let one = [race(Work::Hit, 1, &[(OURS, 1.0); 9])];
        let other = [race(Work::Ttl, 1, &[(OURS, 1.0)])];
        let (places, all) = places(&[&one, &other, &other]);
        assert_eq!((places[0].1, places[1].1), (places[0].1, places[0].1));
        assert_eq!(
            places[2],
            (places[1].0, places[1].1 + height(&other) + MARGIN)
        );
        assert_eq!(all, places[0].1 + height(&one) + MARGIN);
    }
}

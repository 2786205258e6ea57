//! Miss-ratio curves as an SVG file: a small plot for each log, the same lines in all of them.

use std::{error::Error as StdError, fs, ops::Range, path::Path};

use plotters::{
    coord::Shift,
    element::DashedPathElement,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    curve::{Contender, Curve, Row},
    error::{Error, escape_control},
};

/// The plot of one log, when there are several.
const PANEL: (u32, u32) = (400, 320);

/// The plot of the only log.
const ONLY_PANEL: (u32, u32) = (840, 480);

/// The most plots in a row.
const MOST_COLUMNS: usize = 4;

/// Around all.
const MARGIN: i32 = 16;

/// The height of the title.
const TITLE: i32 = 40;

/// The size of one entry of the legend.
const ENTRY: (i32, i32) = (168, 28);

/// The height of the name of a log.
const PANEL_TITLE: i32 = 36;

/// The font, which a reader of the file has to have.
pub(crate) const FONT: &str = "Helvetica, Arial, sans-serif";

/// Text.
pub(crate) const INK: RGBColor = RGBColor(40, 40, 40);

/// The frame.
const FRAME: RGBColor = RGBColor(150, 150, 150);

/// The grid.
const GRID: RGBColor = RGBColor(230, 230, 230);

/// This cache.
const OURS: RGBColor = RGBColor(214, 39, 40);

/// LRU.
const LRU: RGBColor = RGBColor(130, 130, 130);

/// The other peers in their order: after Okabe and Ito, so that the colour-blind can tell them apart too.
const PEERS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(150, 70, 160),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn StdError>>;

/// Finds out whether `file` can be written, before the long work.
///
/// # Errors
///
/// When it cannot.
pub fn probe(file: &Path) -> Result<(), Error> {
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(false).open(file);
    opened.map(drop).map_err(|reason| failed(file, &reason))
}

/// Draws `curve` into `file`.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write(curve: &Curve, file: &Path) -> Result<(), Error> {
    let drawn = draw(curve).map_err(|reason| failed(file, &*reason))?;
    fs::write(file, drawn).map_err(|reason| failed(file, &reason))
}

/// Why `file` could not be written.
pub(crate) fn failed(file: &Path, reason: &dyn StdError) -> Error {
    Error::Plot {
        file: file.display().to_string(),
        reason: reason.to_string(),
    }
}

/// The text of the SVG file.
fn draw(curve: &Curve) -> Result<String, Box<dyn StdError>> {
    let curve = &drawn(curve);
    let traces: Vec<&[Row]> = curve.rows.chunk_by(|a, b| a.trace == b.trace).collect();
    let layout = Layout::new(traces.len(), curve.contenders.len());
    let mut text = String::new();
    let whole = SVGBackend::with_string(&mut text, layout.size()).into_drawing_area();
    whole.fill(&WHITE)?;
    let (head, body) = whole.split_vertically(layout.head());
    draw_head(&head, curve, &layout)?;
    let panels = body
        .margin(0, MARGIN, MARGIN, MARGIN)
        .split_evenly((layout.rows(), layout.columns));
    for (index, (rows, panel)) in traces.iter().zip(&panels).enumerate() {
        draw_panel(panel, curve, rows, layout.edges(index))?;
    }
    whole.present()?;
    drop((whole, head, body, panels));
    Ok(text)
}

/// Returns `curve` without the column of the same order: its line would only hide that of one thread or of several.
fn drawn(curve: &Curve) -> Curve {
    let is_drawn = |contender: &&Contender| contender.order_of_threads().is_none();
    let row = |row: &Row| {
        let hits = curve.contenders.iter().zip(&row.hits);
        let hits = hits.filter(|(contender, _)| is_drawn(contender));
        Row {
            hits: hits.map(|(_, &hits)| hits).collect(),
            ..row.clone()
        }
    };
    Curve {
        contenders: curve.contenders.iter().filter(is_drawn).copied().collect(),
        rows: curve.rows.iter().map(row).collect(),
    }
}

/// Where everything goes.
struct Layout {
    panels: usize,
    panel: (u32, u32),
    columns: usize,
    entries: i32,
    entries_in_line: i32,
}

impl Layout {
    fn new(panels: usize, contenders: usize) -> Self {
        let columns = match panels {
            0..=3 => panels.max(1),
            4 => 2,
            5..=9 => 3,
            _ => MOST_COLUMNS,
        };
        let panel = if panels == 1 { ONLY_PANEL } else { PANEL };
        let width = i32::try_from(columns).unwrap_or(1) * panel.0.cast_signed();
        Self {
            panels,
            panel,
            columns,
            entries: i32::try_from(contenders).unwrap_or(i32::MAX),
            entries_in_line: (width / ENTRY.0).max(1),
        }
    }

    fn rows(&self) -> usize {
        self.panels.div_ceil(self.columns)
    }

    /// The height of title and legend.
    fn head(&self) -> i32 {
        let lines = (self.entries + self.entries_in_line - 1) / self.entries_in_line;
        MARGIN + TITLE + lines * ENTRY.1 + MARGIN
    }

    /// Width and height of all.
    fn size(&self) -> (u32, u32) {
        let times = |count: usize, size: u32| u32::try_from(count).unwrap_or(1) * size;
        (
            times(self.columns, self.panel.0) + 2 * MARGIN.unsigned_abs(),
            times(self.rows(), self.panel.1) + (self.head() + MARGIN).unsigned_abs(),
        )
    }

    /// Whether panel `index` has none left of it, and none below.
    fn edges(&self, index: usize) -> (bool, bool) {
        (
            index.is_multiple_of(self.columns),
            index + self.columns >= self.panels,
        )
    }
}

/// Text of a size.
fn text(size: u32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&INK)
}

/// How one line is drawn.
#[derive(Debug, Clone, Copy)]
struct Look {
    color: RGBColor,
    width: u32,
    /// The lengths of a dash and of a gap.
    dashes: Option<(u32, u32)>,
}

impl Look {
    /// The look of each contender: ours thick, and those that are there to compare with dashed.
    fn all(contenders: &[Contender]) -> Vec<Self> {
        let mut colors = PEERS.iter().cycle();
        let look = |contender: &Contender| {
            let (color, width, dashes) = match contender {
                Contender::Ours(threads) if threads.get() == 1 => (OURS, 5, None),
                Contender::Ours(_) | Contender::SameOrder(_) => (BLACK, 2, Some((2, 4))),
                Contender::Optimum => (INK, 1, Some((5, 3))),
                Contender::Peer(peer) if peer.name == "lru" => (LRU, 2, Some((8, 4))),
                Contender::Peer(_) => (*colors.next().unwrap_or(&BLACK), 2, None),
            };
            Self {
                color,
                width,
                dashes,
            }
        };
        contenders.iter().map(look).collect()
    }

    /// Returns the plotters style of this line.
    fn style(self) -> ShapeStyle {
        self.color.stroke_width(self.width)
    }

    /// The size of the dot on a measured point.
    fn dot(self) -> u32 {
        self.width.div_ceil(2) + 1
    }
}

/// Draws title and legend.
fn draw_head(area: &Area<'_>, curve: &Curve, layout: &Layout) -> Drawn {
    let title = "Miss ratio in % by capacity in % of the distinct keys; lower is better";
    let at = (MARGIN, MARGIN);
    area.draw(&Text::new(title, at, text(26)))?;
    let looks = Look::all(&curve.contenders);
    for (index, (contender, look)) in (0..).zip(curve.contenders.iter().zip(looks)) {
        let column = index % layout.entries_in_line;
        let line = index / layout.entries_in_line;
        let at = (
            MARGIN + column * ENTRY.0,
            MARGIN + TITLE + line * ENTRY.1 + ENTRY.1 / 2,
        );
        draw_entry(area, contender, look, at)?;
    }
    Ok(())
}

/// Draws one entry of the legend, at the middle of its left edge.
fn draw_entry(area: &Area<'_>, contender: &Contender, look: Look, (x, y): (i32, i32)) -> Drawn {
    let ends = [(x, y), (x + 36, y)];
    match look.dashes {
        Some((dash, gap)) => area.draw(&DashedPathElement::new(ends, dash, gap, look.style()))?,
        None => area.draw(&PathElement::new(ends, look.style()))?,
    }
    area.draw(&Circle::new((x + 18, y), look.dot(), look.color.filled()))?;
    let name = match contender.threads().get() {
        1 => contender.name().to_owned(),
        threads => format!("{threads} threads"),
    };
    let middle = text(18).pos(Pos::new(HPos::Left, VPos::Center));
    Ok(area.draw(&Text::new(name, (x + 44, y), middle))?)
}

/// Draws the plot of one log; `edges` tells whether it has none left of it, and none below.
fn draw_panel(area: &Area<'_>, curve: &Curve, rows: &[Row], edges: (bool, bool)) -> Drawn {
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by_key(|row| row.capacity);
    let (shares, ticks) = x_axis(&rows);
    let (ratios, levels) = y_axis(&rows);
    let middle = i32::try_from(area.dim_in_pixel().0 / 2).unwrap_or(0);
    let caption = text(20).pos(Pos::new(HPos::Center, VPos::Top));
    area.draw(&Text::new(
        escape_control(&rows[0].trace),
        (middle + 24, 4),
        caption,
    ))?;
    let mut chart = ChartBuilder::on(area)
        .margin(6)
        .margin_top(PANEL_TITLE)
        .x_label_area_size(44)
        .y_label_area_size(54)
        .build_cartesian_2d(shares.log_scale().with_key_points(ticks), ratios)?;
    chart
        .configure_mesh()
        .axis_style(FRAME)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(text(16))
        .x_label_formatter(&|percent| short(*percent))
        .y_label_formatter(&|percent| short(*percent))
        .y_labels(levels)
        .x_desc(if edges.1 { "capacity, %" } else { "" })
        .y_desc(if edges.0 { "miss ratio, %" } else { "" })
        .draw()?;
    for (index, look) in Look::all(&curve.contenders).into_iter().enumerate() {
        let points = rows.iter().map(|row| point(row, index));
        match look.dashes {
            Some((dash, gap)) => {
                let points = points.clone().collect::<Vec<_>>();
                chart.draw_series(DashedLineSeries::new(points, dash, gap, look.style()))?
            }
            None => chart.draw_series(LineSeries::new(points.clone(), look.style()))?,
        };
        let dot = |at| Circle::new(at, look.dot(), look.color.filled());
        chart.draw_series(points.map(dot))?;
    }
    Ok(())
}

/// Capacity and miss ratio of contender `index`, both in percent.
fn point(row: &Row, index: usize) -> (f64, f64) {
    let hit_ratio = row.hit_ratios().nth(index).unwrap_or(0.0);
    (100.0 * row.share, 100.0 * (1.0 - hit_ratio))
}

/// The range of the capacities in percent, and where to write figures.
fn x_axis(rows: &[&Row]) -> (Range<f64>, Vec<f64>) {
    let shares: Vec<f64> = rows.iter().map(|row| 100.0 * row.share).collect();
    let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
    let most = shares.iter().copied().fold(0.0, f64::max);
    let range = least / 1.2..most * 1.2;
    let apart = shares.windows(2).all(|pair| pair[1] > 1.3 * pair[0]);
    let ticks = if apart { shares } else { round_figures(&range) };
    (range, ticks)
}

/// The figures 1, 2 and 5 of every power of ten in `range`.
fn round_figures(range: &Range<f64>) -> Vec<f64> {
    let powers = (-9..9).map(|power| 10_f64.powi(power));
    let figures = powers.flat_map(|power| [power, 2.0 * power, 5.0 * power]);
    figures.filter(|figure| range.contains(figure)).collect()
}

/// The range of the miss ratios in percent, from one round figure to another, and how many figures to write.
fn y_axis(rows: &[&Row]) -> (Range<f64>, usize) {
    let ratios = || rows.iter().flat_map(|row| row.hit_ratios());
    let least = 100.0 * (1.0 - ratios().fold(0.0, f64::max));
    let most = 100.0 * (1.0 - ratios().fold(1.0, f64::min));
    let step = match most - least {
        50.0.. => 20.0,
        20.0.. => 10.0,
        8.0.. => 5.0,
        2.0.. => 2.0,
        _ => 1.0,
    };
    let mut from = (least / step).floor();
    let mut to = (most / step).ceil();
    if from >= to {
        (from, to) = ((from - 1.0).max(0.0), (to + 1.0).min(100.0));
    }
    let steps = (1..).take_while(|&steps| from + f64::from(steps) <= to);
    (from * step..to * step, steps.count() + 1)
}

/// A percentage in as few digits as tell it apart.
fn short(percent: f64) -> String {
    let digits = match percent {
        9.95.. => 0,
        0.95.. => 1,
        0.095.. => 2,
        _ => 3,
    };
    let text = format!("{percent:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::Capacity;
    use std::num::NonZeroUsize;

    #[test]
    fn figures_are_short() {
        for (percent, text) in [
            (29.98, "30"),
            (100.0, "100"),
            (9.97, "10"),
            (4.99, "5"),
            (1.31, "1.3"),
            (0.99, "1"),
            (0.25, "0.25"),
            (0.0, "0"),
        ] {
            assert_eq!(short(percent), text, "{percent}");
        }
    }

    #[test]
    fn figures_are_round() {
        assert_eq!(round_figures(&(0.9..30.0)), [1.0, 2.0, 5.0, 10.0, 20.0]);
    }

    fn row(trace: &str, share: f64, hits: [u64; 2]) -> Row {
        Row {
            trace: trace.into(),
            file: None,
            asked: Capacity::Entries(1),
            capacity: 1,
            share,
            accesses: 100,
            hits: hits.into(),
        }
    }

    #[test]
    fn every_shape_of_curve_is_drawn() {
        for count in [1, 2, 4, 7, 13] {
            let rows = (0..count).map(|index| row(&format!("<{index}>"), 0.1, [0, 100]));
            let curve = Curve {
                contenders: vec![Contender::Ours(NonZeroUsize::MIN), Contender::Optimum],
                rows: rows.collect(),
            };
            let text = draw(&curve).expect("a plot");
            assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
            let named = |index| text.contains(&format!("&lt;{index}&gt;"));
            assert!((0..count).all(named), "{count}");
        }
    }

    #[test]
    fn the_order_of_threads_is_not_drawn() {
        let ours = [NonZeroUsize::MIN, NonZeroUsize::MAX].map(Contender::Ours);
        let curve = Curve {
            contenders: ours.into(),
            rows: vec![row("a", 0.1, [40, 60])],
        };
        let mut ordered = curve.clone();
        ordered
            .contenders
            .insert(1, Contender::SameOrder(NonZeroUsize::MAX));
        ordered.rows[0].hits.insert(1, 100);
        let [plain, ordered] = [curve, ordered].map(|curve| draw(&curve).expect("a plot"));
        assert_eq!(plain, ordered);
    }

    #[test]
    fn axes_hold_what_is_measured() {
        for hits in [[0, 100], [50, 50], [0, 0], [100, 100], [97, 99], [33, 60]] {
            let row = row("a", 0.05, hits);
            let (ratios, levels) = y_axis(&[&row]);
            for hits in hits {
                let missed = 100.0 - f64::from(u32::try_from(hits).expect("a small count"));
                assert!(ratios.start <= missed + 1e-9 && missed <= ratios.end + 1e-9);
            }
            assert!(
                ratios.start < ratios.end && (2..9).contains(&levels),
                "{hits:?}"
            );
            let (shares, ticks) = x_axis(&[&row]);
            assert!(shares.contains(&5.0));
            assert_eq!(ticks, [5.0]);
        }
    }
}

//! Charts in the terminal: Braille dots, coloured; without colours each line has its own sign.

use std::fmt::Write as _;

use super::scale::Scale;
use super::{Chart, Series};
use crate::numbers::printable;

/// How large a chart may be and whether it may use colours (not under `NO_COLOR`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns, all included.
    pub width: usize,
    /// Rows of the drawing itself, without title, axis and legend.
    pub height: usize,
    /// Whether escape sequences for colours may be used.
    pub is_coloured: bool,
}

impl Default for TerminalSize {
    fn default() -> Self {
        Self { width: 80, height: 12, is_coloured: false }
    }
}

const COLOURS: [&str; 6] = ["36", "33", "35", "32", "34", "31"];
const SIGNS: [char; 6] = ['o', 'x', '+', '*', '#', '@'];
/// Bits of a Braille cell by row and column of its dots.
const DOTS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

impl Chart {
    /// Draws the chart with characters. Faint series are left out: the smoothed line says more in so little room.
    pub fn to_terminal(&self, size: TerminalSize) -> String {
        let all_faint = self.series.iter().all(|series| series.is_faint);
        let drawable = self.drawable();
        let series: Vec<Series> = drawable.into_iter().filter(|s| all_faint || !s.is_faint).collect();
        let (width, height) = (size.width.clamp(20, 400), size.height.clamp(3, 200));
        let points = || series.iter().flat_map(|series| series.points.iter());
        let x = Scale::covering(points().map(|point| point.0), self.is_log_x);
        let y = Scale::covering(points().map(|point| point.1), self.is_log_y);

        let mut labels = vec![String::new(); height];
        for (value, label) in y.ticks(height.div_ceil(4).max(2)) {
            labels[row_of(&y, value, height)] = label;
        }
        let margin = labels.iter().map(String::len).max().unwrap_or(0);
        let columns = width.saturating_sub(margin + 2).max(8);
        let cells = draw(&series, (&x, &y), (columns, height), size.is_coloured || series.len() < 2);

        let mut text = String::new();
        let title = [&self.title, &self.y_label].into_iter().filter(|text| !text.is_empty());
        let title: Vec<String> = title.map(|text| printable(text)).collect();
        if !title.is_empty() {
            let _ = writeln!(text, "{:margin$}  {}", "", title.join(", "));
        }
        for (row, label) in labels.iter().enumerate() {
            let tick = if label.is_empty() { '│' } else { '┤' };
            let _ = writeln!(text, "{label:>margin$} {tick}{}", row_text(&cells[row], size.is_coloured));
        }
        let (axis, ticks) = bottom(&x, columns, &printable(&self.x_label));
        let _ = writeln!(text, "{:margin$} └{axis}\n{:margin$}  {ticks}", "", "");
        if let Some(legend) = legend(&series, size.is_coloured) {
            let _ = writeln!(text, "{:margin$}  {legend}", "");
        }
        if points().next().is_none() {
            let _ = writeln!(text, "{:margin$}  no values yet", "");
        }
        text
    }
}

/// What a cell shows and which series it belongs to.
#[derive(Clone, Copy)]
struct Cell {
    glyph: char,
    series: usize,
}

fn row_of(y: &Scale, value: f64, height: usize) -> usize {
    let row = (1.0 - y.place(value)) * height as f64;
    (row.max(0.0) as usize).min(height - 1)
}

fn draw(
    series: &[Series],
    (x, y): (&Scale, &Scale),
    (columns, rows): (usize, usize),
    use_dots: bool,
) -> Vec<Vec<Cell>> {
    let mut cells = vec![vec![Cell { glyph: ' ', series: 0 }; columns]; rows];
    let mut masks = vec![vec![0_u8; columns]; rows];
    for (number, one) in series.iter().enumerate() {
        let mut put = |dot_x: usize, dot_y: usize| {
            let (column, row) = (dot_x / 2, dot_y / 4);
            masks[row][column] |= DOTS[dot_y % 4][dot_x % 2];
            let glyph = if use_dots {
                char::from_u32(0x2800 + u32::from(masks[row][column])).unwrap_or('.')
            } else {
                SIGNS[number % SIGNS.len()]
            };
            cells[row][column] = Cell { glyph, series: number };
        };
        let dot = |&(px, py): &(f64, f64)| {
            let place = |share: f64, count: usize| ((share * count as f64).max(0.0) as usize).min(count - 1);
            (place(x.place(px), columns * 2), place(1.0 - y.place(py), rows * 4))
        };
        let mut last: Option<(usize, usize)> = None;
        for point in one.points.iter().map(dot) {
            let (from_x, from_y) = last.unwrap_or(point);
            let num_dots = from_x.abs_diff(point.0).max(from_y.abs_diff(point.1)).max(1);
            for part in 0..=num_dots {
                let between = |a: usize, b: usize| {
                    let share = part as f64 / num_dots as f64;
                    (a as f64 + (b as f64 - a as f64) * share).round() as usize
                };
                put(between(from_x, point.0), between(from_y, point.1));
            }
            last = Some(point);
        }
    }
    cells
}

fn row_text(cells: &[Cell], is_coloured: bool) -> String {
    let end = cells.iter().rposition(|cell| cell.glyph != ' ').map_or(0, |last| last + 1);
    if !is_coloured {
        return cells[..end].iter().map(|cell| cell.glyph).collect();
    }
    let mut text = String::new();
    let mut current = None;
    for cell in &cells[..end] {
        let wanted = (cell.glyph != ' ').then_some(cell.series % COLOURS.len());
        if wanted != current {
            match wanted {
                Some(colour) => _ = write!(text, "\u{1b}[{}m", COLOURS[colour]),
                None => text.push_str("\u{1b}[0m"),
            }
            current = wanted;
        }
        text.push(cell.glyph);
    }
    if current.is_some() {
        text.push_str("\u{1b}[0m");
    }
    text
}

/// The axis line and the labels below it.
fn bottom(x: &Scale, columns: usize, x_label: &str) -> (String, String) {
    let mut axis = vec!['─'; columns];
    let mut ticks = vec![' '; columns];
    let mut free_from = 0;
    let name: Vec<char> = x_label.chars().take(columns / 3).collect();
    let end = columns - if name.is_empty() { 0 } else { name.len() + 1 };
    for (value, label) in x.ticks((columns / 14).max(2)) {
        let column = ((x.place(value) * columns as f64) as usize).min(columns - 1);
        axis[column] = '┬';
        let start = column.saturating_sub(label.len() / 2).max(free_from);
        if start + label.len() <= end && start <= column {
            ticks[start..start + label.len()].iter_mut().zip(label.chars()).for_each(|(slot, c)| *slot = c);
            free_from = start + label.len() + 1;
        }
    }
    ticks[columns - name.len()..].copy_from_slice(&name);
    (axis.into_iter().collect(), ticks.into_iter().collect::<String>().trim_end().to_owned())
}

fn legend(series: &[Series], is_coloured: bool) -> Option<String> {
    let entry = |(number, series): (usize, &Series)| {
        let name = printable(&series.name);
        if is_coloured {
            format!("\u{1b}[{}m━━\u{1b}[0m {name}", COLOURS[number % COLOURS.len()])
        } else {
            format!("{} {name}", SIGNS[number % SIGNS.len()])
        }
    };
    (series.len() > 1).then(|| series.iter().enumerate().map(entry).collect::<Vec<_>>().join("   "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn falling(name: &str) -> Series {
        Series::new(name, (0..=20).map(|x| (f64::from(x), 20.0 - f64::from(x))).collect())
    }

    const SMALL: TerminalSize = TerminalSize { width: 26, height: 5, is_coloured: false };

    #[test]
    fn a_falling_line_goes_from_top_left_to_bottom_right() {
        let text = Chart::new("loss", vec![falling("a")]).to_terminal(SMALL);
        assert!(text.starts_with("    loss\n20 ┤"), "{text}");
        assert_eq!(text.lines().count(), 8, "{text}");
        let rows: Vec<&str> = text.lines().skip(1).take(5).collect();
        let widths: Vec<usize> = rows.iter().map(|row| row.chars().count()).collect();
        assert!(widths.is_sorted() && widths[4] == 26, "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn without_colours_each_line_has_its_sign() {
        let flat = Series::new("b", vec![(0.0, 5.0), (20.0, 5.0)]);
        let text = Chart::new("", vec![falling("a"), flat]).to_terminal(SMALL);
        assert!(text.contains("o a   x b") && text.contains("xxxx"), "{text}");
        assert!(text.is_ascii() || !text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "{text}");
    }

    #[test]
    fn colours_are_switched_off_again() {
        let size = TerminalSize { is_coloured: true, ..SMALL };
        let text = Chart::new("", vec![falling("a"), falling("b")]).to_terminal(size);
        for line in text.lines().filter(|line| line.contains('\u{1b}')) {
            assert_eq!(line.matches("[0m").count(), line.matches("\u{1b}[3").count(), "{line:?}");
        }
    }

    #[test]
    fn nothing_to_draw_is_said() {
        for points in [vec![], vec![(1.0, f64::NAN)]] {
            let text = Chart::new("loss", vec![Series::new("a", points)]).to_terminal(SMALL);
            assert!(text.contains("no values yet"), "{text}");
        }
    }

    #[test]
    fn tiny_and_huge_sizes_are_bounded() {
        let chart = Chart::new("loss", vec![falling("a")]).x_label("a very long name for this axis");
        assert!(chart.to_terminal(TerminalSize { width: 0, height: 0, is_coloured: false }).lines().count() > 3);
        let huge = TerminalSize { width: usize::MAX, height: usize::MAX, is_coloured: true };
        assert!(chart.to_terminal(huge).len() < 1_000_000);
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        let text = Chart::new("a\u{1b}[2J", vec![falling("x\u{7}"), falling("y")]).to_terminal(SMALL);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'));
    }
}

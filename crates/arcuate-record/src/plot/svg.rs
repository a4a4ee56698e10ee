//! Charts as SVG, without scripts or outside files; colours follow the reader's light or dark setting.

use std::fmt::Write as _;

use super::scale::Scale;
use super::{Chart, Series, thinned};
use crate::format_number;
use crate::report::escape;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 260.0;
const TOP: f64 = 22.0;
const RIGHT: f64 = 14.0;
const BOTTOM: f64 = 38.0;
/// Width of a letter in the axis labels, roughly.
const LETTER: f64 = 7.0;
const MAX_POINTS: usize = 700;
/// Lines with at most this many points show them, with their values on hovering.
const MAX_MARKED_POINTS: usize = 60;

/// How charts look; the page sets the colours named here once for all its charts.
pub(crate) const CHART_STYLE: &str = include_str!("chart.css");

/// Classes of a line: six colours, then the same colours with dashes, then with dots.
pub(crate) fn line_class(number: usize) -> String {
    let dashes = ["", " dashed", " dotted"][number / 6 % 3];
    format!("s{}{dashes}", number % 6)
}

impl Chart {
    /// A file of its own, with title and legend.
    pub fn to_svg(&self) -> String {
        let entries = self.legend();
        let (mut legend, mut x, mut y) = (String::new(), 12.0, 46.0);
        for (number, name) in &entries {
            let width = 34.0 + name.chars().count() as f64 * LETTER;
            if x > 12.0 && x + width > WIDTH {
                (x, y) = (12.0, y + 18.0);
            }
            let _ = write!(
                legend,
                "<line class=\"line {}\" x1=\"{x}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/><text x=\"{}\" y=\"{y}\">{}</text>",
                line_class(*number),
                y - 4.0,
                x + 18.0,
                y - 4.0,
                x + 24.0,
                escape(name)
            );
            x += width;
        }
        let head = if entries.is_empty() { 30.0 } else { y + 8.0 };
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart own\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\">\
             <title>{title}</title><style>{CHART_STYLE}</style><rect class=\"ground\" width=\"100%\" height=\"100%\"/>\
             <text class=\"title\" x=\"12\" y=\"22\">{title}</text>{legend}<g transform=\"translate(0 {head})\">{}</g></svg>\n",
            HEIGHT + head,
            self.drawing(),
            title = escape(&self.title),
        )
    }

    /// A part of a page that holds [`CHART_STYLE`] and shows title and legend itself.
    pub(crate) fn to_svg_fragment(&self) -> String {
        let title = escape(&self.title);
        let drawing = self.drawing();
        format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">{drawing}</svg>"
        )
    }

    /// Number of the colour and name of each line, if there is anything to tell apart.
    pub(crate) fn legend(&self) -> Vec<(usize, String)> {
        let named = self.numbered().into_iter().filter(|(_, series)| !series.is_faint && !series.name.is_empty());
        let named: Vec<(usize, String)> = named.map(|(number, series)| (number, series.name.clone())).collect();
        if named.len() > 1 { named } else { Vec::new() }
    }

    /// Each line with its colour: a faint one has the colour of the line of the same name.
    fn numbered(&self) -> Vec<(usize, &Series)> {
        let mut names: Vec<&str> = Vec::new();
        let mut numbered = Vec::new();
        for series in &self.series {
            let known = names.iter().position(|name| *name == series.name);
            numbered.push((known.unwrap_or(names.len()), series));
            if known.is_none() {
                names.push(&series.name);
            }
        }
        numbered
    }

    fn drawing(&self) -> String {
        let drawable = self.drawable();
        let points = || drawable.iter().flat_map(|series| series.points.iter());
        let x = Scale::covering(points().map(|point| point.0), self.is_log_x);
        let bands = drawable.iter().flat_map(|series| series.band.iter().flat_map(|(_, low, high)| [*low, *high]));
        let y = Scale::covering(points().map(|point| point.1).chain(bands), self.is_log_y).with_margin(0.04);
        let y_ticks = y.ticks(5);
        let widest = y_ticks.iter().map(|(_, label)| label.chars().count()).max().unwrap_or(0);
        let left = 16.0 + widest as f64 * LETTER;
        let (inner_width, inner_height) = (WIDTH - left - RIGHT, HEIGHT - TOP - BOTTOM);
        let at = |(px, py): (f64, f64)| (left + x.place(px) * inner_width, TOP + (1.0 - y.place(py)) * inner_height);

        let mut out = String::new();
        for (value, label) in &y_ticks {
            let (_, py) = at((x.low, *value));
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{left:.1}\" x2=\"{:.1}\" y1=\"{py:.1}\" y2=\"{py:.1}\"/>",
                WIDTH - RIGHT
            );
            let _ = write!(out, "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>", left - 6.0, py + 4.0);
        }
        let base = HEIGHT - BOTTOM;
        for (value, label) in x.ticks(6) {
            let (px, _) = at((value, y.low));
            let _ =
                write!(out, "<line class=\"axis\" x1=\"{px:.1}\" x2=\"{px:.1}\" y1=\"{base}\" y2=\"{}\"/>", base + 4.0);
            let _ = write!(out, "<text class=\"middle\" x=\"{px:.1}\" y=\"{}\">{label}</text>", base + 17.0);
        }
        let _ = write!(
            out,
            "<line class=\"axis\" x1=\"{left:.1}\" x2=\"{:.1}\" y1=\"{base}\" y2=\"{base}\"/>",
            WIDTH - RIGHT
        );
        let middle = left + inner_width / 2.0;
        let _ = write!(
            out,
            "<text class=\"middle soft\" x=\"{middle:.1}\" y=\"{}\">{}</text>",
            HEIGHT - 4.0,
            escape(&self.x_label)
        );
        let _ = write!(out, "<text class=\"soft\" x=\"4\" y=\"12\">{}</text>", escape(&self.y_label));

        for ((number, series), drawable) in self.numbered().into_iter().zip(&drawable) {
            let colour = number % 6;
            let faint = if series.is_faint { " faint" } else { "" };
            if drawable.band.len() > 1 {
                let upper = drawable.band.iter().map(|&(bx, _, high)| at((bx, high)));
                let lower = drawable.band.iter().rev().map(|&(bx, low, _)| at((bx, low)));
                let corners: Vec<String> = upper.chain(lower).map(|(px, py)| format!("{px:.1},{py:.1}")).collect();
                let _ = write!(out, "<polygon class=\"band s{colour}\" points=\"{}\"/>", corners.join(" "));
            }
            let places: Vec<String> = thinned(&drawable.points, MAX_POINTS)
                .into_iter()
                .map(at)
                .map(|(px, py)| format!("{px:.1},{py:.1}"))
                .collect();
            if places.len() > 1 {
                let _ = write!(
                    out,
                    "<polyline class=\"line {}{faint}\" points=\"{}\"/>",
                    line_class(number),
                    places.join(" ")
                );
            }
            if drawable.points.len() <= MAX_MARKED_POINTS && !series.is_faint {
                for &(px, py) in &drawable.points {
                    let (cx, cy) = at((px, py));
                    let told = format!("{} {}: {}", self.x_label, format_number(px), format_number(py));
                    let _ = write!(
                        out,
                        "<circle class=\"dot s{colour}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"2.6\"><title>{}</title></circle>",
                        escape(&format!("{} {told}", series.name).trim().replace("  ", " "))
                    );
                }
            }
        }
        if points().next().is_none() {
            let _ = write!(
                out,
                "<text class=\"middle soft\" x=\"{middle:.1}\" y=\"{:.1}\">no values</text>",
                TOP + inner_height / 2.0
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let falling = (0..5).map(|x| (f64::from(x), 5.0 - f64::from(x))).collect();
        Chart::new("loss < 5 & falling", vec![Series::new("a\"b", falling), Series::new("c", vec![(0.0, 1.0)])])
    }

    #[test]
    fn names_and_titles_are_escaped() {
        let svg = chart().to_svg();
        assert!(svg.contains("loss &lt; 5 &amp; falling") && svg.contains("a&quot;b") && !svg.contains("loss < 5"));
    }

    #[test]
    fn each_line_has_a_colour_and_single_points_are_dots() {
        let svg = chart().to_svg();
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (1, 6));
        assert!(svg.contains("dot s1"));
    }

    #[test]
    fn more_lines_than_colours_are_told_apart_by_dashes() {
        let line = |name: u32| Series::new(&name.to_string(), vec![(0.0, f64::from(name)), (1.0, 2.0)]);
        let svg = Chart::new("", (0..13).map(line).collect()).to_svg();
        for class in ["\"line s0\"", "\"line s0 dashed\"", "\"line s0 dotted\"", "\"line s5 dashed\""] {
            assert_eq!(svg.matches(class).count(), 2, "{class}: once in the legend, once in the chart");
        }
    }

    #[test]
    fn a_faint_line_shares_the_colour_of_its_smooth_one() {
        let points = (0..200).map(|x| (f64::from(x), f64::from(x % 7))).collect();
        let chart = Chart::new("loss", vec![Series::new("train", points)]).smoothed();
        let svg = chart.to_svg();
        assert!(svg.contains("line s0 faint") && svg.contains("\"line s0\"") && !svg.contains("line s1"));
        assert!(chart.legend().is_empty());
    }

    #[test]
    fn long_lines_are_thinned() {
        let points = (0..200_000).map(|x| (f64::from(x), f64::from(x).sin())).collect();
        assert!(Chart::new("", vec![Series::new("", points)]).to_svg().len() < 30_000);
    }

    #[test]
    fn no_coordinate_is_undefined() {
        let odd = vec![(0.0, f64::NAN), (1.0, f64::INFINITY), (f64::NAN, 1.0), (2.0, 1e300), (3.0, -1e300)];
        for is_log in [false, true] {
            let svg = Chart::new("", vec![Series::new("", odd.clone())]).log(is_log, is_log).to_svg();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}

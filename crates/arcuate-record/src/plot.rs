//! Line charts, drawn for the terminal or as SVG from the same description.

mod effects;
mod scale;
mod svg;
mod terminal;

use std::collections::BTreeMap;

pub use effects::{Effect, EffectPlot};
pub(crate) use svg::{CHART_STYLE, line_class};
pub use terminal::TerminalSize;

/// Lines with fewer points are shown as they are.
const MIN_POINTS_TO_SMOOTH: usize = 100;
/// Longer lines are thinned before they are smoothed.
const MAX_SMOOTHED_POINTS: usize = 4000;

/// What lines and bands of [`Series::over_runs`] show, for the title of their chart.
pub const OVER_SEEDS: &str = "mean over seeds, band from lowest to highest";

/// One line of a chart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Points from left to right; those that are not finite are gaps.
    pub points: Vec<(f64, f64)>,
    /// Drawn pale and left out of the legend: the raw values behind a smoothed line.
    pub is_faint: bool,
    /// A pale area around the line: at x, from low to high. The terminal leaves it out.
    pub band: Vec<(f64, f64, f64)>,
}

impl Series {
    /// A line.
    pub fn new(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), points, ..Self::default() }
    }

    /// The line with each value replaced by the mean of up to `reach` neighbours on either side; equally many on both
    /// sides, so that a slope is not shifted, but at the end still half of `reach`, so that the last value alone does not
    /// bend the line. Values that are not finite are left out.
    #[must_use]
    pub fn smoothed(&self, reach: usize) -> Self {
        let points: Vec<(f64, f64)> = self.points.iter().copied().filter(|point| point.1.is_finite()).collect();
        let last = points.len().saturating_sub(1);
        let mean = |(index, &(x, _)): (usize, &(f64, f64))| {
            let right = reach.min(last - index);
            let left = right.max(reach / 2).min(index);
            let near = &points[index - left..=index + right.min(left)];
            (x, near.iter().map(|point| point.1).sum::<f64>() / near.len() as f64)
        };
        Self { name: self.name.clone(), points: points.iter().enumerate().map(mean).collect(), ..Self::default() }
    }

    /// The mean of several runs at each step, with a band from the lowest to the highest; none with less than two steps.
    pub fn over_runs(name: &str, curves: &[Vec<(f64, f64)>]) -> Option<Self> {
        let mut at: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for (x, y) in curves.iter().flatten().filter(|point| point.0 >= 0.0 && point.1.is_finite()) {
            at.entry(*x as u64).or_default().push(*y);
        }
        if at.len() < 2 {
            return None;
        }
        let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let low = |values: &Vec<f64>| values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = |values: &Vec<f64>| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let points: Vec<(f64, f64)> = at.iter().map(|(x, values)| (*x as f64, mean(values))).collect();
        // Hundreds of corners are as good as thousands.
        let every = at.len().div_ceil(300);
        let band = at.iter().step_by(every).map(|(x, values)| (*x as f64, low(values), high(values))).collect();
        Some(Self::new(name, points).band(band))
    }

    /// The line with an area around it.
    #[must_use]
    pub fn band(mut self, band: Vec<(f64, f64, f64)>) -> Self {
        self.band = band;
        self
    }
}

/// A chart of several lines over a common axis.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chart {
    /// Heading.
    pub title: String,
    /// Under the horizontal axis.
    pub x_label: String,
    /// Above the vertical axis.
    pub y_label: String,
    /// Logarithmic horizontal axis; points at or below zero are left out.
    pub is_log_x: bool,
    /// Logarithmic vertical axis; points at or below zero are left out.
    pub is_log_y: bool,
    /// The lines.
    pub series: Vec<Series>,
}

impl Chart {
    /// A chart over steps with linear axes.
    pub fn new(title: &str, series: Vec<Series>) -> Self {
        Self { title: title.to_owned(), x_label: "step".into(), series, ..Self::default() }
    }

    /// Lines of many points turn pale, with their smoothed course on top of them.
    #[must_use]
    pub fn smoothed(mut self) -> Self {
        for raw in std::mem::take(&mut self.series) {
            if raw.points.len() < MIN_POINTS_TO_SMOOTH {
                self.series.push(raw);
                continue;
            }
            let thin = Series { points: thinned(&raw.points, MAX_SMOOTHED_POINTS), ..raw };
            let smooth = thin.smoothed(thin.points.len() / 50);
            self.series.extend([Series { is_faint: true, ..thin }, smooth]);
        }
        self
    }

    /// Names the vertical axis.
    #[must_use]
    pub fn y_label(mut self, label: &str) -> Self {
        label.clone_into(&mut self.y_label);
        self
    }

    /// Names the horizontal axis.
    #[must_use]
    pub fn x_label(mut self, label: &str) -> Self {
        label.clone_into(&mut self.x_label);
        self
    }

    /// Sets which axes are logarithmic.
    #[must_use]
    pub fn log(mut self, is_log_x: bool, is_log_y: bool) -> Self {
        (self.is_log_x, self.is_log_y) = (is_log_x, is_log_y);
        self
    }

    /// The lines with only the points that can be drawn on the chosen axes.
    fn drawable(&self) -> Vec<Series> {
        let fits = |value: f64, is_log: bool| value.is_finite() && (!is_log || value > 0.0);
        let fits = |&(x, y): &(f64, f64)| fits(x, self.is_log_x) && fits(y, self.is_log_y);
        let keep = |series: &Series| Series {
            points: series.points.iter().copied().filter(fits).collect(),
            band: series.band.iter().copied().filter(|&(x, low, high)| fits(&(x, low)) && fits(&(x, high))).collect(),
            ..series.clone()
        };
        self.series.iter().map(keep).collect()
    }
}

/// Thins a line to about `max_points` by keeping the lowest and the highest point of each stretch: spikes stay visible.
pub fn thinned(points: &[(f64, f64)], max_points: usize) -> Vec<(f64, f64)> {
    if points.len() <= max_points || max_points < 4 {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(max_points / 2);
    let mut kept = Vec::with_capacity(max_points + 2);
    for part in points.chunks(stretch) {
        let by_y = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        if let (Some(&low), Some(&high)) = (part.iter().min_by(by_y), part.iter().max_by(by_y)) {
            let (first, second) = if low.0 <= high.0 { (low, high) } else { (high, low) };
            kept.push(first);
            if second != first {
                kept.push(second);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_span_the_runs() {
        let curves = [vec![(1.0, 2.0), (2.0, 4.0)], vec![(1.0, 4.0), (2.0, f64::NAN)]];
        let series = Series::over_runs("a", &curves).expect("points");
        assert_eq!(
            (series.points, series.band),
            (vec![(1.0, 3.0), (2.0, 4.0)], vec![(1.0, 2.0, 4.0), (2.0, 4.0, 4.0)])
        );
        assert!(Series::over_runs("a", &[vec![(1.0, 2.0)]]).is_none());
    }

    #[test]
    fn smoothing_keeps_slopes_and_evens_out_the_end() {
        let line = |x: u32| (f64::from(x), 7.0 - 2.0 * f64::from(x));
        let mut series = Series::new("a", (0..20).map(line).collect());
        assert_eq!(series.smoothed(4).points[..18], series.points[..18]);
        assert_eq!(
            series.smoothed(4).points[19].1,
            (series.points[17].1 + series.points[18].1 + series.points[19].1) / 3.0
        );
        series.points.push((20.0, f64::NAN));
        assert_eq!(series.smoothed(4).points.len(), 20);
        assert_eq!(Series::new("empty", Vec::new()).smoothed(4).points, []);
    }

    #[test]
    fn a_band_is_drawn_and_counts_for_the_axis() {
        let line = Series::new("a", vec![(0.0, 1.0), (1.0, 1.0)]);
        let plain = Chart::new("", vec![line.clone()]).to_svg();
        let banded =
            Chart::new("", vec![line.band(vec![(0.0, -5.0, 9.0), (1.0, f64::NAN, 2.0), (2.0, 0.0, 3.0)])]).to_svg();
        assert!(
            !plain.contains("<polygon") && banded.contains("<polygon class=\"band s0\"") && !banded.contains("NaN")
        );
        assert!(!plain.contains(">-5<") && banded.contains(">-5<"), "{banded}");
    }

    #[test]
    fn short_lines_are_not_smoothed() {
        let chart = Chart::new("", vec![Series::new("a", vec![(0.0, 1.0), (1.0, 2.0)])]);
        assert_eq!(chart.clone().smoothed(), chart);
    }

    #[test]
    fn thinning_keeps_a_single_spike() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|x| (f64::from(x), 1.0)).collect();
        points[54_321].1 = 9.0;
        let thin = thinned(&points, 400);
        assert!(thin.len() <= 402 && thin.contains(&(54_321.0, 9.0)) && thin.is_sorted_by_key(|point| point.0));
    }

    #[test]
    fn logarithmic_axes_leave_out_what_they_cannot_show() {
        let chart = Chart::new("", vec![Series::new("", vec![(0.0, 1.0), (1.0, 0.0), (2.0, 3.0)])]).log(true, true);
        assert_eq!(chart.drawable()[0].points, [(2.0, 3.0)]);
    }
}

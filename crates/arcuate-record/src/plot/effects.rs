//! Effects with their intervals below each other, around zero and the smallest effect that matters.

use std::fmt::Write as _;

use super::scale::Scale;
use super::svg::CHART_STYLE;
use crate::format_number;
use crate::report::escape;

const WIDTH: f64 = 720.0;
const ROW: f64 = 34.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;
const RIGHT: f64 = 20.0;
const LETTER: f64 = 7.0;
/// Longest name that is shown, in letters.
const MAX_NAME: usize = 40;

/// One effect.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Effect {
    /// Its name.
    pub name: String,
    /// The mean.
    pub mean: f64,
    /// The ends of its interval.
    pub interval: Option<(f64, f64)>,
    /// The single values behind the mean: one for each seed.
    pub values: Vec<f64>,
    /// Where an effect begins to matter, if that is to be shown.
    pub threshold: Option<f64>,
}

/// Effects below each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EffectPlot {
    /// Heading.
    pub title: String,
    /// Under the axis.
    pub x_label: String,
    /// The effects from top to bottom.
    pub effects: Vec<Effect>,
}

impl EffectPlot {
    /// A file of its own.
    pub fn to_svg(&self) -> String {
        let height = self.height() + 30.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart own\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\
             <title>{title}</title><style>{CHART_STYLE}</style><rect class=\"ground\" width=\"100%\" height=\"100%\"/>\
             <text class=\"title\" x=\"12\" y=\"22\">{title}</text><g transform=\"translate(0 30)\">{}</g></svg>\n",
            self.drawing(),
            title = escape(&self.title),
        )
    }

    /// A part of a page that holds the style of charts.
    pub(crate) fn to_svg_fragment(&self) -> String {
        format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">{}</svg>",
            self.height(),
            escape(&self.title),
            self.drawing()
        )
    }

    fn height(&self) -> f64 {
        TOP + ROW * self.effects.len().max(1) as f64 + BOTTOM
    }

    fn drawing(&self) -> String {
        let of = |effect: &Effect| {
            let ends = effect.interval.iter().flat_map(|(low, high)| [*low, *high]);
            let all = ends.chain([effect.mean]).chain(effect.values.iter().copied()).chain(effect.threshold);
            all.filter(|value| value.is_finite()).collect::<Vec<_>>()
        };
        let values: Vec<f64> = self.effects.iter().flat_map(of).collect();
        // Zero is always shown: the question is on which side of it the effects lie.
        let mut x = Scale::covering(values.into_iter().chain([0.0]), false);
        let margin = 0.05 * (x.high - x.low);
        (x.low, x.high) = ((x.low - margin).max(-1e300), (x.high + margin).min(1e300));
        let name = |effect: &Effect| effect.name.chars().take(MAX_NAME).collect::<String>();
        let widest = self.effects.iter().map(|effect| name(effect).chars().count()).max().unwrap_or(0);
        let left = 16.0 + widest as f64 * LETTER;
        let inner = WIDTH - left - RIGHT;
        let at = |value: f64| left + x.place(value) * inner;
        let base = self.height() - BOTTOM;
        let mut out = String::new();
        for (value, label) in x.ticks(7) {
            let px = at(value);
            let _ = write!(out, "<line class=\"grid\" x1=\"{px:.1}\" x2=\"{px:.1}\" y1=\"{TOP}\" y2=\"{base}\"/>");
            let _ = write!(out, "<text class=\"middle\" x=\"{px:.1}\" y=\"{}\">{label}</text>", base + 17.0);
        }
        let zero = at(0.0);
        let _ = write!(out, "<line class=\"axis\" x1=\"{zero:.1}\" x2=\"{zero:.1}\" y1=\"{TOP}\" y2=\"{base}\"/>");
        for (row, effect) in self.effects.iter().enumerate() {
            let y = TOP + ROW * (row as f64 + 0.5);
            let _ = write!(
                out,
                "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                left - 8.0,
                y + 4.0,
                escape(&name(effect))
            );
            if let Some(px) = effect.threshold.filter(|value| value.is_finite()).map(at) {
                let _ = write!(
                    out,
                    "<line class=\"line s1 dashed\" x1=\"{px:.1}\" x2=\"{px:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                    y - ROW / 2.0 + 3.0,
                    y + ROW / 2.0 - 3.0
                );
            }
            if let Some((low, high)) = effect.interval.filter(|(low, high)| low.is_finite() && high.is_finite()) {
                let (low, high) = (at(low), at(high));
                let _ = write!(
                    out,
                    "<line class=\"line s0\" x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
                );
                for px in [low, high] {
                    let (up, down) = (y - 5.0, y + 5.0);
                    let _ = write!(
                        out,
                        "<line class=\"line s0\" x1=\"{px:.1}\" x2=\"{px:.1}\" y1=\"{up:.1}\" y2=\"{down:.1}\"/>"
                    );
                }
            }
            for value in effect.values.iter().filter(|value| value.is_finite()) {
                let px = at(*value);
                let _ = write!(
                    out,
                    "<circle class=\"dot s5\" cx=\"{px:.1}\" cy=\"{:.1}\" r=\"2.2\"><title>{}</title></circle>",
                    y + 9.0,
                    format_number(*value)
                );
            }
            if effect.mean.is_finite() {
                let told = format!("{}: {}", effect.name, format_number(effect.mean));
                let _ = write!(
                    out,
                    "<circle class=\"dot s0\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4.5\"><title>{}</title></circle>",
                    at(effect.mean),
                    escape(&told)
                );
            }
        }
        let _ = write!(
            out,
            "<text class=\"middle soft\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            left + inner / 2.0,
            self.height() - 5.0,
            escape(&self.x_label)
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot() -> EffectPlot {
        let effect = |name: &str, mean: f64| Effect {
            name: name.to_owned(),
            mean,
            interval: Some((mean - 1.0, mean + 1.0)),
            values: vec![mean - 0.5, mean + 0.5],
            threshold: Some(1.0),
        };
        EffectPlot {
            title: "Effects <all>".into(),
            x_label: "points".into(),
            effects: vec![effect("a & b", 3.0), effect("c", -2.0)],
        }
    }

    #[test]
    fn every_effect_has_a_point_an_interval_and_its_values() {
        let svg = plot().to_svg();
        assert_eq!((svg.matches("dot s0").count(), svg.matches("dot s5").count()), (2, 4));
        assert_eq!(svg.matches("\"line s0\"").count(), 6);
        assert!(svg.contains("a &amp; b") && svg.contains("Effects &lt;all&gt;") && !svg.contains("<all>"));
    }

    #[test]
    fn nothing_is_undefined_where_numbers_are_missing() {
        let odd = Effect {
            name: "odd".into(),
            mean: f64::NAN,
            interval: Some((f64::NEG_INFINITY, 1e308)),
            ..Effect::default()
        };
        let svg = EffectPlot { effects: vec![odd], ..EffectPlot::default() }.to_svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(EffectPlot::default().to_svg().ends_with("</svg>\n"));
    }
}

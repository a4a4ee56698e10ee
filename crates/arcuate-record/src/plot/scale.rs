//! Axes: which range is shown, where ticks stand, how they are labelled.

/// One axis from data values to 0..1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    pub(super) low: f64,
    pub(super) high: f64,
    is_log: bool,
}

impl Scale {
    /// Covers the values, which must be finite (and positive on a logarithmic axis). An empty or single range is widened.
    pub(super) fn covering(values: impl Iterator<Item = f64>, is_log: bool) -> Self {
        let (mut low, mut high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            (low, high) = if is_log { (1.0, 10.0) } else { (0.0, 1.0) };
        } else if is_log && high / low < 1.000_001 {
            (low, high) = (low / 2.0, high * 2.0);
        } else if !is_log && high - low <= 1e-12 * high.abs().max(low.abs()) {
            let margin = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
            (low, high) = (low - margin, high + margin);
        }
        Self { low: low.max(-1e300), high: high.min(1e300), is_log }
    }

    /// Widens the range a little, so that lines do not touch the frame; not across zero.
    pub(super) fn with_margin(mut self, share: f64) -> Self {
        if self.is_log {
            let factor = (self.high / self.low).powf(share);
            (self.low, self.high) = ((self.low / factor).max(f64::MIN_POSITIVE), (self.high * factor).min(1e300));
        } else {
            let margin = (self.high - self.low) * share;
            let low = self.low - margin;
            self.low = if self.low >= 0.0 { low.max(0.0) } else { low };
            self.high += margin;
        }
        self
    }

    /// The place of a value: 0 at the low end, 1 at the high end.
    pub(super) fn place(&self, value: f64) -> f64 {
        if self.is_log {
            (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// About `count` round values inside the range, with their labels.
    pub(super) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let values = if self.is_log { self.log_ticks(count) } else { self.linear_ticks(count) };
        let step = values.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
        values.into_iter().map(|value| (value, label(value, if self.is_log { value } else { step }))).collect()
    }

    fn linear_ticks(&self, count: usize) -> Vec<f64> {
        let rough = (self.high - self.low) / count.max(1) as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= rough * 0.999).unwrap_or(10.0) * power;
        if !step.is_finite() || step <= 0.0 {
            return vec![self.low];
        }
        let first = (self.low / step - 1e-9).ceil();
        let last = (self.high / step + 1e-9).floor();
        (0..=(last - first).clamp(0.0, 100.0) as u32).map(|index| (first + f64::from(index)) * step).collect()
    }

    /// Powers of ten; where fewer than two fit, also 2 and 5 times them, or else linear ticks.
    fn log_ticks(&self, count: usize) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let inside = |value: &f64| *value >= self.low * 0.999_999 && *value <= self.high * 1.000_001;
        let every = ((last - first) as usize).div_ceil(count.max(1)).max(1);
        let tens: Vec<f64> = (first..=last).step_by(every).map(|power| 10_f64.powi(power)).filter(inside).collect();
        if tens.len() >= 3 {
            return tens;
        }
        let finer = (first..=last).flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10_f64.powi(power)));
        let finer: Vec<f64> = finer.filter(inside).collect();
        if finer.len() >= 3 { finer } else { self.linear_ticks(count) }
    }
}

/// A tick label with as many decimals as the distance between ticks needs.
fn label(value: f64, step: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (step.is_finite() && size < step * 1e-6) {
        "0".into()
    } else if size >= 1e15 || (size < 1e-3 && step.abs() < 1e-4) {
        short_exponent(value, step)
    } else if size >= 10_000.0 && step >= 100.0 {
        let (scaled, unit) = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")]
            .into_iter()
            .find(|(unit, _)| size >= *unit)
            .map_or((value, ""), |(unit, name)| (value / unit, name));
        format!("{}{unit}", trim_zeros(&format!("{scaled:.3}")))
    } else {
        let decimals = if step.is_finite() { (-step.log10() - 1e-9).ceil().clamp(0.0, 9.0) as usize } else { 3 };
        let text = format!("{value:.decimals$}");
        if step.is_finite() { text } else { trim_zeros(&text) }
    }
}

fn short_exponent(value: f64, step: f64) -> String {
    let digits = if step.is_finite() { (value.abs() / step).log10().ceil().clamp(0.0, 3.0) as usize } else { 2 };
    let text = format!("{value:.digits$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => format!("{}e{exponent}", trim_zeros(mantissa)),
        None => text,
    }
}

fn trim_zeros(text: &str) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64], is_log: bool) -> Vec<String> {
        let scale = Scale::covering(values.iter().copied(), is_log);
        scale.ticks(5).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn linear_ticks_are_round() {
        assert_eq!(labels(&[0.0, 800.0], false), ["0", "200", "400", "600", "800"]);
        assert_eq!(labels(&[1.41, 2.63], false), ["1.5", "2.0", "2.5"]);
        assert_eq!(labels(&[0.0, 2e-3], false), ["0", "0.0005", "0.0010", "0.0015", "0.0020"]);
        assert_eq!(labels(&[0.0, 1.2e6], false), ["0", "500k", "1M"]);
        assert_eq!(labels(&[-3.0, 3.0], false), ["-2", "0", "2"]);
    }

    #[test]
    fn logarithmic_ticks_are_powers_of_ten_or_parts_of_them() {
        assert_eq!(labels(&[1.0, 10_000.0], true), ["1", "10", "100", "1000", "10k"]);
        assert_eq!(labels(&[1.5, 12.0], true), ["2", "5", "10"]);
        assert_eq!(labels(&[1e-6, 1e-2], true), ["1e-6", "1e-5", "0.0001", "0.001", "0.01"]);
    }

    #[test]
    fn empty_and_single_ranges_are_widened() {
        for (values, is_log) in
            [(vec![], false), (vec![], true), (vec![3.0], false), (vec![0.0], false), (vec![2.0], true)]
        {
            let scale = Scale::covering(values.iter().copied(), is_log);
            assert!(scale.low < scale.high, "{values:?}");
            assert!(!scale.ticks(5).is_empty(), "{values:?}");
        }
    }

    #[test]
    fn extreme_values_neither_hang_nor_overflow() {
        for values in [[f64::MIN, f64::MAX], [1e-320, 1e300], [1e300, 1.000_000_1e300], [-1e-300, 1e-300]] {
            for is_log in [false, true] {
                if is_log && values[0] <= 0.0 {
                    continue;
                }
                let ticks = Scale::covering(values.into_iter(), is_log).with_margin(0.05).ticks(6);
                assert!(ticks.len() <= 101, "{values:?}");
            }
        }
    }

    #[test]
    fn margins_do_not_cross_zero() {
        let scale = Scale::covering([0.0, 10.0].into_iter(), false).with_margin(0.1);
        assert_eq!((scale.low, scale.high), (0.0, 11.0));
    }
}

//! Pieces of HTML for pages that show runs elsewhere than in a report. Whatever comes from outside is escaped.

pub use crate::report::{code_block, escape, figure, sample_block};

/// The style of reports: colours for light and dark, charts, tables.
pub fn style() -> String {
    [crate::plot::CHART_STYLE, crate::report::PAGE_STYLE].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_knows_both_colour_schemes() {
        assert!(style().contains("prefers-color-scheme:dark") && style().contains("color-scheme:light dark"));
    }
}

//! `confusion.json`: how often which class was taken for which, as the last evaluation of a classifier found it.

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::html::escape;
use crate::run_dir::read_text;
use crate::{Result, format_count, write_atomic};

const FILE_NAME: &str = "confusion.json";
/// Larger matrices are not drawn: nobody can read them.
const MAX_CLASSES: usize = 100;
/// Shades of a cell; the style has a class for each, from 0.
const NUM_SHADES: f64 = 8.0;

/// Counts of right and predicted classes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Confusion {
    /// Finished steps.
    pub step: u64,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// `counts[label][predicted]`: documents.
    pub counts: Vec<Vec<u64>>,
}

impl Confusion {
    /// A matrix of zeros.
    pub fn new(step: u64, labels: &[String]) -> Self {
        Self { step, labels: labels.to_vec(), counts: vec![vec![0; labels.len()]; labels.len()] }
    }

    /// Counts a document; classes that there are none of are passed over.
    pub fn add(&mut self, label: usize, predicted: usize) {
        if let Some(count) = self.counts.get_mut(label).and_then(|row| row.get_mut(predicted)) {
            *count += 1;
        }
    }

    /// Writes `confusion.json` into a run folder.
    pub fn save(&self, run_path: &Path) -> Result<()> {
        let text = serde_json::to_string(self).unwrap_or_default() + "\n";
        write_atomic(&run_path.join(FILE_NAME), text.as_bytes())
    }

    /// Reads `confusion.json` of a run folder; `None` if it has none that can be read and shown.
    pub fn load(run_path: &Path) -> Option<Self> {
        let own: Self = serde_json::from_str(&read_text(&run_path.join(FILE_NAME)).ok()??).ok()?;
        let num = own.labels.len();
        let is_square = own.counts.len() == num && own.counts.iter().all(|row| row.len() == num);
        (is_square && (1..=MAX_CLASSES).contains(&num)).then_some(own)
    }

    /// The matrix as a table whose cells are darker the larger their share of the row is.
    pub fn to_html(&self) -> String {
        let mut html = format!(
            "<div class=\"scroll\" role=\"region\" aria-label=\"Confusion matrix\" tabindex=\"0\">\
             <table class=\"confusion\"><caption>Rows are right classes, columns predicted ones; after step {}. \
             Shades are shares of the row.</caption><thead><tr><th scope=\"col\">class</th>",
            format_count(self.step)
        );
        for label in &self.labels {
            let _ = write!(html, "<th scope=\"col\" class=\"number\">{}</th>", escape(label));
        }
        html.push_str("<th scope=\"col\" class=\"number\">right</th></tr></thead><tbody>");
        for (own, (label, row)) in self.labels.iter().zip(&self.counts).enumerate() {
            let sum: u64 = row.iter().fold(0, |sum, count| sum.saturating_add(*count));
            let share = |count: u64| if sum == 0 { 0.0 } else { count as f64 / sum as f64 };
            let _ = write!(html, "<tr><th scope=\"row\">{}</th>", escape(label));
            for (column, count) in row.iter().enumerate() {
                let shade = (share(*count) * NUM_SHADES).ceil() as u32;
                let kind = if column == own { "right" } else { "wrong" };
                let count = format_count(*count);
                let _ = write!(html, "<td class=\"number {kind} shade{shade}\">{count}</td>");
            }
            let right = share(row.get(own).copied().unwrap_or_default());
            let _ = write!(html, "<td class=\"number\">{:.1}%</td></tr>", 100.0 * right);
        }
        html + "</tbody></table></div>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> Confusion {
        let mut matrix = Confusion::new(30, &["a<".to_owned(), "b".to_owned()]);
        for (label, predicted) in [(0, 0), (0, 0), (0, 0), (0, 1), (9, 0)] {
            matrix.add(label, predicted);
        }
        matrix
    }

    #[test]
    fn a_matrix_survives_its_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(Confusion::load(folder.path()), None);
        matrix().save(folder.path()).expect("writes");
        assert_eq!(Confusion::load(folder.path()), Some(matrix()));
    }

    #[test]
    fn a_matrix_that_is_not_square_is_not_shown() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let odd = Confusion { counts: vec![vec![1]], ..matrix() };
        odd.save(folder.path()).expect("writes");
        assert_eq!(Confusion::load(folder.path()), None);
    }

    #[test]
    fn shades_are_shares_of_the_row_and_empty_rows_have_none() {
        let html = matrix().to_html();
        assert!(html.contains("<td class=\"number right shade6\">3</td><td class=\"number wrong shade2\">1</td>"));
        assert!(html.contains("75.0%") && html.contains("right shade0\">0</td><td class=\"number\">0.0%"), "{html}");
        assert!(html.contains("a&lt;") && !html.contains("a<<"));
    }
}

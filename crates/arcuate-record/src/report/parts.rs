//! The pieces of a page: tables, figures, samples, code; everything that comes from outside is escaped.

use std::fmt::Write as _;

use crate::plot::line_class;
use crate::text_table::starts_like_a_number;
use crate::{Chart, format_bytes, format_count};

/// Longer samples and recipes are cut, so that a page stays small enough to open.
const MAX_TEXT_CHARS: usize = 200_000;

/// How good a verdict is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It went as hoped.
    Good,
    /// It did not.
    Bad,
    /// Neither, or not known yet.
    Neutral,
}

impl Tone {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Neutral => "neutral",
        }
    }
}

/// A table; columns of numbers are set to the right.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
    note: String,
}

impl Table {
    /// A table without rows.
    pub fn new(headers: &[&str]) -> Self {
        Self { headers: headers.iter().map(|&header| header.to_owned()).collect(), ..Self::default() }
    }

    /// Adds a row.
    #[must_use]
    pub fn row(mut self, cells: Vec<String>) -> Self {
        self.rows.push(cells);
        self
    }

    /// A sentence under the table.
    #[must_use]
    pub fn note(mut self, text: &str) -> Self {
        text.clone_into(&mut self.note);
        self
    }

    /// The table in Markdown, with its sentence below.
    pub fn to_markdown(&self) -> String {
        let cell = |text: &str| text.replace('|', "\\|").replace(['\n', '\r'], " ");
        let line =
            |cells: &[String]| format!("| {} |\n", cells.iter().map(|text| cell(text)).collect::<Vec<_>>().join(" | "));
        let mut text = line(&self.headers);
        text.push_str(&format!("|{}\n", "---|".repeat(self.headers.len())));
        for row in &self.rows {
            let missing = self.headers.len().saturating_sub(row.len());
            text.push_str(&line(&[row.clone(), vec![String::new(); missing]].concat()));
        }
        if !self.note.is_empty() {
            let _ = write!(text, "\n{}\n", self.note);
        }
        text
    }

    pub(super) fn to_html(&self) -> String {
        let mut html = String::from("<div class=\"scroll\"><table><thead><tr>");
        let is_number = |column: usize| {
            let mut cells =
                self.rows.iter().filter_map(|row| row.get(column)).filter(|cell| !matches!(cell.as_str(), "" | "-"));
            cells.clone().next().is_some() && cells.all(|cell| starts_like_a_number(cell))
        };
        let classes: Vec<&str> =
            (0..self.headers.len()).map(|column| if is_number(column) { " class=\"number\"" } else { "" }).collect();
        for (header, class) in self.headers.iter().zip(&classes) {
            let _ = write!(html, "<th{class}>{}</th>", escape(header));
        }
        html.push_str("</tr></thead><tbody>");
        for row in &self.rows {
            html.push_str("<tr>");
            for (column, class) in classes.iter().enumerate() {
                let _ =
                    write!(html, "<td{class}>{}</td>", row.get(column).map_or_else(String::new, |cell| escape(cell)));
            }
            html.push_str("</tr>");
        }
        html.push_str("</tbody></table></div>\n");
        if !self.note.is_empty() {
            let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(&self.note));
        }
        html
    }
}

/// What one source of data has contributed to a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LedgerRow {
    /// Name of the source.
    pub source: String,
    /// Its weight in the recipe; weights are shown as shares of their sum.
    pub weight: f64,
    /// Rows drawn.
    pub num_rows: u64,
    /// Tokens drawn.
    pub num_tokens: u64,
    /// Bytes of text behind these tokens.
    pub num_bytes: u64,
    /// How often the source has been gone through.
    pub repeats: f64,
}

pub(super) fn ledger_table(rows: &[LedgerRow]) -> Table {
    let sum_weights: f64 = rows.iter().map(|row| row.weight).sum();
    let sum_tokens: u64 = rows.iter().map(|row| row.num_tokens).sum();
    let percent =
        |part: f64, whole: f64| if whole > 0.0 { format!("{:.1}%", 100.0 * part / whole) } else { "-".into() };
    let table = Table::new(&["source", "wanted", "achieved", "tokens", "rows", "text", "passes"]);
    rows.iter().fold(table, |table, row| {
        table.row(vec![
            row.source.clone(),
            percent(row.weight, sum_weights),
            percent(row.num_tokens as f64, sum_tokens as f64),
            format_count(row.num_tokens),
            format_count(row.num_rows),
            format_bytes(row.num_bytes),
            format!("{:.2}", row.repeats),
        ])
    })
}

/// A chart with its title and, if there is anything to tell apart, its legend.
pub fn figure(chart: &Chart) -> String {
    let mut html = format!("<figure><figcaption>{}", escape(&chart.title));
    for (number, name) in chart.legend() {
        let _ = write!(html, "<span class=\"key {}\">{}</span>", line_class(number), escape(&name));
    }
    let _ = writeln!(html, "</figcaption>{}</figure>", chart.to_svg_fragment());
    html
}

/// A generated text after its prompt.
pub fn sample_block(prompt: &str, text: &str) -> String {
    format!("<pre class=\"sample\"><b>{}</b>{}</pre>\n", escape(prompt), escape(cut(text)))
}

/// TOML in fixed width, comments pale.
pub fn code_block(text: &str) -> String {
    let mut html = String::from("<pre><code>");
    for line in cut(text).lines() {
        let (code, comment) = line.split_at(comment_start(line));
        html.push_str(&escape(code));
        if !comment.is_empty() {
            let _ = write!(html, "<i>{}</i>", escape(comment));
        }
        html.push('\n');
    }
    html + "</code></pre>\n"
}

/// Where the comment of a TOML line begins: the first `#` outside of quotes.
fn comment_start(line: &str) -> usize {
    let (mut quote, mut is_escaped) = (None, false);
    for (index, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') => return index,
            (None, '"' | '\'') => quote = Some(c),
            (Some('"'), '\\') if !is_escaped => {
                is_escaped = true;
                continue;
            }
            (Some(open), c) if c == open && !is_escaped => quote = None,
            _ => {}
        }
        is_escaped = false;
    }
    line.len()
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(MAX_TEXT_CHARS).map_or(text, |(end, _)| &text[..end])
}

/// Text for HTML and SVG, inside elements and quoted attributes. Control characters, which neither may hold, are replaced.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 16);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_control_characters_are_escaped() {
        assert_eq!(escape("a<b>&\"'\u{0}\n"), "a&lt;b&gt;&amp;&quot;&#39;\u{fffd}\n");
    }

    #[test]
    fn comments_begin_outside_of_quotes() {
        let cases = [
            ("a = 1 # why", 6),
            ("a = \"# no\" # yes", 11),
            ("a = \"\\\"# no\"", 12),
            ("a = '\\' # yes", 8),
            ("# all", 0),
            ("none", 4),
        ];
        for (line, start) in cases {
            assert_eq!(comment_start(line), start, "{line}");
        }
        assert!(code_block("a = 1 # <why>").contains("a = 1 <i># &lt;why&gt;</i>"));
    }

    #[test]
    fn the_ledger_shows_wanted_beside_achieved() {
        let row = |source: &str, weight, num_tokens| LedgerRow {
            source: source.into(),
            weight,
            num_tokens,
            num_rows: 12,
            num_bytes: 4_100,
            repeats: 0.837_2,
        };
        let table = ledger_table(&[row("a", 3.0, 700), row("b", 1.0, 300)]);
        assert_eq!(table.rows[0], ["a", "75.0%", "70.0%", "700", "12", "4.1 kB", "0.84"]);
        assert_eq!(ledger_table(&[row("a", 0.0, 0)]).rows[0][1..3], ["-", "-"]);
    }

    #[test]
    fn markdown_keeps_cells_in_their_columns() {
        let table = Table::new(&["a", "b"]).row(vec!["x|y\nz".into()]).note("Why.");
        assert_eq!(table.to_markdown(), "| a | b |\n|---|---|\n| x\\|y z |  |\n\nWhy.\n");
    }

    #[test]
    fn short_rows_are_filled_up() {
        let html = Table::new(&["a", "b"]).row(vec!["1".into()]).to_html();
        assert!(html.contains("<td class=\"number\">1</td><td></td>"), "{html}");
    }

    #[test]
    fn endless_texts_are_cut() {
        assert!(sample_block("", &"ä".repeat(MAX_TEXT_CHARS * 2)).len() < MAX_TEXT_CHARS * 2 + 100);
    }
}

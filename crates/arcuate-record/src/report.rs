//! `report.html`: one page that needs no other file, no network and no scripts; light, dark, wide and narrow.

mod parts;
mod utterances;

use std::fmt::Write as _;

use parts::ledger_table;
pub use parts::{LedgerRow, Table, Tone, code_block, escape, figure, sample_block};
use utterances::utterance_table;
pub use utterances::{HeardWord, Utterance};

use crate::plot::CHART_STYLE;
use crate::{Chart, Confusion, EffectPlot};

pub(crate) const PAGE_STYLE: &str = include_str!("report/page.css");

/// Builds the page from top to bottom; sections stand in the order of the calls.
#[derive(Debug, Clone, Default)]
pub struct Report {
    title: String,
    subtitle: String,
    verdict: Option<(Tone, String)>,
    tiles: Vec<(String, String, String)>,
    sections: Vec<(String, String)>,
    footer: String,
}

impl Report {
    /// A page of that title.
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), ..Self::default() }
    }

    /// One line under the title: what was run, when, where.
    #[must_use]
    pub fn subtitle(mut self, text: &str) -> Self {
        text.clone_into(&mut self.subtitle);
        self
    }

    /// The answer in one or two sentences.
    #[must_use]
    pub fn verdict(mut self, tone: Tone, text: &str) -> Self {
        self.verdict = Some((tone, text.to_owned()));
        self
    }

    /// A key figure: its name, the figure, and a note (may be empty).
    #[must_use]
    pub fn tile(mut self, label: &str, value: &str, note: &str) -> Self {
        self.tiles.push((label.to_owned(), value.to_owned(), note.to_owned()));
        self
    }

    /// A section of plain paragraphs; empty lines part them.
    #[must_use]
    pub fn text(self, heading: &str, text: &str) -> Self {
        let paragraphs = text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
        let body = paragraphs.fold(String::new(), |body, paragraph| body + "<p>" + &escape(paragraph) + "</p>\n");
        self.section(heading, body)
    }

    /// A section of curves, side by side where there is room.
    #[must_use]
    pub fn charts(self, heading: &str, charts: &[Chart]) -> Self {
        let figures: String = charts.iter().map(figure).collect();
        self.section(heading, format!("<div class=\"figures\">{figures}</div>\n"))
    }

    /// A section of effects with their intervals.
    #[must_use]
    pub fn effects(self, heading: &str, plot: &EffectPlot) -> Self {
        let caption = escape(&plot.title);
        self.section(
            heading,
            format!("<figure><figcaption>{caption}</figcaption>{}</figure>\n", plot.to_svg_fragment()),
        )
    }

    /// A section with a table.
    #[must_use]
    pub fn table(self, heading: &str, table: &Table) -> Self {
        let body = table.to_html();
        self.section(heading, body)
    }

    /// Which classes were taken for which.
    #[must_use]
    pub fn confusion(self, heading: &str, matrix: &Confusion) -> Self {
        self.section(heading, matrix.to_html())
    }

    /// The ledger: what each source of data has contributed, beside what was wanted.
    #[must_use]
    pub fn ledger(self, rows: &[LedgerRow]) -> Self {
        let body = ledger_table(rows).to_html();
        self.section("Data seen", body)
    }

    /// Generated texts: prompt and continuation.
    #[must_use]
    pub fn samples(self, heading: &str, samples: &[(String, String)]) -> Self {
        let body: String = samples.iter().map(|(prompt, text)| sample_block(prompt, text)).collect();
        self.section(heading, body)
    }

    /// Recognised utterances beside what was said, with players: the worst, say, or the best.
    #[must_use]
    pub fn utterances(self, heading: &str, utterances: &[Utterance]) -> Self {
        let body = utterance_table(utterances);
        self.section(heading, body)
    }

    /// A recipe, log or other text in fixed width, comments pale; folded away behind its heading if `is_folded`.
    #[must_use]
    pub fn code(self, heading: &str, text: &str, is_folded: bool) -> Self {
        let block = code_block(text);
        if !is_folded {
            return self.section(heading, block);
        }
        let num_lines = text.lines().count();
        self.section(heading, format!("<details><summary>{num_lines} lines</summary>{block}</details>\n"))
    }

    /// Names with values: environment, versions, settings.
    #[must_use]
    pub fn facts(self, heading: &str, facts: &[(String, String)]) -> Self {
        let mut body = String::from("<dl>");
        for (name, value) in facts {
            let _ = write!(body, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
        }
        self.section(heading, body + "</dl>\n")
    }

    /// The last line of the page.
    #[must_use]
    pub fn footer(mut self, text: &str) -> Self {
        text.clone_into(&mut self.footer);
        self
    }

    fn section(mut self, heading: &str, body: String) -> Self {
        self.sections.push((heading.to_owned(), body));
        self
    }

    /// The whole page.
    pub fn to_html(&self) -> String {
        let title = escape(&self.title);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; media-src data:\">\n\
             <title>{title}</title>\n<style>\n{CHART_STYLE}{PAGE_STYLE}</style>\n</head>\n<body class=\"own\">\n<main>\n\
             <header><h1>{title}</h1>"
        );
        if !self.subtitle.is_empty() {
            let _ = write!(page, "<p class=\"subtitle\">{}</p>", escape(&self.subtitle));
        }
        page.push_str("</header>\n");
        if let Some((tone, text)) = &self.verdict {
            let _ = writeln!(page, "<p class=\"verdict {}\">{}</p>", tone.class(), escape(text));
        }
        if !self.tiles.is_empty() {
            page.push_str("<div class=\"tiles\">");
            for (label, value, note) in &self.tiles {
                let _ = write!(page, "<div class=\"tile\"><span>{}</span><b>{}</b>", escape(label), escape(value));
                let _ = write!(page, "<small>{}</small></div>", escape(note));
            }
            page.push_str("</div>\n");
        }
        for (heading, body) in &self.sections {
            let _ = write!(page, "<section>\n<h2>{}</h2>\n{body}</section>\n", escape(heading));
        }
        if !self.footer.is_empty() {
            let _ = writeln!(page, "<footer>{}</footer>", escape(&self.footer));
        }
        page + "</main>\n</body>\n</html>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Effect, Series};

    const EVIL: &str = "<script>alert('x')</script>\"&";

    fn evil_page() -> String {
        let text = EVIL.to_owned();
        let row = LedgerRow { source: text.clone(), weight: 1.0, ..LedgerRow::default() };
        Report::new(EVIL)
            .subtitle(EVIL)
            .verdict(Tone::Good, EVIL)
            .tile(EVIL, EVIL, EVIL)
            .text(EVIL, EVIL)
            .charts(EVIL, &[Chart::new(EVIL, vec![Series::new(EVIL, vec![(1.0, 1.0)]); 2]).x_label(EVIL).y_label(EVIL)])
            .effects(
                EVIL,
                &EffectPlot {
                    title: text.clone(),
                    x_label: text.clone(),
                    effects: vec![Effect { name: text.clone(), ..Effect::default() }],
                },
            )
            .table(EVIL, &Table::new(&[EVIL]).row(vec![text.clone()]).note(EVIL))
            .ledger(&[row])
            .confusion(EVIL, &Confusion::new(1, std::slice::from_ref(&text)))
            .samples(EVIL, &[(text.clone(), text.clone())])
            .utterances(
                EVIL,
                &[Utterance {
                    id: text.clone(),
                    words: vec![
                        HeardWord::Wrong { said: text.clone(), heard: text.clone() },
                        HeardWord::Right(text.clone()),
                    ],
                    ..Utterance::default()
                }],
            )
            .code(EVIL, &format!("a = \"{EVIL}\" # {EVIL}"), false)
            .facts(EVIL, &[(text.clone(), text)])
            .footer(EVIL)
            .to_html()
    }

    #[test]
    fn nothing_of_what_is_shown_becomes_markup() {
        let page = evil_page();
        assert!(!page.contains("<script") && !page.contains("alert('x')"), "{page}");
        assert!(page.matches("&lt;script&gt;").count() > 20);
    }

    #[test]
    fn every_element_is_closed() {
        let page = evil_page();
        for tag in ["main", "section", "table", "tr", "td", "pre", "div", "figure", "svg", "dl", "p", "h2", "code"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn the_page_needs_no_other_file() {
        let page = evil_page();
        for word in ["src=", "href=", "url(", "@import", "http://", "https://"] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn sections_stand_in_the_order_of_the_calls() {
        let page = Report::new("t").text("First", "a\n\nb").text("Second", "c").to_html();
        assert!(page.contains("<p>a</p>\n<p>b</p>"));
        assert!(page.find("First") < page.find("Second"));
    }
}

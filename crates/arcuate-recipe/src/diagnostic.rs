//! What a user reads when a recipe is wrong: code, place, one sentence, the next action; for people and for programs.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use serde_json::json;

use crate::text::counted;

/// Most diagnostics that are shown in full; the rest is counted.
const MAX_SHOWN: usize = 50;
/// Lines between two places up to which they share one excerpt.
const MAX_EXCERPT_LINES: usize = 400;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing is started.
    Error,
    /// The run goes on.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// A range in a text that has a name: a file, or `--set 2`.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Path of the file, or `--set N`.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Bytes in the text; `None` means the file as a whole.
    pub span: Option<Range<usize>>,
    /// The whole text, for the excerpt.
    text: Arc<str>,
}

impl Place {
    /// A place in a text. A span outside the text or inside a character is moved to the nearest sound one.
    pub fn at(file: &str, text: Arc<str>, span: Option<Range<usize>>) -> Self {
        let Some(span) = span else { return Self { text, ..Self::whole(file) } };
        let start = text.floor_char_boundary(span.start);
        let end = text.ceil_char_boundary(span.end.max(start));
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            span: Some(start..end),
            text,
        }
    }

    /// A file as a whole.
    pub fn whole(file: &str) -> Self {
        Self { file: file.to_owned(), line: 1, column: 1, span: None, text: Arc::from("") }
    }

    /// The lines that the span covers: their start and end as bytes.
    fn lines(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.text[..span.start].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[span.end..].find('\n').map_or(self.text.len(), |at| span.end + at);
        start..end
    }
}

/// One mistake or doubt.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name, such as `recipe::unknown-key`.
    pub code: &'static str,
    /// One lower-case sentence without full stop.
    pub message: String,
    /// Where it is.
    pub place: Option<Place>,
    /// A few words under the carets.
    pub label: Option<String>,
    /// Other places that belong to it, with a few words each.
    pub also: Vec<(Place, String)>,
    /// The next action.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error without a place yet.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            place: None,
            label: None,
            also: Vec::new(),
            help: None,
        }
    }

    /// A warning without a place yet.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Sets the place.
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Sets the words under the carets; empty is none.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into()).filter(|label| !label.is_empty());
        self
    }

    /// Adds another place.
    pub fn also(mut self, place: Place, label: impl Into<String>) -> Self {
        self.also.push((place, label.into()));
        self
    }

    /// Sets the next action.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// As text with an excerpt and carets, without a line break at the end.
    pub fn render(&self, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = annotate_snippets::Group::with_title(level.primary_title(self.message.as_str()).id(self.code));
        let mut others: Vec<&(Place, String)> = self.also.iter().filter(|(place, _)| place.span.is_some()).collect();
        if let Some(place) = &self.place {
            match &place.span {
                None => group = group.element(Origin::path(place.file.as_str())),
                Some(span) => {
                    let (near, far) = others.into_iter().partition(|(other, _)| place.shares_excerpt(other));
                    others = far;
                    group = group.element(self.snippet(place, span, near));
                }
            }
        }
        for (place, label) in others {
            let span = place.span.clone().unwrap_or_default();
            let lines = place.lines(&span);
            let own = span.start - lines.start..span.end - lines.start;
            group = group.element(
                Snippet::source(&place.text[lines])
                    .line_start(place.line)
                    .path(place.file.as_str())
                    .annotation(AnnotationKind::Context.span(own).label(label.as_str())),
            );
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let text = renderer.render(&[group]);
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }

    fn snippet<'a>(
        &'a self,
        place: &'a Place,
        span: &Range<usize>,
        near: Vec<&'a (Place, String)>,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let mut lines = place.lines(span);
        let mut line_start = place.line;
        for (other, _) in &near {
            let theirs = other.lines(&other.span.clone().unwrap_or_default());
            line_start = line_start.min(other.line);
            lines = lines.start.min(theirs.start)..lines.end.max(theirs.end);
        }
        let first = lines.start;
        let shifted = |span: &Range<usize>| span.start - first..span.end - first;
        let mut primary = AnnotationKind::Primary.span(shifted(span));
        if let Some(label) = &self.label {
            primary = primary.label(label.as_str());
        }
        let mut snippet =
            Snippet::source(&place.text[lines]).line_start(line_start).path(place.file.as_str()).annotation(primary);
        for (other, label) in near {
            let span = other.span.clone().unwrap_or_default();
            snippet = snippet.annotation(AnnotationKind::Context.span(shifted(&span)).label(label.as_str()));
        }
        snippet
    }

    /// As JSON: severity, code, message, file, line, column, label, also, help.
    pub fn to_json(&self) -> serde_json::Value {
        let place = |place: &Place| json!({ "file": place.file, "line": place.line, "column": place.column });
        json!({
            "severity": self.severity.name(),
            "code": self.code,
            "message": self.message,
            "place": self.place.as_ref().map(place),
            "label": self.label,
            "also": self.also.iter().map(|(p, label)| json!({"place": place(p), "label": label})).collect::<Vec<_>>(),
            "help": self.help,
        })
    }
}

impl Place {
    fn shares_excerpt(&self, other: &Place) -> bool {
        self.file == other.file && self.text == other.text && self.line.abs_diff(other.line) <= MAX_EXCERPT_LINES
    }
}

/// All that was found, in one pass.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Adds several.
    pub fn extend(&mut self, more: impl IntoIterator<Item = Diagnostic>) {
        self.list.extend(more);
    }

    /// In the order in which they are shown.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many forbid a start.
    pub fn num_errors(&self) -> usize {
        self.list.iter().filter(|d| d.severity == Severity::Error).count()
    }

    /// Whether any forbids a start.
    pub fn has_errors(&self) -> bool {
        self.num_errors() > 0
    }

    /// Orders them as a reader meets them: by place in the file, overrides last; those without a place stay first.
    pub fn sort(&mut self) {
        self.list.sort_by_key(|d| {
            d.place.as_ref().map(|p| (p.file.starts_with("--set"), p.span.as_ref().map_or(usize::MAX, |s| s.start)))
        });
    }

    /// The last line: "2 errors, nothing was started".
    pub fn summary(&self) -> String {
        let (errors, warnings) = (self.num_errors(), self.list.len() - self.num_errors());
        match (errors, warnings) {
            (0, 0) => "no errors".to_owned(),
            (0, _) => counted(warnings, "warning"),
            (_, 0) => format!("{}, nothing was started", counted(errors, "error")),
            _ => format!("{}, {}, nothing was started", counted(errors, "error"), counted(warnings, "warning")),
        }
    }

    /// All as text with the summary, without a line break at the end.
    pub fn render(&self, color: bool) -> String {
        let mut parts: Vec<String> = self.list.iter().take(MAX_SHOWN).map(|d| d.render(color)).collect();
        if self.list.len() > MAX_SHOWN {
            parts.push(format!("and {} more", self.list.len() - MAX_SHOWN));
        }
        parts.push(self.summary());
        parts.join("\n\n")
    }

    /// All as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        json!({
            "errors": self.num_errors(),
            "warnings": self.list.len() - self.num_errors(),
            "diagnostics": self.list.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
        })
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { list: vec![diagnostic] }
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(iter: I) -> Self {
        Self { list: iter.into_iter().collect() }
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Arc<str> {
        Arc::from("name = \"x\"\nnum_negative = 20\nlast = 1")
    }

    #[test]
    fn has_the_shape_of_a_compiler_message() {
        let found = Diagnostic::error("recipe::unknown-key", "unknown key `num_negative`")
            .at(Place::at("tiny.toml", text(), Some(11..23)))
            .label("did you mean `num_negatives`?")
            .help("`arcuate recipe schema objective` lists all keys");
        assert_eq!(
            found.render(false),
            "error[recipe::unknown-key]: unknown key `num_negative`\n --> tiny.toml:2:1\n  |\n2 | num_negative = 20\n  \
             | ^^^^^^^^^^^^ did you mean `num_negatives`?\n  |\n  = help: `arcuate recipe schema objective` lists all keys"
        );
    }

    #[test]
    fn color_is_optional() {
        let found = Diagnostic::error("a::b", "wrong").at(Place::at("t.toml", text(), Some(0..4)));
        assert!(found.render(true).contains('\u{1b}'));
        assert!(!found.render(false).contains('\u{1b}'));
    }

    #[test]
    fn a_second_place_in_the_same_file_joins_the_excerpt() {
        let found = Diagnostic::error("a::b", "two of them")
            .at(Place::at("t.toml", text(), Some(29..33)))
            .also(Place::at("t.toml", text(), Some(0..4)), "the first");
        let shown = found.render(false);
        assert!(shown.contains("t.toml:3:1") && shown.contains("---- the first"), "{shown}");
    }

    #[test]
    fn a_second_place_elsewhere_gets_its_own_excerpt() {
        let found = Diagnostic::error("a::b", "two of them")
            .at(Place::at("--set 1", Arc::from("x.y=1"), Some(0..3)))
            .also(Place::at("t.toml", text(), Some(0..4)), "the first");
        let shown = found.render(false);
        assert!(shown.contains("--> --set 1:1:1") && shown.contains("t.toml"), "{shown}");
    }

    #[test]
    fn places_outside_the_text_are_moved_inside() {
        for span in [0..usize::MAX, 500..600, 38..38, Range { start: 40, end: 2 }] {
            let place = Place::at("t.toml", text(), Some(span));
            let shown = Diagnostic::error("a::b", "x").at(place).render(false);
            assert!(shown.contains("t.toml"), "{shown}");
        }
        let place = Place::at("t.toml", Arc::from("é = 1"), Some(1..2));
        assert_eq!(place.span, Some(0..2));
    }

    #[test]
    fn columns_count_characters() {
        let place = Place::at("t.toml", Arc::from("a = 1\né = ü"), Some(11..13));
        assert_eq!((place.line, place.column), (2, 5));
    }

    #[test]
    fn the_summary_counts() {
        let mut all = Diagnostics::new();
        assert_eq!(all.summary(), "no errors");
        all.push(Diagnostic::error("a::b", "x"));
        all.push(Diagnostic::error("a::b", "y"));
        assert_eq!(all.summary(), "2 errors, nothing was started");
        all.push(Diagnostic::warning("a::b", "z"));
        assert_eq!(all.summary(), "2 errors, 1 warning, nothing was started");
    }

    #[test]
    fn json_has_code_line_and_help() {
        let found = Diagnostic::error("a::b", "x").at(Place::at("t.toml", text(), Some(29..33))).help("do y");
        let json = Diagnostics::from(found).to_json();
        assert_eq!(json["diagnostics"][0]["code"], "a::b");
        assert_eq!(json["diagnostics"][0]["place"]["line"], 3);
        assert_eq!(json["diagnostics"][0]["help"], "do y");
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut all = Diagnostics::new();
        all.extend((0..60).map(|i| Diagnostic::error("a::b", format!("number {i}"))));
        let shown = all.render(false);
        assert!(shown.contains("and 10 more") && shown.ends_with("60 errors, nothing was started"), "{shown}");
    }
}

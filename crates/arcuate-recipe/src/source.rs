//! Where each value of a typed file came from, by key path.

use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::document::{Entry, Mark, Node, Texts, Value};
use crate::overrides::split_path;

/// A semantic mistake or doubt, named by key path; [`Source`] knows where that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name, such as `recipe::impossible`.
    pub code: &'static str,
    /// The key it is about: `model.llama.num_heads`.
    pub key_path: String,
    /// One lower-case sentence without full stop.
    pub message: String,
    /// The next action.
    pub help: Option<String>,
}

impl Finding {
    /// Something that forbids a start.
    pub fn error(code: &'static str, key_path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, key_path: key_path.into(), message: message.into(), help: None }
    }

    /// Something that is probably not meant.
    pub fn warning(code: &'static str, key_path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, key_path, message) }
    }

    /// Adds the next action.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// The document behind a typed file.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    texts: Texts,
    root: Node,
}

impl Source {
    pub(crate) fn new(texts: Texts, root: Node) -> Self {
        Self { texts, root }
    }

    /// The place of a key's value. For a key that is not given: of the table where it would stand.
    pub fn place(&self, key_path: &str) -> Place {
        let mut node = &self.root;
        for key in split_path(key_path) {
            match step(node, &key) {
                Some(next) => node = next,
                None => break,
            }
        }
        self.texts.place(&node.mark)
    }

    /// `file:line`, `--set 2`, or `default` for what is not given.
    pub fn origin(&self, key_path: &str) -> String {
        match self.find(key_path) {
            Some(mark) => self.texts.origin(mark),
            None => "default".to_owned(),
        }
    }

    /// Whether the key is given at all.
    pub fn is_given(&self, key_path: &str) -> bool {
        self.find(key_path).is_some()
    }

    fn find(&self, key_path: &str) -> Option<&Mark> {
        let mut node = &self.root;
        for key in split_path(key_path) {
            node = step(node, &key)?;
        }
        Some(&node.mark)
    }

    /// Gives a finding its place.
    pub fn diagnose(&self, finding: &Finding) -> Diagnostic {
        let diagnostic = match finding.severity {
            Severity::Error => Diagnostic::error(finding.code, &finding.message),
            Severity::Warning => Diagnostic::warning(finding.code, &finding.message),
        };
        let place = self.place(&finding.key_path);
        let whole = Place::whole(&place.file);
        let diagnostic = diagnostic.at(if place.span.is_some() { place } else { whole });
        match &finding.help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        }
    }
}

fn step<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    match &node.value {
        Value::Table(entries) => entries.iter().find(|entry: &&Entry| entry.key == key).map(|entry| &entry.node),
        Value::List(items) => items.get(key.parse::<usize>().ok()?),
        Value::String(name) if name == key => Some(node),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document;
    use crate::overrides::{Override, apply};

    fn source() -> Source {
        let content = "name = \"x\"\n[a.b]\nc = 1\nd = [5, 6]\n";
        let mut texts = Texts::default();
        let text = texts.add("dir/a.toml", content);
        let mut root = document::parse(content, text, &texts).expect("the text of the test is TOML");
        apply(&Override::from_flags(&["a.b.e=7"]), &mut root, &mut texts);
        Source::new(texts, root)
    }

    #[test]
    fn origins_are_file_and_line_override_or_default() {
        let source = source();
        assert_eq!(source.origin("a.b.c"), "dir/a.toml:3");
        assert_eq!(source.origin("a.b.d[1]"), "dir/a.toml:4");
        assert_eq!(source.origin("a.b.e"), "--set 1");
        assert_eq!(source.origin("a.b.f"), "default");
        assert!(source.is_given("a.b") && !source.is_given("a.x"));
    }

    #[test]
    fn a_key_that_is_not_given_has_the_place_of_its_table() {
        let source = source();
        assert_eq!(source.place("a.b.missing").line, 2);
        assert_eq!(source.place("a.b.d[1]").column, 9);
        assert_eq!(source.place("nowhere").span, None);
    }

    #[test]
    fn a_finding_becomes_a_diagnostic_at_its_value() {
        let finding = Finding::error("recipe::impossible", "a.b.c", "1 is too few").help("take 2");
        let shown = source().diagnose(&finding).render(false);
        assert!(shown.contains("--> dir/a.toml:3:5") && shown.contains("= help: take 2"), "{shown}");
    }
}

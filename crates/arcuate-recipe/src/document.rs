//! A TOML document as a tree in which every key and every value knows where it was written.
//!
//! `toml_edit` keeps byte spans as long as a document is not edited, and serde reports only its first error; so the
//! parsed document is copied once into this tree. Overrides edit the tree, the walk and serde read it.

use std::ops::Range;
use std::sync::Arc;

use toml_edit::{Document, Item, TableLike};

use crate::diagnostic::{Diagnostic, Diagnostics, Place};

/// The texts that a document was made from: the file first, then one per `--set`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Texts(Vec<(String, Arc<str>)>);

impl Texts {
    /// Adds a text under the name that messages show; returns its number.
    pub(crate) fn add(&mut self, name: impl Into<String>, text: &str) -> usize {
        self.0.push((name.into(), Arc::from(text)));
        self.0.len() - 1
    }

    /// The place of a mark, for a message.
    pub(crate) fn place(&self, mark: &Mark) -> Place {
        match self.0.get(mark.text) {
            Some((name, text)) => Place::at(name, text.clone(), mark.span.clone()),
            None => Place::whole("recipe"),
        }
    }

    /// The first text as a whole: where something is missing that has no header.
    pub(crate) fn whole(&self) -> Place {
        Place::whole(self.0.first().map_or("recipe", |(name, _)| name))
    }

    /// `file:line`, or `--set 2`.
    pub(crate) fn origin(&self, mark: &Mark) -> String {
        let place = self.place(mark);
        if mark.text == 0 { format!("{}:{}", place.file, place.line) } else { place.file }
    }
}

/// Where something was written: the number of a text and a range of bytes in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Number of the text in [`Texts`]; 0 is the file.
    pub text: usize,
    /// Bytes in that text; `None` for a table without a header of its own, such as the top level.
    pub span: Option<Range<usize>>,
}

impl Mark {
    pub(crate) fn new(text: usize, span: Option<Range<usize>>) -> Self {
        Self { text, span }
    }
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Where the value (for a table: its header) stands.
    pub mark: Mark,
    /// The value.
    pub value: Value,
}

/// A TOML value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// A table in any of TOML's notations, in the order written.
    Table(Vec<Entry>),
    /// A list, or an array of tables.
    List(Vec<Node>),
    /// A string.
    String(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A date or time as written; no key takes one.
    Datetime(String),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// The key without quotes.
    pub key: String,
    /// Where the key stands.
    pub key_mark: Mark,
    /// The value.
    pub node: Node,
}

impl Value {
    /// What the value is, with its article, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Table(_) => "a table",
            Value::List(_) => "a list",
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Boolean(_) => "a boolean",
            Value::Datetime(_) => "a date",
        }
    }
}

impl Node {
    /// The entries, if this is a table.
    pub(crate) fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// The entry of a key, if this is a table that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.key == key)
    }
}

/// Parses a text that was added to `texts` as number `text`; a syntax error becomes a diagnostic with its place.
pub(crate) fn parse(content: &str, text: usize, texts: &Texts) -> Result<Node, Diagnostics> {
    match Document::parse(content) {
        Ok(document) => {
            Ok(Node { mark: Mark::new(text, None), value: Value::Table(entries_of(document.as_table(), text)) })
        }
        Err(error) => Err(syntax_error(&error, content, text, texts).into()),
    }
}

fn syntax_error(error: &toml_edit::TomlError, content: &str, text: usize, texts: &Texts) -> Diagnostic {
    let span = error.span().unwrap_or(content.len()..content.len());
    let mark = Mark::new(text, Some(span.clone()));
    let found = content.get(span).unwrap_or_default();
    let (message, label) = reworded(error.message(), found);
    let mut diagnostic = Diagnostic::error("recipe::syntax", message).at(texts.place(&mark)).label(label);
    if error.message() == "duplicate key" {
        diagnostic = diagnostic.help("a key or table can be given once; remove one of the two");
    } else if error.message().contains("array elements") {
        diagnostic = diagnostic.help("the list goes on until `]`; it may be missing before this place");
    }
    diagnostic
}

/// The parser guesses "boolean" from the first letter of a bare word; what is nearly always meant is a string.
fn reworded(message: &str, found: &str) -> (String, String) {
    let bare_word = found.starts_with(|c: char| c.is_ascii_alphabetic());
    if bare_word && (message.starts_with("invalid boolean") || message.starts_with("string values must be quoted")) {
        return ("a string needs quotes".to_owned(), format!("write `\"{}\"`", crate::text::shown(found)));
    }
    if message.starts_with("string values must be quoted") && found.trim().is_empty() {
        return ("a value is missing".to_owned(), "expected a value".to_owned());
    }
    match message.split_once(", expected ") {
        Some((what, expected)) => (crate::text::shown(what), format!("expected {}", crate::text::shown(expected))),
        None => (crate::text::shown(message), String::new()),
    }
}

fn entries_of(table: &dyn TableLike, text: usize) -> Vec<Entry> {
    table
        .iter()
        .filter(|(_, item)| !item.is_none())
        .map(|(name, item)| {
            let key_span = table.key(name).and_then(toml_edit::Key::span);
            Entry {
                key: name.to_owned(),
                key_mark: Mark::new(text, key_span.clone()),
                node: node_of(item, text, key_span),
            }
        })
        .collect()
}

fn node_of(item: &Item, text: usize, key_span: Option<Range<usize>>) -> Node {
    let mark = Mark::new(text, item.span().or(key_span));
    let value = match item {
        Item::Value(value) => return value_node(value, mark),
        Item::Table(table) => Value::Table(entries_of(table, text)),
        Item::ArrayOfTables(tables) => Value::List(
            tables
                .iter()
                .map(|table| Node {
                    mark: Mark::new(text, table.span().or(mark.span.clone())),
                    value: Value::Table(entries_of(table, text)),
                })
                .collect(),
        ),
        Item::None => Value::Table(Vec::new()),
    };
    Node { mark, value }
}

fn value_node(value: &toml_edit::Value, mark: Mark) -> Node {
    use toml_edit::Value as Toml;
    let text = mark.text;
    let value = match value {
        Toml::String(value) => Value::String(value.value().clone()),
        Toml::Integer(value) => Value::Integer(*value.value()),
        Toml::Float(value) => Value::Float(*value.value()),
        Toml::Boolean(value) => Value::Boolean(*value.value()),
        Toml::Datetime(value) => Value::Datetime(value.value().to_string()),
        Toml::Array(values) => Value::List(
            values.iter().map(|value| value_node(value, Mark::new(text, value.span().or(mark.span.clone())))).collect(),
        ),
        Toml::InlineTable(table) => Value::Table(entries_of(table, text)),
    };
    Node { mark, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(content: &str) -> Node {
        let mut texts = Texts::default();
        let text = texts.add("a.toml", content);
        parse(content, text, &texts).expect("the text of the test is TOML")
    }

    fn error(content: &str) -> Diagnostic {
        let mut texts = Texts::default();
        let text = texts.add("a.toml", content);
        let found = parse(content, text, &texts).expect_err("the text of the test is not TOML");
        found.into_iter().next().expect("an error is at least one diagnostic")
    }

    fn written<'a>(content: &'a str, mark: &Mark) -> &'a str {
        &content[mark.span.clone().expect("the mark has a span")]
    }

    #[test]
    fn every_key_and_value_has_its_place() {
        let content = "name = \"x\"\n[model.llama]\nsize = 4\nlist = [1, 2.5]\n";
        let root = tree(content);
        let model = root.get("model").expect("written");
        assert_eq!(written(content, &model.key_mark), "model");
        let llama = model.node.get("llama").expect("written");
        assert_eq!(written(content, &llama.node.mark), "[model.llama]");
        let size = llama.node.get("size").expect("written");
        assert_eq!((written(content, &size.key_mark), written(content, &size.node.mark)), ("size", "4"));
        let Value::List(items) = &llama.node.get("list").expect("written").node.value else { panic!("a list") };
        assert_eq!(written(content, &items[1].mark), "2.5");
    }

    #[test]
    fn the_three_notations_of_a_table_give_the_same_values() {
        let plain = |node: &Node| {
            let a = node.get("a").expect("written");
            let b = a.node.get("b").expect("written");
            b.node.get("c").expect("written").node.value.clone()
        };
        for content in ["[a.b]\nc = 1\n", "a.b.c = 1\n", "a = {b = {c = 1}}\n"] {
            assert_eq!(plain(&tree(content)), Value::Integer(1), "{content}");
        }
    }

    #[test]
    fn arrays_of_tables_are_lists_with_a_place_per_header() {
        let content = "[[step]]\nname = \"a\"\n[[step]]\nname = \"b\"\n";
        let root = tree(content);
        let Value::List(steps) = &root.get("step").expect("written").node.value else { panic!("a list") };
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[1].mark.span.clone().map(|span| span.start), Some(20));
    }

    #[test]
    fn a_bare_word_is_told_to_take_quotes() {
        let found = error("precision = f32\n");
        assert_eq!(found.message, "a string needs quotes");
        assert_eq!(found.label.as_deref(), Some("write `\"f32\"`"));
        assert_eq!(found.place.map(|place| (place.line, place.column)), Some((1, 13)));
    }

    #[test]
    fn a_key_given_twice_names_the_second_place() {
        let found = error("a = 1\nb = 2\na = 3\n");
        assert_eq!(found.code, "recipe::syntax");
        assert_eq!(found.place.map(|place| place.line), Some(3));
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        let content = format!("a = {}", "[".repeat(100_000));
        assert_eq!(error(&content).code, "recipe::syntax");
        let content = format!("{} = 1", vec!["a"; 50_000].join("."));
        assert_eq!(error(&content).code, "recipe::syntax");
    }
}

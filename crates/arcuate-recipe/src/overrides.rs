//! `--set a.b.c=value`: changes to a document before it is typed, each with a place of its own.

use toml_edit::{Document, Item};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::document::{self, Entry, Mark, Node, Texts, Value};
use crate::text::{join, key, shown, string};

/// Longest override in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// One change to a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// What messages and `resolved.toml` call it: `--set 2`.
    pub origin: String,
    /// `key.path=value`. The value is TOML; what is not TOML and begins like a word is a string.
    pub text: String,
}

impl Override {
    /// The values of the `--set` flags of a command line, numbered from 1.
    pub fn from_flags<S: AsRef<str>>(flags: &[S]) -> Vec<Self> {
        let numbered = flags.iter().enumerate();
        numbered
            .map(|(index, text)| Self { origin: format!("--set {}", index + 1), text: text.as_ref().to_owned() })
            .collect()
    }
}

/// Applies all overrides in order; later ones win. Those that cannot be applied are reported and skipped.
pub(crate) fn apply(overrides: &[Override], root: &mut Node, texts: &mut Texts) -> Diagnostics {
    let mut found = Diagnostics::new();
    for change in overrides {
        let text = texts.add(&change.origin, &change.text);
        let applied = read(&change.text, text, texts).and_then(|(path, value)| put(root, &path, value, texts));
        if let Err(more) = applied {
            found.extend(more);
        }
    }
    found
}

type Path = Vec<(String, Mark)>;

fn bad(message: impl Into<String>, text: usize, len: usize, texts: &Texts) -> Diagnostic {
    Diagnostic::error("recipe::bad-override", message)
        .at(texts.place(&Mark::new(text, Some(0..len))))
        .help("an override looks like `--set schedule.cosine.final_fraction=0.1`")
}

/// Splits an override into its key path and its value.
fn read(content: &str, text: usize, texts: &Texts) -> Result<(Path, Node), Diagnostics> {
    if content.len() > MAX_BYTES {
        return Err(bad("an override can have at most 64 KiB", text, 0, texts).into());
    }
    let Some(equals) = equals_sign(content) else {
        return Err(bad("an override needs a key and a value", text, content.len(), texts)
            .label("no `=` in it")
            .into());
    };
    if let Ok(found) = Document::parse(content)
        && single(found.as_item())
    {
        let root = document::parse(content, text, texts)?;
        return leaf(found.as_item(), root, text, content.len(), texts);
    }
    // Not TOML as it stands: a bare word is a string, anything else is a mistake in the value or the key.
    let value = content[equals + 1..].trim();
    let start = content.len() - content[equals + 1..].trim_start().len();
    let span = start..start + value.len();
    let first = value.chars().next();
    let quoted = first.is_none_or(|c| matches!(c, '[' | '{' | '"' | '\''));
    if quoted || value.contains('\n') {
        let renamed = |diagnostic| Diagnostic { code: "recipe::bad-override", ..diagnostic };
        return Err(match document::parse(content, text, texts) {
            Err(found) => found.into_iter().map(renamed).collect(),
            Ok(_) => bad("an override sets one key", text, content.len(), texts).into(),
        });
    }
    let stand_in = format!("{} = 0", &content[..equals]);
    match Document::parse(stand_in.as_str()) {
        Ok(found) if single(found.as_item()) => {
            let root = document::parse(&stand_in, text, texts)?;
            let (path, _) = leaf(found.as_item(), root, text, equals, texts)?;
            let value = Value::String(value.to_owned());
            Ok((path, Node { mark: Mark::new(text, Some(span)), value }))
        }
        _ => Err(bad(format!("`{}` is not a key path", shown(content[..equals].trim())), text, equals, texts).into()),
    }
}

/// The first `=` outside quotes.
fn equals_sign(content: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in content.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '=' => return Some(at),
            None => {}
        }
    }
    None
}

/// Whether the document is one dotted key with one value.
fn single(item: &Item) -> bool {
    match item {
        Item::Value(_) => true,
        Item::Table(table) => match table.iter().next() {
            Some((_, inner)) if table.len() == 1 => single(inner),
            _ => false,
        },
        _ => false,
    }
}

/// Follows the dotted key to the value; an inline table is a value, not part of the key.
fn leaf(item: &Item, root: Node, text: usize, len: usize, texts: &Texts) -> Result<(Path, Node), Diagnostics> {
    let (mut path, mut item, mut node) = (Vec::new(), item, root);
    while let Item::Table(table) = item {
        let (Some((_, inner)), Value::Table(mut entries)) = (table.iter().next(), node.value) else {
            return Err(bad("an override sets one key", text, len, texts).into());
        };
        let Some(entry) = entries.pop() else {
            return Err(bad("an override sets one key", text, len, texts).into());
        };
        path.push((entry.key, entry.key_mark));
        (item, node) = (inner, entry.node);
    }
    Ok((path, node))
}

/// Puts the value in its place; makes the tables on the way.
fn put(root: &mut Node, path: &[(String, Mark)], value: Node, texts: &Texts) -> Result<(), Diagnostics> {
    let Some(((last, last_mark), way)) = path.split_last() else { return Ok(()) };
    let mut node = root;
    let mut so_far = String::new();
    for (name, mark) in way {
        let entries = entries_of(node, &so_far, mark, texts)?;
        so_far = join(&so_far, name);
        let index = match entries.iter().position(|entry| entry.key == *name) {
            Some(index) => index,
            None => {
                let table = Node { mark: mark.clone(), value: Value::Table(Vec::new()) };
                entries.push(Entry { key: name.clone(), key_mark: mark.clone(), node: table });
                entries.len() - 1
            }
        };
        node = &mut entries[index].node;
    }
    let entries = entries_of(node, &so_far, last_mark, texts)?;
    let new = Entry { key: last.clone(), key_mark: last_mark.clone(), node: value };
    match entries.iter_mut().find(|entry| entry.key == *last) {
        Some(entry) => *entry = new,
        None => entries.push(new),
    }
    Ok(())
}

fn entries_of<'n>(
    node: &'n mut Node,
    path: &str,
    mark: &Mark,
    texts: &Texts,
) -> Result<&'n mut Vec<Entry>, Diagnostics> {
    let (kind, place) = (node.value.kind(), node.mark.clone());
    match &mut node.value {
        Value::Table(entries) => Ok(entries),
        _ => {
            let message = format!("`{}` is {kind} and has no keys", shown(path));
            let mut diagnostic = Diagnostic::error("recipe::bad-override", message).at(texts.place(mark));
            if place.span.is_some() {
                diagnostic = diagnostic.also(texts.place(&place), "given here");
            }
            Err(diagnostic.help(format!("replace it as a whole: `--set '{}=...'`", shown(path))).into())
        }
    }
}

/// An override's text from a key path and a value that is already TOML.
pub(crate) fn written(path: &str, value: &str) -> String {
    format!("{path}={value}")
}

/// A key path that may contain quoted keys, as its keys; the number of a list item is a key too.
pub(crate) fn split_path(path: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut current = String::new();
    let mut quoted = false;
    let mut chars = path.chars();
    let mut any = false;
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            '\\' if quoted => current.extend(chars.next()),
            '.' | '[' if !quoted => {
                if any {
                    keys.push(std::mem::take(&mut current));
                }
                any = false;
            }
            ']' if !quoted => {}
            c => {
                current.push(c);
                any = true;
            }
        }
    }
    if any {
        keys.push(current);
    }
    keys
}

/// A string as an override's value.
pub(crate) fn string_override(path: &str, value: &str) -> String {
    written(path, &string(value))
}

/// A dotted path written with the least quoting, from its keys.
pub(crate) fn path_of(keys: &[String]) -> String {
    keys.iter().map(|name| key(name)).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(content: &str, flags: &[&str]) -> (Node, Texts, Diagnostics) {
        let mut texts = Texts::default();
        let text = texts.add("a.toml", content);
        let mut root = document::parse(content, text, &texts).expect("the text of the test is TOML");
        let found = apply(&Override::from_flags(flags), &mut root, &mut texts);
        (root, texts, found)
    }

    fn value(node: &Node, path: &str) -> Value {
        let mut node = node;
        for key in split_path(path) {
            node = &node.get(&key).expect("the key of the test exists").node;
        }
        node.value.clone()
    }

    #[test]
    fn replaces_and_adds_values_with_their_own_origin() {
        let (root, texts, found) = changed("[a.b]\nc = 1\n", &["a.b.c=2", "x.y = [1, 2]"]);
        assert!(found.is_empty());
        assert_eq!(value(&root, "a.b.c"), Value::Integer(2));
        assert!(matches!(value(&root, "x.y"), Value::List(items) if items.len() == 2));
        let c = root.get("a").and_then(|a| a.node.get("b")).and_then(|b| b.node.get("c")).expect("set");
        assert_eq!(texts.origin(&c.node.mark), "--set 1");
    }

    #[test]
    fn bare_words_are_strings_and_toml_is_toml() {
        let flags = ["name=my-run", "path=data/a b.txt", "n=1e-3", "t=true", "q=\"x\"", "v=1.2.3", "u=a=b"];
        let (root, _, found) = changed("", &flags);
        assert!(found.is_empty(), "{found}");
        assert_eq!(value(&root, "name"), Value::String("my-run".into()));
        assert_eq!(value(&root, "path"), Value::String("data/a b.txt".into()));
        assert_eq!(value(&root, "n"), Value::Float(1e-3));
        assert_eq!(value(&root, "t"), Value::Boolean(true));
        assert_eq!(value(&root, "q"), Value::String("x".into()));
        assert_eq!(value(&root, "v"), Value::String("1.2.3".into()));
        assert_eq!(value(&root, "u"), Value::String("a=b".into()));
    }

    #[test]
    fn the_last_of_two_wins() {
        let (root, _, _) = changed("a = 1\n", &["a=2", "a=3"]);
        assert_eq!(value(&root, "a"), Value::Integer(3));
    }

    #[test]
    fn an_inline_table_replaces_a_whole_choice() {
        let (root, _, found) = changed("[schedule.cosine]\nx = 1\n", &["schedule={linear={warmup=5}}"]);
        assert!(found.is_empty());
        assert_eq!(value(&root, "schedule.linear.warmup"), Value::Integer(5));
        assert!(root.get("schedule").is_some_and(|entry| entry.node.get("cosine").is_none()));
    }

    #[test]
    fn all_bad_overrides_are_reported() {
        let flags = ["nothing", "=1", "a b=1", "a=[1", "a=", "a=1\nb=2", "[x]", "s.t=1", "a.\"b=1"];
        let (_, _, found) = changed("s = 1\n", &flags);
        assert_eq!(found.num_errors(), flags.len(), "{found}");
        assert!(found.iter().all(|d| d.code == "recipe::bad-override"), "{found}");
        let places: Vec<String> = found.iter().filter_map(|d| d.place.clone()).map(|p| p.file).collect();
        assert_eq!(places[3], "--set 4");
    }

    #[test]
    fn paths_split_at_dots_outside_quotes() {
        assert_eq!(split_path("a.\"b.c\".d[2]"), ["a", "b.c", "d", "2"]);
        assert_eq!(split_path(""), Vec::<String>::new());
        assert_eq!(path_of(&split_path("a.\"b.c\"")), "a.\"b.c\"");
    }
}

//! Compares a document with its shape and reports every difference in one pass.

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::document::{Entry, Mark, Node, Texts, Value};
use crate::shape::{Bounds, Key, Shape, Variant};
use crate::text::{all_of, any_of, join, nearest, shown, string};

/// Findings after which the walk only goes on looking at what it must: nobody reads more.
const MAX_FOUND: usize = 1000;

/// All unknown keys, wrong types, missing keys, numbers out of range and bad choices in `root`.
pub(crate) fn walk(shape: &Shape, root: &Node, texts: &Texts) -> Diagnostics {
    let mut walk = Walk { shape, root, texts, found: Diagnostics::new() };
    walk.value(shape, root, "");
    walk.found.sort();
    walk.found
}

struct Walk<'a> {
    shape: &'a Shape,
    root: &'a Node,
    texts: &'a Texts,
    found: Diagnostics,
}

impl<'a> Walk<'a> {
    fn value(&mut self, shape: &'a Shape, node: &Node, path: &str) {
        if self.found.len() >= MAX_FOUND {
            return;
        }
        match (shape, &node.value) {
            (Shape::Any, _) | (Shape::Boolean, Value::Boolean(_)) | (Shape::String, Value::String(_)) => {}
            (Shape::Integer(bounds), Value::Integer(number)) => {
                #[expect(clippy::cast_precision_loss, reason = "bounds are small or powers of two")]
                self.number(bounds, *number as f64, "an integer", node, path);
            }
            #[expect(clippy::cast_precision_loss, reason = "a whole number given for a fraction")]
            (Shape::Number(bounds), Value::Integer(number)) => {
                self.number(bounds, *number as f64, "a number", node, path);
            }
            (Shape::Number(bounds), Value::Float(number)) => self.number(bounds, *number, "a number", node, path),
            (Shape::List { item, min_items, max_items }, Value::List(items)) => {
                self.list(item, (*min_items, *max_items), items, node, path);
            }
            (Shape::Table(keys), Value::Table(entries)) => self.table(keys, entries, node, path),
            (Shape::Map(value), Value::Table(entries)) => {
                for entry in entries {
                    self.value(value, &entry.node, &join(path, &entry.key));
                }
            }
            (Shape::Choice(variants), Value::Table(entries)) => self.choice(variants, entries, node, path),
            (Shape::Choice(variants), Value::String(name)) => self.name(variants, name, node, path),
            _ => self.wrong_type(shape, node, path),
        }
    }

    fn push(&mut self, diagnostic: Diagnostic, mark: &Mark) {
        let place = if mark.span.is_none() { self.texts.whole() } else { self.texts.place(mark) };
        self.found.push(diagnostic.at(place));
    }

    fn wrong_type(&mut self, shape: &Shape, node: &Node, path: &str) {
        let expected = shape.describe();
        let found = match &node.value {
            Value::String(text) => format!("the string `{}`", shown(&string(text))),
            Value::Integer(number) => format!("the integer `{number}`"),
            Value::Float(number) => format!("the number `{number}`"),
            Value::Boolean(value) => format!("`{value}`"),
            other => other.kind().to_owned(),
        };
        let mut diagnostic =
            Diagnostic::error("recipe::wrong-type", format!("`{}` must be {expected}, found {found}", shown(path)))
                .label(format!("expected {expected}"));
        if let Some(help) = type_help(shape, node, path) {
            diagnostic = diagnostic.help(help);
        }
        self.push(diagnostic, &node.mark);
    }

    fn number(&mut self, bounds: &Bounds, number: f64, what: &str, node: &Node, path: &str) {
        if bounds.allow(number) {
            return;
        }
        let what = if number.is_finite() { what } else { "a finite number" };
        let written = number.to_string().to_lowercase();
        let diagnostic =
            Diagnostic::error("recipe::out-of-range", format!("`{}` is {written}, out of range", shown(path)))
                .label(format!("must be {what} {}", bounds.text()).trim_end());
        self.push(diagnostic, &node.mark);
    }

    fn list(&mut self, item: &'a Shape, (min, max): (usize, Option<usize>), items: &[Node], node: &Node, path: &str) {
        if items.len() < min || max.is_some_and(|max| items.len() > max) {
            let wanted = match max {
                Some(max) if max == min => format!("exactly {max}"),
                Some(max) => format!("{min} to {max}"),
                None => format!("at least {min}"),
            };
            let message = format!("`{}` has {} items", shown(path), items.len());
            self.push(
                Diagnostic::error("recipe::out-of-range", message).label(format!("expected {wanted}")),
                &node.mark,
            );
        }
        for (index, node) in items.iter().enumerate() {
            self.value(item, node, &format!("{path}[{index}]"));
        }
    }

    fn table(&mut self, keys: &'a [Key], entries: &[Entry], node: &Node, path: &str) {
        let absent: Vec<&str> = keys
            .iter()
            .filter(|key| !entries.iter().any(|entry| entry.key == key.name))
            .map(|key| key.name.as_str())
            .collect();
        let mut meant = Vec::new();
        for entry in entries {
            match keys.iter().find(|key| key.name == entry.key) {
                Some(key) => self.value(&key.shape, &entry.node, &join(path, &entry.key)),
                None if self.found.len() >= MAX_FOUND => return,
                None => meant.extend(self.unknown_key(&absent, entry, path)),
            }
        }
        let missing: Vec<&Key> = keys
            .iter()
            .filter(|key| key.required && absent.contains(&key.name.as_str()) && !meant.contains(&key.name))
            .collect();
        self.missing(&missing, node, path);
    }

    /// Reports the key; returns the name that was probably meant.
    fn unknown_key(&mut self, names: &[&str], entry: &Entry, path: &str) -> Option<String> {
        let message = format!("unknown key `{}` {}", shown(&entry.key), in_table(path));
        let mut diagnostic = Diagnostic::error("recipe::unknown-key", message);
        let meant = nearest(&entry.key, names.iter().copied()).map(str::to_owned);
        let elsewhere = self.elsewhere(&entry.key, path);
        if let (Some(place), true) = (&elsewhere, meant.as_deref() != Some(entry.key.as_str())) {
            diagnostic = diagnostic.label(format!("this key belongs in {place}"));
        } else if let Some(name) = &meant {
            diagnostic = diagnostic.label(format!("did you mean `{name}`?"));
        }
        let command = if path.is_empty() { String::new() } else { format!(" {}", schema_path(path)) };
        let diagnostic = diagnostic.help(format!("`arcuate recipe schema{command}` lists all keys"));
        self.push(diagnostic, &entry.key_mark);
        meant.filter(|_| elsewhere.is_none())
    }

    /// The tables elsewhere in the shape that have a key of exactly this name.
    fn elsewhere(&self, key: &str, path: &str) -> Option<String> {
        let mut tables = self.shape.tables_with_key(key);
        let family = path.split('.').next().unwrap_or_default();
        let own_family = |table: &String| !family.is_empty() && table.split('.').next() == Some(family);
        if tables.iter().any(own_family) && !family.is_empty() {
            tables.retain(own_family);
        }
        if tables.iter().any(|table| self.is_given(table)) {
            tables.retain(|table| self.is_given(table));
        }
        tables.truncate(3);
        if tables.is_empty() {
            return None;
        }
        let names: Vec<String> = tables.iter().map(|table| table_name(&table.replace(".*", ".NAME"))).collect();
        Some(names.join(" or "))
    }

    fn is_given(&self, table: &str) -> bool {
        let mut node = Some(self.root);
        for name in table.split('.').filter(|name| !name.is_empty()) {
            node = node.and_then(|node| node.get(name)).map(|entry| &entry.node);
        }
        node.is_some()
    }

    fn missing(&mut self, missing: &[&Key], node: &Node, path: &str) {
        if missing.is_empty() {
            return;
        }
        let names = all_of(missing.iter().map(|key| key.name.as_str()));
        let noun = if missing.len() == 1 { "key" } else { "keys" };
        let message = format!("missing {noun} {names} {}", in_table(path));
        let lines: Vec<String> = missing
            .iter()
            .map(|key| {
                let what = match &key.shape {
                    Shape::Choice(variants) if variants.iter().any(is_table) => {
                        let names = any_of(variants.iter().map(|v| v.name.as_str()));
                        format!("a table `[{}.NAME]`, NAME one of {names}", join(path, &key.name))
                    }
                    Shape::Choice(variants) if variants.iter().any(|v| v.shape.is_some()) => {
                        let names = any_of(variants.iter().map(|v| v.name.as_str()));
                        format!("a table `[{}]` with one of {names}", join(path, &key.name))
                    }
                    Shape::Table(_) => format!("a table `[{}]`", join(path, &key.name)),
                    other => other.describe(),
                };
                format!("`{}`: {what}{}", key.name, sentence(&key.doc))
            })
            .collect();
        let label = if missing.len() == 1 { format!("{names} is not given") } else { String::new() };
        self.push(Diagnostic::error("recipe::missing-key", message).label(label).help(lines.join("\n")), &node.mark);
    }

    fn name(&mut self, variants: &[Variant], name: &str, node: &Node, path: &str) {
        let known = variants.iter().find(|variant| variant.name == name);
        match known.map(|variant| &variant.shape) {
            Some(None) => {}
            Some(Some(_)) => {
                let message =
                    format!("`{}` names `{}`, which is a table with keys of its own", shown(path), shown(name));
                let diagnostic = Diagnostic::error("recipe::wrong-type", message)
                    .label("expected a table")
                    .help(format!("write `[{}]` and its keys below", join(path, name)));
                self.push(diagnostic, &node.mark);
            }
            None => self.unknown_name(variants, name, &node.mark, path),
        }
    }

    fn unknown_name(&mut self, variants: &[Variant], name: &str, mark: &Mark, path: &str) {
        let names = || variants.iter().map(|variant| variant.name.as_str());
        let message = format!("unknown choice `{}` for `{}`", shown(name), shown(path));
        let mut diagnostic = Diagnostic::error("recipe::unknown-choice", message);
        let inside: Vec<String> = variants
            .iter()
            .filter(|variant| matches!(&variant.shape, Some(Shape::Table(keys)) if keys.iter().any(|k| k.name == name)))
            .map(|variant| format!("[{}]", join(path, &variant.name)))
            .collect();
        if let Some(meant) = nearest(name, names()) {
            diagnostic = diagnostic.label(format!("did you mean `{meant}`?"));
        } else if !inside.is_empty() {
            diagnostic = diagnostic.label(format!("this is a key of {}", any_of(inside.iter().map(String::as_str))));
        }
        let help = if variants.len() == 1 { "the only choice is" } else { "the choices are" };
        self.push(diagnostic.help(format!("{help} {}", all_of(names()))), mark);
    }

    fn choice(&mut self, variants: &'a [Variant], entries: &[Entry], node: &Node, path: &str) {
        let mut chosen: Vec<(&Entry, &Variant)> = Vec::new();
        for entry in entries {
            match variants.iter().find(|variant| variant.name == entry.key) {
                Some(variant) => chosen.push((entry, variant)),
                None => self.unknown_name(variants, &entry.key, &entry.key_mark, path),
            }
        }
        for (entry, variant) in &chosen {
            match &variant.shape {
                Some(shape) => self.value(shape, &entry.node, &join(path, &entry.key)),
                None => {
                    let message = format!("`{}` has no keys of its own", variant.name);
                    let diagnostic = Diagnostic::error("recipe::wrong-type", message).help(format!(
                        "write `{} = {}`",
                        shown(path),
                        string(&variant.name)
                    ));
                    self.push(diagnostic, &entry.key_mark);
                }
            }
        }
        match chosen.as_slice() {
            [] if entries.is_empty() => {
                let names = variants.iter().map(|variant| variant.name.as_str());
                let example = match variants.iter().any(is_table) {
                    true => format!("[{path}.NAME]"),
                    false => "NAME = ...".to_owned(),
                };
                let diagnostic =
                    Diagnostic::error("recipe::one-choice", format!("{} chooses nothing", table_name(path)))
                        .label("exactly one choice is needed")
                        .help(format!("the choices are {}; write one as `{example}`", all_of(names)));
                self.push(diagnostic, &node.mark);
            }
            [first, second, ..] => self.two_choices(first.0, second.0, &chosen, path),
            _ => {}
        }
    }

    fn two_choices(&mut self, first: &Entry, second: &Entry, chosen: &[(&Entry, &Variant)], path: &str) {
        let names = all_of(chosen.iter().map(|(entry, _)| entry.key.as_str()));
        let is_table = |entry: &Entry| matches!(entry.node.value, Value::Table(_));
        let title = |entry: &Entry| {
            let own = join(path, &entry.key);
            if is_table(entry) { format!("`[{own}]`") } else { format!("`{own}`") }
        };
        let help = if second.node.mark.text > 0 && second.node.mark.text != first.node.mark.text {
            let inner = if is_table(second) { "{ ... }" } else { "..." };
            format!(
                "to swap, give the whole choice: `--set '{path} = {{ {} = {inner} }}'`; or replace {} in the file",
                second.key,
                title(first)
            )
        } else {
            format!("keep one and remove the other; {} or {}", title(first), title(second))
        };
        let diagnostic = Diagnostic::error(
            "recipe::one-choice",
            format!("{} takes exactly one choice, found {names}", table_name(path)),
        )
        .label("a second choice")
        .also(self.texts.place(&first.key_mark), "the first choice")
        .help(help);
        self.push(diagnostic, &second.key_mark);
    }
}

fn type_help(shape: &Shape, node: &Node, path: &str) -> Option<String> {
    let key = path.rsplit('.').next().unwrap_or(path);
    match (shape, &node.value) {
        (Shape::Integer(_), Value::Float(number)) if number.fract() == 0.0 && number.abs() < 9e15 => {
            Some(format!("write it without point and exponent: `{number}`"))
        }
        (Shape::Integer(_) | Shape::Number(_) | Shape::Boolean, Value::String(text)) => {
            let plain = text.trim();
            let fits = match shape {
                Shape::Boolean => plain == "true" || plain == "false",
                Shape::Integer(_) => plain.parse::<i64>().is_ok(),
                _ => plain.parse::<f64>().is_ok(),
            };
            fits.then(|| format!("remove the quotes: `{key} = {plain}`"))
        }
        (Shape::List { item, .. }, Value::String(text)) if **item == Shape::String => {
            Some(format!("put it in brackets: `{key} = [{}]`", shown(&string(text))))
        }
        (Shape::Table(_) | Shape::Map(_) | Shape::Choice(_), Value::List(_)) => {
            Some("write the header with single brackets, once".to_owned())
        }
        _ => None,
    }
}

fn is_table(variant: &Variant) -> bool {
    matches!(variant.shape, Some(Shape::Table(_)))
}

/// "the top level", "`[model.llama]`" or "`[[step]]` 2".
fn table_name(path: &str) -> String {
    match path.strip_suffix(']').and_then(|path| path.rsplit_once('[')) {
        _ if path.is_empty() => "the top level".to_owned(),
        Some((list, index)) => format!("`[[{}]]` {}", shown(list), index.parse::<usize>().map_or(0, |index| index + 1)),
        None => format!("`[{}]`", shown(path)),
    }
}

/// Where a key is, for a sentence.
fn in_table(path: &str) -> String {
    format!("{} {}", if path.is_empty() { "at" } else { "in" }, table_name(path))
}

/// A path for `arcuate recipe schema`: without the numbers of list items.
fn schema_path(path: &str) -> String {
    let mut plain = String::new();
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => plain.push(c),
            _ => {}
        }
    }
    shown(&plain)
}

/// ": the doc comment's first sentence", or nothing.
fn sentence(doc: &str) -> String {
    let line = doc.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    let end = line.find(". ").unwrap_or(line.len());
    let first = line[..end].trim_end_matches('.');
    if first.is_empty() { String::new() } else { format!(" ({first})") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::parse;
    use crate::schema::recipe_shape;
    use crate::testing::llama_text;

    /// Code and line of every difference.
    fn found(content: &str) -> Vec<(String, usize)> {
        let mut texts = Texts::default();
        let text = texts.add("a.toml", content);
        let root = parse(content, text, &texts).expect("the text of the test is TOML");
        let all = walk(recipe_shape(), &root, &texts);
        all.iter().map(|d| (d.code.to_owned(), d.place.as_ref().map_or(0, |place| place.line))).collect()
    }

    fn line(text: &str, piece: &str) -> usize {
        text.lines().position(|line| line.contains(piece)).map_or(0, |line| line + 1)
    }

    #[test]
    fn a_sound_document_has_no_differences() {
        assert_eq!(found(&llama_text()), []);
    }

    #[test]
    fn everything_is_found_in_one_pass_in_the_order_of_the_file() {
        let text = llama_text()
            .replace("seed = 17", "seed = \"x\"\nextra = 1")
            .replace("num_layers = 2", "num_layers = 0")
            .replace("[optimizer.adamw]", "[optimizer.adam]")
            .replace("every_steps = 25\n[evaluation]", "[evaluation]");
        let expected = [
            ("recipe::wrong-type", line(&text, "seed")),
            ("recipe::unknown-key", line(&text, "extra")),
            ("recipe::out-of-range", line(&text, "num_layers")),
            ("recipe::unknown-choice", line(&text, "adam")),
            ("recipe::missing-key", line(&text, "[checkpoint]")),
        ];
        assert_eq!(found(&text), expected.map(|(code, line)| (code.to_owned(), line)));
    }

    #[test]
    fn a_misspelt_key_is_not_missing_too() {
        let text = llama_text().replace("num_heads", "num_haeds");
        assert_eq!(found(&text), [("recipe::unknown-key".to_owned(), line(&text, "num_haeds"))]);
    }

    #[test]
    fn a_table_at_the_wrong_level_is_told_where_it_belongs() {
        let content = llama_text().replace("[data.packing.best_fit]", "[packing.best_fit]");
        let mut texts = Texts::default();
        let text = texts.add("a.toml", &content);
        let root = parse(&content, text, &texts).expect("the text of the test is TOML");
        let all = walk(recipe_shape(), &root, &texts);
        let label = all.iter().find_map(|d| d.label.clone().filter(|_| d.code == "recipe::unknown-key"));
        assert_eq!(label.as_deref(), Some("this key belongs in `[data]`"));
    }

    #[test]
    fn whole_numbers_are_fractions_but_not_the_reverse() {
        assert_eq!(found(&llama_text().replace("weight_decay = 0.1", "weight_decay = 0")), []);
        let text = llama_text().replace("num_layers = 2", "num_layers = 2.0");
        assert_eq!(found(&text), [("recipe::wrong-type".to_owned(), line(&text, "num_layers"))]);
    }

    #[test]
    fn tables_are_named_as_they_are_written() {
        assert_eq!(in_table(""), "at the top level");
        assert_eq!(in_table("model.llama"), "in `[model.llama]`");
        assert_eq!(in_table("step[1]"), "in `[[step]]` 2");
    }
}

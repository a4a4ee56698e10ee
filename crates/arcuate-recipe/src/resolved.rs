//! `resolved.toml`: every value of a typed recipe, one a line, with where it came from. It loads again as the same recipe.

use serde_json::{Map, Value as Json};

use crate::recipe::Recipe;
use crate::schema::recipe_shape;
use crate::shape::Shape;
use crate::source::Source;
use crate::text::{join, key, string};

/// Column at which the comments begin, where values leave room.
const COMMENT_COLUMN: usize = 44;

/// Every value with its origin: `recipes/quickstart.toml:12`, `--set 1` or `default`.
pub fn resolved_toml(recipe: &Recipe, source: &Source) -> String {
    let mut writer = Writer { source, text: String::new() };
    // A recipe is plain data: strings, finite numbers, lists, maps with string keys.
    if let Ok(Json::Object(table)) = serde_json::to_value(recipe) {
        writer.table(&table, Some(recipe_shape()), "");
    }
    writer.text
}

struct Writer<'a> {
    source: &'a Source,
    text: String,
}

impl Writer<'_> {
    fn table(&mut self, table: &Map<String, Json>, shape: Option<&Shape>, path: &str) {
        let (tables, values): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| value.is_object());
        if !path.is_empty() && (!values.is_empty() || tables.is_empty()) {
            self.text.push('\n');
            self.line(&format!("[{path}]"), &self.source.origin(path));
        }
        for (name, value) in values.into_iter().filter(|(_, value)| !value.is_null()) {
            let origin = self.source.origin(&join(path, name));
            self.line(&format!("{} = {}", key(name), toml_value(value)), &origin);
        }
        if let Some(Shape::Table(keys)) = shape {
            for absent in keys.iter().filter(|key| table.get(&key.name).is_none_or(Json::is_null) && !key.required) {
                if absent.default.is_none() {
                    self.line(&format!("# {} is left out", absent.name), "default");
                }
            }
        }
        for (name, value) in tables {
            if let Json::Object(inner) = value {
                let shape = shape.and_then(|shape| shape.at(std::slice::from_ref(name)));
                self.table(inner, shape, &join(path, name));
            }
        }
    }

    fn line(&mut self, content: &str, origin: &str) {
        let width = content.chars().count().max(COMMENT_COLUMN);
        self.text.push_str(&format!("{content:<width$} # {}\n", origin.replace(char::is_control, " ")));
    }
}

/// A JSON value as TOML, tables inline; null inside is left out.
pub(crate) fn toml_value(value: &Json) -> String {
    match value {
        Json::Null => "\"\"".to_owned(),
        Json::Bool(value) => value.to_string(),
        Json::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => format!("{float:?}"),
            _ => number.to_string(),
        },
        Json::String(text) => string(text),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().filter(|item| !item.is_null()).map(toml_value).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(table) => {
            let entries = table.iter().filter(|(_, value)| !value.is_null());
            let entries: Vec<String> =
                entries.map(|(name, value)| format!("{} = {}", key(name), toml_value(value))).collect();
            if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::parse_recipe;
    use crate::overrides::Override;
    use crate::testing::{bert_text, llama_text};

    #[test]
    fn every_value_has_its_origin() {
        let set = Override::from_flags(&["batch.microbatch=3", "evaluation.max_tokens=100"]);
        let loaded = parse_recipe("recipes/a.toml", &llama_text(), &set).expect("a sound recipe");
        let text = resolved_toml(&loaded.value, &loaded.source);
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
        assert!(line("name = ").ends_with("# recipes/a.toml:1"), "{text}");
        assert!(line("microbatch = 3").ends_with("# --set 1"), "{text}");
        assert!(line("max_tokens = 100").ends_with("# --set 2"), "{text}");
        assert!(line("spike_sigma = 6.0").ends_with("# default"), "{text}");
        assert!(line("[objective.next_token]").contains("# recipes/a.toml:"), "{text}");
        assert!(line("# head_dim is left out").ends_with("# default"), "{text}");
    }

    #[test]
    fn loads_again_as_the_same_recipe() {
        for text in [llama_text(), bert_text()] {
            let first = parse_recipe("a.toml", &text, &[]).expect("a sound recipe");
            let resolved = resolved_toml(&first.value, &first.source);
            let second = parse_recipe("resolved.toml", &resolved, &[]);
            assert_eq!(second.map(|loaded| loaded.value), Ok(first.value), "{resolved}");
        }
    }

    #[test]
    fn odd_names_and_texts_survive() {
        let text = llama_text().replace("[data.source.texts]", "[data.source.\"my. \\\"texts\\\"\"]");
        let set = Override::from_flags(&["samples.prompts=[\"a\\n\\u0000\\\"#\"]"]);
        let first = parse_recipe("a\u{1b}.toml", &text, &set).expect("a sound recipe");
        let resolved = resolved_toml(&first.value, &first.source);
        let second = parse_recipe("resolved.toml", &resolved, &[]);
        assert_eq!(second.map(|loaded| loaded.value), Ok(first.value), "{resolved}");
    }

    #[test]
    fn json_becomes_inline_toml() {
        let value = serde_json::json!({"a b": [1, 2.0, 1e-8], "c": {"d": true}, "e": {}});
        assert_eq!(toml_value(&value), "{ \"a b\" = [1, 2.0, 1e-8], c = { d = true }, e = {} }");
    }
}

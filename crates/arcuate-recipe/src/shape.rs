//! What a document may contain: the JSON schema of a typed struct, read into a form that can be walked.
//!
//! Only what our config structs generate is understood (structs, maps, lists, externally tagged enums, options,
//! numbers with bounds); anything else becomes [`Shape::Any`], which the typed read judges later.

use serde_json::Value as Json;

/// Deepest nesting of tables; a recursive type stops there.
const MAX_DEPTH: usize = 24;

/// The allowed form of one value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// Anything.
    Any,
    /// `true` or `false`.
    Boolean,
    /// A whole number within bounds.
    Integer(Bounds),
    /// A number within bounds.
    Number(Bounds),
    /// A string.
    String,
    /// A list with an allowed number of items.
    List {
        /// Form of every item.
        item: Box<Shape>,
        /// Fewest items.
        min_items: usize,
        /// Most items.
        max_items: Option<usize>,
    },
    /// A table with known keys.
    Table(Vec<Key>),
    /// A table with keys of the user's choice.
    Map(Box<Shape>),
    /// Exactly one of several names: as a string, or as a table with the name's own keys.
    Choice(Vec<Variant>),
}

/// Inclusive unless marked otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Bounds {
    /// Least value.
    pub min: Option<f64>,
    /// Greatest value.
    pub max: Option<f64>,
    /// The least value itself is not allowed.
    pub above: bool,
    /// The greatest value itself is not allowed.
    pub below: bool,
}

/// A key of a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    /// Its name.
    pub name: String,
    /// Whether it must be given.
    pub required: bool,
    /// What it is when not given; `None` for "off".
    pub default: Option<Json>,
    /// Its doc comment.
    pub doc: String,
    /// The form of its value.
    pub shape: Shape,
}

/// A name of a choice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Variant {
    /// The name.
    pub name: String,
    /// Its doc comment.
    pub doc: String,
    /// The form of its value; `None` if the name stands alone as a string.
    pub shape: Option<Shape>,
}

impl Bounds {
    /// Whether the number is allowed.
    pub(crate) fn allow(&self, number: f64) -> bool {
        let low = self.min.is_none_or(|min| if self.above { number > min } else { number >= min });
        let high = self.max.is_none_or(|max| if self.below { number < max } else { number <= max });
        number.is_finite() && low && high
    }

    /// "from 0 to 1", "at least 1"; empty without bounds.
    pub(crate) fn text(&self) -> String {
        let low = if self.above { "above" } else { "at least" };
        let high = if self.below { "below" } else { "at most" };
        match (self.min, self.max) {
            (None, None) => String::new(),
            (Some(min), None) => format!("{low} {min}"),
            (None, Some(max)) => format!("{high} {max}"),
            (Some(min), Some(max)) if !self.above && !self.below => format!("from {min} to {max}"),
            (Some(min), Some(max)) => format!("{low} {min} and {high} {max}"),
        }
    }
}

impl Shape {
    /// Reads a JSON schema.
    pub(crate) fn of(schema: &Json) -> Self {
        Reader { root: schema }.shape(schema, 0)
    }

    /// Its name with article, with bounds: "an integer, at least 1".
    pub(crate) fn describe(&self) -> String {
        let bounded = |what: &str, bounds: &Bounds| {
            let text = bounds.text();
            if text.is_empty() { what.to_owned() } else { format!("{what} {text}") }
        };
        match self {
            Shape::Any => "any value".to_owned(),
            Shape::Boolean => "`true` or `false`".to_owned(),
            Shape::Integer(bounds) => bounded("an integer", bounds),
            Shape::Number(bounds) => bounded("a number", bounds),
            Shape::String => "a string".to_owned(),
            Shape::List { item, min_items, max_items } => {
                let what = match item.as_ref() {
                    Shape::Any => "anything".to_owned(),
                    Shape::String => "strings".to_owned(),
                    Shape::Integer(bounds) => bounded("integers", bounds),
                    Shape::Number(bounds) => bounded("numbers", bounds),
                    Shape::Table(_) | Shape::Map(_) => "tables".to_owned(),
                    other => format!("items, each {}", other.describe()),
                };
                match max_items {
                    Some(max) if max == min_items => format!("a list of {max} {what}"),
                    _ => format!("a list of {what}"),
                }
            }
            Shape::Table(_) | Shape::Map(_) => "a table".to_owned(),
            Shape::Choice(variants) if variants.iter().all(|v| v.shape.is_none()) => crate::text::any_of(
                variants.iter().map(|v| string_of(&v.name)).collect::<Vec<_>>().iter().map(String::as_str),
            ),
            Shape::Choice(variants) => {
                format!("exactly one of {}", crate::text::any_of(variants.iter().map(|v| v.name.as_str())))
            }
        }
    }

    /// The shape at a dotted key path; map keys and list places may be any name.
    pub(crate) fn at<'a>(&'a self, path: &[String]) -> Option<&'a Shape> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        match self {
            Shape::Table(keys) => keys.iter().find(|key| key.name == *first)?.shape.at(rest),
            Shape::Map(value) => value.at(rest),
            Shape::Choice(variants) => variants.iter().find(|v| v.name == *first)?.shape.as_ref()?.at(rest),
            Shape::List { item, .. } if first.parse::<usize>().is_ok() => item.at(rest),
            Shape::List { item, .. } => item.at(path),
            _ => None,
        }
    }

    /// Paths of all tables that know a key of this name, shortest first; the path of a map's value has a `*`.
    pub(crate) fn tables_with_key(&self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        self.collect_tables(name, "", &mut found);
        found.sort_by_key(|path| path.matches('.').count());
        found
    }

    fn collect_tables(&self, name: &str, path: &str, found: &mut Vec<String>) {
        match self {
            Shape::Table(keys) => {
                for key in keys {
                    if key.name == name {
                        found.push(path.to_owned());
                    }
                    key.shape.collect_tables(name, &crate::text::join(path, &key.name), found);
                }
            }
            Shape::Map(value) => value.collect_tables(name, &format!("{path}.*"), found),
            Shape::Choice(variants) => {
                for variant in variants {
                    if let Some(shape) = &variant.shape {
                        if variant.name == name {
                            found.push(path.to_owned());
                        }
                        shape.collect_tables(name, &crate::text::join(path, &variant.name), found);
                    }
                }
            }
            _ => {}
        }
    }
}

fn string_of(name: &str) -> String {
    format!("\"{name}\"")
}

struct Reader<'a> {
    root: &'a Json,
}

impl<'a> Reader<'a> {
    fn shape(&self, schema: &'a Json, depth: usize) -> Shape {
        if depth > MAX_DEPTH {
            return Shape::Any;
        }
        if let Some(target) = schema.get("$ref").and_then(Json::as_str) {
            let pointer = target.strip_prefix('#').unwrap_or(target);
            return self.root.pointer(pointer).map_or(Shape::Any, |schema| self.shape(schema, depth + 1));
        }
        if let Some(options) = schema.get("anyOf").and_then(Json::as_array) {
            let mut real = options.iter().filter(|option| option.get("type") != Some(&Json::from("null")));
            return match (real.next(), real.next()) {
                (Some(only), None) => self.shape(only, depth + 1),
                _ => Shape::Any,
            };
        }
        if let Some(options) = schema.get("oneOf").and_then(Json::as_array) {
            let variants: Option<Vec<Vec<Variant>>> = options.iter().map(|o| self.variants(o, depth)).collect();
            return variants.map_or(Shape::Any, |variants| Shape::Choice(variants.concat()));
        }
        if schema.get("enum").is_some() || schema.get("const").is_some() {
            return self.variants(schema, depth).map_or(Shape::Any, Shape::Choice);
        }
        self.by_type(schema, depth)
    }

    fn by_type(&self, schema: &'a Json, depth: usize) -> Shape {
        let name = match schema.get("type") {
            Some(Json::String(name)) => name.as_str(),
            Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).find(|n| *n != "null").unwrap_or(""),
            _ => "",
        };
        match name {
            "boolean" => Shape::Boolean,
            "string" => Shape::String,
            "integer" => Shape::Integer(bounds(schema)),
            "number" => Shape::Number(bounds(schema)),
            "array" => Shape::List {
                item: Box::new(schema.get("items").map_or(Shape::Any, |items| self.shape(items, depth + 1))),
                min_items: count(schema, "minItems").unwrap_or(0),
                max_items: count(schema, "maxItems"),
            },
            "object" => match (schema.get("properties"), schema.get("additionalProperties")) {
                (None, Some(value @ Json::Object(_))) => Shape::Map(Box::new(self.shape(value, depth + 1))),
                (None, Some(Json::Bool(true)) | None) => Shape::Map(Box::new(Shape::Any)),
                (properties, _) => Shape::Table(self.keys(schema, properties, depth)),
            },
            _ => Shape::Any,
        }
    }

    fn keys(&self, schema: &'a Json, properties: Option<&'a Json>, depth: usize) -> Vec<Key> {
        let required = |name: &str| {
            let names = schema.get("required").and_then(Json::as_array);
            names.is_some_and(|names| names.iter().any(|n| n.as_str() == Some(name)))
        };
        let properties = properties.and_then(Json::as_object);
        properties
            .into_iter()
            .flatten()
            .map(|(name, value)| Key {
                name: name.clone(),
                required: required(name),
                default: value.get("default").filter(|default| !default.is_null()).map(|d| rounded(d, value)),
                doc: self.doc(value),
                shape: self.shape(value, depth + 1),
            })
            .collect()
    }

    /// The doc comment of a key; without one, that of its type.
    fn doc(&self, schema: &'a Json) -> String {
        let own = schema.get("description").and_then(Json::as_str);
        let target = schema.get("$ref").and_then(Json::as_str).and_then(|t| t.strip_prefix('#'));
        let of_type = || self.root.pointer(target?)?.get("description")?.as_str();
        own.or_else(of_type).unwrap_or_default().to_owned()
    }

    fn variants(&self, schema: &'a Json, depth: usize) -> Option<Vec<Variant>> {
        let doc = self.doc(schema);
        let named =
            |name: &Json| name.as_str().map(|name| Variant { name: name.to_owned(), doc: doc.clone(), shape: None });
        if let Some(names) = schema.get("enum").and_then(Json::as_array) {
            return names.iter().map(named).collect();
        }
        if let Some(name) = schema.get("const") {
            return named(name).map(|variant| vec![variant]);
        }
        let (name, value) = schema.get("properties")?.as_object()?.iter().next()?;
        let doc = if doc.is_empty() { self.doc(value) } else { doc };
        Some(vec![Variant { name: name.clone(), doc, shape: Some(self.shape(value, depth + 1)) }])
    }
}

fn bounds(schema: &Json) -> Bounds {
    let number = |name: &str| schema.get(name).and_then(Json::as_f64);
    let (above, below) = (number("exclusiveMinimum"), number("exclusiveMaximum"));
    Bounds {
        min: above.or_else(|| number("minimum")),
        max: below.or_else(|| number("maximum")),
        above: above.is_some(),
        below: below.is_some(),
    }
}

fn count(schema: &Json, name: &str) -> Option<usize> {
    schema.get(name).and_then(Json::as_u64).and_then(|count| usize::try_from(count).ok())
}

/// A 32-bit default as it was written: 0.1, not 0.10000000149011612.
fn rounded(default: &Json, schema: &Json) -> Json {
    let single = schema.get("format").and_then(Json::as_str) == Some("float");
    match default.as_f64() {
        #[expect(clippy::cast_possible_truncation, reason = "the value was an f32")]
        Some(number) if single => (number as f32).to_string().parse::<f64>().map_or(Json::Null, Json::from),
        _ => default.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        /// How many.
        #[schemars(range(min = 1))]
        count: u32,
        #[serde(default = "tenth")]
        #[schemars(range(min = 0.0, max = 1.0))]
        share: f32,
        maybe: Option<u64>,
        mode: Mode,
        parts: BTreeMap<String, Empty>,
        pair: [f64; 2],
        kind: Option<Kind>,
    }

    fn tenth() -> f32 {
        0.1
    }

    /// Of the sample.
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        Fast,
        /// Careful.
        Slow,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case", deny_unknown_fields)]
    enum Kind {
        /// With keys.
        Wide(Empty),
        Deep {
            levels: u8,
        },
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Empty {}

    fn sample() -> Vec<Key> {
        let Shape::Table(keys) = Shape::of(schemars::schema_for!(Sample).as_value()) else { panic!("a table") };
        keys
    }

    fn key(name: &str) -> Key {
        sample().into_iter().find(|key| key.name == name).expect("a key of the sample")
    }

    #[test]
    fn keys_have_doc_default_and_bounds() {
        let count = key("count");
        assert!(count.required);
        assert_eq!(count.doc, "How many.");
        assert_eq!(count.shape.describe(), "an integer at least 1");
        let share = key("share");
        assert_eq!((share.required, share.default.clone()), (false, Some(Json::from(0.1))));
        assert_eq!(share.shape.describe(), "a number from 0 to 1");
        assert_eq!(key("maybe").default, None);
    }

    #[test]
    fn names_without_keys_are_choices_of_strings() {
        assert_eq!(key("mode").shape.describe(), "`\"fast\"` or `\"slow\"`");
    }

    #[test]
    fn tagged_tables_are_choices_even_when_optional() {
        let Shape::Choice(variants) = key("kind").shape else { panic!("a choice") };
        assert_eq!(
            variants[0],
            Variant { name: "wide".into(), doc: "With keys.".into(), shape: Some(Shape::Table(vec![])) }
        );
        assert!(matches!(&variants[1].shape, Some(Shape::Table(keys)) if keys[0].name == "levels"));
    }

    #[test]
    fn maps_take_any_key_and_arrays_know_their_length() {
        assert_eq!(key("parts").shape, Shape::Map(Box::new(Shape::Table(vec![]))));
        assert_eq!(key("pair").shape.describe(), "a list of 2 numbers");
    }

    #[test]
    fn paths_lead_to_shapes() {
        let shape = Shape::of(schemars::schema_for!(Sample).as_value());
        let at =
            |path: &[&str]| shape.at(&path.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).map(Shape::describe);
        assert_eq!(at(&["kind", "deep", "levels"]).as_deref(), Some("an integer from 0 to 255"));
        assert_eq!(at(&["parts", "any name"]).as_deref(), Some("a table"));
        assert_eq!(at(&["kind", "tall"]), None);
        assert_eq!(shape.tables_with_key("levels"), ["kind.deep"]);
    }

    #[test]
    fn a_type_that_contains_itself_ends() {
        #[derive(Serialize, Deserialize, JsonSchema)]
        struct Tree {
            child: Option<Box<Tree>>,
        }
        assert!(matches!(Shape::of(schemars::schema_for!(Tree).as_value()), Shape::Table(_)));
    }

    #[test]
    fn bounds_can_exclude_their_ends() {
        let open = Bounds { min: Some(0.0), max: None, above: true, below: false };
        assert!(!open.allow(0.0) && open.allow(1e-9) && !open.allow(f64::NAN));
        assert_eq!(open.text(), "above 0");
    }
}

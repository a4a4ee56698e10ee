//! From the columns of a record to a document: which is the text, the id, the label.

use serde_json::{Map, Value};

use super::{Context, Document, bad};
use crate::error::{BadReason, Error, Result};

/// Makes a document of a record; `number` counts lines or rows from 1.
pub(super) fn document(
    mut record: Map<String, Value>,
    context: &Context,
    place: String,
    fallback_id: impl FnOnce() -> String,
) -> Result<Document> {
    let source = &context.source;
    let text = match record.remove(&source.text_column) {
        Some(Value::String(text)) => text,
        Some(Value::Null) => {
            let detail = format!("has no text: `{}` is null", source.text_column);
            return Err(bad(BadReason::MissingField, place, detail));
        }
        Some(other) => {
            let detail = format!("has {} as `{}`, not a text", kind(&other), source.text_column);
            return Err(bad(BadReason::WrongType, place, detail));
        }
        None => return Err(missing(&source.text_column, "text_column", &record, place)),
    };
    if text.trim().is_empty() {
        return Err(bad(BadReason::EmptyText, place, "has an empty text"));
    }
    let id = match (&source.id_column, record.remove(source.id_column.as_deref().unwrap_or("id"))) {
        (_, Some(value @ (Value::String(_) | Value::Number(_)))) => scalar(value),
        (Some(column), None) => return Err(missing(column, "id_column", &record, place)),
        (Some(column), Some(other)) => {
            let detail = format!("has {} as `{column}`, not an id", kind(&other));
            return Err(bad(BadReason::WrongType, place, detail));
        }
        (None, _) => fallback_id(),
    };
    let label = match &source.label_column {
        None => None,
        Some(column) => match record.remove(column) {
            Some(Value::Null) => None,
            Some(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => Some(scalar(value)),
            Some(other) => {
                let detail = format!("has {} as `{column}`, not a label", kind(&other));
                return Err(bad(BadReason::WrongType, place, detail));
            }
            None => return Err(missing(column, "label_column", &record, place)),
        },
    };
    let logits = match &source.logits_column {
        None => None,
        Some(column) => match record.remove(column) {
            Some(Value::Object(by_class)) => Some(logits(by_class, column, &id, &place)?),
            Some(other) => {
                let detail = format!("has {} as `{column}`, not an object with a number for each class", kind(&other));
                return Err(bad(BadReason::WrongType, place, detail));
            }
            None => return Err(missing(column, "logits_column", &record, place)),
        },
    };
    let tags = match &source.tags_column {
        None => None,
        Some(column) => match record.remove(column) {
            Some(Value::Array(list)) => Some(tags(list, column, &text, &id, &place)?),
            Some(other) => {
                let detail = format!("has {} as `{column}`, not a list with a tag for each word", kind(&other));
                return Err(bad(BadReason::WrongType, place, detail));
            }
            None => return Err(missing(column, "tags_column", &record, place)),
        },
    };
    Ok(Document { id, parent: None, text, label, logits, tags, attributes: record, place })
}

/// One tag for each word of the text.
fn tags(list: Vec<Value>, column: &str, text: &str, id: &str, place: &str) -> Result<Vec<String>> {
    let (num_tags, num_words) = (list.len(), text.split_whitespace().count());
    if num_tags != num_words {
        let detail = format!("has {num_tags} tags as `{column}` for a text of {num_words} words (id `{id}`)");
        return Err(bad(BadReason::WrongType, place.to_owned(), detail));
    }
    let tag = |value: Value| match value {
        Value::String(tag) => Ok(tag),
        other => {
            let detail = format!("has {} among its `{column}` (id `{id}`), not a string", kind(&other));
            Err(bad(BadReason::WrongType, place.to_owned(), detail))
        }
    };
    list.into_iter().map(tag).collect()
}

/// Finite numbers by class, sorted by class.
fn logits(by_class: Map<String, Value>, column: &str, id: &str, place: &str) -> Result<Vec<(String, f32)>> {
    let number = |(class, value): (String, Value)| match value.as_f64() {
        Some(number) if (number as f32).is_finite() => Ok((class, number as f32)),
        _ => {
            let detail = format!("has {value} as `{column}` of class `{class}` (id `{id}`), not a finite number");
            Err(bad(BadReason::WrongType, place.to_owned(), detail))
        }
    };
    let mut logits: Vec<(String, f32)> = by_class.into_iter().map(number).collect::<Result<_>>()?;
    logits.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(logits)
}

fn missing(column: &str, key: &str, record: &Map<String, Value>, place: String) -> Error {
    let names: Vec<String> = record.keys().take(30).map(|name| format!("`{name}`")).collect();
    let detail = format!(
        "has no column `{column}`; its columns are {}; set `{key}` to one of them",
        if names.is_empty() { "none".to_owned() } else { names.join(", ") },
    );
    bad(BadReason::MissingField, place, detail)
}

fn scalar(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

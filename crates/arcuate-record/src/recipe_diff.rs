//! In which keys two recipes differ; comments, order and spacing do not count.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// One key that is not the same everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyDifference {
    /// The key path, as in `optimizer.adamw.peak_learning_rate`.
    pub key: String,
    /// The value in each recipe as TOML; `None` where the key is absent.
    pub values: Vec<Option<String>>,
}

/// Every leaf of a TOML document by key path, as TOML text. Arrays of tables are leaves.
pub fn flatten_toml(text: &str) -> Result<BTreeMap<String, String>, toml::de::Error> {
    let table: toml::Table = toml::from_str(text)?;
    let mut leaves = BTreeMap::new();
    flatten_table("", &table, &mut leaves);
    Ok(leaves)
}

fn flatten_table(prefix: &str, table: &toml::Table, leaves: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let key = if plain { key.clone() } else { toml::Value::String(key.clone()).to_string() };
        let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) if !inner.is_empty() => flatten_table(&path, inner, leaves),
            other => {
                leaves.insert(path, other.to_string());
            }
        }
    }
}

/// The keys whose values differ between any of the recipes, sorted.
/// A text that is not TOML is compared line by line, with `line N` as the key.
pub fn recipe_differences(texts: &[&str]) -> Vec<KeyDifference> {
    let parsed: Result<Vec<_>, _> = texts.iter().map(|text| flatten_toml(text)).collect();
    let leaves = parsed.unwrap_or_else(|_| texts.iter().map(|text| lines_by_number(text)).collect());
    let keys: BTreeSet<&String> = leaves.iter().flat_map(BTreeMap::keys).collect();
    keys.into_iter()
        .map(|key| KeyDifference { key: key.clone(), values: leaves.iter().map(|l| l.get(key).cloned()).collect() })
        .filter(|difference| difference.values.windows(2).any(|pair| pair[0] != pair[1]))
        .collect()
}

fn lines_by_number(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().enumerate();
    lines.map(|(index, line)| (format!("line {:>5}", index + 1), line.trim_end().to_owned())).collect()
}

/// The first differences between an old and a new recipe in words, `None` if they mean the same.
pub fn recipe_difference(old: &str, new: &str) -> Option<String> {
    const NUM_SHOWN: usize = 3;
    let differences = if old == new { Vec::new() } else { recipe_differences(&[old, new]) };
    if differences.is_empty() {
        return None;
    }
    let mut parts: Vec<String> = differences.iter().take(NUM_SHOWN).map(in_words).collect();
    if differences.len() > NUM_SHOWN {
        parts.push(format!("and {} more", differences.len() - NUM_SHOWN));
    }
    Some(parts.join(", "))
}

fn in_words(difference: &KeyDifference) -> String {
    let key = crate::numbers::printable(&difference.key);
    let short = |value: &Option<String>| {
        let value = crate::numbers::printable(value.as_deref()?);
        let cut: String = value.chars().take(60).collect();
        Some(if cut.len() < value.len() { format!("`{cut}…`") } else { format!("`{cut}`") })
    };
    match (difference.values.first().and_then(short), difference.values.last().and_then(short)) {
        (Some(old), Some(new)) => format!("`{key}` is {old} there and {new} here"),
        (Some(old), None) => format!("`{key}` is {old} there and absent here"),
        (_, new) => format!("`{key}` is absent there and {} here", new.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_order_and_spacing_do_not_count() {
        let old = "a = 1 # why\n[b]\nx = 2\ny = \"s\"\n";
        let new = "a=1\n[b]\ny = 's'\n\nx = 2";
        assert_eq!(recipe_difference(old, new), None);
    }

    #[test]
    fn changed_missing_and_new_keys_are_named() {
        let words = recipe_difference("seed = 17\n[m]\nold = 1", "seed = 18\n[m]\nnew = 2").expect("they differ");
        let expected = "`m.new` is absent there and `2` here, `m.old` is `1` there and absent here, `seed` is `17` there and `18` here";
        assert_eq!(words, expected);
    }

    #[test]
    fn many_differences_are_counted() {
        let words = recipe_difference("a=1\nb=1\nc=1\nd=1\ne=1", "a=2\nb=2\nc=2\nd=2\ne=2").expect("they differ");
        assert!(words.ends_with("and 2 more"), "{words}");
    }

    #[test]
    fn a_choice_without_keys_is_compared_too() {
        let differences = recipe_differences(&["[packing.best_fit]", "[packing.concatenate]", "[packing.best_fit]"]);
        let keys: Vec<_> = differences.iter().map(|d| d.key.as_str()).collect();
        assert_eq!(keys, ["packing.best_fit", "packing.concatenate"]);
        assert_eq!(differences[1].values, [None, Some("{}".into()), None]);
    }

    #[test]
    fn text_that_is_not_toml_is_compared_by_line() {
        let words = recipe_difference("a = \nb", "a = \nc").expect("they differ");
        assert_eq!(words, "`line     2` is `b` there and `c` here");
    }
}

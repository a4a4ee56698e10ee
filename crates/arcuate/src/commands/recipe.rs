//! `arcuate recipe`: what a recipe may say, and what one says in full.

use std::path::PathBuf;

use arcuate_recipe::{Override, describe, load_recipe, recipe_schema, resolved_toml};
use serde_json::{Value, json};

use super::runs::output;
use crate::exit;

/// List the keys of recipes, or print a recipe with every default and origin.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the keys of a table with type, default and meaning; without a path, all tables.
    #[command(after_help = "Examples:
  arcuate recipe schema
  arcuate recipe schema model.llama
  arcuate recipe schema --json > recipe.schema.json")]
    Schema {
        /// Table or key, such as `model.llama` or `batch.max_seq_len`.
        path: Option<String>,
        /// Print the JSON schema.
        #[arg(long)]
        json: bool,
    },
    /// Print every value of a recipe with where it comes from; the output is a recipe that repeats the run.
    #[command(after_help = "Examples:
  arcuate recipe resolved recipes/quickstart.toml
  arcuate recipe resolved recipes/quickstart.toml --set batch.microbatch=4")]
    Resolved {
        /// Recipe file.
        file: PathBuf,
        /// Change a value of the recipe, such as `batch.microbatch=4`; may be repeated.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Print the values as JSON, without origins.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Schema { path, json } => schema(path.as_deref().unwrap_or_default(), json),
        Command::Resolved { file, set, json } => {
            let loaded = load_recipe(&file, &Override::from_flags(&set))?;
            if json {
                return output::json(&loaded.value);
            }
            output::text(&resolved_toml(&loaded.value, &loaded.source))
        }
    }
}

fn schema(path: &str, json: bool) -> anyhow::Result<()> {
    let Some(text) = describe(path) else {
        return Err(exit::usage(format!("no recipe has `{path}`; {}", nearest_table(path))));
    };
    if !json {
        return output::text(&text);
    }
    let schema = recipe_schema();
    match part(&schema, path) {
        Some(part) => output::json(&part),
        None => output::json(&json!({ "path": path, "description": text })),
    }
}

/// The longest beginning of the path that exists.
fn nearest_table(path: &str) -> String {
    let mut begin = path;
    while let Some((shorter, _)) = begin.rsplit_once('.') {
        begin = shorter;
        if describe(begin).is_some() {
            return format!("`arcuate recipe schema {begin}` lists what `{begin}` has");
        }
    }
    "`arcuate recipe schema` lists all tables".to_owned()
}

/// The part of a schema that describes a path, with the definitions it refers to.
fn part(schema: &Value, path: &str) -> Option<Value> {
    let mut node = schema;
    for key in path.split('.').filter(|key| !key.is_empty()) {
        node = step(schema, node, key)?;
    }
    let mut part = resolve(schema, node).clone();
    if let (Some(object), Some(definitions)) = (part.as_object_mut(), schema.get("$defs")) {
        object.entry("$defs").or_insert_with(|| definitions.clone());
    }
    Some(part)
}

fn step<'s>(schema: &'s Value, node: &'s Value, key: &str) -> Option<&'s Value> {
    let node = resolve(schema, node);
    if let Some(found) = node.pointer("/properties").and_then(|keys| keys.get(key)) {
        return Some(found);
    }
    let variants = ["oneOf", "anyOf", "allOf"].iter().filter_map(|name| node.get(*name)?.as_array()).flatten();
    let mut inside = variants.filter(|variant| variant.get("type") != Some(&json!("null")));
    if let Some(found) = inside.find_map(|variant| step(schema, variant, key)) {
        return Some(found);
    }
    node.get("additionalProperties").filter(|value| value.is_object())
}

/// Follows `$ref`; a chain of them is short.
fn resolve<'s>(schema: &'s Value, mut node: &'s Value) -> &'s Value {
    for _ in 0..16 {
        let Some(target) = node.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix('#')) else {
            break;
        };
        let Some(found) = schema.pointer(target) else { break };
        node = found;
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_of_a_table_has_its_keys() {
        let schema = recipe_schema();
        let llama = part(&schema, "model.llama").expect("a table");
        assert!(llama.pointer("/properties/hidden_size").is_some(), "{llama}");
        assert!(part(&schema, "data.source.any.path").is_some());
        assert!(part(&schema, "model.lama").is_none());
    }

    #[test]
    fn an_unknown_path_names_the_table_above_it() {
        assert!(nearest_table("model.llama.hiden").contains("schema model.llama`"));
        assert!(nearest_table("modle").contains("all tables"));
    }
}

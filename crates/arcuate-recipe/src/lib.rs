//! Recipe and pipeline files: places, types, checks, plan, build. The only crate that knows all config types.

pub mod build;
mod check;
mod de;
mod diagnostic;
mod document;
mod load;
mod overrides;
mod pipeline;
pub mod plan;
mod recipe;
mod resolved;
mod schema;
mod shape;
mod source;
mod text;
mod walk;

#[cfg(test)]
mod testing;

pub use check::check;
pub use diagnostic::{Diagnostic, Diagnostics, Place, Severity};
pub use load::{
    Loaded, MAX_FILE_BYTES, RecipeFile, check_recipe, check_steps, diagnose, load_file, load_pipeline, load_recipe,
    parse_pipeline, parse_recipe,
};
pub use overrides::Override;
pub use pipeline::{Pipeline, PlannedRun, Step, check_pipeline};
pub use recipe::Recipe;
pub use resolved::resolved_toml;
pub use schema::{describe, pipeline_schema, recipe_schema, schema_files, write_schemas};
pub use source::{Finding, Source};

//! Recipe, pipeline and study files: places, types, checks, plan, build. The only crate that knows all config types.

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
pub mod study;
mod text;
mod walk;

#[cfg(test)]
mod testing;

pub use check::check;
pub use diagnostic::{Diagnostic, Diagnostics, Place, Severity};
pub use load::{
    Loaded, MAX_FILE_BYTES, RecipeFile, check_recipe, check_steps, diagnose, load_file, load_pipeline, load_recipe,
    load_study, parse_pipeline, parse_recipe, parse_study,
};
pub use overrides::Override;
pub use pipeline::{Pipeline, PlannedRun, Step, check_pipeline};
pub use recipe::Recipe;
pub use resolved::resolved_toml;
pub use schema::{describe, pipeline_schema, recipe_schema, schema_files, study_schema, write_schemas};
pub use source::{Finding, Source};
pub use study::{CheckedRecipe, CheckedStudy, Study, StudyRun, Work, check_study, check_whole_study};

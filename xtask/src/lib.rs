//! Automation of this workspace, as a library so that the tidy tests can use the same parts.

pub mod browser;
pub mod commands;
pub mod golden;
pub mod program;
pub mod reference;
pub mod run_folder;
pub mod ui_test;
pub mod workspace;

//! Rules of this workspace that a reader relies on, as ordinary tests.

mod dependencies;
mod documents;
mod families;
mod methods;
mod ranks;
mod recipes;
mod sources;
mod tree;

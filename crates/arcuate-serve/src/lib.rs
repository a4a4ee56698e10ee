//! HTTP on loopback: a small server, and the record of runs as live pages.
//!
//! [`Server`] speaks as much HTTP/1.1 as a browser needs to read pages: GET and HEAD, one request a connection, bounded in
//! size, time and number. [`Ui`] answers its requests from run folders. Nothing here writes to a run.

mod error;
mod host;
mod http;
mod query;
mod ui;

pub use error::{Error, Result};
pub use http::{Limits, Request, Response, Server};
pub use query::Query;
pub use ui::Ui;

//! Why the server cannot start, each with the next action.

use std::io;
use std::net::SocketAddr;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the server: one lower-case sentence with place and remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another program listens there.
    #[error("port {} is in use by another program; `--port 0` takes a free one", address.port())]
    PortInUse {
        /// Where we wanted to listen.
        address: SocketAddr,
    },
    /// Whoever is on the network could read the pages.
    #[error(
        "`{host}` is not an address of this machine alone; use `127.0.0.1`, `::1` or `localhost`, and a tunnel (`ssh -L`) from elsewhere"
    )]
    NotLoopback {
        /// The host as given.
        host: String,
    },
    /// The operating system refused.
    #[error("cannot listen on {address}: {cause}; try another `--port`")]
    Listen {
        /// Where we wanted to listen.
        address: SocketAddr,
        /// The answer of the operating system.
        cause: io::Error,
    },
}

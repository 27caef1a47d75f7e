//! The daemon's face: sockets, TLS, the table of calls, parameters in, answers out.

mod backup;
mod chunk_intake;
mod context;
mod known_chunks;
mod lifecycle;
pub mod params;
mod reader;
pub mod reply;
pub mod session;
pub mod upgrade;

pub use context::{App, Delays, RequestContext, UserBook, read_body};
pub use lifecycle::{Lifecycle, Phase, SessionGuard};

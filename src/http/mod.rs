//! The daemon's face: sockets, TLS, the table of calls, parameters in, answers out.

mod context;
mod lifecycle;
pub mod params;
pub mod reply;

pub use context::{App, Delays, RequestContext, UserBook, read_body};
pub use lifecycle::{Lifecycle, Phase, SessionGuard};

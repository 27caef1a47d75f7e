//! The daemon's face: sockets, TLS, the table of calls, parameters in, answers out.

pub mod params;
pub mod reply;

//! The daemon's face: sockets, TLS, the table of calls, parameters in, answers out.
//!
//! ```text
//!  listener ─▶ tls or redirect ─▶ dispatch ─▶ router ─▶ auth ─▶ params ─▶ api/* handlers ─▶ reply
//!                                                                └─▶ upgrade: backup and reader sessions
//! ```

pub mod api;
mod backup;
mod chunk_intake;
mod context;
mod control;
mod decoded;
pub mod describe;
mod dispatch;
mod host;
mod known_chunks;
mod lifecycle;
mod listed;
mod listener;
mod login;
mod maintenance;
mod metrics;
pub mod params;
mod produced;
mod reader;
mod redirect;
pub mod reply;
mod reports;
mod rights;
mod router;
mod rows;
pub mod scheduled;
#[cfg(test)]
mod scheduled_tests;
mod server;
pub mod session;
pub mod shape;
mod tls;
pub mod upgrade;
mod user_book;
mod work;

pub use self::metrics::MetricsPage;
pub use context::{App, Delays, RequestContext, read_body};
pub use control::{CONTROL_SOCKET, ControlClient, ControlSocket};
pub use lifecycle::{Lifecycle, Phase, SessionGuard};
pub use login::Logins;
pub use reports::Reports;
pub use router::{Access, BodyUse, Reply, Route, Router};
pub use rows::{RowSender, Rows};
pub use server::{Running, Server, ServerConfig};
pub use tls::{NewCertificate, TlsBook, TlsIdentity, fingerprint, self_signed};
pub use user_book::{Change, UserBook, UsersFile};

#[cfg(test)]
mod answer_tests;
#[cfg(test)]
mod bad_input_tests;
#[cfg(test)]
mod listed_tests;
#[cfg(test)]
mod login_tests;
#[cfg(test)]
mod maintenance_tests;
#[cfg(test)]
mod rights_handler_tests;
#[cfg(test)]
mod rights_tests;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod test_support;

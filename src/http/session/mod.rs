//! What both protocol sessions share: HTTP/2 behind a 101, parameters, bodies, streams.
//!
//! | what | module |
//! |---|---|
//! | the connection: served until it ends, then drained | `connection` |
//! | query, form or JSON → action | [`params`] |
//! | bodies in, with bounded memory | `body` |
//! | files out, a block at a time | `stream` |
//! | whether all that was asked for got out | `delivery` |
//! | an index's chunks made known | `index_chunks` |

mod body;
mod connection;
mod delivery;
mod index_chunks;
pub mod params;
mod stream;
#[cfg(test)]
mod tests;

pub use body::{BodyBudget, BodyFault, HeldBody};
pub use connection::{Ended, Ending, Handler, serve};
pub(in crate::http) use connection::{answer, chain, not_found};
pub use delivery::Deliveries;
pub use index_chunks::take_chunks;
pub use stream::file_body;

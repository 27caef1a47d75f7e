//! The file formats of a datastore: bytes ↔ values. Pure.
//!
//! Whatever comes in is hostile until its numbers have been bounded; corrupt input is an error of kind
//! [`Corrupt`](crate::error::Kind::Corrupt), never a panic. Here are no paths: who knows the file adds its name with
//! [`Error::context`](crate::error::Error::context). Keys are not known here either, so an encrypted blob is checked
//! only as far as its header and CRC go.
//!
//! | file | module |
//! |---|---|
//! | chunk, `*.blob` | [`blob`] |
//! | `*.fidx` | [`fixed_index`] over [`index`] |
//! | `*.didx` | [`dynamic_index`] over [`index`] |
//! | `index.json.blob` | [`manifest`] inside a [`blob`] |

pub mod blob;
pub mod blob_plain;
mod canonical_json;
pub mod dynamic_index;
pub mod fixed_index;
pub mod index;
pub mod magic;
pub mod manifest;
mod zstd_frames;

//! The wire of the backup and reader protocols without a socket. Pure.
//!
//! | what | module |
//! |---|---|
//! | request line and parameters → action | [`action`] |
//! | the backup session: action → reply or effect | [`backup`], its open indexes in [`writers`], its end in [`manifest_check`] |
//! | the reader session | [`reader`] |
//! | the chunks that a session knows | [`presence`] |
//! | the distinct chunks of its indexes, in passes of bounded memory | [`passes`] |
//! | values → JSON shapes | [`reply`] |

pub mod action;
pub mod backup;
pub mod manifest_check;
pub mod passes;
pub mod presence;
pub mod reader;
pub mod reply;
pub mod writers;

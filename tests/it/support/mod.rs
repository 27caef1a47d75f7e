//! What the stories stand on: a daemon of their own, a client that can misbehave, file systems that fail on purpose.

pub mod blocklog;
pub mod compare;
pub mod daemon;
pub mod golden;
pub mod loopfs;
pub mod mortal;
pub mod random;
pub mod replay;
pub mod slowfs;
pub mod trace;
pub mod upload;
pub mod users;
pub mod wire;

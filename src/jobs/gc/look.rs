//! Which directories of a pass have to be read: asked of their stamps, one block of them ahead of the sweep.

use std::collections::VecDeque;

use tokio::task::JoinHandle;

use super::mark::cut_off;
use crate::error::Result;
use crate::store::{ChunkDirs, GcMethod as Method, KnownDirs, LOOKED_AT_ONCE, Pass, Unchanged};

/// The directories of a pass, in order.
#[derive(Debug)]
pub(super) struct Look {
    pass: Pass,
    method: Method,
    /// Blocks that nobody has asked about yet.
    left: VecDeque<Vec<u16>>,
    known: Option<KnownDirs>,
    ahead: Option<JoinHandle<Result<Looked>>>,
    ready: VecDeque<(u16, Option<Unchanged>)>,
}

/// What the sweep does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Counts what a directory holds.
    Unchanged(Unchanged),
    /// Reads directories that follow one another, in one piece of work.
    Read(Vec<u16>),
}

/// What was said about a block.
#[derive(Debug)]
struct Looked {
    known: KnownDirs,
    block: Vec<u16>,
    unchanged: Vec<Unchanged>,
}

impl Look {
    /// At the directories `dirs` of a pass, of which earlier runs have found what is `known`.
    pub(super) fn new(pass: &Pass, dirs: &ChunkDirs, known: KnownDirs, method: Method) -> Self {
        let left = dirs.blocks().map(<[u16]>::to_vec).collect();
        let (ahead, ready) = (None, VecDeque::new());
        let mut look = Self { pass: pass.clone(), method, left, known: Some(known), ahead, ready };
        look.go_ahead();
        look
    }

    fn go_ahead(&mut self) {
        let Some(block) = self.left.pop_front() else { return };
        let (pass, mut known) = (self.pass.clone(), self.known.take().unwrap_or_default());
        // There the size of every chunk has to be known.
        let measured = self.method == Method::AccessTime;
        self.ahead = Some(tokio::spawn(async move {
            let unchanged = pass.unchanged(&mut known, &block, measured).await?;
            Ok(Looked { known, block, unchanged })
        }));
    }

    /// What comes next; `None` at the end of the pass.
    pub(super) async fn next(&mut self) -> Result<Option<Next>> {
        while self.ready.is_empty()
            && let Some(ahead) = self.ahead.take()
        {
            let Looked { known, block, unchanged } = ahead.await.map_err(cut_off)??;
            self.known = Some(known);
            self.go_ahead();
            let mut unchanged = unchanged.into_iter().peekable();
            self.ready =
                block.into_iter().map(|prefix| (prefix, unchanged.next_if(|u| u.dir.prefix == prefix))).collect();
        }
        let at_once = match self.method {
            Method::Memory => 1,
            Method::AccessTime => LOOKED_AT_ONCE,
        };
        let mut row = Vec::new();
        while row.len() < at_once
            && let Some((prefix, None)) = self.ready.pop_front_if(|(_, unchanged)| unchanged.is_none())
        {
            row.push(prefix);
        }
        if !row.is_empty() {
            return Ok(Some(Next::Read(row)));
        }
        Ok(self.ready.pop_front().and_then(|(_, unchanged)| unchanged).map(Next::Unchanged))
    }

    /// What is known of the directories behind those of this pass.
    pub(super) fn end(self) -> KnownDirs {
        self.known.unwrap_or_default()
    }
}

//! Indexes: those of the base served, new ones made, filled and closed.

use std::sync::Arc;

use super::{Driver, OpenIndex, Turn};
use crate::error::{Error, Result};
use crate::format::dynamic_index::DynamicEntry;
use crate::http::reply::{self, Response};
use crate::http::session::{file_body, take_chunks};
use crate::protocol::action::{WriterId, WriterKind};
use crate::protocol::backup::{ClosePlan, CreatePlan, Session, close_failed_context};
use crate::protocol::reply::Reply;
use crate::protocol::writers::{AppendPlan, Entries, Layout, UploadStats};
use crate::types::{ArchiveKind, ArchiveName, Digest};

impl Driver {
    pub(super) async fn serve_previous(&self, archive: &ArchiveName) -> Result<Response> {
        let file = if archive.kind() == ArchiveKind::Blob {
            self.task.log(format!("download '{archive}' from previous backup."));
            self.lease.open_base_blob(archive).await?
        } else {
            let index = self.lease.open_base_index(archive).await?;
            let cannot = || format!("cannot use '{archive}' of the previous backup");
            self.known.preflight(archive, &index).await.map_err(|e| {
                let error = e.context(cannot());
                self.task.log(error.to_string());
                error
            })?;
            self.task.log(format!("register chunks in '{archive}' from previous backup."));
            take_chunks(&index, &self.compute, &self.session, Session::register_base).await?;
            index.file().clone()
        };
        Ok(reply::octet_stream(file_body(file)))
    }

    pub(super) async fn create_index(&self, plan: CreatePlan) -> Result<Reply> {
        let made = self.make_index(&plan).await;
        let mut session = self.session.lock();
        match made {
            Ok(index) => {
                let (archive, kind) = (plan.archive.clone(), plan.layout.kind());
                let wid = session.created(plan);
                self.writers.lock().insert(wid, Arc::new(index));
                drop(session);
                self.task.log(format!("created new {kind} index {wid} ('{archive}')"));
                Ok(Reply::Writer(wid))
            }
            Err(error) => {
                session.create_failed();
                Err(error)
            }
        }
    }

    async fn make_index(&self, plan: &CreatePlan) -> Result<OpenIndex> {
        let archive = &plan.archive;
        match (&plan.layout, &plan.reuse_csum) {
            (Layout::Dynamic { .. }, _) => {
                Ok(OpenIndex::Dynamic(self.lease.create_dynamic(archive).await?, Turn::default()))
            }
            (Layout::Fixed { size_bytes, .. }, None) => {
                Ok(OpenIndex::Fixed(self.lease.create_fixed(archive, *size_bytes).await?))
            }
            (Layout::Fixed { size_bytes, .. }, Some(csum)) => {
                let writer = self.lease.create_fixed_from_base(archive, *size_bytes, csum).await?;
                match self.preflight_of_copy(archive).await {
                    Ok(()) => Ok(OpenIndex::Fixed(writer)),
                    Err(e) => {
                        let error = e.context("cannot reuse index");
                        self.task.log(error.to_string());
                        discard(&OpenIndex::Fixed(writer)).await;
                        Err(error)
                    }
                }
            }
        }
    }

    async fn preflight_of_copy(&self, archive: &ArchiveName) -> Result<()> {
        let index = self.lease.open_base_index(archive).await?;
        self.known.preflight(archive, &index).await
    }

    /// Removes the file of a writer that the session has given up, so that its name is free when the client hears of it.
    pub(super) async fn discard_index(&self, wid: WriterId) {
        let index = self.writers.lock().remove(&wid);
        if let Some(index) = index {
            discard(&index).await;
        }
    }

    pub(super) async fn append(&self, plan: AppendPlan) -> Result<Reply> {
        match self.see_and_write(&plan).await {
            Ok(()) => Ok(self.session.lock().appended(plan)),
            Err(error) => {
                self.session.lock().append_failed(plan);
                Err(error)
            }
        }
    }

    async fn see_and_write(&self, plan: &AppendPlan) -> Result<()> {
        self.known.check_append(plan).await?;
        self.session.lock().append_still_fits(plan)?;
        let index = self.writers.lock().get(&plan.wid).cloned();
        match (index.as_deref(), &plan.entries) {
            (Some(OpenIndex::Fixed(writer)), Entries::Fixed(slots)) => writer.write_slots(slots.clone()).await,
            (Some(OpenIndex::Dynamic(writer, _)), Entries::Dynamic { first, entries }) => {
                let entry = |(end, digest): &(u64, Digest)| DynamicEntry { end: *end, digest: *digest };
                writer.append(*first, entries.iter().map(entry).collect()).await
            }
            _ => Err(not_registered(plan.kind(), plan.wid)),
        }
    }

    pub(super) async fn close(&self, plan: ClosePlan) -> Result<Reply> {
        let ClosePlan { writer: closed, csum } = &plan;
        let index = self.writers.lock().remove(&closed.wid);
        let done = match index.as_deref() {
            Some(OpenIndex::Fixed(writer)) => writer.close(*csum).await,
            Some(OpenIndex::Dynamic(writer, _)) => writer.close(closed.appended, *csum).await,
            None => Err(not_registered(closed.layout.kind(), closed.wid)),
        };
        let mut session = self.session.lock();
        match done {
            Ok(_) => {
                let reply = session.closed(&plan);
                drop(session);
                self.log_closed(&plan);
                Ok(reply)
            }
            Err(error) => {
                session.close_failed(&plan);
                Err(error.context(close_failed_context(closed.layout.kind(), &closed.archive)))
            }
        }
    }

    fn log_closed(&self, plan: &ClosePlan) {
        let ClosePlan { writer: closed, csum } = plan;
        let size_bytes = closed.size_bytes();
        let UploadStats { count, size_bytes: sent_bytes, compressed_bytes, duplicates } = closed.stats;
        let percent = |part: u64, whole: u64| u128::from(part) * 100 / u128::from(whole.max(1));
        let known_count = closed.known_count();
        let reused = percent(known_count.saturating_add(duplicates), closed.appended);
        self.task.log(format!("Upload statistics for '{}'", closed.archive));
        self.task.log(format!("Checksum: {csum}"));
        self.task.log(format!("Size: {size_bytes}"));
        self.task.log(format!("Chunk count: {}", closed.appended));
        if size_bytes > 0 {
            self.task.log(format!("Upload size: {sent_bytes} ({}%)", percent(sent_bytes, size_bytes)));
        }
        self.task.log(format!("Duplicates: {known_count}+{duplicates} ({reused}%)"));
        if count > 0 {
            self.task.log(format!("Compression: {}%", percent(compressed_bytes, sent_bytes)));
        }
        self.task.log(format!("successfully closed {} index {}", closed.layout.kind(), closed.wid));
    }
}

async fn discard(index: &OpenIndex) {
    let discarded = match index {
        OpenIndex::Fixed(writer) => writer.discard().await,
        OpenIndex::Dynamic(writer, _) => writer.discard().await,
    };
    if let Err(error) = discarded {
        // The whole directory goes when the session ends, unless it finishes, and then the next start removes the file.
        tracing::warn!(%error, "the file of an index that was given up is still there");
    }
}

fn not_registered(kind: WriterKind, wid: WriterId) -> Error {
    Error::invalid(format!("{kind} writer '{wid}' not registered"))
}

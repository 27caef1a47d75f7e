//! How a backup ends: finished, or gone.

use super::Driver;
use crate::error::{Result, SHUTTING_DOWN, TASK_ABORTED};
use crate::http::session::{Ended, chain};
use crate::protocol::backup::FinishPlan;
use crate::protocol::manifest_check;
use crate::protocol::reply::Reply;

impl Driver {
    pub(super) async fn finish(&self, plan: FinishPlan) -> Result<Reply> {
        match self.check_and_finish(plan).await {
            Ok(()) => {
                self.task.log("successfully finished backup");
                Ok(self.session.lock().finished())
            }
            Err(error) => {
                self.task.log(format!("finish failed: {error}"));
                self.session.lock().finish_failed();
                Err(error)
            }
        }
    }

    async fn check_and_finish(&self, plan: FinishPlan) -> Result<()> {
        let indexes = plan.indexes();
        let FinishPlan { manifest, snapshot, files, stats } = plan;
        let checked = self.compute.run(move || manifest_check::check(&manifest, &snapshot, &files, &stats)).await??;
        for name in &checked.unlisted {
            self.task.log(format!("the manifest does not list '{name}': it stays, and nobody will restore it"));
        }
        if self.benchmark {
            return Ok(());
        }
        let stay = self.known.check_finish(&indexes).await?;
        self.lease.finish(checked.blob, stay).await
    }

    /// What the end of the connection means (spec 03 §9), and the result of the task.
    pub(super) async fn clean_up(&self, ended: Ended) -> Result<(), String> {
        self.budget.close();
        // Out of the lock first: a writer that is dropped has its file removed.
        let writers = std::mem::take(&mut *self.writers.lock());
        drop(writers);
        let (finished, known) = {
            let mut session = self.session.lock();
            (session.end(), session.known_chunks())
        };
        if matches!(ended, Ended::Aborted) {
            self.task.log("received abort request ...");
        }
        if finished && !self.benchmark {
            if let Ended::Connection(Err(e)) = &ended {
                tracing::debug!(error = %e, "a client left after it had finished");
            }
            return Ok(());
        }
        let fault = match ended {
            _ if self.benchmark => None,
            Ended::Connection(Ok(())) => Some("backup ended but finished flag is not set.".to_owned()),
            Ended::Connection(Err(e)) => Some(chain(&e)),
            Ended::Aborted => Some(TASK_ABORTED.to_owned()),
            Ended::Closing => Some(SHUTTING_DOWN.to_owned()),
        };
        match &fault {
            Some(fault) => {
                self.task.log(format!("backup failed: {fault}"));
                tracing::debug!(known_chunks = known.0, known_bytes = known.1, "an unfinished session ends");
                self.task.log("removing failed backup");
            }
            None => self.task.log("removing benchmark backup"),
        }
        let removed = self.lease.abandon().await.map_err(|e| {
            tracing::error!(snapshot = %self.lease.snapshot(), error = %e, "an unfinished backup was not removed");
            format!("the unfinished snapshot could not be removed - {e}")
        });
        if let Err(text) = &removed {
            self.task.log(text.clone());
        }
        fault.map_or(removed, Err)
    }
}

//! Work that outlives its request: a task of its own, which ends early only when it is asked to or when the daemon ends.

use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::context::App;
use crate::error::{Error, Result};
use crate::task::Task;
use crate::types::{AuthId, Upid};

/// Work that was started.
#[derive(Debug)]
pub struct Started<T> {
    /// The name of its task.
    pub upid: Upid,
    outcome: JoinHandle<Result<T>>,
}

impl<T> Started<T> {
    /// Waits for its end, after which the task's result is in the log. Who does not wait does not stop it.
    pub async fn outcome(self) -> Result<T> {
        self.outcome
            .await
            .unwrap_or_else(|e| Err(Error::closed(format!("the task {} broke off", self.upid)).with_source(e)))
    }
}

/// Starts a task and its work. The task ends with the work's result.
///
/// Work has to look at its task's abort between its steps: the end of the daemon asks in the same way, and waits.
pub async fn start<T, W>(
    app: &Arc<App>,
    auth: &AuthId,
    worker_type: &str,
    worker_id: String,
    work: impl FnOnce(Arc<Task>) -> W + Send + 'static,
) -> Result<Started<T>>
where
    T: Send + 'static,
    W: Future<Output = Result<T>> + Send + 'static,
{
    let guard = app.lifecycle.enter()?;
    let task = Arc::new(app.tasks.start(worker_type, Some(worker_id), auth).await?);
    let upid = task.upid().clone();
    let app = app.clone();
    let outcome = tokio::spawn(async move {
        let stop_at_the_end = async {
            app.lifecycle.draining().await;
            app.tasks.abort(task.upid());
            std::future::pending().await
        };
        let result = tokio::select! {
            result = work(task.clone()) => result,
            result = stop_at_the_end => result,
        };
        let told = result.as_ref().map(|_| ()).map_err(ToString::to_string);
        match Arc::into_inner(task) {
            Some(task) => task.end(told).await,
            None => tracing::error!("a task is still in use after its work"),
        }
        drop(guard);
        result
    });
    Ok(Started { upid, outcome })
}

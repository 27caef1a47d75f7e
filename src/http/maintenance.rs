//! Calls as operations of a datastore: counted while they run, refused by its maintenance mode (spec 05 §9).
//!
//! Here and not in the handlers, that none can forget it. A task that a call starts goes on when the call is over, so it begins an operation
//! of its own.

use http::Method;

use super::context::RequestContext;
use super::params::Params;
use super::reply::{Response, held};
use super::router::Route;
use crate::error::Result;
use crate::store::{Operation, OperationGuard};
use crate::types::DatastoreName;

/// Where calls about one datastore lie. Its configuration lies elsewhere: a mode has to be ended somehow.
const STORE_PATH: &str = "admin/datastore/{store}/";

/// Calls that are not what their method says: below [`STORE_PATH`].
const EXCEPTIONS: &[(Method, &str, Operation)] = &[
    // It notes its result in manifests, and counts as reading all the same (spec 07 §5).
    (Method::POST, "verify", Operation::Read),
    // So may a report about chunks, in the same way.
    (Method::POST, "chunk-report", Operation::Read),
    (Method::POST, "inspect", Operation::Read),
    (Method::GET, "active-operations", Operation::Lookup),
];

/// What a call does with the datastore that its path names; `None` if it names none.
fn operation(method: &Method, path: &str, is_dry_run: bool) -> Option<Operation> {
    let below = path.strip_prefix(STORE_PATH)?;
    let exception = EXCEPTIONS.iter().find(|(m, name, _)| m == method && *name == below);
    Some(match exception {
        Some((_, _, operation)) => *operation,
        None if *method == Method::GET || is_dry_run => Operation::Read,
        None => Operation::Write,
    })
}

/// Begins the operation of a call. `None` for one that is about no datastore, or about one that does not exist: what is to be said then,
/// its handler knows.
pub(super) fn begin(route: &Route, context: &RequestContext, params: &Params) -> Result<Option<OperationGuard>> {
    let is_dry_run = params.bool("dry-run") == Some(true);
    let Some(operation) = operation(&route.method, route.path, is_dry_run) else { return Ok(None) };
    let store: DatastoreName = params.parsed("store")?;
    context.app.datastore(&store).ok().map(|store| store.begin_operation(operation)).transpose()
}

/// The answer, whose operation runs until the last of its body is sent.
pub(super) fn hold(response: Response, guard: Option<OperationGuard>) -> Response {
    match guard {
        Some(guard) => response.map(|body| held(body, guard)),
        None => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_operations_of_the_datastore_that_they_name() {
        use Operation::{Lookup, Read, Write};
        for (method, path, is_dry_run, want) in [
            (Method::GET, "version", false, None),
            (Method::GET, "admin/datastore", false, None),
            (Method::PUT, "config/datastore/{name}", false, None),
            (Method::GET, "admin/datastore/{store}/snapshots", false, Some(Read)),
            (Method::DELETE, "admin/datastore/{store}/snapshots", false, Some(Write)),
            (Method::POST, "admin/datastore/{store}/prune", false, Some(Write)),
            (Method::POST, "admin/datastore/{store}/prune", true, Some(Read)),
            (Method::POST, "admin/datastore/{store}/gc", false, Some(Write)),
            (Method::POST, "admin/datastore/{store}/verify", false, Some(Read)),
            (Method::GET, "admin/datastore/{store}/active-operations", false, Some(Lookup)),
        ] {
            assert_eq!(operation(&method, path, is_dry_run), want, "{method} {path}");
        }
    }
}

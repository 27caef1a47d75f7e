//! The table of calls, described for people and for programs. Pure.

mod markdown;
mod openapi;

pub use markdown::markdown;
pub use openapi::openapi;

use super::params::ParamSpec;
use super::router::{Route, Router};

/// All rows in the order of their paths, GET first.
fn sorted(router: &Router) -> Vec<&'static Route> {
    let mut routes: Vec<&'static Route> = router.routes().collect();
    let rank = |route: &Route| ["GET", "POST", "PUT", "DELETE"].iter().position(|m| route.method.as_str() == *m);
    routes.sort_by_key(|route| (route.path, rank(route)));
    routes
}

/// Whether a parameter is part of the path.
fn is_in_path(route: &Route, spec: &ParamSpec) -> bool {
    route.path.split('/').any(|part| part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) == Some(spec.name))
}

//! One table of calls: method, path, privilege rule, parameters, handler; and the rules for paths (spec 05 §1.1). Pure.
//!
//! Components are decoded before they are matched, so a `/` that came as `%2F` stays inside its component. That is why
//! the table is walked by components rather than handed to a router of whole paths.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use http::Method;
use percent_encoding::percent_decode_str;

use super::context::RequestContext;
use super::params::{ParamSpec, Params};
use super::reply::{Outcome, Response};
use super::rows::Rows;
use crate::error::Result;

pub use super::rights::Access;
pub use super::shape::{Field, Returns, Shape};

/// Longest path with its query, in bytes.
pub const TARGET_BYTES_MAX: usize = 3072;

/// What becomes of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyUse {
    /// Its parameters are read from it.
    Parameters,
    /// The handler streams it, or the connection is upgraded: parameters come from path and query alone.
    Raw,
}

/// What a handler answers.
#[derive(Debug)]
pub enum Reply {
    /// A value, dressed as the path asks.
    Data(Outcome),
    /// A list that may be long, dressed as the path asks, and sent while it is made.
    Rows(Rows),
    /// A response of its own.
    Raw(Response),
}

/// A handler's promise.
pub type Answer = Pin<Box<dyn Future<Output = Result<Reply>> + Send>>;

/// One row of the table.
pub struct Route {
    /// GET, PUT, POST or DELETE.
    pub method: Method,
    /// Below the format: `admin/datastore/{store}/status`.
    pub path: &'static str,
    /// Who may.
    pub access: Access,
    /// What becomes of the body.
    pub body: BodyUse,
    /// What it takes, parameters of the path included.
    pub params: &'static [ParamSpec],
    /// What it answers.
    pub returns: Returns,
    /// What it does.
    pub handler: fn(RequestContext, Params) -> Answer,
    /// One line for people.
    pub about: &'static str,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// What a path leads to.
#[derive(Debug)]
pub enum Found {
    /// A call, with the parameters of its path.
    Call(&'static Route, Vec<(&'static str, String)>),
    /// A node above calls: the names below it, sorted.
    Directory(Vec<&'static str>),
    /// Neither.
    Nothing,
}

/// The table.
#[derive(Debug)]
pub struct Router {
    routes: Vec<(Vec<Segment>, &'static Route)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    Name(&'static str),
    Param(&'static str),
}

impl Segment {
    fn matches(self, component: &str) -> bool {
        match self {
            Self::Name(name) => name == component,
            Self::Param(_) => true,
        }
    }
}

impl Router {
    /// From rows whose names go before parameters: `{x}` matches only where no name does.
    pub fn new(rows: impl IntoIterator<Item = &'static Route>) -> Self {
        let segments = |path: &'static str| {
            let one = |part: &'static str| match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
                Some(name) => Segment::Param(name),
                None => Segment::Name(part),
            };
            path.split('/').map(one).collect::<Vec<_>>()
        };
        let mut routes: Vec<_> = rows.into_iter().map(|row| (segments(row.path), row)).collect();
        routes.sort_by_key(|(segments, _)| segments.iter().filter(|s| matches!(s, Segment::Param(_))).count());
        Self { routes }
    }

    /// All rows.
    pub fn routes(&self) -> impl Iterator<Item = &'static Route> {
        self.routes.iter().map(|(_, route)| *route)
    }

    /// Finds the call of a method and decoded path.
    pub fn find(&self, method: &Method, components: &[String]) -> Found {
        let begins = |segments: &[Segment]| {
            segments.len() >= components.len() && segments.iter().zip(components).all(|(s, c)| s.matches(c))
        };
        let mut below = BTreeSet::new();
        let mut is_node = false;
        for (segments, route) in self.routes.iter().filter(|(segments, _)| begins(segments)) {
            if segments.len() > components.len() {
                is_node = true;
                if let Segment::Name(name) = segments[components.len()] {
                    below.insert(name);
                }
            } else if route.method == *method {
                let params = segments.iter().zip(components).filter_map(|(segment, component)| match segment {
                    Segment::Param(name) => Some((*name, component.clone())),
                    Segment::Name(_) => None,
                });
                return Found::Call(route, params.collect());
            }
        }
        if is_node && method == Method::GET { Found::Directory(below.into_iter().collect()) } else { Found::Nothing }
    }
}

/// What is wrong with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// A component begins with a dot.
    Illegal,
    /// A component is not UTF-8.
    Undecodable,
}

/// Splits a path into decoded components; empty ones are dropped.
pub fn components(path: &str) -> Result<Vec<String>, PathError> {
    path.split('/')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let decoded = percent_decode_str(part).decode_utf8().map_err(|_| PathError::Undecodable)?;
            if part.starts_with('.') || decoded.starts_with('.') {
                return Err(PathError::Illegal);
            }
            Ok(decoded.into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> Router {
        const fn row(method: Method, path: &'static str) -> Route {
            Route {
                method,
                path,
                access: Access::Authenticated,
                body: BodyUse::Parameters,
                params: &[],
                returns: Returns::NULL,
                handler: |_, _| Box::pin(async { Ok(Reply::Data(Outcome::null())) }),
                about: "",
            }
        }
        const ROUTES: &[Route] = &[
            row(Method::GET, "version"),
            row(Method::GET, "a/{x}/status"),
            row(Method::PUT, "a/{x}/status"),
            row(Method::GET, "a/special/status"),
            row(Method::GET, "a/{x}"),
            row(Method::GET, "b/c/{y}/d"),
        ];
        Router::new(ROUTES)
    }

    fn found(method: Method, path: &str) -> String {
        match router().find(&method, &components(path).unwrap()) {
            Found::Call(route, params) => format!("{route:?} {params:?}"),
            Found::Directory(names) => format!("dir {names:?}"),
            Found::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn calls_and_directories() {
        for (method, path, want) in [
            (Method::GET, "/version", "GET version []"),
            (Method::GET, "//version/", "GET version []"),
            (Method::GET, "/%76ersion", "GET version []"),
            (Method::DELETE, "/version", "nothing"),
            (Method::GET, "/a/1%2F2/status", "GET a/{x}/status [(\"x\", \"1/2\")]"),
            (Method::PUT, "/a/%2525/status", "PUT a/{x}/status [(\"x\", \"%25\")]"),
            (Method::GET, "/a/special/status", "GET a/special/status []"),
            (Method::GET, "/a/special", "GET a/{x} [(\"x\", \"special\")]"),
            (Method::PUT, "/a/special/status", "PUT a/{x}/status [(\"x\", \"special\")]"),
            (Method::GET, "/", "dir [\"a\", \"b\", \"version\"]"),
            (Method::GET, "/a", "dir [\"special\"]"),
            (Method::GET, "/b/c/anything", "dir [\"d\"]"),
            (Method::PUT, "/a", "nothing"),
            (Method::GET, "/version/x", "nothing"),
            (Method::GET, "/nope", "nothing"),
        ] {
            assert_eq!(found(method.clone(), path), want, "{method} {path}");
        }
    }

    #[test]
    fn bad_paths() {
        for path in ["/a/../b", "/./a", "/.a", "/a/%2e%2e/b"] {
            assert_eq!(components(path), Err(PathError::Illegal), "{path}");
        }
        assert_eq!(components("/a/%ff"), Err(PathError::Undecodable));
        assert_eq!(components("").unwrap(), Vec::<String>::new());
    }
}

//! What would bring a missing chunk back. Pure.

use super::report::Remedy;
use crate::types::{Group, Namespace};

/// Groups named for one chunk; one backup is enough.
pub(super) const GROUPS_NAMED_MAX: usize = 5;

/// A group whose newest finished snapshot names the chunk: what it backs up most likely still holds the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) ns: Namespace,
    pub(super) group: Group,
    /// Whether that snapshot is marked as failed, so that the next backup has no base and uploads everything.
    pub(super) is_marked: bool,
}

/// The remedies, the easiest first: a copy that is there, a backup that will come anyway, what a person may look at.
pub(super) fn remedies(sources: &[Source], elsewhere: &[String], set_aside: &[String]) -> Vec<Remedy> {
    let copies = elsewhere.iter().map(|store| Remedy::Copy { store: store.clone() });
    // Of those that come, the one that uploads everything is sure to send the chunk.
    let mut sources: Vec<&Source> = sources.iter().collect();
    sources.sort_by_key(|source| !source.is_marked);
    let backups = sources.into_iter().take(GROUPS_NAMED_MAX).map(|source| Remedy::Backup {
        ns: source.ns.to_string(),
        group: source.group.to_string(),
        full: source.is_marked,
    });
    let aside = set_aside.iter().map(|file| Remedy::SetAside { file: file.clone() });
    copies.chain(backups).chain(aside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(id: &str, is_marked: bool) -> Source {
        Source { ns: Namespace::root(), group: format!("host/{id}").parse().unwrap(), is_marked }
    }

    fn backup(id: &str, full: bool) -> Remedy {
        Remedy::Backup { ns: String::new(), group: format!("host/{id}"), full }
    }

    #[test]
    fn the_easiest_comes_first() {
        let found = remedies(&[source("a", false), source("b", true)], &["usb".into()], &["x.0.bad".into()]);
        let copy = Remedy::Copy { store: "usb".into() };
        let aside = Remedy::SetAside { file: "x.0.bad".into() };
        assert_eq!(found, [copy, backup("b", true), backup("a", false), aside]);
    }

    #[test]
    fn what_nobody_backs_up_any_more_has_no_remedy() {
        assert_eq!(remedies(&[], &[], &[]), []);
        let many: Vec<Source> = (0..9).map(|n| source(&n.to_string(), n == 8)).collect();
        let found = remedies(&many, &[], &[]);
        assert_eq!((found.len(), &found[0]), (GROUPS_NAMED_MAX, &backup("8", true)));
    }
}

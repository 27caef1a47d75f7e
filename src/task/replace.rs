//! A small file of the task folder in the place of another.

use std::path::Path;

use crate::engine::{Disk, SyncScope};
use crate::error::{IoContext, Result};

/// Puts `text` in the place of what `dir`/`name` holds: a crash leaves the old one or the new one. `durable` if the old one's content could not be
/// found again.
pub(super) fn replace(disk: &Disk, dir: &Path, name: &str, text: &str, durable: bool) -> Result<()> {
    let (path, new) = (dir.join(name), dir.join(format!("{name}.tmp")));
    let file = disk.open_or_create(&new, 0o644).io_context(|| format!("create {new:?}"))?;
    file.set_len(0)
        .and_then(|()| file.write_all_at(text.as_bytes(), 0))
        .and_then(|()| if durable { file.sync(SyncScope::All) } else { Ok(()) })
        .and_then(|()| disk.rename(&new, &path))
        .io_context(|| format!("write {path:?}"))
}

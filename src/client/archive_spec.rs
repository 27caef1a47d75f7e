//! `NAME.EXT:PATH`, what the command line says about one archive. Pure.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::types::{ArchiveName, CLIENT_LOG_BLOB};

/// What becomes of the bytes; the extension before the colon says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// `.img`: a file or block device of known size, cut every 4 MiB, kept as `NAME.img.fidx`.
    Image,
    /// `.conf` or `.log`: a small file, kept whole as `NAME.conf.blob`.
    Blob,
    /// `.stream`: any bytes up to their end, cut by content, kept as `NAME.stream.didx`. Ringvault's own; the official
    /// client can list and verify it, not restore it.
    Stream,
}

/// Where the bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourcePath {
    /// `-`.
    Stdin,
    /// A file, a device, a pipe.
    Path(PathBuf),
}

impl fmt::Display for SourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// One archive to be backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveSpec {
    /// Its name on the server, extension included.
    pub name: ArchiveName,
    /// How it is cut.
    pub kind: SourceKind,
    /// What is read.
    pub source: SourcePath,
}

impl FromStr for ArchiveSpec {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("{s:.200?}: {why}"));
        let (name, path) = s
            .split_once(':')
            .ok_or_else(|| wrong("NAME.img:PATH, NAME.conf:PATH, NAME.log:PATH or NAME.stream:PATH expected"))?;
        let (kind, server) = match name.rsplit_once('.') {
            Some((_, "img")) => (SourceKind::Image, "fidx"),
            Some((_, "conf" | "log")) => (SourceKind::Blob, "blob"),
            Some((_, "stream")) => (SourceKind::Stream, "didx"),
            Some((_, "pxar")) => {
                return Err(wrong(
                    "directories are packed by the official client only; here use for example \
                     `tar -c DIR | ringvault backup NAME.stream:-`",
                ));
            }
            _ => return Err(wrong("the name before ':' must end in .img, .conf, .log or .stream")),
        };
        let source = match path {
            "" => return Err(wrong("no path behind the ':'")),
            "-" => SourcePath::Stdin,
            path => SourcePath::Path(PathBuf::from(path)),
        };
        if source == SourcePath::Stdin && kind != SourceKind::Stream {
            return Err(wrong("only a .stream can be read from standard input"));
        }
        let name: ArchiveName = format!("{name}.{server}").parse().map_err(|e: Error| wrong(&e.to_string()))?;
        if name.as_str() == CLIENT_LOG_BLOB {
            return Err(wrong("this name is kept for the client's own log"));
        }
        Ok(Self { name, kind, source })
    }
}

/// Refuses an empty list, a name given twice, and standard input read twice.
pub fn check_all(specs: &[ArchiveSpec]) -> Result<()> {
    if specs.is_empty() {
        return Err(Error::invalid("nothing to back up: name at least one archive, for example disk.img:/dev/vda"));
    }
    for (i, spec) in specs.iter().enumerate() {
        for other in &specs[..i] {
            if other.name == spec.name {
                return Err(Error::invalid(format!("{} is named twice: give each archive its own name", spec.name)));
            }
            if other.source == SourcePath::Stdin && spec.source == SourcePath::Stdin {
                return Err(Error::invalid("standard input can be read for one archive only"));
            }
        }
    }
    Ok(())
}

/// The name in `listed` that `asked` means: exactly, or without the server's extension (`disk.img` for `disk.img.fidx`).
pub fn find<'a>(asked: &str, listed: impl Iterator<Item = &'a ArchiveName> + Clone) -> Option<&'a ArchiveName> {
    let bare = |name: &'a ArchiveName| name.as_str().rsplit_once('.').map_or("", |(bare, _)| bare);
    listed.clone().find(|name| name.as_str() == asked).or_else(|| listed.clone().find(|name| bare(name) == asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_decides() {
        for (text, name, kind) in [
            ("drive-scsi0.img:/dev/vda", "drive-scsi0.img.fidx", SourceKind::Image),
            ("qemu-server.conf:a:b", "qemu-server.conf.blob", SourceKind::Blob),
            ("x.log:rel/path", "x.log.blob", SourceKind::Blob),
            ("root.tar.stream:-", "root.tar.stream.didx", SourceKind::Stream),
        ] {
            let spec: ArchiveSpec = text.parse().unwrap();
            assert_eq!((spec.name.as_str(), spec.kind), (name, kind), "{text}");
        }
        let spec: ArchiveSpec = "a.conf:b:c".parse().unwrap();
        assert_eq!(spec.source, SourcePath::Path("b:c".into()), "only the first colon parts");
    }

    #[test]
    fn wrong_specs_say_why() {
        for (text, why) in [
            ("disk.img", "expected"),
            ("disk:/dev/vda", "must end in"),
            ("root.pxar:/", "official client"),
            ("disk.img:", "no path"),
            ("disk.img:-", "standard input"),
            ("a/b.img:x", "archive name"),
            (".img:x", "archive name"),
            ("client.log:x", "kept for"),
        ] {
            let error = text.parse::<ArchiveSpec>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn names_and_standard_input_are_used_once() {
        let specs = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<ArchiveSpec>>();
        assert!(check_all(&specs(&["a.img:x", "a.conf:x", "b.img:x", "c.stream:-"])).is_ok());
        for bad in [&[][..], &["a.img:x", "a.img:y"], &["a.stream:-", "b.stream:-"]] {
            assert!(check_all(&specs(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn found_with_and_without_the_servers_extension() {
        let names: Vec<ArchiveName> = ["a.img.fidx", "a.conf.blob"].map(|n| n.parse().unwrap()).into();
        for (asked, found) in [
            ("a.img", Some("a.img.fidx")),
            ("a.img.fidx", Some("a.img.fidx")),
            ("a.conf", Some("a.conf.blob")),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(find(asked, names.iter()).map(ArchiveName::as_str), found, "{asked}");
        }
    }
}

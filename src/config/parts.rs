//! Sections of the file → what store and engine are told. Pure.

use std::num::NonZeroU64;

use super::DatastoreSection;
use crate::engine::{EngineChoice, EngineConfig};
use crate::store::{BackgroundConfig, CheckSwitches, DatastoreConfig, GcMethod, Rate, SyncLevel};

const MIB: NonZeroU64 = NonZeroU64::new(1 << 20).expect("not 0");

impl DatastoreSection {
    /// What the store is told.
    pub fn store_config(&self) -> DatastoreConfig {
        let mut store = DatastoreConfig::new(self.name.clone(), &self.path);
        store.comment.clone_from(&self.comment);
        store.maintenance.clone_from(&self.maintenance);
        store.sync_level = match self.sync_level.as_str() {
            "none" => SyncLevel::None,
            "file" => SyncLevel::File,
            _ => SyncLevel::Filesystem,
        };
        let (append, finish, preflight) = self.checks;
        store.checks = CheckSwitches { append, finish, preflight };
        store.verify_new = self.verify_new;
        store.owner = self.owner;
        store.lock_dir.clone_from(&self.manifest_lock_dir);
        store.gc.method = match self.gc_method.as_str() {
            "atime" => GcMethod::AccessTime,
            _ => GcMethod::Memory,
        };
        store.gc.memory_max = self.gc_memory_mib << 20;
        store.gc.cutoff_minutes = self.gc_atime_cutoff;
        let bytes = self.background_mib.map(|mib| mib.saturating_mul(MIB));
        store.background = BackgroundConfig {
            rate: Rate { chunks: self.background_chunks, bytes },
            idle_priority: self.background_idle,
            back_off: self.background_back_off,
        };
        store.gc.reserve_bytes = self.gc_reserve_mib << 20;
        store
    }

    /// What its engine is told.
    pub fn engine_config(&self) -> EngineConfig {
        let choice = match self.engine.as_str() {
            "uring" => EngineChoice::Uring,
            "threads" => EngineChoice::Threads,
            "sync" => EngineChoice::Sync,
            _ => EngineChoice::Auto,
        };
        EngineConfig { choice, workers: self.workers, io_threads: self.io_threads }
    }

    /// Whether an open datastore can take these settings as it is. Where not, it is opened anew.
    pub(super) fn is_built_like(&self, other: &Self) -> bool {
        let built = |section: &Self| {
            let Self { path, owner, manifest_lock_dir, engine, workers, io_threads, .. } = section.clone();
            (path, owner, manifest_lock_dir, engine, workers, io_threads)
        };
        built(self) == built(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, first_file};
    use crate::store::GcConfig;
    use std::path::Path;

    #[test]
    fn defaults_of_the_file_are_those_of_the_parts() {
        let config = Config::parse(&first_file(), "x", Path::new("/data")).unwrap();
        let (store, engine) = (config.datastores[0].store_config(), config.datastores[0].engine_config());
        assert_eq!(store, DatastoreConfig::new(store.name.clone(), "/data/main"));
        assert_eq!(format!("{engine:?}"), format!("{:?}", EngineConfig::default()));
    }

    #[test]
    fn every_word_has_its_meaning() {
        let read = |line: &str| {
            let text = format!("[[datastore]]\nname = \"abc\"\npath = \"p\"\n{line}\n");
            let config = Config::parse(&text, "x", Path::new("/data")).unwrap();
            (config.datastores[0].store_config(), config.datastores[0].engine_config())
        };
        for level in [SyncLevel::None, SyncLevel::File, SyncLevel::Filesystem] {
            let word = serde_json::to_string(&level).unwrap();
            assert_eq!(read(&format!("sync-level = {word}")).0.sync_level, level);
        }
        for choice in [EngineChoice::Auto, EngineChoice::Uring, EngineChoice::Threads, EngineChoice::Sync] {
            let word = serde_json::to_string(&choice).unwrap();
            assert_eq!(read(&format!("engine = {word}")).1.choice, choice);
        }
        for method in [GcMethod::Memory, GcMethod::AccessTime] {
            let word = serde_json::to_string(&method).unwrap();
            assert_eq!(
                read(&format!("gc-method = {word}\ngc-memory-mib = 7\ngc-atime-cutoff = 60\ngc-reserve-mib = 9")).0.gc,
                GcConfig { method, memory_max: 7 << 20, cutoff_minutes: 60, reserve_bytes: 9 << 20 }
            );
        }
        let line =
            "background = { chunks-per-second = 9, mib-per-second = 3, back-off = false, idle-priority = false }";
        let rate = Rate { chunks: NonZeroU64::new(9), bytes: NonZeroU64::new(3 << 20) };
        assert_eq!(read(line).0.background, BackgroundConfig { rate, idle_priority: false, back_off: false });
        let (store, _) = read("checks = { append = false, preflight = false }\nowner = \"1:2\"\ncomment = \"c\"");
        assert_eq!(store.checks, CheckSwitches { append: false, finish: true, preflight: false });
        assert_eq!((store.owner, store.comment.as_deref()), (Some((1, 2)), Some("c")));
    }

    #[test]
    fn what_an_open_datastore_cannot_take() {
        let read = |line: &str| {
            let text = format!("[[datastore]]\nname = \"abc\"\n{line}\n");
            Config::parse(&text, "x", Path::new("/data")).unwrap().datastores.remove(0)
        };
        let base = read("path = \"p\"");
        for (line, alike) in [
            ("path = \"p\"\ncomment = \"c\"", true),
            ("path = \"p\"\nsync-level = \"none\"", true),
            ("path = \"p\"\nchecks.finish = false", true),
            ("path = \"p\"\nbackground.chunks-per-second = 1", true),
            ("path = \"p\"\nbackground.idle-priority = false", true),
            ("path = \"q\"", false),
            ("path = \"p\"\nowner = \"1:1\"", false),
            ("path = \"p\"\nmanifest-lock-dir = \"l\"", false),
            ("path = \"p\"\nengine = \"sync\"", false),
            ("path = \"p\"\nworkers = 3", false),
            ("path = \"p\"\nio-threads = 3", false),
        ] {
            assert_eq!(base.is_built_like(&read(line)), alike, "{line}");
        }
    }
}

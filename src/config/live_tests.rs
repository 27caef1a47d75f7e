//! A configuration that changes under those who use it.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use super::*;
use crate::clock::Clock;
use crate::engine::ComputePool;
use crate::error::Kind;
use crate::store::Datastore;

struct World {
    folder: tempfile::TempDir,
    live: LiveConfig,
    stores: StoreBook,
}

/// A daemon's configuration with datastores `one` and `two`; `three` is there and not named.
async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one", "two", "three"] {
        let base = folder.path().join(name);
        for (path, mode) in [(base.clone(), 0o755), (base.join(".chunks"), 0o750)] {
            std::fs::DirBuilder::new().mode(mode).create(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    let dir = DataDir::open(folder.path()).unwrap();
    let text =
        format!("# Mine.\n[server]\nsessions-max = 9 # enough\n{}{}", row("one", "one", ""), row("two", "two", ""));
    dir.put("c.toml", text.as_bytes(), 0o640).unwrap();
    let loaded = Loaded::parse(text, "c.toml", folder.path()).unwrap();
    let stores = StoreBook::new(Clock::system());
    assert!(stores.commit(stores.prepare(&loaded.config.datastores).await.unwrap()).is_empty());
    let path = dir.path().join("c.toml");
    let live = LiveConfig::new(dir, path, loaded, ComputePool::new(1).unwrap(), stores.clone());
    World { folder, live, stores }
}

fn row(name: &str, path: &str, more: &str) -> String {
    format!("[[datastore]]\nname = \"{name}\"\npath = \"{path}\"\nengine = \"sync\"\nio-threads = 1\n{more}")
}

impl World {
    fn file(&self) -> String {
        std::fs::read_to_string(self.live.path()).unwrap()
    }

    fn write(&self, text: &str) {
        DataDir::open(self.folder.path()).unwrap().put("c.toml", text.as_bytes(), 0o640).unwrap();
    }

    async fn reload(&self) -> Result<()> {
        self.live.reload(async |_| Ok(())).await
    }

    fn get(&self, name: &str) -> Option<Datastore> {
        self.stores.get(&name.parse().unwrap())
    }

    fn names(&self) -> Vec<String> {
        self.stores.all().iter().map(|store| store.name().to_string()).collect()
    }
}

#[tokio::test]
async fn an_edit_is_in_the_file_and_in_force() {
    let world = world().await;
    let (before, held) = (world.live.get(), world.get("one").unwrap());
    let mut changes = world.live.subscribe();
    world.live.edit(Some(&before.digest), |draft| draft.set("datastore", "one", "comment", "hello")).await.unwrap();
    assert!(changes.has_changed().unwrap() && *changes.borrow_and_update() == 1);
    assert_eq!(world.file(), before.text.replacen("io-threads = 1\n", "io-threads = 1\ncomment = \"hello\"\n", 1));
    assert_eq!(world.live.get().text, world.file());
    // Who has it sees it: it is the same datastore.
    assert_eq!(held.config().comment.as_deref(), Some("hello"));
    assert!(held.is(&world.get("one").unwrap()));
    assert_eq!(std::fs::metadata(world.live.path()).unwrap().permissions().mode() & 0o777, 0o640);
    // The version that was seen first is gone.
    let refused = world.live.edit(Some(&before.digest), |draft| draft.remove("datastore", "one")).await.unwrap_err();
    assert!(refused.to_string().contains("detected modified configuration"), "{refused}");
    assert_eq!(world.names(), ["one", "two"]);
}

#[tokio::test]
async fn what_cannot_be_changes_nothing() {
    let world = world().await;
    let before = world.file();
    let set = async |key: &str, value: &str| {
        world.live.edit(None, |draft| draft.set("datastore", "two", key, value)).await.unwrap_err().to_string()
    };
    for (error, want) in [
        (set("sync-level", "sometimes").await, "\"sync-level\" is \"sometimes\""),
        (set("nonsense", "x").await, "unknown key \"nonsense\""),
        (set("path", "one").await, "have one path"),
        (set("path", "../nowhere").await, "datastore 'two'"),
        (set("name", "one").await, "there are two datastores \"one\""),
    ] {
        assert!(error.contains(want), "{error}");
        assert_eq!(world.file(), before);
    }
    std::os::unix::fs::symlink("one", world.folder.path().join("link")).unwrap();
    let error = set("path", "link").await;
    assert!(error.contains("have one directory"), "{error}");
    for text in ["[server]\nlisen = \"x\"\n", "rubbish", &format!("{before}{}", row("four", "four", ""))] {
        world.write(text);
        world.reload().await.unwrap_err();
        assert_eq!(
            (world.live.get().text.as_str(), world.names()),
            (before.as_str(), vec!["one".into(), "two".into()])
        );
    }
    // Nor is a file edited that somebody else is editing.
    let error = world.live.edit(None, |draft| draft.remove("datastore", "one")).await.unwrap_err();
    assert!(error.to_string().contains("changed by hand"), "{error}");
    world.write(&before);
    let said = world.live.reload(async |_| Err::<(), _>(Error::invalid("no certificate"))).await.unwrap_err();
    assert_eq!((said.to_string().as_str(), world.names().len()), ("no certificate", 2));
}

#[tokio::test]
async fn datastores_come_and_go() {
    let world = world().await;
    let held = world.get("two").unwrap();
    world.write(&format!("{}{}", row("one", "one", "sync-level = \"none\"\n"), row("three", "three", "")));
    world.reload().await.unwrap();
    assert_eq!(world.names(), ["one", "three"]);
    assert_eq!(world.get("one").unwrap().config().sync_level, crate::store::SyncLevel::None);
    // Its session goes on with it, and its directory is nobody else's meanwhile.
    held.usage().await.unwrap();
    assert_eq!(world.stores.engines().len(), 3);
    world.write(&row("new", "two", ""));
    let busy = world.reload().await.unwrap_err();
    assert_eq!((busy.kind(), world.names().len()), (Kind::Busy, 2), "{busy}");
    // Under its own name it comes back as the very same.
    world.write(&row("two", "two", "comment = \"again\"\n"));
    world.reload().await.unwrap();
    assert!(held.is(&world.get("two").unwrap()));
    assert_eq!(held.config().comment.as_deref(), Some("again"));
    // With nobody in it, it may change its name.
    drop(held);
    world.write(&row("new", "two", ""));
    world.reload().await.unwrap();
    assert_eq!((world.names(), world.stores.engines().len()), (vec!["new".to_owned()], 1));
}

#[tokio::test]
async fn a_datastore_in_use_is_not_opened_twice() {
    let world = world().await;
    let held = world.get("one").unwrap();
    let text = format!("{}{}", row("one", "three", "comment = \"moved\"\n"), row("two", "two", ""));
    world.write(&text);
    world.reload().await.unwrap();
    let now = world.get("one").unwrap();
    assert!(now.is(&held));
    assert_eq!((now.base_path(), now.config().comment.as_deref()), (held.base_path(), Some("moved")));
    assert_eq!(now.config().path, Path::new(held.base_path()));
    drop((held, now));
    world.reload().await.unwrap();
    assert_eq!(world.get("one").unwrap().base_path(), world.folder.path().canonicalize().unwrap().join("three"));
}

#[test]
fn what_waits_for_the_next_start() {
    let old = "[server]\nlisten = \"127.0.0.1:1\"\nsessions-max = 3\n";
    for (new, want) in [
        (old, vec![]),
        ("[server]\nlisten = \"127.0.0.1:1\"\nsessions-max = 4\n", vec![]),
        ("[server]\nsessions-max = 3\n", vec!["listen of [server] takes effect at the next start"]),
        (
            "[server]\nlisten = \"127.0.0.1:1\"\ncompute-threads = 2\n[tasks]\ndir = \"x\"\n",
            vec![
                "compute-threads of [server] takes effect at the next start",
                "dir of [tasks] takes effect at the next start",
            ],
        ),
    ] {
        assert_eq!(raw::restart_needed(old, new), want);
    }
}

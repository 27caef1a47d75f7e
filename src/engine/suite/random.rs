//! Random changes and questions: every engine must say what the standard library says.

use std::path::Path;

use rustix::io::Errno;

use super::{Tree, engines, found, timeless};
use crate::engine::{Class, FileKind, StatBatch, StatResult};

/// One step of the random comparison: something changes, or all engines are asked.
#[derive(Clone, Debug)]
enum Step {
    File { name: usize, size_bytes: u64 },
    Dir { name: usize },
    Link { name: usize, to: usize },
    Rename { from: usize, to: usize },
    Remove { name: usize },
    Ask { names: Vec<usize>, class: Class, force_sync: bool },
}

/// The names of the comparison; `d*` become directories now and then, so the paths through them come and go.
const NAMES: [&str; 12] = ["a", "b", "c", "d", "d/a", "d/b", "d/d", "d/d/a", "d2", "d2/a", "d2/../b", "./d2/d"];

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let name = || 0..NAMES.len();
    let class = prop_oneof![Just(Class::Interactive), Just(Class::Sweep)];
    let step = prop_oneof![
        2 => (name(), 0u64..100_000).prop_map(|(name, size_bytes)| Step::File { name, size_bytes }),
        2 => name().prop_map(|name| Step::Dir { name }),
        1 => (name(), name()).prop_map(|(name, to)| Step::Link { name, to }),
        1 => (name(), name()).prop_map(|(from, to)| Step::Rename { from, to }),
        1 => name().prop_map(|name| Step::Remove { name }),
        4 => (prop::collection::vec(name(), 0..200), class, any::<bool>())
            .prop_map(|(names, class, force_sync)| Step::Ask { names, class, force_sync }),
    ];
    prop::collection::vec(step, 1..40)
}

/// Changes the tree; what does not work at present is left as it is.
#[expect(clippy::disallowed_methods, reason = "makes what the engines look at")]
fn change(tree: &Tree, step: &Step) {
    let path = |name: &usize| tree.path(NAMES[*name]);
    let _ = match step {
        Step::File { name, size_bytes } => std::fs::File::create(path(name)).and_then(|f| f.set_len(*size_bytes)),
        Step::Dir { name } => std::fs::create_dir(path(name)),
        Step::Link { name, to } => std::os::unix::fs::symlink(NAMES[*to], path(name)),
        Step::Rename { from, to } => std::fs::rename(path(from), path(to)),
        Step::Remove { name } => std::fs::remove_file(path(name)).or_else(|_| std::fs::remove_dir_all(path(name))),
        Step::Ask { .. } => Ok(()),
    };
}

#[test]
fn random_operations_look_alike_through_every_engine() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let engines = engines();
    let config = proptest::test_runner::Config { cases: 64, failure_persistence: None, ..Default::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let compared = runner.run(&steps(), |steps| {
        let tree = Tree::new();
        for step in &steps {
            change(&tree, step);
            let Step::Ask { names, class, force_sync } = step else { continue };
            let names: Vec<&str> = names.iter().map(|&name| NAMES[name]).collect();
            let expected: Vec<StatResult> = names.iter().map(|name| by_std(&tree.path(name))).collect();
            for (engine_name, engine) in &engines {
                let batch = StatBatch { force_sync: *force_sync, ..tree.batch(*class, &names) };
                let reply = runtime.block_on(engine.stat(batch)).unwrap();
                proptest::prop_assert_eq!(timeless(&reply.results), expected.clone(), "{}: {:?}", engine_name, names);
            }
        }
        Ok(())
    });
    compared.unwrap();
}

/// What the standard library says.
fn by_std(path: &Path) -> StatResult {
    match std::fs::metadata(path) {
        Ok(m) if m.is_file() => found(FileKind::File, m.len()),
        Ok(m) if m.is_dir() => found(FileKind::Dir, m.len()),
        Ok(m) => found(FileKind::Other, m.len()),
        Err(e) => Err(Errno::from_io_error(&e).unwrap()),
    }
}

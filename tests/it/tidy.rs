//! The source keeps to its own rules: arrows point down, one door to the disk, one fence for `unsafe`, links that lead somewhere.

use std::path::{Path, PathBuf};

/// The rows of the layout, lowest first. A row may name the rows beneath it; in a row, nobody names a neighbour.
const ROWS: &[&[&str]] = &[
    &["error"],
    &["clock", "sync"],
    &["types", "metrics", "systemd"],
    &["format", "engine"],
    &["protocol", "auth", "store", "task"],
    // It makes the configurations of store and engine, so it stands above them.
    &["config"],
    &["jobs"],
    &["http", "client"],
    &["daemon"],
    &["bench"],
    &["cli"],
    &["main", "lib"],
];

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "rs", &mut found);
    found
}

fn collect(dir: &Path, extension: &str, found: &mut Vec<(PathBuf, String)>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            let text = std::fs::read_to_string(&path).expect("a source file");
            found.push((path, text));
        }
    }
}

/// The module at the top of `src` that a file belongs to.
fn module_of(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("below src");
    let first = below.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// The part of a file that is not its tests, line by line with numbers.
fn production(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let end = text.find("\n#[cfg(test)]").unwrap_or(text.len());
    text[..end].lines().enumerate().map(|(i, l)| (i + 1, l))
}

fn is_test_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name == "tests.rs"
        || name.ends_with("_tests.rs")
        || name == "suite.rs"
        || name == "test_support.rs"
        || path.components().any(|c| c.as_os_str() == "tests")
}

fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[test]
fn arrows_point_down() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        if is_test_file(&path) {
            continue;
        }
        let module = module_of(&path);
        let Some(row) = row_of(&module) else {
            faults.push(format!("{module} is in no row of the layout"));
            continue;
        };
        for (number, line) in production(&text) {
            for rest in code_of(line).split("crate::").skip(1) {
                let named: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let up = row_of(&named).is_some_and(|other| other >= row && named != module);
                if up {
                    faults.push(format!("{}:{number}: {module} names {named}", path.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn one_door_to_the_disk() {
    // Files that are no part of a datastore: configuration, keys, certificates, task logs, and a client's own files. The bench lays out and
    // removes its own scratch data, and the rival that it measures against is `std::fs` by definition.
    let outside = ["main", "cli", "client", "http", "task", "systemd", "config", "bench"];
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let module = module_of(&path);
        if module == "engine" || outside.contains(&module.as_str()) || is_test_file(&path) {
            continue;
        }
        for (number, line) in production(&text) {
            let code = code_of(line);
            if code.contains("std::fs") || code.contains("tokio::fs") || code.contains("rustix::fs") {
                faults.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn one_fence_for_unsafe() {
    for (path, text) in sources() {
        let fenced = path.components().any(|c| c.as_os_str() == "uring") || path.ends_with("engine/uring.rs");
        let has = |(_, line): (usize, &str)| {
            let code = code_of(line);
            code.contains("unsafe {")
                || code.contains("unsafe fn")
                || code.contains("unsafe impl")
                || code.contains("allow(unsafe_code")
        };
        assert!(fenced || !production(&text).any(has), "{}: unsafe outside engine/uring", path.display());
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (path, text) in sources() {
        let first = text.lines().next().unwrap_or_default();
        assert!(is_test_file(&path) || first.starts_with("//!"), "{}: the first line is no module doc", path.display());
    }
}

/// A test file does not need a private name for where it runs, and no text may tell of the machine it was written on.
#[test]
fn no_text_names_a_private_path() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = sources();
    for dir in ["tests/it", "benches", "docs", "systemd"] {
        for extension in ["rs", "md", "service", "conf"] {
            collect(&root.join(dir), extension, &mut texts);
        }
    }
    let private = ["/wo", "/ho"].map(|p| format!("{p}{}/", if p == "/wo" { "rk" } else { "me" }));
    for (path, text) in texts {
        for word in &private {
            assert!(!text.contains(word), "{} names {word}", path.display());
        }
    }
}

/// What is counted is shown, and what is shown is counted: each cell is bumped and each metric used outside its declaration.
#[test]
fn every_metric_is_bumped() {
    let declared = |text: &str, before: &str, after: &[&str]| -> Vec<String> {
        let names = production(text).filter_map(|(_, line)| {
            let (name, rest) = line.trim().strip_prefix(before)?.split_once(": ")?;
            after.iter().any(|kind| rest.starts_with(kind)).then(|| name.to_owned())
        });
        names.collect()
    };
    let all = sources();
    let (own, others): (Vec<_>, Vec<_>) = all.iter().partition(|(path, _)| module_of(path) == "metrics");
    let front = own.iter().find(|(path, _)| path.ends_with("metrics.rs")).expect("src/metrics.rs");
    let outside: String = others
        .iter()
        .filter(|(path, _)| !is_test_file(path))
        .flat_map(|(_, text)| production(text).map(|(_, line)| format!("{}\n", code_of(line))))
        .collect();
    let inside: String = production(&front.1).map(|(_, line)| format!("{}\n", code_of(line))).collect();

    let cells = declared(&front.1, "pub ", &["Counter", "Level", "Row<", "Histogram"]);
    assert!(cells.len() >= 10, "the cells are declared in another way: {cells:?}");
    // Those of the daemon have methods of their own in metrics.rs.
    for cell in &cells {
        let bumped = [".inc()", ".add(", ".rise()", ".observe("].iter().any(|bump| {
            let uses = |text: &str| text.lines().any(|l| l.contains(&format!(".{cell}")) && l.contains(bump));
            uses(&outside) || uses(&inside)
        }) || outside.contains(&format!(".{cell}.at("));
        assert!(bumped, "nobody bumps the cell {cell}");
    }
    let metrics = declared(&front.1, "pub static ", &["Metric"]);
    assert!(metrics.len() >= 30, "the metrics are declared in another way: {metrics:?}");
    for metric in metrics.iter().filter(|name| *name != "METRICS") {
        let listed = inside.contains(&format!("    &{metric},\n"));
        let shown = inside.contains(&format!("(&{metric},")) || outside.contains(&format!("metrics::{metric},"));
        assert!(listed && shown, "{metric}: in METRICS: {listed}, shown: {shown}");
    }
}

#[test]
fn links_of_the_documentation_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    collect(&root.join("docs"), "md", &mut texts);
    for name in ["README.md", "CHANGELOG.md"] {
        if let Ok(text) = std::fs::read_to_string(root.join(name)) {
            texts.push((root.join(name), text));
        }
    }
    let mut faults = Vec::new();
    for (path, text) in texts {
        for part in text.split("](").skip(1) {
            let link = part.split([')', '#', ' ']).next().unwrap_or_default();
            if link.is_empty() || link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            if !path.parent().expect("a folder").join(link).exists() {
                faults.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

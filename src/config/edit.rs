//! Changes of the configuration file's text that leave comments, order and everything else as they are. Pure.

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, Value};

use super::schema::{SECTIONS, Section};
use crate::error::{Error, Result};

/// The file's text while it is changed.
///
/// A row is a table of a repeated section, named by the first key of the section's schema: `[[datastore]]` by `name`, others by `id`. Which
/// keys there are and what they take is checked afterwards, when the whole text is read again.
#[derive(Clone, Debug)]
pub struct Draft {
    document: DocumentMut,
}

impl Draft {
    /// Begins with a text that was read before.
    pub fn new(text: &str) -> Result<Self> {
        let document =
            text.parse().map_err(|e: toml_edit::TomlError| Error::invalid(e.message().replace('\n', ", ")))?;
        Ok(Self { document })
    }

    /// The text as it is now.
    pub fn text(&self) -> String {
        self.document.to_string()
    }

    /// Whether there is a row of that name.
    pub fn has(&self, section: &str, id: &str) -> bool {
        self.rows(section).is_some_and(|rows| rows.iter().any(|row| is_named(row, section, id)))
    }

    /// Adds a row at the end of its section.
    ///
    /// Errors: `Invalid` if there is one of that name.
    pub fn add(&mut self, section: &str, id: &str) -> Result<()> {
        if self.has(section, id) {
            return Err(Error::invalid(format!("{section} '{id}' already exists.")));
        }
        let entry = self.document.entry(section).or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        // `datastore = []` is an empty section too, and cannot take a [[datastore]].
        if entry.as_array().is_some_and(|rows| rows.is_empty()) {
            *entry = Item::ArrayOfTables(ArrayOfTables::new());
        }
        let rows = entry.as_array_of_tables_mut().ok_or_else(|| written(section))?;
        let mut row = Table::new();
        row.decor_mut().set_prefix("\n");
        row.insert(id_key(section), toml_edit::value(id));
        rows.push(row);
        Ok(())
    }

    /// Removes a row with everything in it.
    ///
    /// Errors: `NotFound` if there is none of that name.
    pub fn remove(&mut self, section: &str, id: &str) -> Result<()> {
        let absent = || no_such(section, id);
        let rows = self.document.get_mut(section).and_then(Item::as_array_of_tables_mut).ok_or_else(absent)?;
        let at = rows.iter().position(|row| is_named(row, section, id)).ok_or_else(absent)?;
        rows.remove(at);
        if rows.is_empty() {
            self.document.remove(section);
        }
        Ok(())
    }

    /// Removes every row of any section whose `key` has this value (jobs of a datastore); which they were.
    pub fn remove_where(&mut self, key: &str, value: &str) -> Vec<(&'static str, String)> {
        let mut removed = Vec::new();
        for section in SECTIONS.iter().filter(|section| section.repeated && section.key(key).is_some()) {
            let Some(rows) = self.document.get_mut(section.name).and_then(Item::as_array_of_tables_mut) else {
                continue;
            };
            rows.retain(|row| {
                let goes = row.get(key).and_then(Item::as_str) == Some(value);
                if goes {
                    let id = row.get(section.id_key()).and_then(Item::as_str).unwrap_or_default();
                    removed.push((section.name, id.to_owned()));
                }
                !goes
            });
            if rows.is_empty() {
                self.document.remove(section.name);
            }
        }
        removed
    }

    /// Sets a key of a row. A dot in `key` stands for a table inside: `checks.finish`.
    ///
    /// Errors: `NotFound` if there is no such row, `Invalid` if the file has something else where the table should be.
    pub fn set(&mut self, section: &str, id: &str, key: &str, value: impl Into<Value>) -> Result<()> {
        set_in(self.row_mut(section, id)?, key, value.into())
    }

    /// Removes a key of a row, so that it has its default again; fine if it is not there.
    ///
    /// Errors: `NotFound` if there is no such row.
    pub fn unset(&mut self, section: &str, id: &str, key: &str) -> Result<()> {
        unset_in(self.row_mut(section, id)?, key);
        Ok(())
    }

    /// Sets a key of a section that is there once: `[server]`.
    pub fn set_single(&mut self, section: &str, key: &str, value: impl Into<Value>) -> Result<()> {
        let table = self.document.entry(section).or_insert(Item::Table(Table::new()));
        set_in(table.as_table_mut().ok_or_else(|| written(section))?, key, value.into())
    }

    /// Removes a key of such a section; fine if it is not there.
    pub fn unset_single(&mut self, section: &str, key: &str) {
        if let Some(table) = self.document.get_mut(section).and_then(Item::as_table_mut) {
            unset_in(table, key);
        }
    }

    fn rows(&self, section: &str) -> Option<&ArrayOfTables> {
        self.document.get(section)?.as_array_of_tables()
    }

    fn row_mut(&mut self, section: &str, id: &str) -> Result<&mut Table> {
        let rows = self.document.get_mut(section).and_then(Item::as_array_of_tables_mut);
        let row = rows.and_then(|rows| rows.iter_mut().find(|row| is_named(row, section, id)));
        row.ok_or_else(|| no_such(section, id))
    }
}

fn no_such(section: &str, id: &str) -> Error {
    Error::not_found(format!("no such {section} '{id}'"))
}

/// The file has another form than can be edited, for example rows in one line.
fn written(section: &str) -> Error {
    let header =
        SECTIONS.iter().find(|known| known.name == section).map_or_else(|| section.to_owned(), Section::header);
    Error::invalid(format!(
        "write the section {header} of the configuration file with its header in a line of its own first"
    ))
}

fn id_key(section: &str) -> &'static str {
    SECTIONS.iter().find(|known| known.name == section).map_or("id", Section::id_key)
}

fn is_named(row: &Table, section: &str, id: &str) -> bool {
    row.get(id_key(section)).and_then(Item::as_str) == Some(id)
}

/// Sets `a.b` in whatever form `a` has: `a.b = …`, `a = { b = … }`, `[a]`. A comment behind the old value stays.
fn set_in(table: &mut Table, key: &str, mut value: Value) -> Result<()> {
    let Some((first, rest)) = key.split_once('.') else {
        match table.get_mut(key).and_then(Item::as_value_mut) {
            Some(old) => {
                *value.decor_mut() = old.decor().clone();
                *old = value;
            }
            None => drop(table.insert(key, Item::Value(value))),
        }
        return Ok(());
    };
    let inside = table.entry(first).or_insert_with(|| {
        let mut dotted = Table::new();
        dotted.set_dotted(true);
        Item::Table(dotted)
    });
    match inside {
        Item::Table(inside) => set_in(inside, rest, value),
        Item::Value(Value::InlineTable(inside)) => {
            inside.insert(rest, value);
            Ok(())
        }
        _ => Err(Error::invalid(format!("{first:?} is not a table"))),
    }
}

fn unset_in(table: &mut Table, key: &str) {
    let Some((first, rest)) = key.split_once('.') else {
        table.remove(key);
        return;
    };
    let empty = match table.get_mut(first) {
        Some(Item::Table(inside)) => {
            unset_in(inside, rest);
            inside.is_empty()
        }
        Some(Item::Value(Value::InlineTable(inside))) => {
            inside.remove(rest);
            inside.is_empty()
        }
        _ => false,
    };
    if empty {
        table.remove(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# Mine.

[server]
listen = \"127.0.0.1:8007\" # the LAN comes later

# The first.
[[datastore]]
name = \"one\" # a name
path = \"/one\"
checks = { append = false } # slow disk
# workers = 64

[tasks]
dir = \"t\"

[[datastore]] # second
path = \"/two\"
name = \"two\"
[datastore.checks]
finish = false
";

    fn edited(change: impl FnOnce(&mut Draft) -> Result<()>) -> String {
        let mut draft = Draft::new(FILE).unwrap();
        change(&mut draft).unwrap();
        draft.text()
    }

    #[test]
    fn only_what_was_asked_for_changes() {
        assert_eq!(edited(|_| Ok(())), FILE);
        for (what, change, from, to) in [
            (
                "a value, its comment stays",
                edited(|d| d.set("datastore", "one", "name", "uno")),
                "\"one\" #",
                "\"uno\" #",
            ),
            (
                "a new key",
                edited(|d| d.set("datastore", "two", "comment", "a \"b\"")),
                "name = \"two\"\n",
                "name = \"two\"\ncomment = 'a \"b\"'\n",
            ),
            (
                "in an inline table",
                edited(|d| d.set("datastore", "one", "checks.append", true)),
                "append = false",
                "append = true",
            ),
            (
                "beside it",
                edited(|d| d.set("datastore", "one", "checks.finish", false)),
                "{ append = false }",
                "{ append = false , finish = false }",
            ),
            (
                "in a table of its own",
                edited(|d| d.set("datastore", "two", "checks.finish", true)),
                "finish = false",
                "finish = true",
            ),
            (
                "the last of an inline table goes with it",
                edited(|d| d.unset("datastore", "one", "checks.append")),
                "checks = { append = false } # slow disk\n",
                "",
            ),
            (
                "a single section",
                edited(|d| d.set_single("server", "listen", "[::]:8007")),
                "\"127.0.0.1:8007\" #",
                "\"[::]:8007\" #",
            ),
            (
                "a number",
                edited(|d| d.set("datastore", "one", "workers", 7)),
                "# slow disk\n",
                "# slow disk\nworkers = 7\n",
            ),
            (
                "a row",
                edited(|d| d.remove("datastore", "one")),
                "\n# The first.\n[[datastore]]\nname = \"one\" # a name\npath = \"/one\"\nchecks = { append = false } # slow disk\n",
                "",
            ),
        ] {
            assert_eq!(change, FILE.replacen(from, to, 1), "{what}");
        }
    }

    #[test]
    fn rows_are_added_at_the_end() {
        let text = edited(|d| {
            d.add("datastore", "three")?;
            d.set("datastore", "three", "path", "/three")?;
            d.set("datastore", "three", "checks.finish", false)
        });
        assert_eq!(
            text,
            format!("{FILE}\n[[datastore]]\nname = \"three\"\npath = \"/three\"\nchecks.finish = false\n")
        );
        let mut draft = Draft::new("").unwrap();
        draft.add("datastore", "one").unwrap();
        assert_eq!(draft.text(), "\n[[datastore]]\nname = \"one\"\n");
        draft.remove("datastore", "one").unwrap();
        assert_eq!(draft.text(), "");
    }

    #[test]
    fn rows_with_a_value_go_together() {
        let mut draft = Draft::new(FILE).unwrap();
        assert_eq!(draft.remove_where("path", "/nowhere"), []);
        assert_eq!(draft.remove_where("path", "/two"), [("datastore", "two".to_owned())]);
        assert!(draft.has("datastore", "one") && !draft.has("datastore", "two"));
        assert_eq!(draft.remove_where("nonsense", "/one"), []);
        assert_eq!(draft.remove_where("path", "/one"), [("datastore", "one".to_owned())]);
        assert!(!draft.text().contains("[[datastore]]"), "{}", draft.text());
    }

    #[test]
    fn what_is_not_there_is_told() {
        let mut draft = Draft::new(FILE).unwrap();
        assert!(draft.has("datastore", "two") && !draft.has("datastore", "three"));
        assert_eq!(draft.add("datastore", "two").unwrap_err().to_string(), "datastore 'two' already exists.");
        for error in [
            draft.remove("datastore", "three").unwrap_err(),
            draft.set("datastore", "three", "path", "x").unwrap_err(),
            draft.unset("datastore", "three", "path").unwrap_err(),
        ] {
            assert_eq!(
                (error.kind(), error.to_string()),
                (crate::error::Kind::NotFound, "no such datastore 'three'".into())
            );
        }
        draft.unset("datastore", "two", "comment").unwrap();
        draft.unset("datastore", "two", "checks.append").unwrap();
        draft.unset_single("nothing", "x");
        assert_eq!(draft.text(), FILE);
    }
}

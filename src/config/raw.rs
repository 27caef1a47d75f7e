//! Text → checked tables that remember where each value stands. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::schema::{Effect, Key, Kind, SECTIONS, Section};

/// A value of its key's kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Text(String),
    Boolean(bool),
    Integer(i64),
}

/// One table of the file, defaults filled in.
#[derive(Clone, Debug)]
pub(super) struct RawSection {
    section: &'static Section,
    values: BTreeMap<&'static str, (Scalar, Range<usize>)>,
}

/// What the file says.
#[derive(Clone, Debug)]
pub(super) struct RawConfig<'a> {
    source: Source<'a>,
    sections: BTreeMap<&'static str, Vec<RawSection>>,
}

/// The file's text, to say where something is wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub text: &'a str,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong, and what is expected.
    pub message: String,
}

impl Source<'_> {
    /// Something wrong at this place.
    pub(super) fn problem(&self, at: &Range<usize>, what: impl std::fmt::Display) -> Problem {
        let before = self.text.get(..at.start).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Problem { line, column, message: what.to_string() }
    }
}

impl<'a> RawConfig<'a> {
    /// Reads as much as can be read. Everything that is wrong is added to `problems`; `None` if the text is no TOML.
    pub(super) fn parse(source: Source<'a>, problems: &mut Vec<Problem>) -> Option<Self> {
        let document = match DeTable::parse(source.text) {
            Ok(document) => document,
            Err(e) => {
                problems.push(source.problem(&e.span().unwrap_or(0..0), e.message().replace('\n', ", ")));
                return None;
            }
        };
        let mut sections: BTreeMap<&'static str, Vec<RawSection>> = BTreeMap::new();
        for (name, value) in document.get_ref() {
            let Some(section) = SECTIONS.iter().find(|section| section.name == name.get_ref()) else {
                let known = SECTIONS.iter().map(|section| section.name);
                problems.push(source.problem(&name.span(), unknown("section", name.get_ref(), "", known)));
                continue;
            };
            let tables: Option<Vec<&DeTable<'_>>> = match value.get_ref() {
                DeValue::Table(table) if !section.repeated => Some(vec![table]),
                DeValue::Array(rows) if section.repeated => rows.iter().map(|row| row.get_ref().as_table()).collect(),
                _ => None,
            };
            let Some(tables) = tables else {
                let form = format!("{:?} is written {}", section.name, section.header());
                problems.push(source.problem(&name.span(), form));
                continue;
            };
            let read: &mut Vec<RawSection> = sections.entry(section.name).or_default();
            for table in tables {
                let row = RawSection::read(section, table, &name.span(), source, problems);
                if let Some(id) = row.id().filter(|id| read.iter().any(|other| other.id() == Some(*id))) {
                    let text = format!("there are two {}s {id:?}", section.name);
                    problems.push(source.problem(&row.span(section.id_key()), text));
                }
                read.push(row);
            }
        }
        for section in SECTIONS.iter().filter(|section| !section.repeated) {
            let missing = sections.entry(section.name).or_default();
            if missing.is_empty() {
                missing.push(RawSection::read(section, &DeTable::default(), &(0..0), source, problems));
            }
        }
        Some(Self { source, sections })
    }

    pub(super) fn source(&self) -> Source<'a> {
        self.source
    }

    /// The one table of a section that is not repeated.
    pub(super) fn section(&self, name: &str) -> &RawSection {
        &self.sections[name][0]
    }

    /// All tables of a section.
    pub(super) fn sections(&self, name: &str) -> &[RawSection] {
        self.sections.get(name).map_or(&[], Vec::as_slice)
    }
}

impl RawSection {
    fn read(
        section: &'static Section,
        table: &DeTable<'_>,
        at: &Range<usize>,
        source: Source<'_>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut values = BTreeMap::new();
        let (mut given, mut wrong) = (Vec::new(), BTreeSet::new());
        flatten("", table, &mut given);
        for (name, name_span, value) in given {
            let Some(key) = section.key(&name) else {
                let known = section.keys.iter().map(|key| key.name);
                let place = format!(" in {}", section.header());
                problems.push(source.problem(&name_span, unknown("key", &name, &place, known)));
                continue;
            };
            match scalar(key, value.get_ref()) {
                Ok(scalar) => drop(values.insert(key.name, (scalar, value.span()))),
                Err(got) => {
                    let text = format!("{:?} is {got}, {} is expected", key.name, key.kind.describe());
                    problems.push(source.problem(&value.span(), text));
                    wrong.insert(key.name);
                }
            }
        }
        for key in section.keys {
            if values.contains_key(key.name) {
                continue;
            }
            if key.required && !wrong.contains(key.name) {
                problems.push(source.problem(at, format!("{} lacks the key {:?}", section.header(), key.name)));
            }
            if !key.default.is_empty() {
                let default = DeValue::parse(key.default).expect("a test parses every default");
                values.insert(key.name, (scalar(key, default.get_ref()).expect("likewise"), at.clone()));
            }
        }
        Self { section, values }
    }

    /// Whether every required key is there. What is not has been told.
    pub(super) fn is_whole(&self) -> bool {
        self.section.keys.iter().all(|key| !key.required || self.values.contains_key(key.name))
    }

    /// Whether a section without this key is refused.
    pub(super) fn requires(&self, key: &str) -> bool {
        self.section.key(key).is_some_and(|key| key.required)
    }

    /// What names a row of a repeated section.
    pub(super) fn id(&self) -> Option<&str> {
        if self.section.repeated { self.text(self.section.id_key()) } else { None }
    }

    /// A text, path, address or word; `None` if it was left out and has no default.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key)? {
            (Scalar::Text(text), _) => Some(text),
            _ => None,
        }
    }

    pub(super) fn boolean(&self, key: &str) -> bool {
        matches!(self.values.get(key), Some((Scalar::Boolean(true), _)))
    }

    /// A number of the key's range, which fits the type that the caller wants.
    pub(super) fn integer<T: TryFrom<i64> + Default>(&self, key: &str) -> T {
        match self.values.get(key) {
            Some((Scalar::Integer(n), _)) => T::try_from(*n).unwrap_or_default(),
            _ => T::default(),
        }
    }

    /// A number that may be left out.
    pub(super) fn integer_opt<T: TryFrom<i64>>(&self, key: &str) -> Option<T> {
        match self.values.get(key)? {
            (Scalar::Integer(n), _) => T::try_from(*n).ok(),
            _ => None,
        }
    }

    /// Where a value stands, to say what is wrong with it.
    pub(super) fn span(&self, key: &str) -> Range<usize> {
        self.values.get(key).map_or(0..0, |(_, span)| span.clone())
    }
}

/// Which keys say something else in `new` than in `old` and take effect only at the next start. Both were read before.
pub(super) fn restart_needed(old: &str, new: &str) -> Vec<String> {
    let read = |text| RawConfig::parse(Source { text }, &mut Vec::new());
    let (Some(old), Some(new)) = (read(old), read(new)) else { return Vec::new() };
    let mut notes = Vec::new();
    for section in SECTIONS.iter().filter(|section| !section.repeated) {
        for key in section.keys.iter().filter(|key| key.effect == Effect::Start) {
            let value =
                |raw: &RawConfig<'_>| raw.section(section.name).values.get(key.name).map(|(value, _)| value.clone());
            if value(&old) != value(&new) {
                notes.push(format!("{} of {} takes effect at the next start", key.name, section.header()));
            }
        }
    }
    notes
}

/// Tables inside become dotted names: `checks = { append = true }` is `checks.append = true`.
fn flatten<'t, 'i>(
    prefix: &str,
    table: &'t DeTable<'i>,
    into: &mut Vec<(String, Range<usize>, &'t Spanned<DeValue<'i>>)>,
) {
    for (name, value) in table {
        let full = format!("{prefix}{}", name.get_ref());
        match value.get_ref() {
            DeValue::Table(inside) if !inside.is_empty() => flatten(&format!("{full}."), inside, into),
            _ => into.push((full, name.span(), value)),
        }
    }
}

fn scalar(key: &Key, value: &DeValue<'_>) -> Result<Scalar, String> {
    let got = || match value.type_str() {
        name @ ("integer" | "array") => format!("an {name}"),
        name => format!("a {name}"),
    };
    match (key.kind, value) {
        (Kind::Text | Kind::Path | Kind::Address, DeValue::String(text)) => Ok(Scalar::Text(text.to_string())),
        (Kind::Words(words), DeValue::String(text)) if words.contains(&text.as_ref()) => {
            Ok(Scalar::Text(text.to_string()))
        }
        (Kind::Words(_), DeValue::String(text)) => Err(format!("{text:.80?}")),
        (Kind::Boolean, DeValue::Boolean(b)) => Ok(Scalar::Boolean(*b)),
        (Kind::Integer(min, max), DeValue::Integer(digits)) => {
            let number = i64::from_str_radix(digits.as_str(), digits.radix()).map_err(|_| digits.to_string())?;
            if (min..=max).contains(&number) { Ok(Scalar::Integer(number)) } else { Err(number.to_string()) }
        }
        _ => Err(got()),
    }
}

/// What to say of a `name` that is none of `known`: the nearest, or all of them.
pub(crate) fn unknown(
    what: &str,
    name: &str,
    place: &str,
    known: impl Iterator<Item = &'static str> + Clone,
) -> String {
    // Half of the letters may be wrong; further away is another word.
    let near = known.clone().map(|k| (distance(name, k), k)).min().filter(|(far, k)| *far * 2 <= k.len());
    match near {
        Some((_, nearest)) => format!("unknown {what} {name:.80?}{place}: did you mean {nearest:?}?"),
        None => format!("unknown {what} {name:.80?}{place}: known are {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// Levenshtein's: how many letters to insert, delete or change.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(100).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

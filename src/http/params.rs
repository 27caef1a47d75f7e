//! One schema language for the parameters of REST calls and of both protocols. Pure.
//!
//! A handler declares a table of [`ParamSpec`]s; [`check`] turns what a request carries (path, query, form or JSON)
//! into [`Params`], or says everything that is wrong with it at once. The texts are those of the recordings
//! (golden/traces 12b, 12h, 12i, 12k): clients and log watchers know them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::types;

mod source;

pub use source::{Input, JSON_BYTES_MAX, Received};

/// One parameter of one call.
#[derive(Clone, Copy, Debug)]
pub struct ParamSpec {
    /// As on the wire: `backup-id`.
    pub name: &'static str,
    /// What values it takes.
    pub kind: ParamKind,
    /// Whether a request without it is refused.
    pub required: bool,
    /// What stands for it where it is left out, for descriptions; `None` where nothing does.
    pub default: Option<&'static str>,
    /// One line for people.
    pub description: &'static str,
}

impl ParamSpec {
    /// A parameter that every request must carry.
    pub const fn required(name: &'static str, kind: ParamKind, description: &'static str) -> Self {
        Self { name, kind, required: true, default: None, description }
    }

    /// A parameter that may be left out.
    pub const fn optional(name: &'static str, kind: ParamKind, description: &'static str) -> Self {
        Self { name, kind, required: false, default: None, description }
    }

    /// Says what an optional parameter counts as when it is left out. The handler sees to it that this is so.
    pub const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }
}

/// What values a parameter takes.
#[derive(Clone, Copy)]
pub enum ParamKind {
    /// Text of `min..=max` characters that `matches`.
    Text {
        /// The grammar for descriptions, a regular expression of ECMA 262; empty for any text.
        pattern: &'static str,
        /// Fewest characters.
        min: usize,
        /// Most characters.
        max: usize,
        /// The grammar.
        matches: fn(&str) -> bool,
    },
    /// A decimal number.
    Integer {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// `1|on|yes|true` or `0|off|no|false` in any case; in JSON `true` or `false`.
    Boolean,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// Any number of values of one kind: a repeated key, or a JSON array.
    List(&'static ParamKind),
}

impl fmt::Debug for ParamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { min, max, .. } => write!(f, "Text({min}..={max})"),
            Self::Integer { min, max } => write!(f, "Integer({min}..={max})"),
            Self::Boolean => f.write_str("Boolean"),
            Self::Enum(words) => write!(f, "Enum({words:?})"),
            Self::List(kind) => write!(f, "List({kind:?})"),
        }
    }
}

/// The longest free text, for kinds without a grammar of their own: more than a request may carry.
const TEXT_CHARS_MAX: usize = 1 << 20;

/// [`types::is_safe_id`] as a regular expression.
pub const SAFE_ID_PATTERN: &str = r"^[A-Za-z0-9_][A-Za-z0-9._\-]*$";

impl ParamKind {
    /// Any text.
    pub const ANY_TEXT: Self = Self::Text { pattern: "", min: 0, max: TEXT_CHARS_MAX, matches: |_| true };
    /// One line: `min..=max` characters, none of them a control character.
    pub const fn line(min: usize, max: usize) -> Self {
        Self::Text { pattern: r"^[^\x00-\x1f\x7f-\x9f]*$", min, max, matches: |s| !s.chars().any(char::is_control) }
    }
    /// A safe id (spec 01 §1): archive names, file names, backup ids. Each is a file's name, so no longer than one may be.
    pub const SAFE_ID: Self =
        Self::Text { pattern: SAFE_ID_PATTERN, min: 0, max: types::NAME_BYTES_MAX, matches: types::is_safe_id };
    /// Name of a datastore.
    pub const DATASTORE: Self = Self::Text { pattern: SAFE_ID_PATTERN, min: 3, max: 32, matches: types::is_safe_id };
    /// `vm`, `ct` or `host`.
    pub const BACKUP_TYPE: Self = Self::Enum(&["vm", "ct", "host"]);
    /// Seconds since the epoch, from 1 to the day before the last of the year 9999: what has a name in a datastore.
    pub const BACKUP_TIME: Self = Self::Integer { min: 1, max: 253_402_207_200 };
    /// The name of a task: 36 characters and a pattern as the original has them; the longest names of ours have some thousands.
    pub const UPID: Self = Self::Text {
        pattern: r"^UPID:([a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?):([0-9A-Fa-f]{8}):([0-9A-Fa-f]{8,9}):([0-9A-Fa-f]{8,16}):([0-9A-Fa-f]{8}):([^:\s]+):([^:\s]*):([^:\s]+):$",
        min: 36,
        max: 4096,
        matches: |text| types::Upid::from_str(text).is_ok(),
    };
    /// A namespace, the empty text for the root.
    pub const NAMESPACE: Self = Self::Text {
        pattern: r"^([A-Za-z0-9_][A-Za-z0-9._\-]*(/[A-Za-z0-9_][A-Za-z0-9._\-]*){0,6})?$",
        min: 0,
        max: 256,
        matches: |s| types::Namespace::from_str(s).is_ok(),
    };
    /// 64 lower-case hex digits.
    pub const DIGEST: Self = Self::Text {
        pattern: "^[0-9a-f]{64}$",
        min: 0,
        max: TEXT_CHARS_MAX,
        matches: |s| types::Digest::from_str(s).is_ok(),
    };
}

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Int(i64),
    Bool(bool),
    List(Vec<Value>),
}

/// The checked parameters of a request: every required one is there, each is of its kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    values: BTreeMap<&'static str, Value>,
}

impl Params {
    /// Whether a parameter was given.
    pub fn is_given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// A text or enum parameter, if given.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An integer parameter, if given.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.values.get(name)? {
            Value::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// An integer parameter that is not negative, if given.
    pub fn uint(&self, name: &str) -> Option<u64> {
        self.int(name).and_then(|n| u64::try_from(n).ok())
    }

    /// A boolean parameter, if given.
    pub fn bool(&self, name: &str) -> Option<bool> {
        match self.values.get(name)? {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The texts of a list parameter; empty if it was not given.
    pub fn texts(&self, name: &str) -> impl ExactSizeIterator<Item = &str> {
        self.list(name).iter().map(|v| match v {
            Value::Text(text) => text.as_str(),
            _ => "",
        })
    }

    /// The numbers of a list parameter that are not negative; empty if it was not given.
    pub fn uints(&self, name: &str) -> impl ExactSizeIterator<Item = u64> {
        self.list(name).iter().map(|v| match v {
            Value::Int(n) => u64::try_from(*n).unwrap_or(0),
            _ => 0,
        })
    }

    fn list(&self, name: &str) -> &[Value] {
        match self.values.get(name) {
            Some(Value::List(items)) => items,
            _ => &[],
        }
    }

    /// A text or integer parameter as one of the crate's nouns; an error if it was not given.
    pub fn parsed<T: FromStr<Err = Error>>(&self, name: &str) -> Result<T> {
        self.parsed_opt(name)?.ok_or_else(|| ParamErrors::one(name, MISSING).into())
    }

    /// A text parameter as one of the crate's nouns, `None` if it was not given.
    ///
    /// The grammar of the noun may be narrower than that of the schema: then the noun's own words are the reason.
    pub fn parsed_opt<T: FromStr<Err = Error>>(&self, name: &str) -> Result<Option<T>> {
        self.text(name)
            .map(|text| text.parse().map_err(|e: Error| ParamErrors::one(name, e.to_string()).into()))
            .transpose()
    }
}

/// What is wrong with the parameters of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamErrors {
    /// Wrong parameters, each with its reason, sorted by name.
    Wrong(BTreeMap<String, String>),
    /// The parameters could not be read at all.
    Unreadable(String),
}

impl ParamErrors {
    /// One wrong parameter.
    pub fn one(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Wrong(BTreeMap::from([(name.into(), reason.into())]))
    }
}

impl fmt::Display for ParamErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(text) => f.write_str(text),
            Self::Wrong(list) => {
                f.write_str("parameter verification failed")?;
                if let (1, Some((name, reason))) = (list.len(), list.first_key_value()) {
                    return write!(f, " - '{name}': {reason}");
                }
                f.write_str(":")?;
                list.iter().try_for_each(|(name, reason)| write!(f, "\n- '{name}': {reason}"))
            }
        }
    }
}

impl std::error::Error for ParamErrors {}

impl From<ParamErrors> for Error {
    /// Keeps the names below the error, for the format that shows each by itself.
    fn from(errors: ParamErrors) -> Self {
        Self::invalid("").with_source(errors)
    }
}

const MISSING: &str = "parameter is missing and it is not optional.";
const UNKNOWN: &str = "schema does not allow additional properties.";
const DUPLICATE: &str = "duplicate parameter.";

/// Checks everything that a request carries against the table of its call; all that is wrong is told at once.
pub fn check(specs: &[ParamSpec], received: Received) -> Result<Params, ParamErrors> {
    let mut params = Params::default();
    let mut wrong = BTreeMap::new();
    // JSON bodies get their own words for the same two mistakes; watchers of the original know both.
    let (missing, unknown) = match received.is_json {
        true => ("property is missing and it is not optional", UNKNOWN.trim_end_matches('.')),
        false => (MISSING, UNKNOWN),
    };
    for (name, input) in received.pairs {
        let Some(spec) = specs.iter().find(|spec| spec.name == name) else {
            wrong.insert(shortened(&name), unknown.to_owned());
            continue;
        };
        if let Err((place, reason)) = add(&mut params, spec, input) {
            wrong.entry(format!("{name}{place}")).or_insert(reason);
        }
    }
    for spec in specs.iter().filter(|spec| spec.required) {
        let told = wrong.keys().any(|name| name == spec.name || name.starts_with(&format!("{}/[", spec.name)));
        if !params.values.contains_key(spec.name) && !told {
            wrong.insert(spec.name.to_owned(), missing.to_owned());
        }
    }
    if wrong.is_empty() { Ok(params) } else { Err(ParamErrors::Wrong(wrong)) }
}

/// Names that we do not know come from outside and go into the answer: not more of them than helps.
fn shortened(name: &str) -> String {
    const NAME_CHARS_MAX: usize = 100;
    match name.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Where inside the value, and why.
type Refusal = (String, String);

fn add(params: &mut Params, spec: &ParamSpec, input: Input) -> Result<(), Refusal> {
    let here = |reason: String| (String::new(), reason);
    if let ParamKind::List(kind) = spec.kind {
        let Value::List(list) = params.values.entry(spec.name).or_insert_with(|| Value::List(Vec::new())) else {
            return Ok(());
        };
        let items = match input {
            Input::Json(serde_json::Value::Array(items)) => items.into_iter().map(Input::Json).collect(),
            Input::Json(_) => return Err(here("an array is expected".to_owned())),
            text => vec![text],
        };
        list.reserve(items.len());
        for item in items {
            let place = list.len();
            list.push(value(kind, item).map_err(|reason| (format!("/[{place}]"), reason))?);
        }
        return Ok(());
    }
    if params.values.contains_key(spec.name) {
        return Err(here(DUPLICATE.to_owned()));
    }
    let value = value(&spec.kind, input).map_err(here)?;
    params.values.insert(spec.name, value);
    Ok(())
}

fn value(kind: &ParamKind, input: Input) -> Result<Value, String> {
    match kind {
        ParamKind::Text { min, max, matches, .. } => text(input).and_then(|text| {
            let chars = text.chars().count();
            if chars < *min {
                Err(format!("value must be at least {min} characters long"))
            } else if chars > *max {
                Err(format!("value may only be {max} characters long"))
            } else if !matches(&text) {
                Err("value does not match the regex pattern".to_owned())
            } else {
                Ok(Value::Text(text))
            }
        }),
        ParamKind::Integer { min, max } => integer(input).and_then(|n| {
            if n < *min {
                Err(format!("value must have a minimum value of {min} (got {n})"))
            } else if n > *max {
                Err(format!("value must have a maximum value of {max} (got {n})"))
            } else {
                Ok(Value::Int(n))
            }
        }),
        ParamKind::Boolean => boolean(&input).map(Value::Bool),
        ParamKind::Enum(words) => text(input).and_then(|text| match words.contains(&text.as_str()) {
            true => Ok(Value::Text(text)),
            false => Err(format!("value '{}' is not defined in the enumeration.", shortened(&text))),
        }),
        ParamKind::List(_) => Err("a list of lists is not a parameter".to_owned()),
    }
}

fn text(input: Input) -> Result<String, String> {
    match input {
        Input::Text(text) | Input::Json(serde_json::Value::String(text)) => Ok(text),
        Input::Json(_) => Err("a string is expected".to_owned()),
    }
}

fn integer(input: Input) -> Result<i64, String> {
    match input {
        Input::Text(text) => text.parse().map_err(|e: std::num::ParseIntError| e.to_string()),
        Input::Json(json) => json.as_i64().ok_or_else(|| "an integer is expected".to_owned()),
    }
}

fn boolean(input: &Input) -> Result<bool, String> {
    match input {
        Input::Text(text) => match text.to_ascii_lowercase().as_str() {
            "1" | "on" | "yes" | "true" => Ok(true),
            "0" | "off" | "no" | "false" => Ok(false),
            _ => Err("Unable to parse boolean option.".to_owned()),
        },
        Input::Json(json) => json.as_bool().ok_or_else(|| "a boolean is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests;

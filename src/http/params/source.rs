//! What a request carries, before it is checked: path, query, form body, JSON body. Pure.

use std::fmt;

use percent_encoding::percent_decode;
use serde::de::{MapAccess, Visitor};

use super::ParamErrors;

/// Longest JSON or form body: less than 512 KiB, as newer servers of this kind take (64 KiB is too little for an
/// append of 8192 digests).
pub const JSON_BYTES_MAX: usize = 512 * 1024 - 1;

/// One value as received.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// From a path, a query or a form.
    Text(String),
    /// From a JSON body.
    Json(serde_json::Value),
}

/// Everything that a request carries, in order, unchecked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Received {
    pub(super) pairs: Vec<(String, Input)>,
    pub(super) is_json: bool,
}

impl Received {
    /// Parameters of a path (already decoded) and of a query; what a streaming call takes, whatever its body is.
    pub fn from_query(path: &[(&str, &str)], query: &str) -> Result<Self, ParamErrors> {
        let mut received = Self::default();
        received.add_path(path);
        received.add_form(query.as_bytes())?;
        Ok(received)
    }

    /// Parameters of an ordinary call (spec 05 §1.2): a JSON body makes the query ignored, a form body adds to it.
    ///
    /// `content_type` is the header's text, `None` if there was none. An empty JSON body is an empty object.
    pub fn from_request(
        path: &[(&str, &str)],
        query: &str,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Self, ParamErrors> {
        let media_type = content_type.map_or("", |text| text.split(';').next().unwrap_or("").trim());
        let mut received = Self::default();
        received.add_path(path);
        if media_type.eq_ignore_ascii_case("application/json") {
            received.is_json = true;
            received.add_json(body)?;
        } else if media_type.is_empty() || media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            received.add_form(body)?;
            received.add_form(query.as_bytes())?;
        } else {
            // The odd form is the original's.
            return Err(ParamErrors::Unreadable(format!("unsupported content type Ok({media_type:.100?})")));
        }
        Ok(received)
    }

    fn add_path(&mut self, path: &[(&str, &str)]) {
        self.pairs.extend(path.iter().map(|(name, text)| ((*name).to_owned(), Input::Text((*text).to_owned()))));
    }

    fn add_form(&mut self, form: &[u8]) -> Result<(), ParamErrors> {
        for pair in form.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
            let equals = pair.iter().position(|b| *b == b'=');
            let (name, text) = equals.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
            let name = decoded(name).ok_or_else(|| ParamErrors::Unreadable("parameter name is not UTF-8".into()))?;
            let text = decoded(text).ok_or_else(|| ParamErrors::one(name.clone(), "value is not UTF-8"))?;
            // What scripts in browsers add to get past a cache.
            if name != "_dc" {
                self.pairs.push((name, Input::Text(text)));
            }
        }
        Ok(())
    }

    fn add_json(&mut self, body: &[u8]) -> Result<(), ParamErrors> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let object: Pairs = serde_json::from_slice(body).map_err(|e| ParamErrors::Unreadable(e.to_string()))?;
        // `null` is how some clients leave a parameter out.
        self.pairs.extend(object.0.into_iter().filter(|(_, v)| !v.is_null()).map(|(n, v)| (n, Input::Json(v))));
        Ok(())
    }
}

fn decoded(text: &[u8]) -> Option<String> {
    let spaced: Vec<u8> = text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    percent_decode(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// A JSON object that keeps a repeated key, so that it can be refused instead of the last one winning.
struct Pairs(Vec<(String, serde_json::Value)>);

impl<'de> serde::Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

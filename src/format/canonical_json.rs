//! JSON in the one spelling that is signed: keys sorted bytewise, no white space, no null (spec 02 §5). Pure.

use serde_json::Value;

use crate::error::{Error, Result};

/// `value` as it is signed. A null anywhere in it is an error: absent and null would sign alike elsewhere.
pub(super) fn to_string(value: &Value) -> Result<String> {
    let mut out = String::new();
    write(value, &mut out)?;
    Ok(out)
}

/// Recursion is as deep as the value, and no parser of this crate accepts more than 128 levels.
fn write(value: &Value, out: &mut String) -> Result<()> {
    match value {
        Value::Null => return Err(Error::invalid("a null value cannot be signed")),
        // Numbers, and strings with only the escapes that JSON asks for, as compact JSON has them.
        Value::Bool(_) | Value::Number(_) | Value::String(_) => out.push_str(&value.to_string()),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                separate(i, out);
                write(item, out)?;
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (i, key) in keys.into_iter().enumerate() {
                separate(i, out);
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(&map[key], out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn separate(i: usize, out: &mut String) {
    if i > 0 {
        out.push(',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sorted_dense_and_escaped_only_where_needed() {
        let value = json!({"b": [1, true, {"y": "ä\"\\\n\u{1}/"}], "a": -2, "B": {}, "ä": []});
        let text = r#"{"B":{},"a":-2,"b":[1,true,{"y":"ä\"\\\n\u0001/"}],"ä":[]}"#;
        assert_eq!(to_string(&value).unwrap(), text);
    }

    #[test]
    fn null_is_refused_wherever_it_stands() {
        for value in [json!(null), json!([null]), json!({"a": {"b": null}})] {
            assert!(to_string(&value).is_err(), "{value}");
        }
    }
}

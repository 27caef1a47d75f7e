//! What calls answer, as types for descriptions and tests. Pure.
//!
//! A row of the table says the shape of its result beside its parameters. docs/api.md and the OpenAPI description are made from it,
//! and foreign tools check our answers against them.

/// The shape of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// A string.
    Text,
    /// One of these strings.
    Enum(&'static [&'static str]),
    /// Anything.
    Any,
    /// An object of these fields and no others.
    Object(&'static [Field]),
    /// An object whose keys are data, each with a value of one shape.
    Map(&'static Shape),
    /// An array.
    Array(&'static Shape),
    /// The shape or `null`.
    Nullable(&'static Shape),
    /// One of these shapes, as the parameters ask for.
    OneOf(&'static [Shape]),
}

/// One field of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// As on the wire.
    pub name: &'static str,
    /// Of its value.
    pub shape: Shape,
    /// Whether the key may be missing.
    pub optional: bool,
    /// One line for people; empty where the name says it all.
    pub about: &'static str,
}

impl Field {
    /// A field that is always there.
    pub const fn new(name: &'static str, shape: Shape, about: &'static str) -> Self {
        Self { name, shape, optional: false, about }
    }

    /// A field that may be missing.
    pub const fn optional(name: &'static str, shape: Shape, about: &'static str) -> Self {
        Self { name, shape, optional: true, about }
    }
}

/// What a call answers when all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// `{"data": …}`.
    Data(Shape),
    /// `{"data": …}` with attributes beside it, such as `total` or `digest`.
    With(Shape, &'static [Field]),
    /// A JSON object of its own, without the usual dress.
    Own(Shape),
    /// The same, or a body of this content type where a parameter asks for that.
    OwnOr(Shape, &'static str),
    /// A body of this content type.
    Stream(&'static str),
    /// 101, and another protocol on the same connection.
    Upgrade,
}

impl Returns {
    /// `{"data": null}`.
    pub const NULL: Self = Self::Data(Shape::Null);
    /// `{"data": "UPID:…"}`: the name of the task that does it.
    pub const UPID: Self = Self::Data(Shape::Text);
}

impl Shape {
    /// Whether a value is of this shape; the path of the first part that is not, and why.
    pub fn check(&self, value: &serde_json::Value) -> Result<(), String> {
        self.check_at(value, "$")
    }

    fn check_at(&self, value: &serde_json::Value, at: &str) -> Result<(), String> {
        use serde_json::Value;
        let fits = |yes: bool| if yes { Ok(()) } else { Err(format!("{at}: {value} is not {self:?}")) };
        match (self, value) {
            (Self::Any, _) => Ok(()),
            (Self::Nullable(_), Value::Null) => Ok(()),
            (Self::Nullable(shape), _) => shape.check_at(value, at),
            (Self::OneOf(shapes), _) => fits(shapes.iter().any(|shape| shape.check_at(value, at).is_ok())),
            (Self::Null, _) => fits(value.is_null()),
            (Self::Boolean, _) => fits(value.is_boolean()),
            (Self::Integer, _) => fits(value.is_i64() || value.is_u64()),
            (Self::Number, _) => fits(value.is_number()),
            (Self::Text, _) => fits(value.is_string()),
            (Self::Enum(words), _) => fits(value.as_str().is_some_and(|word| words.contains(&word))),
            (Self::Array(shape), Value::Array(items)) => {
                items.iter().enumerate().try_for_each(|(i, item)| shape.check_at(item, &format!("{at}[{i}]")))
            }
            (Self::Map(shape), Value::Object(object)) => {
                object.iter().try_for_each(|(key, item)| shape.check_at(item, &format!("{at}.{key}")))
            }
            (Self::Object(fields), Value::Object(object)) => {
                for (key, item) in object {
                    let field = fields.iter().find(|field| field.name == key);
                    let field = field.ok_or_else(|| format!("{at}: field {key:?} is not described"))?;
                    field.shape.check_at(item, &format!("{at}.{key}"))?;
                }
                match fields.iter().find(|field| !field.optional && !object.contains_key(field.name)) {
                    Some(missing) => Err(format!("{at}: field {:?} is missing", missing.name)),
                    None => Ok(()),
                }
            }
            (Self::Array(_) | Self::Map(_) | Self::Object(_), _) => fits(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_fit_their_shape_or_the_first_misfit_is_named() {
        const ROW: Shape = Shape::Object(&[
            Field::new("id", Shape::Text, ""),
            Field::new("size", Shape::Nullable(&Shape::Integer), ""),
            Field::optional("mode", Shape::Enum(&["none", "encrypt"]), ""),
        ]);
        const ROWS: Shape = Shape::Array(&ROW);
        let good = json!([{"id": "a", "size": 1}, {"id": "b", "size": null, "mode": "none"}]);
        assert_eq!(ROWS.check(&good), Ok(()));
        for (bad, why) in [
            (json!({}), "$: {} is not"),
            (json!([{"size": 1}]), "$[0]: field \"id\" is missing"),
            (json!([{"id": "a", "size": 1.5}]), "$[0].size: 1.5 is not"),
            (json!([{"id": "a", "size": 1, "x": 0}]), "$[0]: field \"x\" is not described"),
            (json!([{"id": "a", "size": 1, "mode": "odd"}]), "$[0].mode: \"odd\" is not"),
        ] {
            let said = ROWS.check(&bad).unwrap_err();
            assert!(said.starts_with(why), "{said}");
        }
        assert_eq!(Shape::Map(&Shape::Boolean).check(&json!({"x": true})), Ok(()));
        assert!(Shape::Map(&Shape::Boolean).check(&json!({"x": 1})).is_err());
    }
}

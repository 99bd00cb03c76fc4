//! What a value must be for a strict type to take it. Servers write fields that only describe as they please: one that is odd costs itself,
//! and nothing that holds it.

use serde_json::{Map, Value};

/// The shape of a value.
#[derive(Debug)]
pub enum Shape {
    Text,
    Flag,
    /// A number without a fraction, from zero on.
    Whole,
    Number,
    /// Whatever its fields are.
    Object,
    OneOf(&'static [&'static str]),
    /// A list of texts; a text alone is one of one.
    Texts,
    /// A list, without what does not fit into it.
    List(&'static Shape),
    /// Fields of any name, without those that do not fit.
    Map(&'static Shape),
    /// Fields of these names, those that it needs among them; others are not looked at.
    Fields {
        needs: &'static [&'static str],
        all: &'static [(&'static str, Shape)],
    },
}

/// Pictures of whatever has some. The first releases of one SDK that has them write one size as a text.
pub const ICONS: Shape = Shape::List(&Shape::Fields {
    needs: &["src"],
    all: &[("src", Shape::Text), ("mimeType", Shape::Text), ("sizes", Shape::Texts), ("theme", Shape::OneOf(&["light", "dark"]))],
});

/// For whom something is.
pub const ANNOTATIONS: Shape = Shape::Fields {
    needs: &[],
    all: &[
        ("audience", Shape::List(&Shape::OneOf(&["user", "assistant"]))),
        ("priority", Shape::Number),
        ("lastModified", Shape::Text),
    ],
};

impl Shape {
    /// Makes a value fit by leaving out what does not; false where it cannot be made to. A field that is null is as good as none.
    pub fn fit(&self, value: &mut Value) -> bool {
        match (self, value) {
            (Self::Text, Value::String(_))
            | (Self::Flag, Value::Bool(_))
            | (Self::Number, Value::Number(_))
            | (Self::Object, Value::Object(_)) => true,
            (Self::Whole, value) => whole(value),
            (Self::OneOf(words), Value::String(word)) => words.contains(&word.as_str()),
            (Self::Texts, value @ Value::String(_)) => {
                let one = value.take();
                *value = vec![one].into();
                true
            }
            (Self::Texts, value) => Self::List(&Self::Text).fit(value),
            (Self::List(shape), Value::Array(items)) => {
                items.retain_mut(|item| shape.fit(item));
                true
            }
            (Self::Map(shape), Value::Object(fields)) => {
                fields.retain(|_, value| shape.fit(value));
                true
            }
            (Self::Fields { needs, all }, Value::Object(fields)) => {
                for (name, shape) in *all {
                    if fields.get_mut(*name).is_some_and(|value| !value.is_null() && !shape.fit(value)) {
                        fields.remove(*name);
                    }
                }
                needs.iter().all(|name| has(fields, name))
            }
            _ => false,
        }
    }
}

fn has(fields: &Map<String, Value>, name: &str) -> bool {
    fields.get(name).is_some_and(|value| !value.is_null())
}

/// 12.0 is 12.
fn whole(value: &mut Value) -> bool {
    if value.is_u64() {
        return true;
    }
    let Some(number) = value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..9e15).contains(number)) else {
        return false;
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole, and within the bounds")]
    let number = number as u64;
    *value = number.into();
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_of_what_holds_it() {
        let fit = |shape: &Shape, mut value: Value| shape.fit(&mut value).then_some(value);
        assert_eq!(
            fit(&ICONS, json!([{"src": "a", "sizes": "48x48"}, {"sizes": ["any"]}, "x", {"src": "b", "theme": 5, "own": 1}])),
            Some(json!([{"src": "a", "sizes": ["48x48"]}, {"src": "b", "own": 1}]))
        );
        assert_eq!(fit(&ICONS, json!({"src": "a"})), None);
        assert_eq!(
            fit(&ANNOTATIONS, json!({"audience": ["user", "dog"], "priority": "1", "lastModified": null, "own": 1})),
            Some(json!({"audience": ["user"], "lastModified": null, "own": 1}))
        );
        for (number, whole) in [(json!(12), Some(json!(12))), (json!(12.0), Some(json!(12))), (json!(1e300), None)] {
            assert_eq!(fit(&Shape::Whole, number), whole);
        }
        for odd in [json!(1.5), json!(-1), json!("5"), json!(true), json!(null)] {
            assert_eq!(fit(&Shape::Whole, odd), None);
        }
        assert_eq!(fit(&Shape::Map(&Shape::Object), json!({"a": {}, "b": true, "c": null})), Some(json!({"a": {}})));
    }
}

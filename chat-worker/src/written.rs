//! JSON objects as they were written, of which a few fields become others: what is not touched stays letter by letter, whether anybody
//! here knows it or not. Pure.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::{RawValue, to_raw_value};

/// Fields that a definition may have, of which null says nothing. Official clients refuse a whole list because of one such null.
const OPTIONAL: [&str; 10] =
    ["title", "description", "annotations", "outputSchema", "icons", "execution", "_meta", "mimeType", "size", "arguments"];
/// Those whose own fields are known here, too.
const KNOWN_WITHIN: [&str; 3] = ["annotations", "arguments", "icons"];

/// The fields of an object, in their order.
pub struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl<'a> Fields<'a> {
    pub fn read(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// A field as it was written.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.get())
    }

    /// Puts a value in the place of a field, or behind the others. One that cannot be written changes nothing.
    pub fn set(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) {
        let Ok(value) = to_raw_value(value) else { return };
        match self.0.iter_mut().find(|(field, _)| field == name) {
            Some((_, old)) => *old = Cow::Owned(value),
            None => self.0.push((name.into(), Cow::Owned(value))),
        }
    }

    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(field, _)| field != name);
    }

    /// Takes away each null that says nothing.
    pub fn spare(&mut self) {
        self.0.retain(|(field, value)| value.get() != "null" || !OPTIONAL.contains(&&**field));
        for (_, value) in self.0.iter_mut().filter(|(field, _)| KNOWN_WITHIN.contains(&&**field)) {
            if let Some(spared) = without_nulls(value.get()) {
                *value = Cow::Owned(spared);
            }
        }
    }

    /// The object again.
    pub fn written(&self) -> Box<RawValue> {
        // What was read can be written.
        to_raw_value(self).unwrap_or_default()
    }
}

/// An object, or a list of objects, without the nulls in them; `None` where there are none.
fn without_nulls(text: &str) -> Option<Box<RawValue>> {
    if !text.contains("null") {
        return None;
    }
    if text.starts_with('[') {
        let all: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        let spared = all.into_iter().map(|one| without_nulls(one.get()).map_or(Cow::Borrowed(one), Cow::Owned));
        return to_raw_value(&spared.collect::<Vec<Cow<'_, RawValue>>>()).ok();
    }
    let mut fields = Fields::read(text).ok()?;
    fields.0.retain(|(_, value)| value.get() != "null");
    Some(fields.written())
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl<'de> Visitor<'de> for Reads {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                #[derive(Deserialize)]
                struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
                let mut fields = Vec::new();
                while let Some((Name(name), value)) = map.next_entry::<_, &'de RawValue>()? {
                    fields.push((name, Cow::Borrowed(value)));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Reads)
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_stays_as_it_was_written() {
        let own = r#"{"name":"a","title":null,"x":null,"n":1.50e3,"annotations":{"b":null,"c":[null]},"icons":[{"src":"a","sizes":null}],"schema":{"default":null}}"#;
        let mut fields = Fields::read(own).expect("an object");
        fields.set("name", "s__a");
        fields.set("more", &[1]);
        fields.remove("none");
        fields.spare();
        let expected = r#"{"name":"s__a","x":null,"n":1.50e3,"annotations":{"c":[null]},"icons":[{"src":"a"}],"schema":{"default":null},"more":[1]}"#;
        assert_eq!(fields.written().get(), expected);
        assert_eq!(fields.get("n"), Some("1.50e3"));
        assert!(Fields::read("[1]").is_err());
    }
}

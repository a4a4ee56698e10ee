//! Reads a typed value out of a document tree with serde; an error keeps the place of the value it is about.

use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::document::{Entry, Mark, Node, Value};

/// What serde objects to, and where.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Error {
    /// The objection.
    pub message: String,
    /// The innermost value that was being read.
    pub mark: Option<Mark>,
}

impl Error {
    fn at(mut self, mark: &Mark) -> Self {
        self.mark.get_or_insert_with(|| mark.clone());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), mark: None }
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let result = match &self.value {
            Value::Table(entries) => visitor.visit_map(Entries { entries: entries.iter(), next: None }),
            Value::List(items) => visitor.visit_seq(Items(items.iter())),
            Value::String(text) | Value::Datetime(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(value) => visitor.visit_bool(*value),
        };
        result.map_err(|error| error.at(&self.mark))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let result = match &self.value {
            Value::String(name) => visitor.visit_enum(name.as_str().into_deserializer()),
            Value::Table(entries) => match entries.as_slice() {
                [only] => visitor.visit_enum(Choice(only)),
                _ => Err(de::Error::custom("exactly one choice is needed")),
            },
            other => Err(de::Error::custom(format!("expected a choice, found {}", other.kind()))),
        };
        result.map_err(|error| error.at(&self.mark))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, Entry>,
    next: Option<&'de Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next = self.entries.next();
        let Some(entry) = self.next else { return Ok(None) };
        let key = seed.deserialize(entry.key.as_str().into_deserializer());
        key.map(Some).map_err(|error: Error| error.at(&entry.key_mark))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.next.take() {
            Some(entry) => seed.deserialize(&entry.node),
            None => Err(de::Error::custom("a value was read before its key")),
        }
    }
}

struct Items<'de>(std::slice::Iter<'de, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|node| seed.deserialize(node)).transpose()
    }
}

struct Choice<'de>(&'de Entry);

impl<'de> EnumAccess<'de> for Choice<'de> {
    type Error = Error;
    type Variant = &'de Node;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, &'de Node), Error> {
        let name = seed.deserialize(self.0.key.as_str().into_deserializer());
        let name = name.map_err(|error: Error| error.at(&self.0.key_mark))?;
        Ok((name, &self.0.node))
    }
}

impl<'de> VariantAccess<'de> for &'de Node {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        let error: Error = de::Error::custom("this choice has no keys; write its name as a string");
        Err(error.at(&self.mark))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::document::{Texts, parse};

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        count: u32,
        share: f64,
        maybe: Option<String>,
        kind: Kind,
        parts: BTreeMap<String, Vec<u8>>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Plain,
        Deep { levels: u8 },
        Boxed(Empty),
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Empty {}

    fn read(content: &str) -> Result<Sample, Error> {
        let mut texts = Texts::default();
        let text = texts.add("a.toml", content);
        Sample::deserialize(&parse(content, text, &texts).expect("the text of the test is TOML"))
    }

    fn place(content: &str) -> String {
        let span = read(content).expect_err("wrong on purpose").mark.and_then(|mark| mark.span).unwrap_or(0..0);
        content[span].to_owned()
    }

    #[test]
    fn reads_structs_maps_lists_options_and_enums() {
        let found = read("count = 1\nshare = 2\nkind = \"plain\"\n[parts]\na = [1, 2]\n");
        let parts = BTreeMap::from([("a".to_owned(), vec![1, 2])]);
        assert_eq!(found, Ok(Sample { count: 1, share: 2.0, maybe: None, kind: Kind::Plain, parts }));
        let found = read("count = 1\nshare = 0.5\nmaybe = \"x\"\nparts = {}\n[kind.deep]\nlevels = 3\n");
        assert_eq!(found.map(|sample| sample.kind), Ok(Kind::Deep { levels: 3 }));
        let found = read("count = 1\nshare = 0.5\nparts = {}\n[kind.boxed]\n");
        assert_eq!(found.map(|sample| sample.kind), Ok(Kind::Boxed(Empty {})));
    }

    #[test]
    fn errors_have_the_place_of_the_innermost_value() {
        assert_eq!(place("count = -1\nshare = 2\nkind = \"plain\"\nparts = {}\n"), "-1");
        assert_eq!(place("count = 1\nshare = 2\nkind = \"plain\"\n[parts]\na = [1, 300]\n"), "300");
        assert_eq!(place("count = 1\nshare = 2\nparts = {}\n[kind.tall]\n"), "tall");
        assert_eq!(place("count = 1\nshare = 2\nkind = \"plain\"\nparts = {}\nother = 1\n"), "other");
    }
}

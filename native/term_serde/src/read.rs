//! From terms to Rust.

use std::borrow::Cow;
use std::vec;

use serde::de::value::{CowStrDeserializer, SeqDeserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, Unexpected, VariantAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;

use crate::Error;

/// The kind of a term, with its direct parts.
pub enum Kind<'t, T> {
    Atom(Cow<'t, str>),
    /// An integer that is not negative.
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    /// A binary.
    Text(&'t str),
    /// A proper list.
    List(Vec<T>),
    Tuple(Vec<T>),
    Map(Vec<(T, T)>),
}

pub trait ReadTerm<'t>: Copy {
    /// The kind of the term; an error for other kinds, and for a term that is too large for its reader.
    fn kind(self) -> Result<Kind<'t, Self>, Error>;

    /// Whether it is the atom `nil`.
    fn is_nil(self) -> bool;
}

/// Reads a term. The error names the first part that does not match `V`.
pub fn from_term<'t, V: Deserialize<'t>, T: ReadTerm<'t>>(term: T) -> Result<V, Error> {
    V::deserialize(Reader(term))
}

struct Reader<T>(T);

impl<'t, T: ReadTerm<'t>> IntoDeserializer<'t, Error> for Reader<T> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

/// The elements of a tuple. A number that differs from the type's is an error.
fn sequence<'t, T: ReadTerm<'t>, V: Visitor<'t>>(elements: Vec<T>, visitor: V) -> Result<V::Value, Error> {
    let mut elements = SeqDeserializer::new(elements.into_iter().map(Reader));
    let value = visitor.visit_seq(&mut elements)?;
    elements.end()?;
    Ok(value)
}

fn wrong<'t, T, V: Visitor<'t>>(kind: &Kind<'t, T>, visitor: &V) -> Error {
    let got = match kind {
        Kind::Atom(name) => Unexpected::Other(name),
        Kind::Unsigned(number) => Unexpected::Unsigned(*number),
        Kind::Signed(number) => Unexpected::Signed(*number),
        Kind::Float(number) => Unexpected::Float(*number),
        Kind::Text(text) => Unexpected::Str(text),
        Kind::List(_) => Unexpected::Other("a list"),
        Kind::Tuple(_) => Unexpected::Other("a tuple"),
        Kind::Map(_) => Unexpected::Map,
    };
    serde::de::Error::invalid_type(got, visitor)
}

impl<'t, T: ReadTerm<'t>> Deserializer<'t> for Reader<T> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.kind()? {
            Kind::Atom(name) => match &*name {
                "nil" => visitor.visit_unit(),
                "true" => visitor.visit_bool(true),
                "false" => visitor.visit_bool(false),
                name => visitor.visit_str(name),
            },
            Kind::Unsigned(number) => visitor.visit_u64(number),
            Kind::Signed(number) => visitor.visit_i64(number),
            Kind::Float(number) => visitor.visit_f64(number),
            Kind::Text(text) => visitor.visit_borrowed_str(text),
            Kind::List(elements) | Kind::Tuple(elements) => sequence(elements, visitor),
            Kind::Map(pairs) => visitor.visit_map(Pairs { pairs: pairs.into_iter(), value: None }),
        }
    }

    fn deserialize_str<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.kind()? {
            Kind::Text(text) => visitor.visit_borrowed_str(text),
            other => Err(wrong(&other, &visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_nil() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'t>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.kind()? {
            Kind::List(elements) => sequence(elements, visitor),
            other => Err(wrong(&other, &visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'t>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        match self.0.kind()? {
            Kind::Tuple(elements) => sequence(elements, visitor),
            other => Err(wrong(&other, &visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'t>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0.kind()? {
            Kind::Map(pairs) => visitor.visit_map(Pairs { pairs: pairs.into_iter(), value: None }),
            other => Err(wrong(&other, &visitor)),
        }
    }

    fn deserialize_enum<V: Visitor<'t>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0.kind()? {
            Kind::Atom(name) => visitor.visit_enum(Variant::<T> { name, fields: None }),
            Kind::Tuple(mut fields) if !fields.is_empty() => match fields.remove(0).kind()? {
                Kind::Atom(name) => visitor.visit_enum(Variant { name, fields: Some(fields) }),
                other => Err(wrong(&other, &visitor)),
            },
            other => Err(wrong(&other, &visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <V: Visitor<'t>>
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char bytes byte_buf unit unit_struct tuple_struct map identifier
    }
}

struct Pairs<'t, T> {
    pairs: vec::IntoIter<(T, T)>,
    value: Option<(Cow<'t, str>, T)>,
}

impl<'t, T: ReadTerm<'t>> MapAccess<'t> for Pairs<'t, T> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'t>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        for (key, value) in self.pairs.by_ref() {
            let Kind::Atom(key) = key.kind()? else { continue };
            if !value.is_nil() {
                self.value = Some((key.clone(), value));
                return seed.deserialize(CowStrDeserializer::new(key)).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'t>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((key, value)) = self.value.take() else {
            return Err(Error::new("a value without a key"));
        };
        seed.deserialize(Reader(value)).map_err(|error| error.within(&key))
    }
}

struct Variant<'t, T> {
    name: Cow<'t, str>,
    /// `None` for an atom.
    fields: Option<Vec<T>>,
}

impl<'t, T: ReadTerm<'t>> EnumAccess<'t> for Variant<'t, T> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'t>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let variant = seed.deserialize(CowStrDeserializer::new(self.name.clone()))?;
        Ok((variant, self))
    }
}

impl<'t, T: ReadTerm<'t>> VariantAccess<'t> for Variant<'t, T> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.fields.map_or(Ok(()), |_| Err(Error::new(format!("{} takes no fields", self.name))))
    }

    /// An atom is a variant with one field that is absent.
    fn newtype_variant_seed<S: DeserializeSeed<'t>>(self, seed: S) -> Result<S::Value, Error> {
        match self.fields.as_deref() {
            Some([field]) => seed.deserialize(Reader(*field)).map_err(|error| error.within(&self.name)),
            None => seed.deserialize(().into_deserializer()).map_err(|error: Error| error.within(&self.name)),
            Some(_) => Err(Error::new(format!("{} takes one field", self.name))),
        }
    }

    fn tuple_variant<V: Visitor<'t>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        let name = self.name;
        sequence(self.fields.unwrap_or_default(), visitor).map_err(|error| error.within(&name))
    }

    fn struct_variant<V: Visitor<'t>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.tuple_variant(0, visitor)
    }
}

//! From Rust to terms.

use serde::ser::{
    Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleVariant, Serializer,
};

use crate::Error;

pub trait MakeTerm: Copy {
    type Term;
    fn atom(self, name: &str) -> Self::Term;
    /// An integer that is not negative.
    fn unsigned(self, number: u64) -> Self::Term;
    /// An integer.
    fn signed(self, number: i64) -> Self::Term;
    fn float(self, number: f64) -> Self::Term;
    /// A binary.
    fn text(self, text: &str) -> Self::Term;
    /// A proper list.
    fn list(self, elements: Vec<Self::Term>) -> Self::Term;
    fn tuple(self, elements: Vec<Self::Term>) -> Self::Term;
    /// A map, without a key that occurs twice.
    fn map(self, pairs: Vec<(Self::Term, Self::Term)>) -> Self::Term;
}

/// Writes a value, if the table of the crate lists its kind.
pub fn to_term<M: MakeTerm, V: Serialize + ?Sized>(make: M, value: &V) -> Result<M::Term, Error> {
    value.serialize(Writer(make))
}

#[derive(Clone, Copy)]
struct Writer<M>(M);

/// A list or a tuple under way.
struct Elements<M: MakeTerm> {
    make: M,
    elements: Vec<M::Term>,
    finish: fn(M, Vec<M::Term>) -> M::Term,
}

/// A map under way.
struct Pairs<M: MakeTerm> {
    make: M,
    key: Option<M::Term>,
    pairs: Vec<(M::Term, M::Term)>,
}

impl<M: MakeTerm> Writer<M> {
    fn elements(self, len: usize, finish: fn(M, Vec<M::Term>) -> M::Term) -> Elements<M> {
        Elements { make: self.0, elements: Vec::with_capacity(len), finish }
    }

    fn variant(self, name: &str, len: usize) -> Elements<M> {
        let mut elements = self.elements(len + 1, M::tuple);
        elements.elements.push(self.0.atom(name));
        elements
    }
}

impl<M: MakeTerm> Elements<M> {
    fn add<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), Error> {
        self.elements.push(value.serialize(Writer(self.make))?);
        Ok(())
    }

    fn done(self) -> Result<M::Term, Error> {
        Ok((self.finish)(self.make, self.elements))
    }
}

/// The error for a value that has no term.
fn none<T>(what: &str) -> Result<T, Error> {
    Err(Error::new(format!("{what} has no term")))
}

/// Functions for types that are written as a wider one.
macro_rules! widened {
    ($($name:ident: $type:ty => $wide:ident),*) => {
        $(fn $name(self, value: $type) -> Result<M::Term, Error> {
            self.$wide(value.into())
        })*
    };
}

impl<M: MakeTerm> Serializer for Writer<M> {
    type Ok = M::Term;
    type Error = Error;
    type SerializeSeq = Elements<M>;
    type SerializeTuple = Elements<M>;
    type SerializeTupleStruct = Impossible<M::Term, Error>;
    type SerializeTupleVariant = Elements<M>;
    type SerializeMap = Pairs<M>;
    type SerializeStruct = Pairs<M>;
    type SerializeStructVariant = Elements<M>;

    fn serialize_bool(self, value: bool) -> Result<M::Term, Error> {
        Ok(self.0.atom(if value { "true" } else { "false" }))
    }
    widened! {
        serialize_i8: i8 => serialize_i64, serialize_i16: i16 => serialize_i64, serialize_i32: i32 => serialize_i64,
        serialize_u8: u8 => serialize_u64, serialize_u16: u16 => serialize_u64, serialize_u32: u32 => serialize_u64,
        serialize_f32: f32 => serialize_f64
    }
    fn serialize_i64(self, value: i64) -> Result<M::Term, Error> {
        Ok(self.0.signed(value))
    }
    fn serialize_u64(self, value: u64) -> Result<M::Term, Error> {
        Ok(self.0.unsigned(value))
    }
    fn serialize_f64(self, value: f64) -> Result<M::Term, Error> {
        Ok(self.0.float(value))
    }
    fn serialize_char(self, _: char) -> Result<M::Term, Error> {
        none("a character")
    }
    fn serialize_str(self, value: &str) -> Result<M::Term, Error> {
        Ok(self.0.text(value))
    }
    fn serialize_bytes(self, _: &[u8]) -> Result<M::Term, Error> {
        none("a byte array")
    }
    fn serialize_none(self) -> Result<M::Term, Error> {
        Ok(self.0.atom("nil"))
    }
    fn serialize_some<V: Serialize + ?Sized>(self, value: &V) -> Result<M::Term, Error> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<M::Term, Error> {
        none("an empty tuple")
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<M::Term, Error> {
        none("a struct without fields")
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<M::Term, Error> {
        Ok(self.0.atom(variant))
    }
    fn serialize_newtype_struct<V: Serialize + ?Sized>(self, _: &'static str, value: &V) -> Result<M::Term, Error> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<V: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &V,
    ) -> Result<M::Term, Error> {
        let mut elements = self.variant(variant, 1);
        elements.add(value)?;
        elements.done()
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Elements<M>, Error> {
        Ok(self.elements(len.unwrap_or(0), M::list))
    }
    fn serialize_tuple(self, len: usize) -> Result<Elements<M>, Error> {
        Ok(self.elements(len, M::tuple))
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Error> {
        none("a struct of several unnamed fields")
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Elements<M>, Error> {
        Ok(self.variant(variant, len))
    }
    fn serialize_map(self, len: Option<usize>) -> Result<Pairs<M>, Error> {
        Ok(Pairs { make: self.0, key: None, pairs: Vec::with_capacity(len.unwrap_or(0)) })
    }
    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Pairs<M>, Error> {
        self.serialize_map(Some(len))
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Elements<M>, Error> {
        Ok(self.variant(variant, len))
    }
}

/// serde's traits for sequences and tuples differ only in the names of their functions.
macro_rules! elements {
    ($($of:ident :: $add:ident),*) => {
        $(impl<M: MakeTerm> $of for Elements<M> {
            type Ok = M::Term;
            type Error = Error;
            fn $add<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), Error> {
                self.add(value)
            }
            fn end(self) -> Result<M::Term, Error> {
                self.done()
            }
        })*
    };
}

elements!(SerializeSeq::serialize_element, SerializeTuple::serialize_element, SerializeTupleVariant::serialize_field);

impl<M: MakeTerm> SerializeStructVariant for Elements<M> {
    type Ok = M::Term;
    type Error = Error;
    fn serialize_field<V: Serialize + ?Sized>(&mut self, _: &'static str, value: &V) -> Result<(), Error> {
        self.add(value)
    }
    fn end(self) -> Result<M::Term, Error> {
        self.done()
    }
}

impl<M: MakeTerm> SerializeMap for Pairs<M> {
    type Ok = M::Term;
    type Error = Error;
    fn serialize_key<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<(), Error> {
        self.key = Some(key.serialize(Writer(self.make))?);
        Ok(())
    }
    fn serialize_value<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), Error> {
        let Some(key) = self.key.take() else { return none("a value without a key") };
        self.pairs.push((key, value.serialize(Writer(self.make))?));
        Ok(())
    }
    fn end(self) -> Result<M::Term, Error> {
        Ok(self.make.map(self.pairs))
    }
}

impl<M: MakeTerm> SerializeStruct for Pairs<M> {
    type Ok = M::Term;
    type Error = Error;
    fn serialize_field<V: Serialize + ?Sized>(&mut self, key: &'static str, value: &V) -> Result<(), Error> {
        self.pairs.push((self.make.atom(key), value.serialize(Writer(self.make))?));
        Ok(())
    }
    fn end(self) -> Result<M::Term, Error> {
        Ok(self.make.map(self.pairs))
    }
}

//! The parts that all kinds of message have.

use etf::{
    Error, Fields, Pid, Term, boolean, int, list, optional, read_bool, read_each, read_i64, read_pid, read_text,
    read_u32, read_u64, read_value, text, uint, value,
};
use handoff_core::{Progress, Report};

/// A drain, numbered by the node that drains. Two nodes may use the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DrainId(pub u64);

/// The most texts in one list.
pub const MAX_TEXTS: usize = 10_000;

/// One kind of message: its name, the third element, and the elements after that.
pub(crate) trait Body: Sized {
    const KIND: &'static str;
    fn write(&self) -> Vec<Term>;
    fn read(fields: &[Term]) -> Result<Self, Error>;
}

/// The fields of a message that has exactly `N`.
pub(crate) fn exactly<const N: usize>(fields: &[Term]) -> Result<&[Term; N], Error> {
    fields.try_into().map_err(|_| Error::Field { field: "message", takes: "the documented number of elements" })
}

/// The value of a field.
pub(crate) trait Value: Sized {
    fn term(&self) -> Term;
    fn read(term: &Term, field: &'static str) -> Result<Self, Error>;

    /// Reads the value of a key of a map.
    fn of_key(map: &Fields<'_>, key: &'static str) -> Result<Self, Error> {
        map.need(key, Self::read)
    }
}

/// `T: |value| term, read` for each type.
macro_rules! values {
    ($($of:ty: |$value:ident| $term:expr, $read:expr;)*) => {
        $(impl $crate::body::Value for $of {
            fn term(&self) -> etf::Term {
                let $value = self;
                $term
            }

            fn read(term: &etf::Term, field: &'static str) -> Result<Self, etf::Error> {
                $read(term, field)
            }
        })*
    };
}
pub(crate) use values;

values! {
    bool: |flag| boolean(*flag), read_bool;
    i64: |number| int(*number), read_i64;
    u32: |number| uint((*number).into()), read_u32;
    u64: |number| uint(*number), read_u64;
    String: |content| text(content), read_text;
    Vec<String>: |texts| list(texts.iter().map(|content| text(content))), read_texts;
    Pid: |pid| pid.clone().into(), read_pid;
    DrainId: |id| uint(id.0), read_id;
    Progress: |progress| value(progress), read_value;
    Report: |report| value(report), read_value;
}

fn read_texts(term: &Term, field: &'static str) -> Result<Vec<String>, Error> {
    read_each(term, field, MAX_TEXTS, |content| read_text(content, field))
}

fn read_id(term: &Term, _: &'static str) -> Result<DrainId, Error> {
    read_u64(term, "drain id").map(DrainId)
}

impl<T: Value> Value for Option<T> {
    fn term(&self) -> Term {
        optional(self.as_ref().map(Value::term))
    }

    fn read(term: &Term, field: &'static str) -> Result<Self, Error> {
        if etf::atom_name(term) == Some("nil") { Ok(None) } else { T::read(term, field).map(Some) }
    }

    fn of_key(map: &Fields<'_>, key: &'static str) -> Result<Self, Error> {
        map.maybe(key, T::read)
    }
}

/// A message whose elements are its fields, in this order. The fields in braces are in a map, which is the
/// last element. Earlier releases do not send the field after the semicolon.
macro_rules! body {
    ($name:ident = $kind:literal: $($field:ident),* $(; $map:ident { $($key:ident),* $(; $later:ident)? })?) => {
        impl $crate::body::Body for $name {
            const KIND: &'static str = $kind;

            fn write(&self) -> Vec<etf::Term> {
                use $crate::body::Value;
                vec![
                    $(self.$field.term(),)*
                    $(etf::map([
                        $((stringify!($key), self.$key.term()),)*
                        $((stringify!($later), self.$later.term()),)?
                    ]))?
                ]
            }

            fn read(fields: &[etf::Term]) -> Result<Self, etf::Error> {
                use $crate::body::Value;
                let [$($field,)* $($map)?] = $crate::body::exactly(fields)?;
                $(let $map = etf::Fields::of($map, $kind)?;)?
                Ok($name {
                    $($field: Value::read($field, stringify!($field))?,)*
                    $(
                        $($key: Value::of_key(&$map, stringify!($key))?,)*
                        $($later: Option::of_key(&$map, stringify!($later))?.unwrap_or_default(),)?
                    )?
                })
            }
        }
    };
}
pub(crate) use body;

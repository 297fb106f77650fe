//! The parts that all kinds of message have.

use etf::{Error, Term, read_u64};

/// A drain, numbered by the node that drains. Two nodes may use the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DrainId(pub u64);

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

pub(crate) fn read_id(term: &Term) -> Result<DrainId, Error> {
    read_u64(term, "drain id").map(DrainId)
}

//! The engine's types as arguments and results of NIFs, in the shapes of `term_serde`.
//!
//! Guarantee: a term of the wrong shape raises `badarg`. Reasons, endings and keys have the engine's names.

use std::borrow::Cow;

use rustler::types::tuple::{get_tuple, make_tuple};
use rustler::{Atom, Decoder, Encoder, Env, Error, ListIterator, MapIterator, NifResult, Term, TermType};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use term_serde::{Kind, MakeTerm, ReadTerm, from_term, to_term};

/// An argument or a result that serde reads or writes.
pub struct Value<T>(pub T);

impl<'a, T: DeserializeOwned + 'a> Decoder<'a> for Value<T> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        from_term(Read(term)).map(Value).map_err(|_| Error::BadArg)
    }
}

impl<T: Serialize> Encoder for Value<T> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        // Every type used here has a term.
        to_term(Make(env), &self.0).unwrap_or_else(|_| rustler::types::atom::error().encode(env))
    }
}

/// The arguments of `eligible/2`: which nodes may take a server, by the eligibility rules alone.
#[derive(Deserialize)]
pub struct Question {
    /// The node that asks.
    pub source: String,
    /// The server's module.
    pub module: handoff_core::ModuleId,
    /// Its sticky signature.
    pub sticky: Vec<handoff_core::StickyLevel>,
    /// Rule 2's age limit.
    pub max_age_ms: i64,
    /// Rule 2's tolerance.
    pub future_skew_ms: i64,
}

#[derive(Clone, Copy)]
struct Read<'a>(Term<'a>);

impl<'a> ReadTerm<'a> for Read<'a> {
    fn kind(self) -> Result<Kind<'a, Self>, term_serde::Error> {
        let Read(term) = self;
        let wrong = |_| term_serde::Error::new("not a term that is taken");
        Ok(match term.get_type() {
            TermType::Atom => Kind::Atom(Cow::Owned(term.atom_to_string().map_err(wrong)?)),
            TermType::Integer => match term.decode() {
                Ok(number) => Kind::Unsigned(number),
                Err(_) => Kind::Signed(term.decode().map_err(wrong)?),
            },
            TermType::Float => Kind::Float(term.decode().map_err(wrong)?),
            TermType::Binary => Kind::Text(term.decode().map_err(wrong)?),
            TermType::List => {
                // Fails for an improper list, which the iterator would read up to its improper tail.
                let mut list = Vec::with_capacity(term.list_length().map_err(wrong)?);
                list.extend(term.decode::<ListIterator<'a>>().map_err(wrong)?.map(Read));
                Kind::List(list)
            }
            TermType::Tuple => Kind::Tuple(get_tuple(term).map_err(wrong)?.into_iter().map(Read).collect()),
            TermType::Map => {
                let pairs = MapIterator::new(term).ok_or(Error::BadArg).map_err(wrong)?;
                Kind::Map(pairs.map(|(key, value)| (Read(key), Read(value))).collect())
            }
            _other => return Err(wrong(Error::BadArg)),
        })
    }

    fn is_nil(self) -> bool {
        rustler::types::atom::nil() == self.0
    }
}

#[derive(Clone, Copy)]
struct Make<'a>(Env<'a>);

impl<'a> MakeTerm for Make<'a> {
    type Term = Term<'a>;

    fn atom(self, name: &str) -> Term<'a> {
        Atom::from_str(self.0, name).map_or_else(|_| name.encode(self.0), |atom| atom.encode(self.0))
    }
    fn unsigned(self, number: u64) -> Term<'a> {
        number.encode(self.0)
    }
    fn signed(self, number: i64) -> Term<'a> {
        number.encode(self.0)
    }
    fn float(self, number: f64) -> Term<'a> {
        number.encode(self.0)
    }
    fn text(self, text: &str) -> Term<'a> {
        text.encode(self.0)
    }
    fn list(self, elements: Vec<Term<'a>>) -> Term<'a> {
        elements.encode(self.0)
    }
    fn tuple(self, elements: Vec<Term<'a>>) -> Term<'a> {
        make_tuple(self.0, &elements)
    }
    fn map(self, pairs: Vec<(Term<'a>, Term<'a>)>) -> Term<'a> {
        Term::map_from_pairs(self.0, &pairs).unwrap_or_else(|_| Term::map_new(self.0))
    }
}

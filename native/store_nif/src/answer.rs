//! Results and errors of a store as terms. `DurableHandoff.Store.Native` documents their shapes.

use rustler::types::atom;
use rustler::{Atom, Encoder, Env, NewBinary, NifMap, NifResult, Term};
use state_store::{Detail, Error, Object, Page, Stats};

/// The result of a request.
pub enum Answer {
    /// `:ok`
    Done,
    /// `{:ok, body, etag}`
    Object(Object),
    /// `{:ok, etag}`
    Written(String),
    /// `{:ok, [{key, etag}], next}`
    Listed(Page),
    /// `{:error, reason}`
    Failed(Error),
}

#[derive(NifMap)]
struct StatsMap {
    requests: u64,
    retries: u64,
    slow_downs: u64,
    readbacks: u64,
    cached: u64,
}

impl Encoder for Answer {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self {
            Self::Done => atom::ok().encode(env),
            Self::Object(object) => (atom::ok(), binary(env, &object.body), &object.etag).encode(env),
            Self::Written(etag) => (atom::ok(), etag).encode(env),
            Self::Listed(page) => {
                let objects: Vec<_> = page.objects.iter().map(|object| (&object.key, &object.etag)).collect();
                (atom::ok(), objects, &page.next).encode(env)
            }
            Self::Failed(error) => failed(env, error),
        }
    }
}

/// `{:error, kind}`, or `{:error, {kind, facts}}` for a kind with facts.
pub fn failed<'a>(env: Env<'a>, error: &Error) -> Term<'a> {
    let Ok(kind) = Atom::from_str(env, error.kind()) else {
        return atom::error().encode(env);
    };
    let facts = error.details();
    if facts.is_empty() {
        return (atom::error(), kind).encode(env);
    }
    let mut map = Term::map_new(env);
    for (name, value) in &facts {
        let value = match value {
            Detail::Number(number) => number.encode(env),
            Detail::Text(text) => text.encode(env),
        };
        if let Ok(larger) = Atom::from_str(env, name).and_then(|name| map.map_put(name, value)) {
            map = larger;
        }
    }
    (atom::error(), (kind, map)).encode(env)
}

/// The error when the operating system creates no threads.
pub fn no_threads<'a>(env: Env<'a>, error: &std::io::Error) -> Term<'a> {
    failed(env, &Error::Io { action: "starting threads", reason: error.to_string(), applied: false })
}

pub fn stats(env: Env<'_>, stats: Stats) -> NifResult<Term<'_>> {
    let Stats { requests, retries, slow_downs, readbacks, cached } = stats;
    Ok(StatsMap { requests, retries, slow_downs, readbacks, cached }.encode(env))
}

fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(bytes);
    binary.into()
}

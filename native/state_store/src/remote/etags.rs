//! S3 servers differ in the form of etags: with quotes, as in HTTP, or without.
//!
//! Ceph before 20 and DigitalOcean Spaces give etags with quotes and accept them in `If-Match` only without; R2 accepts them
//! only with. On some, listings differ from reads. The proof at start finds out which form a store takes.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Etags {
    /// Conditions need etags in the other form than reads return.
    flipped: AtomicBool,
    /// Reads and writes return etags with quotes.
    quoted: AtomicBool,
    /// Reads and writes return etags without quotes.
    bare: AtomicBool,
}

impl Etags {
    /// The etag in the form for a condition.
    pub(crate) fn sent<'a>(&self, etag: &'a str) -> Cow<'a, str> {
        if self.flipped.load(Ordering::Relaxed) { other(etag) } else { Cow::Borrowed(etag) }
    }

    /// The etag in the form in which it was read.
    pub(crate) fn read(&self, etag: String) -> String {
        let habit = if etag.starts_with('"') { &self.quoted } else { &self.bare };
        if !habit.load(Ordering::Relaxed) {
            habit.store(true, Ordering::Relaxed);
        }
        etag
    }

    /// The etag of a listing in the form that a read would return.
    pub(crate) fn listed(&self, etag: String) -> String {
        let (quoted, bare) = (self.quoted.load(Ordering::Relaxed), self.bare.load(Ordering::Relaxed));
        match (quoted, bare, etag.starts_with('"')) {
            (true, false, false) if !etag.starts_with("W/") => other(&etag).into_owned(),
            (false, true, true) => other(&etag).into_owned(),
            _same_or_unknown => etag,
        }
    }

    pub(crate) fn is_flipped(&self) -> bool {
        self.flipped.load(Ordering::Relaxed)
    }

    pub(crate) fn set_flipped(&self, flipped: bool) {
        self.flipped.store(flipped, Ordering::Relaxed);
    }
}

/// Removes the quotes, or adds them if there are none.
fn other(etag: &str) -> Cow<'_, str> {
    match etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')) {
        Some(bare) => Cow::Borrowed(bare),
        None => Cow::Owned(format!("\"{etag}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_etags_of_a_listing_are_those_of_a_read_on_every_server() {
        let etags = Etags::default();
        assert_eq!(etags.listed("a".into()), "a", "nothing was read yet");
        etags.read("\"a\"".into());
        assert_eq!((etags.listed("a".into()), etags.listed("\"a\"".into())), ("\"a\"".into(), "\"a\"".into()));
        assert_eq!(etags.listed("W/\"a\"".into()), "W/\"a\"");
        let bare = Etags::default();
        bare.read("a".into());
        assert_eq!((bare.listed("a".into()), bare.listed("\"a\"".into())), ("a".into(), "a".into()));
    }

    #[test]
    fn a_condition_is_sent_in_the_form_that_the_store_accepts() {
        let etags = Etags::default();
        assert_eq!(etags.sent("\"a\""), "\"a\"");
        etags.set_flipped(true);
        assert_eq!((etags.sent("\"a\""), etags.sent("a")), (Cow::from("a"), Cow::from("\"a\"")));
    }
}

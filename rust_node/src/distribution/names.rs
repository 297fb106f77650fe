//! Node names: which are well formed, which are of our kind, which are allowed.
//!
//! Guarantee: a name that is not on the allow-list is neither dialled nor let in.

use std::str::FromStr;
use std::sync::Arc;

pub use erl_dist::node::NodeName;

/// Parses `name@host`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse(text: &str) -> Result<NodeName, String> {
    let name = NodeName::from_str(text).map_err(|error| format!("node name {text:?}: {error}"))?;
    let plain = |part: &str| part.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != '@' && c != '/');
    if plain(name.name()) && plain(name.host()) {
        Ok(name)
    } else {
        Err(format!("node name {text:?}: takes name@host without spaces"))
    }
}

/// True for a long name: its host has a dot (or is an IPv6 address), as the BEAM decides it.
pub fn is_long(name: &NodeName) -> bool {
    name.host().contains(['.', ':'])
}

/// Which nodes may be peers: patterns of names in which `*` is any run of characters. No pattern at all
/// allows every name.
#[derive(Debug, Clone, Default)]
pub struct AllowList(Arc<[String]>);

impl AllowList {
    /// Of these patterns.
    pub fn new(patterns: impl IntoIterator<Item = String>) -> Self {
        AllowList(patterns.into_iter().collect())
    }

    /// Whether that name is allowed.
    pub fn allows(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| matches(pattern, name))
    }
}

/// Glob matching with `*` only: the parts between stars must occur in order, the first and last at the ends.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut left) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_any_run_and_nothing_else_is_special() {
        for (pattern, name, expected) in [
            ("app@h", "app@h", true),
            ("app@h", "app@hh", false),
            ("app-*@*.internal", "app-1@a.internal", true),
            ("app-*@*.internal", "app-1@a.internal.evil", false),
            ("app-*@*.internal", "xapp-1@a.internal", false),
            ("*", "anything@all", true),
            ("a*a", "a", false),
            ("a*b*c", "axbxc", true),
            ("a*b*c", "acb", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn no_pattern_allows_every_name() {
        assert!(AllowList::default().allows("x@y"));
        assert!(!AllowList::new(["a@b".to_owned()]).allows("x@y"));
    }

    #[test]
    fn names_are_checked_and_told_long_from_short() {
        assert!(parse("a").is_err() && parse("@h").is_err() && parse("a@").is_err() && parse("a@b c").is_err());
        assert!(is_long(&parse("a@127.0.0.1").expect("a name")));
        assert!(!is_long(&parse("a@host").expect("a name")));
    }
}

//! Node names: whether a name is well formed, long or short, and allowed.
//!
//! Guarantee: a node whose name is not on the allow-list is neither dialled nor accepted.

use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

pub use erl_dist::node::NodeName;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node name {text:?}: {why}")]
pub struct NameError {
    text: String,
    why: String,
}

impl NameError {
    fn new(text: &str, why: impl ToString) -> Self {
        NameError { text: text.to_owned(), why: why.to_string() }
    }
}

/// Parses `name@host`.
pub fn parse(text: &str) -> Result<NodeName, NameError> {
    let name = NodeName::from_str(text).map_err(|error| NameError::new(text, error))?;
    let plain = |part: &str| part.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != '@' && c != '/');
    let is_plain = plain(name.name()) && plain(name.host());
    is_plain.then_some(name).ok_or_else(|| NameError::new(text, "takes name@host without spaces"))
}

/// A node to connect to, with its distribution port unless EPMD is asked for the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    pub name: NodeName,
    pub port: Option<u16>,
}

impl From<NodeName> for Seed {
    fn from(name: NodeName) -> Self {
        Seed { name, port: None }
    }
}

/// Parses `name@host` and `name@host:port`. An IPv6 address is in brackets when a port follows:
/// `name@[fd00::7]:9105`, but also `name@fd00::7`.
pub fn parse_seed(text: &str) -> Result<Seed, NameError> {
    let wrong = |why: &str| NameError::new(text, why);
    let Some((name, host)) = text.split_once('@') else { return parse(text).map(Seed::from) };
    let (host, port) = match (host.strip_prefix('['), host.split_once(':')) {
        (Some(rest), _) => {
            let (address, rest) = rest.split_once(']').unwrap_or((rest, "missing"));
            address.parse::<Ipv6Addr>().map_err(|_| wrong("takes [IPV6]:PORT after the @"))?;
            match rest.strip_prefix(':') {
                _ if rest.is_empty() => (address, None),
                Some(port) => (address, Some(port)),
                None => return Err(wrong("takes [IPV6]:PORT after the @")),
            }
        }
        (None, Some((host, port))) if !port.contains(':') => (host, Some(port)),
        (None, _) => (host, None),
    };
    if host.contains(':') && host.parse::<Ipv6Addr>().is_err() {
        return Err(wrong(&format!("{host} is not an IPv6 address")));
    }
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port)) if port > 0 => Some(port),
        Some(_) => return Err(wrong("takes a port of 1 to 65535 after the colon")),
    };
    Ok(Seed { name: parse(&format!("{name}@{host}"))?, port })
}

/// True for a long name: its host has a dot or is an IPv6 address. The BEAM decides in the same way.
pub fn is_long(name: &NodeName) -> bool {
    name.host().contains(['.', ':'])
}

/// Which nodes may be peers: patterns of names in which `*` is any run of characters. No pattern at all
/// allows every name.
#[derive(Debug, Clone, Default)]
pub struct AllowList(Arc<[String]>);

impl AllowList {
    pub fn new(patterns: impl IntoIterator<Item = String>) -> Self {
        AllowList(patterns.into_iter().collect())
    }

    pub fn allows(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| matches(pattern, name))
    }
}

/// Whether a name matches a pattern in which `*` stands for any characters. The parts between stars must
/// occur in order, the first and the last at the ends of the name.
pub fn matches(pattern: &str, name: &str) -> bool {
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
    fn stars_match_any_characters_and_no_other_character_is_special() {
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
    fn a_port_is_distinguished_from_an_ipv6_address() {
        for (text, name, port) in [
            ("app@host", "app@host", None),
            ("app@127.0.0.1:9105", "app@127.0.0.1", Some(9_105)),
            ("app@host:1", "app@host", Some(1)),
            ("app@::1", "app@::1", None),
            ("app@[::1]", "app@::1", None),
            ("app@[fdaa:0:18::2]:9105", "app@fdaa:0:18::2", Some(9_105)),
        ] {
            let seed = parse_seed(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((seed.name.to_string(), seed.port), (name.to_owned(), port), "{text}");
        }
        for text in [
            "app@host:",
            "app@host:0",
            "app@host:65536",
            "app@h:x",
            "app@[::1",
            "app@[::1]9",
            "app@[h]:1",
            "app@a::h",
            "app",
            "app@:1",
        ] {
            assert!(parse_seed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn invalid_names_are_refused_and_long_names_distinguished_from_short_ones() {
        assert!(parse("a").is_err() && parse("@h").is_err() && parse("a@").is_err() && parse("a@b c").is_err());
        assert!(is_long(&parse("a@127.0.0.1").expect("a name")));
        assert!(!is_long(&parse("a@host").expect("a name")));
    }
}

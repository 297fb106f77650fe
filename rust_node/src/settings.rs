//! Settings: by flag, by environment variable, by file, in this order of precedence.
//!
//! Guarantee: every problem of every source is reported at once, each naming the setting, what it got and
//! what it takes. The cookie has no flag and no place in the file.

mod raw;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::distribution::tls::TlsFiles;
use crate::distribution::{AllowList, Cookie, Limits, NodeName, Seed, names};

pub use raw::{AskFlags, Find, Flags, Given};
use raw::{OfFile, Raw};

/// The environment variable with the cookie itself.
pub const COOKIE_VARIABLE: &str = "DURABLE_HANDOFF_COOKIE";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One object a line.
    Json,
}

/// The checked settings.
#[derive(Debug, Clone)]
pub struct Settings {
    pub name: NodeName,
    /// Nodes to connect to.
    pub connect: Vec<Seed>,
    /// Nodes to connect to at every address of a host.
    pub connect_dns: Vec<Seed>,
    /// Asked for SRV records, instead of the system's.
    pub dns_server: Option<SocketAddr>,
    /// Where to accept connections, if at all.
    pub listen: Option<SocketAddr>,
    pub cookie: Cookie,
    /// The allow-list of peers.
    pub allow: AllowList,
    /// Certificates, if TLS is used.
    pub tls: Option<TlsFiles>,
    /// The port mapper's port.
    pub epmd_port: u16,
    /// The port of every node without a port of its own.
    pub dist_port: Option<u16>,
    /// Whether to register in EPMD when listening.
    pub register: bool,
    /// Bounds and times of the distribution layer.
    pub limits: Limits,
    /// Whether connected nodes are asked for more nodes.
    pub discovery: bool,
    /// Where HTTP is served, if at all.
    pub http: Option<SocketAddr>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines there are, in `tracing`'s syntax; each command has its own default.
    pub log_level: Option<String>,
}

impl Settings {
    /// From flags (and, through them, the environment), the file they name, and `cookie` for the cookie's
    /// variable.
    ///
    /// # Errors
    /// Every problem.
    pub fn load(given: impl Into<Given>, cookie: Option<String>) -> Result<Settings, Vec<String>> {
        let Given { config, raw, of_file } = given.into();
        let mut problems = Vec::new();
        let file = config.map_or_else(Raw::default, |path| read_file(&path, &mut problems));
        check(raw.or(of_file.select(file)), of_file, cookie, problems)
    }
}

fn read_file(path: &Path, problems: &mut Vec<String>) -> Raw {
    match std::fs::read_to_string(path) {
        Ok(text) => Raw::from_toml(&text, &path.display().to_string(), problems),
        Err(error) => {
            problems.push(format!("config: {}: {error}", path.display()));
            Raw::default()
        }
    }
}

fn check(
    raw: Raw,
    of_file: OfFile,
    cookie: Option<String>,
    mut problems: Vec<String>,
) -> Result<Settings, Vec<String>> {
    let of_connect = of_file.connect();
    // A wrong setting is reported once, not as missing too.
    let given = raw.connect.is_some() || raw.connect_dns.is_some() || raw.listen.is_some();
    let connect = seeds(of_connect, raw.connect, &mut problems);
    let connect_dns = seeds("connect_dns: ", raw.connect_dns, &mut problems);
    let dns_server = raw.dns_server.as_deref().and_then(|text| address("dns_server", text, &mut problems));
    let listen = raw.listen.as_deref().and_then(|text| address("listen", text, &mut problems));
    let http = raw.http.as_deref().and_then(|text| address("http", text, &mut problems));
    let name = match (raw.name, connect.first()) {
        (Some(name), _) => keep(names::parse(&name), "name", &mut problems),
        (None, _) if listen.is_some() => {
            problems.push("name: needed with listen, takes name@host".to_owned());
            None
        }
        // Without a listener the host part is never resolved, so any valid name works. Names with addresses
        // are long ones.
        (None, seed) if seed.is_some() || !connect_dns.is_empty() => {
            let host = seed.map_or("127.0.0.1", |seed| seed.name.host());
            let own = format!("durable_handoff_{:08x}@{host}", rand::random::<u32>());
            keep(names::parse(&own), "name", &mut problems)
        }
        (None, _) => {
            if !given {
                problems.push(format!("{}: at least one is needed", of_file.ways_to_connect()));
            }
            None
        }
    };
    if let Some(name) = &name {
        for seed in connect.iter().map(|seed| &seed.name).filter(|seed| names::is_long(seed) != names::is_long(name)) {
            problems
                .push(format!("{of_connect}{seed} and {name} are a long and a short name, takes names of one kind"));
        }
        if !connect_dns.is_empty() && !names::is_long(name) {
            problems.push(format!(
                "connect_dns: {name} is a short name, takes a long one: nodes there are named by addresses"
            ));
        }
        if connect.iter().any(|seed| seed.name == *name) {
            problems.push(format!("{of_connect}{name} is this node"));
        }
    }
    let tls = tls(raw.tls_ca, raw.tls_certificate, raw.tls_key, &mut problems);
    let epmd_port = number("epmd_port", raw.epmd_port.as_deref(), 4_369, 1..=65_535, &mut problems);
    let tick = number("tick_time_s", raw.tick_time_s.as_deref(), 60, 4..=3_600, &mut problems);
    let dist_port = raw.dist_port.as_deref().map(|text| number("dist_port", Some(text), 1, 1..=65_535, &mut problems));
    for seed in connect.iter().filter(|seed| seed.name.name().contains('*')) {
        let takes = if of_connect.is_empty() { "takes one node" } else { "which only connect_dns takes" };
        problems.push(format!("{of_connect}{} has a *, {takes}", seed.name));
    }
    for seed in connect_dns.iter().filter(|seed| seed.name.name().contains('*')) {
        let host = seed.name.host();
        let has_ports = host.starts_with('_') && !host.starts_with("_epmd.");
        if has_ports || seed.port.or_else(|| dist_port.map(|_| 0)).is_some() {
            problems.push(format!(
                "connect_dns: {} has a *, and only EPMD knows which nodes that are: takes no port",
                seed.name
            ));
        }
    }
    let register = flag("register", raw.register.as_deref(), dist_port.is_none(), &mut problems);
    let discovery = flag("discovery", raw.discovery.as_deref(), true, &mut problems);
    let log_format = match raw.log_format.as_deref() {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => {
            problems.push(format!("log_format: got {other:?}, takes text or json"));
            LogFormat::Text
        }
    };
    let log_level = raw.log_level;
    problems.extend(log_level.as_deref().and_then(wrong_log_level));
    let cookie = match (raw.cookie_file, cookie) {
        (Some(path), _) => keep(Cookie::from_file(Path::new(&path)), "cookie_file", &mut problems),
        (None, Some(text)) => keep(Cookie::new(&text), COOKIE_VARIABLE, &mut problems),
        (None, None) => {
            problems.push(format!("cookie: needed, takes cookie_file or the variable {COOKIE_VARIABLE}"));
            None
        }
    };
    let limits = Limits { tick_time: Duration::from_secs(tick), ..Limits::default() };
    match (name, cookie) {
        (Some(name), Some(cookie)) if problems.is_empty() => Ok(Settings {
            name,
            connect,
            connect_dns,
            dns_server,
            listen,
            cookie,
            allow: AllowList::new(raw.allow.unwrap_or_default()),
            tls,
            epmd_port: u16::try_from(epmd_port).unwrap_or(4_369),
            dist_port: dist_port.and_then(|port| u16::try_from(port).ok()),
            register,
            limits,
            discovery,
            http,
            log_format,
            log_level,
        }),
        _ => Err(problems),
    }
}

/// A single word that is not a level would be taken for the name of a target, and only its lines would be
/// logged.
fn wrong_log_level(text: &str) -> Option<String> {
    if let Err(error) = text.parse::<Targets>() {
        return Some(format!("log_level: got {text:?}: {error}"));
    }
    let is_word = |part: &&str| {
        !part.is_empty() && part.chars().all(char::is_alphanumeric) && part.parse::<LevelFilter>().is_err()
    };
    let word = text.split(',').map(str::trim).find(is_word)?;
    Some(format!("log_level: got {word:?}, takes off, error, warn, info, debug, trace, or TARGET=LEVEL,..."))
}

fn seeds(label: &str, texts: Option<Vec<String>>, problems: &mut Vec<String>) -> Vec<Seed> {
    let texts = texts.unwrap_or_default();
    let mut seeds: Vec<Seed> = Vec::new();
    for text in &texts {
        match names::parse_seed(text) {
            Ok(seed) if seeds.contains(&seed) => {}
            Ok(seed) => seeds.push(seed),
            Err(error) => problems.push(format!("{label}{error}")),
        }
    }
    seeds
}

fn flag(setting: &str, text: Option<&str>, default: bool, problems: &mut Vec<String>) -> bool {
    match text {
        None => default,
        Some("true") => true,
        Some("false") => false,
        Some(other) => {
            problems.push(format!("{setting}: got {other:?}, takes true or false"));
            default
        }
    }
}

fn keep<T, E: std::fmt::Display>(result: Result<T, E>, setting: &str, problems: &mut Vec<String>) -> Option<T> {
    result.map_err(|error| problems.push(format!("{setting}: {error}"))).ok()
}

fn address(setting: &str, text: &str, problems: &mut Vec<String>) -> Option<SocketAddr> {
    let parsed =
        text.parse().map_err(|_| format!("got {text:?}, takes an address and a port as 127.0.0.1:8080 or [::1]:8080"));
    keep(parsed, setting, problems)
}

fn number(
    setting: &str,
    text: Option<&str>,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
    problems: &mut Vec<String>,
) -> u64 {
    let Some(text) = text else { return default };
    match text.parse() {
        Ok(value) if range.contains(&value) => value,
        _ => {
            problems.push(format!("{setting}: got {text:?}, takes {} to {}", range.start(), range.end()));
            default
        }
    }
}

fn tls(
    ca: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
    problems: &mut Vec<String>,
) -> Option<TlsFiles> {
    match (ca, certificate, key) {
        (None, None, None) => None,
        (Some(ca), Some(certificate), Some(key)) => {
            let [ca, certificate, key] = [ca, certificate, key].map(PathBuf::from);
            Some(TlsFiles { ca, certificate, key })
        }
        _ => {
            problems.push("tls_ca, tls_certificate, tls_key: all three or none".to_owned());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(toml: &str) -> Result<Settings, Vec<String>> {
        let mut problems = Vec::new();
        let raw = Raw::from_toml(toml, "file", &mut problems);
        check(raw, OfFile::All, Some("secret".to_owned()), problems)
    }

    #[test]
    fn every_problem_is_reported_not_only_the_first() {
        let toml = "connect = ['a', 'b@h']\nlisten = 'x'\nhttp = 80\nepmd_port = 0\nlog_format = 'xml'\ntls_ca = 'ca.pem'\nconect = 1\n";
        let problems = with(toml).expect_err("all wrong");
        let of = |setting: &str| problems.iter().filter(|problem| problem.starts_with(setting)).count();
        for setting in ["connect:", "listen:", "http:", "epmd_port:", "log_format:", "tls_ca", "file: conect"] {
            assert_eq!(of(setting), 1, "{setting}: {problems:?}");
        }
        assert!(problems.iter().any(|problem| problem.contains("did you mean connect")), "{problems:?}");
    }

    #[test]
    fn a_minimal_file_is_enough_and_flags_win_over_it() {
        let settings = with("connect = 'a@127.0.0.1'\ntick_time_s = 8").expect("enough");
        assert_eq!((settings.connect.len(), settings.limits.tick_time), (1, Duration::from_secs(8)));
        assert!(names::is_long(&settings.name));
        let flags = Raw { tick_time_s: Some("12".to_owned()), ..Raw::default() };
        assert_eq!(
            flags.or(Raw { tick_time_s: Some("8".to_owned()), ..Raw::default() }).tick_time_s.as_deref(),
            Some("12")
        );
    }

    #[test]
    fn nodes_found_by_dns_are_enough_and_need_a_long_name() {
        let settings = with("connect_dns = 'app@app-headless'").expect("enough");
        assert!(names::is_long(&settings.name));
        let problems = with("connect_dns = 'app@app-headless'\nname = 'rust@h'").expect_err("a short name");
        assert!(problems[0].starts_with("connect_dns:"), "{problems:?}");
    }

    #[test]
    fn fixed_ports_work_for_one_node_and_for_all_without_epmd() {
        let given = "connect = ['app@127.0.0.1:9105', 'app@[::1]:9105', 'app@::2', 'app@127.0.0.1:9105']";
        let settings = with(given).expect("enough, one of them twice");
        let ports: Vec<Option<u16>> = settings.connect.iter().map(|seed| seed.port).collect();
        assert_eq!((ports, settings.dist_port, settings.register), (vec![Some(9_105), Some(9_105), None], None, true));
        let settings = with("connect = 'app@::1'\ndist_port = 9105").expect("enough");
        assert_eq!((settings.dist_port, settings.register), (Some(9_105), false));
        assert!(with("connect = 'app@::1'\ndist_port = 9105\nregister = true").expect("enough").register);
        let problems = with("connect = 'app@::1:x:y'\ndist_port = 0\nregister = 1").expect_err("all wrong");
        assert_eq!(problems.len(), 3, "{problems:?}");
    }

    #[test]
    fn a_star_needs_epmd() {
        assert!(with("connect_dns = ['app-*@app.internal', 'app-*@_epmd._tcp.app.internal']").is_ok());
        for wrong in [
            "connect = 'app-*@app.internal'",
            "connect_dns = 'app-*@app.internal:9105'",
            "connect_dns = 'app-*@_dist._tcp.app.internal'",
            "connect_dns = 'app-*@app.internal'\ndist_port = 9105",
        ] {
            assert_eq!(with(wrong).expect_err(wrong).len(), 1, "{wrong}");
        }
    }

    #[test]
    fn an_invalid_log_level_is_refused_and_directives_are_accepted() {
        for wrong in ["loud", "inf", "info,lout", "x=y=z"] {
            assert!(wrong_log_level(wrong).is_some(), "{wrong}");
        }
        for right in ["off", "INFO", "warn,rust_node=debug", "rust_node::http=trace", "rust_node", "3"] {
            assert_eq!(wrong_log_level(right), None, "{right}");
        }
    }

    #[test]
    fn a_missing_cookie_and_names_of_two_kinds_are_refused() {
        let raw = Raw::from_toml("connect = 'a@h'\nname = 'b@1.2.3.4'", "file", &mut vec![]);
        let problems = check(raw, OfFile::All, None, vec![]);
        assert_eq!(problems.expect_err("two problems").len(), 2);
    }
}

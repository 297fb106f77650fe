//! Settings: by flag, by environment variable, by file, in this order of precedence.
//!
//! Guarantee: every problem of every source is reported at once, each naming the setting, what it got and
//! what it takes. The cookie has no flag and no place in the file.

mod raw;

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::distribution::tls::TlsFiles;
use crate::distribution::{AllowList, Cookie, Limits, NodeName, Seed, names};

pub use raw::{AskFlags, Find, Flags, Given};
use raw::{OfFile, Raw};

pub const COOKIE_VARIABLE: &str = "DURABLE_HANDOFF_COOKIE";
/// The variable in which systemd names the directory of a service's credentials.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One object a line.
    Json,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub name: NodeName,
    pub connect: Vec<Seed>,
    /// Nodes to connect to at every address of a host.
    pub connect_dns: Vec<Seed>,
    /// Asked for SRV records, instead of the system's.
    pub dns_server: Option<SocketAddr>,
    /// Where to accept connections, if at all.
    pub listen: Option<SocketAddr>,
    pub cookie: Cookie,
    pub allow: AllowList,
    pub tls: Option<TlsFiles>,
    pub epmd_port: u16,
    /// The port of every node without a port of its own.
    pub dist_port: Option<u16>,
    /// Whether to register in EPMD when listening.
    pub register: bool,
    pub limits: Limits,
    pub discovery: bool,
    /// Where HTTP is served, if at all.
    pub http: Option<SocketAddr>,
    pub log_format: LogFormat,
    /// Which log lines there are, in `tracing`'s syntax; each command has its own default.
    pub log_level: Option<String>,
}

impl Settings {
    /// From flags (and the environment through them), the file they name, and the cookie's variable.
    pub fn load(given: impl Into<Given>, cookie: Option<String>) -> Result<Settings, Vec<String>> {
        let Given { config, raw, of_file } = given.into();
        let mut check = Check { of_file, problems: Vec::new() };
        let file = config.map_or_else(Raw::default, |path| check.file(&path));
        check.settings(raw.or(of_file.select(file)), cookie)
    }
}

struct Check {
    of_file: OfFile,
    problems: Vec<String>,
}

impl Check {
    fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    fn file(&mut self, path: &Path) -> Raw {
        match std::fs::read_to_string(path) {
            Ok(text) => Raw::from_toml(&text, &path.display().to_string(), &mut self.problems),
            Err(error) => {
                self.problem(format!("config: {}: {error}", path.display()));
                Raw::default()
            }
        }
    }

    fn settings(mut self, raw: Raw, cookie: Option<String>) -> Result<Settings, Vec<String>> {
        // A wrong setting is reported once, not as missing too.
        let given = raw.connect.is_some() || raw.connect_dns.is_some() || raw.listen.is_some();
        let connect = self.seeds(self.of_file.connect(), raw.connect);
        let connect_dns = self.seeds("connect_dns: ", raw.connect_dns);
        let dns_server = self.address("dns_server", raw.dns_server);
        let listen = self.address("listen", raw.listen);
        let http = self.address("http", raw.http);
        let name = match raw.name {
            Some(name) => self.keep(names::parse(&name), "name"),
            None if listen.is_some() => {
                self.problem("name: needed with listen, takes name@host");
                None
            }
            None if connect.is_empty() && connect_dns.is_empty() => {
                if !given {
                    self.problem(format!("{}: at least one is needed", self.of_file.ways_to_connect()));
                }
                None
            }
            None => self.keep(random_name(connect.first()), "name"),
        };
        if let Some(name) = &name {
            self.kinds_of_names(name, &connect, &connect_dns);
        }
        let tls = self.tls(raw.tls_ca, raw.tls_certificate, raw.tls_key);
        let epmd_port = self.number("epmd_port", raw.epmd_port.as_deref(), 4_369, 1..=65_535);
        let tick = self.number("tick_time_s", raw.tick_time_s.as_deref(), 60, 4..=3_600);
        let dist_port = raw.dist_port.map(|text| self.number("dist_port", Some(&text), 1, 1..=65_535));
        self.stars(&connect, &connect_dns, dist_port.is_some());
        let register = self.flag("register", raw.register.as_deref(), dist_port.is_none());
        let discovery = self.flag("discovery", raw.discovery.as_deref(), true);
        let log_format = self.log_format(raw.log_format.as_deref());
        let log_level = raw.log_level;
        self.problems.extend(log_level.as_deref().and_then(wrong_log_level));
        let cookie = self.cookie(raw.cookie_file, cookie);
        match (name, cookie) {
            (Some(name), Some(cookie)) if self.problems.is_empty() => Ok(Settings {
                name,
                connect,
                connect_dns,
                dns_server,
                listen,
                cookie,
                allow: AllowList::new(raw.allow.unwrap_or_default()),
                tls,
                epmd_port,
                dist_port,
                register,
                limits: Limits { tick_time: Duration::from_secs(tick), ..Limits::default() },
                discovery,
                http,
                log_format,
                log_level,
            }),
            _ => Err(self.problems),
        }
    }

    /// Long and short names cannot connect to each other.
    fn kinds_of_names(&mut self, name: &NodeName, connect: &[Seed], connect_dns: &[Seed]) {
        let of_connect = self.of_file.connect();
        for seed in connect.iter().map(|seed| &seed.name).filter(|seed| names::is_long(seed) != names::is_long(name)) {
            self.problem(format!("{of_connect}{seed} and {name} are a long and a short name, takes names of one kind"));
        }
        if !connect_dns.is_empty() && !names::is_long(name) {
            self.problem(format!(
                "connect_dns: {name} is a short name, takes a long one: nodes there are named by addresses"
            ));
        }
        if connect.iter().any(|seed| seed.name == *name) {
            self.problem(format!("{of_connect}{name} is this node"));
        }
    }

    /// A `*` stands for the names that EPMD has, so it goes with `connect_dns` and without a port.
    fn stars(&mut self, connect: &[Seed], connect_dns: &[Seed], has_dist_port: bool) {
        let of_connect = self.of_file.connect();
        let has_star = |seed: &&Seed| seed.name.name().contains('*');
        for seed in connect.iter().filter(has_star) {
            let takes = if of_connect.is_empty() { "takes one node" } else { "which only connect_dns takes" };
            self.problem(format!("{of_connect}{} has a *, {takes}", seed.name));
        }
        for seed in connect_dns.iter().filter(has_star) {
            let host = seed.name.host();
            let has_ports = host.starts_with('_') && !host.starts_with("_epmd.");
            if has_ports || has_dist_port || seed.port.is_some() {
                let name = &seed.name;
                self.problem(format!(
                    "connect_dns: {name} has a *, and only EPMD knows which nodes that are: takes no port"
                ));
            }
        }
    }

    fn seeds(&mut self, label: &str, texts: Option<Vec<String>>) -> Vec<Seed> {
        let mut seeds: Vec<Seed> = Vec::new();
        for text in texts.unwrap_or_default() {
            match names::parse_seed(&text) {
                Ok(seed) if seeds.contains(&seed) => {}
                Ok(seed) => seeds.push(seed),
                Err(error) => self.problem(format!("{label}{error}")),
            }
        }
        seeds
    }

    fn cookie(&mut self, file: Option<String>, variable: Option<String>) -> Option<Cookie> {
        match (file, variable) {
            (Some(path), _) => {
                let credentials = std::env::var_os(CREDENTIALS_VARIABLE).map(PathBuf::from);
                self.keep(Cookie::from_file(Path::new(&path), credentials.as_deref()), "cookie_file")
            }
            (None, Some(text)) => self.keep(Cookie::new(&text), COOKIE_VARIABLE),
            (None, None) => {
                self.problem(format!("cookie: needed, takes cookie_file or the variable {COOKIE_VARIABLE}"));
                None
            }
        }
    }

    fn log_format(&mut self, text: Option<&str>) -> LogFormat {
        match text {
            None | Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => {
                self.problem(format!("log_format: got {other:?}, takes text or json"));
                LogFormat::Text
            }
        }
    }

    fn flag(&mut self, setting: &str, text: Option<&str>, default: bool) -> bool {
        match text {
            None => default,
            Some("true") => true,
            Some("false") => false,
            Some(other) => {
                self.problem(format!("{setting}: got {other:?}, takes true or false"));
                default
            }
        }
    }

    fn keep<T, E: Display>(&mut self, result: Result<T, E>, setting: &str) -> Option<T> {
        result.map_err(|error| self.problem(format!("{setting}: {error}"))).ok()
    }

    fn address(&mut self, setting: &str, text: Option<String>) -> Option<SocketAddr> {
        let takes = "takes an address and a port as 127.0.0.1:8080 or [::1]:8080";
        text.and_then(|text| self.keep(text.parse().map_err(|_| format!("got {text:?}, {takes}")), setting))
    }

    fn number<T>(&mut self, setting: &str, text: Option<&str>, default: T, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(text) = text else { return default };
        match text.parse() {
            Ok(value) if range.contains(&value) => value,
            _ => {
                self.problem(format!("{setting}: got {text:?}, takes {} to {}", range.start(), range.end()));
                default
            }
        }
    }

    fn tls(&mut self, ca: Option<String>, certificate: Option<String>, key: Option<String>) -> Option<TlsFiles> {
        match (ca, certificate, key) {
            (None, None, None) => None,
            (Some(ca), Some(certificate), Some(key)) => {
                let [ca, certificate, key] = [ca, certificate, key].map(PathBuf::from);
                Some(TlsFiles { ca, certificate, key })
            }
            _ => {
                self.problem("tls_ca, tls_certificate, tls_key: all three or none");
                None
            }
        }
    }
}

/// Without a listener the host part is never resolved, so any valid name works. Names with addresses are long ones.
fn random_name(seed: Option<&Seed>) -> Result<NodeName, names::NameError> {
    let host = seed.map_or("127.0.0.1", |seed| seed.name.host());
    names::parse(&format!("durable_handoff_{:08x}@{host}", rand::random::<u32>()))
}

/// A single word that is not a level would count as a target, and only its lines would be logged.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn with(toml: &str) -> Result<Settings, Vec<String>> {
        let mut check = Check { of_file: OfFile::All, problems: Vec::new() };
        let raw = Raw::from_toml(toml, "file", &mut check.problems);
        check.settings(raw, Some("secret".to_owned()))
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
        let problems = Check { of_file: OfFile::All, problems: vec![] }.settings(raw, None);
        assert_eq!(problems.expect_err("two problems").len(), 2);
    }
}

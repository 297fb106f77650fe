//! Settings as they were written, before any is checked.

use std::path::PathBuf;

use clap::Args;

/// Flags that every command takes. Each has an environment variable and a key in the file.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// TOML file with settings; its keys are the flags' names with underscores.
    #[arg(long, env = "DURABLE_HANDOFF_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) raw: Raw,
}

impl Flags {
    /// The same, to connect to that node and no other.
    #[must_use]
    pub fn connect_to(mut self, node: &str) -> Self {
        self.raw.connect = Some(vec![node.to_owned()]);
        self
    }
}

macro_rules! settings {
    ($($(#[$attribute:meta])* $name:ident: $kind:ty,)*) => {
        /// Each setting, if it was given.
        #[derive(Debug, Clone, Default, Args)]
        pub(super) struct Raw {
            $($(#[$attribute])* pub(super) $name: Option<$kind>,)*
        }

        impl Raw {
            const KEYS: &[&str] = &[$(stringify!($name)),*];

            /// These, and the others where these have none.
            pub(super) fn or(self, other: Raw) -> Raw {
                Raw { $($name: self.$name.or(other.$name),)* }
            }

            fn set(&mut self, key: &str, value: toml::Value) -> Result<(), String> {
                match key {
                    $(stringify!($name) => self.$name = Some(<$kind as FromToml>::read(value)?),)*
                    _ => return Err(unknown(key)),
                }
                Ok(())
            }
        }
    };
}

settings! {
    /// Name of this node, name@host [default: a random one that fits the nodes to connect to]
    #[arg(long, env = "DURABLE_HANDOFF_NAME", value_name = "NAME@HOST")]
    name: String,
    /// BEAM nodes to connect to, with commas in between; nodes they know are found
    #[arg(long, env = "DURABLE_HANDOFF_CONNECT", value_name = "NAME@HOST,...", value_delimiter = ',')]
    connect: Vec<String>,
    /// The same, but the host stands for every address DNS has for it, and a node is named by its address:
    /// the pods behind a headless Kubernetes service
    #[arg(long, env = "DURABLE_HANDOFF_CONNECT_DNS", value_name = "NAME@HOST,...", value_delimiter = ',')]
    connect_dns: Vec<String>,
    /// Accept connections there and register in EPMD; port 0 takes any
    #[arg(long, env = "DURABLE_HANDOFF_LISTEN", value_name = "ADDRESS:PORT")]
    listen: String,
    /// File with the cookie, readable by its owner only [the cookie itself: variable DURABLE_HANDOFF_COOKIE]
    #[arg(long, env = "DURABLE_HANDOFF_COOKIE_FILE", value_name = "FILE")]
    cookie_file: String,
    /// Only nodes whose name matches one of these patterns (* is any run of characters)
    #[arg(long, env = "DURABLE_HANDOFF_ALLOW", value_name = "PATTERN,...", value_delimiter = ',')]
    allow: Vec<String>,
    /// TLS: PEM file with the authority of every node's certificate
    #[arg(long, env = "DURABLE_HANDOFF_TLS_CA", value_name = "FILE")]
    tls_ca: String,
    /// TLS: PEM file with this node's certificate
    #[arg(long, env = "DURABLE_HANDOFF_TLS_CERTIFICATE", value_name = "FILE")]
    tls_certificate: String,
    /// TLS: PEM file with its private key
    #[arg(long, env = "DURABLE_HANDOFF_TLS_KEY", value_name = "FILE")]
    tls_key: String,
    /// Port of EPMD [default: 4369]
    #[arg(long, env = "ERL_EPMD_PORT", value_name = "PORT")]
    epmd_port: String,
    /// As net_ticktime of the BEAM nodes, seconds [default: 60]
    #[arg(long, env = "DURABLE_HANDOFF_TICK_TIME_S", value_name = "SECONDS")]
    tick_time_s: String,
    /// Whether connected nodes are asked which nodes they know [default: true]
    #[arg(long, env = "DURABLE_HANDOFF_DISCOVERY", value_name = "true|false")]
    discovery: String,
    /// Serve /healthz, /readyz, /metrics, /drains and /nodes there
    #[arg(long, env = "DURABLE_HANDOFF_HTTP", value_name = "ADDRESS:PORT")]
    http: String,
    /// Log lines as text or json [default: text]
    #[arg(long, env = "DURABLE_HANDOFF_LOG_FORMAT", value_name = "text|json")]
    log_format: String,
    /// error, warn, info, debug, trace, or target=level,... [default: info for run, else warn]
    #[arg(long, env = "DURABLE_HANDOFF_LOG_LEVEL", value_name = "LEVEL")]
    log_level: String,
}

impl Raw {
    /// Reads a file. Each key that is unknown or of the wrong type is a problem of its own.
    pub(super) fn from_toml(text: &str, file: &str, problems: &mut Vec<String>) -> Raw {
        let mut raw = Raw::default();
        match text.parse::<toml::Table>() {
            Ok(table) => {
                for (key, value) in table {
                    if let Err(problem) = raw.set(&key, value) {
                        problems.push(format!("{file}: {key}: {problem}"));
                    }
                }
            }
            Err(error) => problems.push(format!("{file}: {}", error.message())),
        }
        raw
    }
}

trait FromToml: Sized {
    fn read(value: toml::Value) -> Result<Self, String>;
}

impl FromToml for String {
    fn read(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Ok(text),
            toml::Value::Integer(number) => Ok(number.to_string()),
            toml::Value::Boolean(value) => Ok(value.to_string()),
            other => Err(format!("got a {}, takes a string, a number or a boolean", other.type_str())),
        }
    }
}

impl FromToml for Vec<String> {
    fn read(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Array(values) => values.into_iter().map(String::read).collect(),
            other => Ok(vec![String::read(other)?]),
        }
    }
}

fn unknown(key: &str) -> String {
    let distance = |known: &str| strsim::damerau_levenshtein(key, known);
    match Raw::KEYS.iter().min_by_key(|known| distance(known)) {
        Some(known) if distance(known) <= 2 => format!("no such setting, did you mean {known}?"),
        _ => format!("no such setting, there are: {}", Raw::KEYS.join(", ")),
    }
}

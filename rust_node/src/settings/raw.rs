//! Settings before they are checked.

use std::path::PathBuf;

use clap::Args;

/// The flags and variables of a command, and the file with its other settings.
#[derive(Debug, Clone, Default)]
pub struct Given {
    pub(super) config: Option<PathBuf>,
    pub(super) raw: Raw,
    pub(super) of_file: OfFile,
}

/// Which settings of a file a command uses. A file is written for `run`. A second node with the same name
/// would take over the connections of the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum OfFile {
    #[default]
    All,
    /// The settings of [`Join`] and [`Find`].
    FindAndJoin,
    /// The settings of [`Join`].
    Join,
}

/// Flags of `run`. Each has an environment variable and a key in the file.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// TOML file with settings; its keys are the flags' names with underscores
    #[arg(long, env = "DURABLE_HANDOFF_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    serve: Serve,
    #[command(flatten)]
    find: Find,
    #[command(flatten)]
    join: Join,
}

impl From<Flags> for Given {
    fn from(Flags { config, serve, find, join }: Flags) -> Given {
        Given { config, raw: Raw::from(serve).or(find.into()).or(join.into()), of_file: OfFile::All }
    }
}

/// Flags of a command that connects, asks and ends.
#[derive(Debug, Clone, Default, Args)]
pub struct AskFlags {
    /// TOML file with settings, as for `run`; only those about connecting are used
    #[arg(long, env = "DURABLE_HANDOFF_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    // No environment variable, because where that is set, a node with this name already runs.
    /// Name of this command in the cluster, name@host [default: a random one that fits the nodes to connect to]
    #[arg(long, value_name = "NAME@HOST")]
    name: Option<String>,
    #[command(flatten)]
    join: Join,
}

impl AskFlags {
    /// Connects to that node only.
    pub fn of_node(self, node: &str) -> Given {
        let connect = Some(vec![node.to_owned()]);
        self.given(Raw { connect, ..Raw::default() }, OfFile::Join)
    }

    pub fn of_cluster(self, find: Find) -> Given {
        self.given(find.into(), OfFile::FindAndJoin)
    }

    fn given(self, raw: Raw, of_file: OfFile) -> Given {
        let raw = Raw { name: self.name, ..raw.or(self.join.into()) };
        Given { config: self.config, raw, of_file }
    }
}

impl OfFile {
    /// The prefix of messages about a node to connect to; empty if the node is an argument of the command.
    pub(super) fn connect(self) -> &'static str {
        match self {
            OfFile::All | OfFile::FindAndJoin => "connect: ",
            OfFile::Join => "",
        }
    }

    /// The settings of which a command needs at least one.
    pub(super) fn ways_to_connect(self) -> &'static str {
        match self {
            OfFile::All => "connect, connect_dns or listen",
            OfFile::FindAndJoin | OfFile::Join => "connect or connect_dns",
        }
    }

    pub(super) fn select(self, raw: Raw) -> Raw {
        match self {
            OfFile::All => raw,
            OfFile::FindAndJoin => Raw { name: None, listen: None, register: None, http: None, ..raw },
            OfFile::Join => Raw {
                connect: None,
                connect_dns: None,
                dns_server: None,
                discovery: None,
                ..OfFile::FindAndJoin.select(raw)
            },
        }
    }
}

macro_rules! settings {
    ($($(#[$about:meta])* $group:ident { $($(#[$attribute:meta])* $name:ident: $kind:ty,)* })*) => {
        /// The settings. `None` means that the setting was not given.
        #[derive(Debug, Clone, Default)]
        pub(super) struct Raw {
            $($(pub(super) $name: Option<$kind>,)*)*
        }

        $(
            $(#[$about])*
            #[derive(Debug, Clone, Default, Args)]
            pub struct $group {
                $($(#[$attribute])* $name: Option<$kind>,)*
            }

            impl From<$group> for Raw {
                fn from(flags: $group) -> Raw {
                    Raw { $($name: flags.$name,)* ..Raw::default() }
                }
            }
        )*

        impl Raw {
            const KEYS: &[&str] = &[$($(stringify!($name),)*)*];

            /// These settings, completed with those of `other`.
            pub(super) fn or(self, other: Raw) -> Raw {
                Raw { $($($name: self.$name.or(other.$name),)*)* }
            }

            fn set(&mut self, key: &str, value: toml::Value) -> Result<(), String> {
                match key {
                    $($(stringify!($name) => self.$name = Some(<$kind as FromToml>::read(value)?),)*)*
                    _ => return Err(unknown(key)),
                }
                Ok(())
            }
        }
    };
}

settings! {
    /// Settings of `run` only.
    Serve {
        /// Name of this node, name@host [default: a random one that fits the nodes to connect to]
        #[arg(long, env = "DURABLE_HANDOFF_NAME", value_name = "NAME@HOST")]
        name: String,
        /// Accept connections there and register in EPMD; port 0 takes any. [::]:9100 takes both families
        #[arg(long, env = "DURABLE_HANDOFF_LISTEN", value_name = "ADDRESS:PORT")]
        listen: String,
        /// Whether a node that listens registers in EPMD [default: true without --dist-port]
        #[arg(long, env = "DURABLE_HANDOFF_REGISTER", value_name = "true|false")]
        register: String,
        /// Serve the page at /, and /status, /healthz, /readyz, /metrics, /drains and /nodes there
        #[arg(long, env = "DURABLE_HANDOFF_HTTP", value_name = "ADDRESS:PORT")]
        http: String,
    }
    /// Which nodes to connect to.
    Find {
        /// BEAM nodes to connect to, separated by commas; nodes that they know are found too. A node with a port
        /// (app@10.0.0.1:9105, app@[fd00::7]:9105) needs no EPMD
        #[arg(long, env = "DURABLE_HANDOFF_CONNECT", value_name = "NAME@HOST[:PORT],...", value_delimiter = ',')]
        connect: Vec<String>,
        /// As --connect, for every address that DNS has for the host; nodes are named by address. For pods behind a
        /// headless Kubernetes service and machines on Fly.io. A host such as _dist._tcp.app.internal stands for the
        /// hosts and ports in its SRV records (of _epmd, the hosts only). A * in the name (app-*@app.internal)
        /// stands for every such name that EPMD has there
        #[arg(long, env = "DURABLE_HANDOFF_CONNECT_DNS", value_name = "NAME@HOST[:PORT],...", value_delimiter = ',')]
        connect_dns: Vec<String>,
        /// DNS server for SRV records [default: those of /etc/resolv.conf]
        #[arg(long, env = "DURABLE_HANDOFF_DNS_SERVER", value_name = "ADDRESS:PORT")]
        dns_server: String,
        /// Whether connected nodes are asked which nodes they know [default: true]
        #[arg(long, env = "DURABLE_HANDOFF_DISCOVERY", value_name = "true|false")]
        discovery: String,
    }
    /// How to connect to any node, and what to log.
    Join {
        /// File with the cookie, readable by its owner only [the cookie itself: variable DURABLE_HANDOFF_COOKIE]
        #[arg(long, env = "DURABLE_HANDOFF_COOKIE_FILE", value_name = "FILE")]
        cookie_file: String,
        /// Only connect to nodes whose name matches one of these patterns (* matches any text)
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
        /// Distribution port of all nodes without a port of their own, like -erl_epmd_port of BEAM nodes without
        /// EPMD. This node then does not register in EPMD either
        #[arg(long, env = "ERL_DIST_PORT", value_name = "PORT")]
        dist_port: String,
        /// Seconds of silence after which a node counts as gone, 4 to 3600. It may differ from the nodes'
        /// net_ticktime, which must be 8 s or more [default: 60]
        #[arg(long, env = "DURABLE_HANDOFF_TICK_TIME_S", value_name = "SECONDS")]
        tick_time_s: String,
        /// Log lines as text or json [default: text]
        #[arg(long, env = "DURABLE_HANDOFF_LOG_FORMAT", value_name = "text|json")]
        log_format: String,
        /// error, warn, info, debug, trace, or target=level,... [default: info for run, error for doctor, else warn]
        #[arg(long, env = "DURABLE_HANDOFF_LOG_LEVEL", value_name = "LEVEL")]
        log_level: String,
    }
}

impl Raw {
    /// Reads a file. Each key that is unknown or has the wrong type is a problem of its own.
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

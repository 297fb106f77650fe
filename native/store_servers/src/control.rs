//! Controls the script of a server with lines of JSON, for the program `store-servers`: each line is a command, and
//! gets a line as its answer.
//!
//! ```text
//! {"do":"rules","rules":[{"on":["claim"],"times":1,"applied":true,"then":{"answer":{"status":499}}}]}
//! {"ok":true}
//! {"do":"counts"}
//! {"open":0,"held":0,"kinds":{"claim":1},"rules":[1],"bytes_in":20,"bytes_out":0}
//! ```

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Rule, Server};

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    Rules {
        /// The rules. The first one that matches a request applies.
        rules: Vec<Rule>,
    },
    Release {
        count: u32,
    },
    /// Returns the requests since the last such command.
    Requests,
    /// Returns the counts since the start.
    Counts,
    /// Sets how long new credentials last.
    Credentials {
        last_s: u64,
    },
}

/// Runs the command in a line and returns one line. If that has `error`, the command had no effect.
pub fn control(server: &Server, line: &str) -> String {
    let ok = json!({"ok": true});
    let answer = match serde_json::from_str(line) {
        Ok(Command::Rules { rules }) => {
            server.script().set(rules);
            ok
        }
        Ok(Command::Release { count }) => {
            server.script().release(count);
            ok
        }
        Ok(Command::Requests) => json!({"requests": server.script().requests()}),
        Ok(Command::Counts) => serde_json::to_value(server.script().counts()).unwrap_or(Value::Null),
        Ok(Command::Credentials { last_s }) => {
            server.credentials_last(last_s);
            ok
        }
        Err(error) => json!({"error": error.to_string()}),
    };
    answer.to_string()
}
